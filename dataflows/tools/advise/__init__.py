"""What loading a data set will cost on this machine, and how to do it best.

    advise      all of it in plain sentences
    predict     measurements to images/s: arithmetic, without a clock
    measure     the disk, the steps and the loader itself, within a minute
    sources     an LMDB or a folder, and a sample of its images
    sample      that sample, dumped in each format
    steps       what the steps of one image take
    detail      what shrunk images give up
    disk        how fast the disk delivers what is not in memory
    limits      no more than there is time or room for
"""
