"""The data set on disk: FORMAT.md in prose, and its writer and reader side by side.

The one part of mmgen that a trainer may import: standard library, numpy, h5py and codecs only.
"""
