"""Several LMDB files, each complete by itself, that are read as one.

    files     which files a path means: a pattern, or a list
    records   their records by number, those of one file after those of another
"""
