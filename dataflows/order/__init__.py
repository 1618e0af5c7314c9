"""Which record comes when: pure functions of (seed, epoch, rank). No file is read.

    order           the kinds of orders and their options, as one object; load/chain.py picks the stream of each
    epoch           the seed, the epoch's number and the place in it that a chain shares
    stream          the pointers of one rank in one epoch, by place
    pointers        streams of [record number, position]: sequential, in blocks, or fully shuffled
    local_shuffle   a shuffle within a buffer
    parts           every n-th datapoint, and the rest of an epoch after a restart
    ranks           which positions a rank reads, and what is left of an interrupted epoch
"""
