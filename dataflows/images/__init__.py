"""Between bytes and pixels: what a file is, its decoding, and the crop that training sees.

    transforms  RandomResizedCrop and CenterCrop: the plan of boxes for many images at once, and their interpolation
    pipeline    a user's transform, taken apart: what is fused into decoding, called for each image, done for a batch
    tail        what is done for a batch
    image_types what callables get: tensors, arrays or PIL images
    known_transforms  what transforms of torchvision and timm say of themselves
    plan        the columns of a plan, and what follows from one: which part of an image is needed, at which size
    uniforms    the random numbers of a sample, by (seed, epoch, position), and which of them is for what
    codecs      encoded bytes to RGB pixels, whole or reduced, and back
    resize      carries out one row of the plan: pixels to a crop, mirrored or not, in its slot of the batch
    tiled/      parts of tiled JPEGs, decoded by our own kernels
    examine     what a file is, from its header: format, size; the table of all findings
    pillow      Pillow's view of a file, which is ImageFolder's
"""
