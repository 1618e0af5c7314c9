"""Decoding and resizing by our own kernels, with the pixels of libjpeg and torch: what loaders take wherever it works.

    ready       whether it works in this process, and each thread's memory for it
    kernels     all of it together, for one thread
    exact       a region of a tiled JPEG to pixels, equal to libjpeg's
    fast_crops  fast_decode=True: the planes of one to a crop
    lines       a row of a plan as lines of the resize
    resample    the kernels of the resize
"""
