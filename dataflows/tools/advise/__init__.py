"""What loading a data set will cost on this machine, and how to do it best.

    advise      all of it in plain sentences
    predict     measurements to images/s: arithmetic, without a clock
    measure     the steps of an image, and the loader itself, timed
    sample      a sample of an LMDB or folder, dumped in each format
    disk        how fast the disk delivers what is not in memory
"""
