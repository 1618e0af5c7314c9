"""What fast_decode=True means for tiled JPEGs: crops from planes.

    ready          whether that works in this process, and each thread's memory for it
    crops          planes to a crop
    resize_planes  the kernels of that: an antialiased resize, colors last
"""
