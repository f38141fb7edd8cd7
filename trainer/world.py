"""Where a run happens: the device, and what its matrix products can be rounded to."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from trainer.errors import InputError, RunError


def pick_device(name: str) -> torch.device:
    """Return the device of a name; `auto` is CUDA when it is there. InputError if it is not."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"device: {name!r} is unknown; use auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device: {name!r} is not supported; use auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"device: {name!r} is not there ({torch.cuda.device_count()} CUDA devices); use cpu"
        )
    return device


def pick_precision(name: str, device: torch.device) -> str:
    """Return fp32 or bf16; `auto` is bf16 where the device multiplies it in hardware."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"
    return "bf16" if _cpu_multiplies_bf16() else "fp32"


def product_dtype(precision: str) -> torch.dtype | None:
    """Return what the factors of matrix products are rounded to; None leaves them as they are."""
    return torch.bfloat16 if precision == "bf16" else None


def _cpu_multiplies_bf16() -> bool:
    # torch has no public question for this; a release without these names means fp32.
    checks = (
        getattr(torch.cpu, name, lambda: False)
        for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )
    return any(check() for check in checks)


@contextmanager
def one_line_when_out_of_memory() -> Iterator[None]:
    """Say what to lower where the device, or the machine, has too little memory."""
    try:
        yield
    except RuntimeError as error:
        # CUDA has a class of its own for this; the CPU's allocator has only its words.
        is_cuda = isinstance(error, torch.cuda.OutOfMemoryError)
        if is_cuda or "can't allocate memory" in str(error):
            raise RunError("not enough memory; lower batch_size, hidden or layers") from error
        raise
