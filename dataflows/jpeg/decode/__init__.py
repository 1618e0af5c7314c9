"""Decodes what the dump has tiled to planes, faster than a library can: intervals are independent, so two of them are
decoded in turns.

    planes       a box of MCUs of a tiled JPEG to its planes
    tables       what its header says: Huffman look-ups, quantisers, sampling factors
    entropy      the kernels from bytes to coefficients
    inverse_dct  the kernel from coefficients to samples
    intrinsics   loads and stores that numba lacks
"""
