"""Reads an LMDB of images by shuffled key: every epoch is a full shuffle.

LMDBLoader decodes in threads and yields batches of torch tensors. LMDBDataset is a map-style dataset for torch's own
DataLoader, in the manner of torchvision's ImageFolder.
"""
import os
from functools import partial
from typing import Any

from dataflows.images.codecs import MAX_PIXELS
from dataflows.load.dataset import LMDBDataset
from dataflows.load.loader import TorchBatches
from dataflows.load.reader import RecordReader
from dataflows.order.epoch import Epoch
from dataflows.order.pointers import checked_indices, keyed_pointers
from dataflows.order.ranks import LateRanks
from dataflows.storage.store import Store

__all__ = ["LMDBDataset", "LMDBLoader"]


class LMDBLoader(TorchBatches):
    """Batches of an LMDB's images in fully shuffled order, or in order with shuffle=False.

    Takes the options of `dataflows.load.loader.TorchBatches`, which also says what is yielded; besides:

    path: the LMDB, as dump_imagenet.py or tensorpack's LMDBSerializer.save writes it.
    batch_size: images per batch, of each rank.
    shuffle: whether each epoch is a new permutation of all records, which ranks share in turns. Without it, each rank
        reads one range of the file.
    seed: what permutations and crops are a function of, together with the epoch.
    rank, world_size: of this process in distributed training; by default torch.distributed is asked, if it is
        initialized by the time that the loader is first used, by iter, len, state_dict or the like: it may be made
        before. It is a RuntimeError if torch.distributed says otherwise later.
    uneven: what ranks do with a number of samples that they do not divide: "pad" repeats some, as DistributedSampler
        does, "drop" leaves some out, "keep" does neither, so batch counts may differ by one. By default "pad" when
        shuffling, for training, else "keep", for evaluation.
    indices: which records make an epoch, an integer array; one may come several times, so drawing them with weights
        balances classes. By default all, once.
    repeats: how often each comes in a row, with another crop each time: repeated augmentation.
    io: "mmap" reads through a memory map; "pread" copies records, which suits network file systems, and maps nothing;
        "auto" chooses, and copies where the system does not map the file.
    cache: "drop" takes records out of the page cache after use, for files larger than memory; "keep" leaves them.
    verify: compare each record that is read with its checksum, and raise RecordError, with file and key, if it differs:
        about 0.5 ms of processor time per MB.
    max_pixels: how many an image may have by its header; more are an error, which bounds memory for hostile files.

    >>> from dataflows import RandomResizedCrop
    >>> with LMDBLoader("train.lmdb", 8, transform=RandomResizedCrop(224), num_workers=2) as loader:
    ...     for images, labels in loader:
    ...         print(images.dtype, list(images.shape), labels.dtype, list(labels.shape))
    torch.uint8 [8, 3, 224, 224] torch.int64 [8]
    torch.uint8 [8, 3, 224, 224] torch.int64 [8]
    torch.uint8 [7, 3, 224, 224] torch.int64 [7]

    Raises FileNotFoundError or ValueError if the file is missing, truncated, not an LMDB, or has a wrong index, and
    OSError if it cannot be opened or, with io="mmap" or without an index, not mapped. A record that cannot be read is a
    RecordError, with file and key.
    """

    def __init__(self, path: str | os.PathLike[str], batch_size: int, *, shuffle: bool = True, seed: int = 0,
                 rank: int | None = None, world_size: int | None = None, uneven: str | None = None,
                 indices: Any = None, repeats: int = 1, io: str = "auto", cache: str = "keep",
                 verify: bool = False, max_pixels: int = MAX_PIXELS, array_layout: str = "HWC",
                 array_channels: str = "RGB", **options: Any) -> None:
        store, epoch = Store(path, io=io, cache=cache, verify=verify), Epoch(seed)
        ranks = LateRanks(rank, world_size, uneven or ("pad" if shuffle else "keep"))
        pointers = partial(keyed_pointers, store, epoch, shuffle, indices=checked_indices(indices, store),
                           repeats=repeats)
        reader = RecordReader(store, array_layout=array_layout, array_channels=array_channels,
                              max_pixels=max_pixels)
        super().__init__(pointers, reader, epoch, ranks, batch_size, **options)
