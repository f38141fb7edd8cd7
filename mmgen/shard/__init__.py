"""The data set on disk: FORMAT.md in prose, and its writer and reader side by side.

A trainer reads data sets through this alone: standard library, numpy, h5py and codecs only.
"""
