"""Between bytes and pixels: what a file is, its decoding, and the crop that training sees.

    transforms  RandomResizedCrop and CenterCrop: the plan of boxes for many images at once
    codecs      encoded bytes to RGB pixels, whole or reduced, and back
    resize      carries out one row of the plan: pixels to a crop, mirrored or not, in its slot of the batch
    examine     what a file is, from its header: format, size; the table of all findings
    pillow      Pillow's view of a file, which is ImageFolder's
"""
