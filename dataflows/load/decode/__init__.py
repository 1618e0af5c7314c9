"""From pointers to pixels: records are read, decoded, cropped and transformed into batches.

    reader           RecordReader: one record, or the crops of many; errors name file and key
    crops            one image to its crop, by our own decoder or by libjpeg
    decode_batches   DecodeBatches: batches in threads, in order
    batch_memory     memory that is used again, and results of callables as one array
    noted            what users' callables raise, with the record that they were called for
    seeds            what transforms draw at random, as a function of (seed, epoch, position)
"""
