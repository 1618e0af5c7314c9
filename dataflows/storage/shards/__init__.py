"""Several LMDB files, each complete by itself, that are read as one.

    files     which files a path means: a manifest, a pattern, or a list
    manifest  train.manifest.json: the shards of a dump, and what is known of them all
    joined    their indices, as that of one file
    records   their records by number, those of one file after those of another
"""
