"""Where images come from: any form of ImageNet, or any folder of classes, as pointers `[name, label]`.

    imagenet        ImageNetFiles, a DataFlow over one split: the one class that the dump uses
    layouts         which of the known forms a source has
    folders, tars   the images in folders, and in tars as they are
    names           which files are images by their name, and what the others are
    ground_truth    the files beside the images that say which class each has
    annotations     ImageNet's text and Matlab files, parsed
"""
