"""Every jitted function of the generator, and nothing that is not one.

They take checked arrays from `draws.py` and `generate.py`, write into the caller's `out` arrays and
allocate nothing in their inner loops. What reaches a pixel or an annotation uses only operations
that IEEE 754 rounds exactly: no libm, no fastmath. `RENDERING.md` says what they compute.

numba's disk cache does not notice an edit in another file, so kernels that call each other share
one. Two files are the exception, because what they say is fixed for ever: `exact.py` (the hash) and
`lanes.py` (operations on 32 bytes). After an edit there, delete `__pycache__`.
"""
