"""Where images come from: any form of ImageNet, any folder of classes, or a program, as pointers `[name, label]`.

    opening         which of these classes reads a source
    source          what every source tells, and what the dump asks of it
    imagenet        ImageNetFiles, a DataFlow over one split in files
    label_file      LabelledFiles, a DataFlow over the images that a CSV file lists
    samples         Samples, a DataFlow over what a program gives
    shards          TarShards, a DataFlow over webdataset's tars
    shard_paths     which tars a pattern names
    layouts         which of the known forms a source has
    folders, tars   the images in folders, and in tars as they are
    names           which files are images by their name, and what the others are
    ground_truth    the files beside the images that say which class each has
    annotations     ImageNet's text and Matlab files, parsed
"""
