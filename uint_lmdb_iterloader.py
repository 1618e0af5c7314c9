"""Reads an LMDB of images in the order of its file, shuffled within a buffer.

LMDBIterLoader decodes in threads and yields batches of torch tensors. LMDBIterDataset is an iterable dataset for
torch's own DataLoader, which its workers share out among themselves.
"""
import os
from functools import partial
from typing import Any

from dataflows.images.codecs import MAX_PIXELS
from dataflows.load.dataset import LMDBIterDataset
from dataflows.load.loader import TorchBatches
from dataflows.load.reader import RecordReader
from dataflows.order.epoch import Epoch
from dataflows.order.pointers import checked_indices, sequential_pointers
from dataflows.order.ranks import LateRanks
from dataflows.storage.store import Store

__all__ = ["LMDBIterDataset", "LMDBIterLoader"]


class LMDBIterLoader(TorchBatches):
    """Batches of an LMDB's images in the order of the file, shuffled within a buffer.

    Takes the options of `dataflows.load.loader.TorchBatches`, which also says what is yielded; besides:

    path: the LMDB, as dump_imagenet.py or tensorpack's LMDBSerializer.save writes it.
    batch_size: images per batch, of each rank.
    order: "local" reads in the order of the file and shuffles within a buffer: the dump has already permuted a train
        split, so this only has to make epochs differ. "block" permutes blocks of `block_size` consecutive records and
        then shuffles within the buffer: for files that are sorted, and for mixing more from epoch to epoch, at nearly
        sequential speed. "sequential" keeps the order of the file.
    shuffle_buffer: how many records the shuffle mixes. It holds pointers, no pixels: 50,000 take about 8 MB, and the
        first batch comes at once. 0 shuffles nothing but blocks.
    block_size: records in a block of order="block".
    seed: what the shuffle and the crops are a function of, together with the epoch.
    rank, world_size, indices, repeats: as of LMDBLoader. Each rank reads one range of the file, another in each epoch.
    uneven: as of LMDBLoader; by default "keep" for the sequential order, else "pad".
    io: "mmap" reads through a memory map; "pread" copies records, which suits network file systems, and maps nothing;
        "auto" chooses, and copies where the system does not map the file.
    cache: "drop" takes records out of the page cache after use, for files larger than memory; "keep" leaves them.
    verify: compare each record that is read with its checksum, and raise RecordError, with file and key, if it differs:
        about 0.5 ms of processor time per MB.
    max_pixels: how many an image may have by its header; more are an error, which bounds memory for hostile files.

    >>> from dataflows import RandomResizedCrop
    >>> loader = LMDBIterLoader("train.lmdb", 8, transform=RandomResizedCrop(224), num_workers=2, shuffle_buffer=16)
    >>> for images, labels in loader:
    ...     pass
    >>> len(loader), images.shape
    (3, torch.Size([7, 3, 224, 224]))
    >>> loader.close()

    Raises FileNotFoundError or ValueError if the file is missing, truncated, not an LMDB, or has a wrong index, and
    OSError if it cannot be opened or, with io="mmap" or without an index, not mapped. A record that cannot be read is a
    RecordError, with file and key.
    """

    def __init__(self, path: str | os.PathLike[str], batch_size: int, *, order: str = "local",
                 shuffle_buffer: int = 50_000, block_size: int = 256, seed: int = 0, rank: int | None = None,
                 world_size: int | None = None, uneven: str | None = None, indices: Any = None, repeats: int = 1,
                 io: str = "auto", cache: str = "keep", verify: bool = False, max_pixels: int = MAX_PIXELS,
                 array_layout: str = "HWC", array_channels: str = "RGB", **options: Any) -> None:
        store, epoch = Store(path, io=io, cache=cache, verify=verify), Epoch(seed)
        ranks = LateRanks(rank, world_size, uneven or ("keep" if order == "sequential" else "pad"))
        pointers = partial(sequential_pointers, store, epoch, order, shuffle_buffer, block_size,
                           indices=checked_indices(indices, store), repeats=repeats)
        reader = RecordReader(store, array_layout=array_layout, array_channels=array_channels,
                              max_pixels=max_pixels)
        super().__init__(pointers, reader, epoch, ranks, batch_size, **options)
