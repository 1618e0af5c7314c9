"""From pointers to batches of torch tensors.

    loader          TorchBatches: epochs, state and closing around a chain
    dataset         the same records as torch datasets
    reader          a record to its pixels or crop
    prefetch        asks for the pages of the next batches
    decode_batches  batches of pointers to batches of pixels, in threads
    to_torch        a batch to torch, the device and its dtype
    meter, stats    where the time goes, counted and in words
    shuffle_quality how well an order mixes
    workers/        the same in processes
"""
