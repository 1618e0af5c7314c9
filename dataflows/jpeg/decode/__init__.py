"""Tiled JPEGs to samples: the kernels of our own decoder, which numba compiles.

    tiling       where the intervals of one are
    planes       a box of MCUs to its planes: all steps together
    tables       what a header says: look-ups, quantisers, sampling factors
    entropy      intervals to coefficients, two at a time
    inverse_dct  coefficients to samples
    colors       planes to RGB, as libjpeg does it
    same         whether a tiled JPEG has the coefficients of its original
    intrinsics   loads, stores and shuffles that numba has no operations for
"""
