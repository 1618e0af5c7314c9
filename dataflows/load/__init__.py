"""From pointers to batches of torch tensors.

    chain           the chain from an LMDB to batches of pixels, from top to bottom
    loader          TorchBatches, the adapter around it: epochs, their state, and closing
    iteration       one epoch after another: the place in it, clocks, and its end
    state           the place in an epoch as a dict, and back
    dataset         what the torch datasets of the same records share
    late_ranks      which rank this process is, asked of torch.distributed
    prefetch        asks for the pages of the next batches (the option `prefetch` is Decoding's, in chain)
    to_torch        a batch to torch, the device and its dtype; what is done for a whole batch
    conversion      uint8 images as floats, normalized
    samplers        what stands for the samplers of a DataLoader
    meter           the clocks of workers and of the loop, added up
    stats           loader.stats(): what they add up to, in words
    shuffle_quality how well an order mixes
    decode/         pointers to pixels: records are read, decoded, cropped and transformed
    workers/        the same in processes
"""
