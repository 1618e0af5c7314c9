"""Parts of tiled JPEGs, decoded by our own kernels: what loaders take wherever it works.

    ready          whether it works in this process, and each thread's memory for it
    exact          pixels of a region, equal to libjpeg's
    fast_crops     fast_decode=True: planes to a crop
    resize_planes  the kernels of that: an antialiased resize, colors last
"""
