"""JPEG files as bytes: headers, and tiles that a crop can be cut out of, or decoded by themselves.

    header      segments, frame, scan and Huffman tables of a JPEG
    cut         the map of a tiled JPEG's intervals, and a box of it as a smaller JPEG
    tile        a JPEG to a tiled JPEG, losslessly
    untile      and back
    huffman     entropy-coded data and its tables as arrays, around the kernels
    kernels     the loops that numba compiles
    decode/     tiled JPEGs to samples: kernels
    compiled    compiling them, and where the result is kept
"""
