"""The LMDB file and its index: records by number, their bytes, and where they are.

    store           the records of one file by number, in any process
    records         the same, open: at places that an index states, or found by their keys
    page_cache      which pages are asked for, and which are given back
    index           the sidecar file: its columns and its meta object
    index_meta      the parts of that object: what they mean, how they are written, read and checked
    shards/         several files that are read as one
    record          a datapoint [image, label] and its bytes
    read_msgpack    msgpack read in place
    read_pickle     an unpickler that makes plain arrays and nothing else
    environment     LMDB's environments: one per file and process
    btree           the pages of an LMDB file, checked before liblmdb follows them
    paged_file      bytes of a file by offset: mapped or read, asked for ahead, given back
    paths           which file a path means, and what is there instead
    flush           what has to be on the disk, on file systems that may refuse
"""
