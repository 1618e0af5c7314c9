"""Decoding and resizing by our own kernels, with the pixels of libjpeg and torch: what loaders take wherever it works.

    ready       whether it works in this process
    kernels     all of it, as the rest of the package calls it
    crops       many records to their crops, in one call
    records     where image and label are in a record
    exact       the planes of a tiled JPEG to pixels, equal to libjpeg's
    fast_crops  fast_decode=True: the planes of one to a crop
    lines       a row of a plan as lines of the resize
    resample    the antialiased resize, as torch does it
    linear      INTER_LINEAR, as OpenCV does it
"""
