"""Reads an LMDB of images by shuffled key: every epoch is a full shuffle.

LMDBLoader decodes in threads and yields batches of torch tensors. LMDBDataset is a map-style dataset for torch's own
DataLoader, in the manner of torchvision's ImageFolder.
"""
import os
from typing import Any

from dataflows.adapter import TorchBatches
from dataflows.dataset import LMDBDataset
from dataflows.decode import RecordReader
from dataflows.epoch import Epoch
from dataflows.keys import SequentialKeys, ShuffledKeys
from dataflows.store import Store

__all__ = ["LMDBDataset", "LMDBLoader"]


class LMDBLoader(TorchBatches):
    """Batches of an LMDB's images in fully shuffled order, or in order with shuffle=False.

    Takes the options of `dataflows.adapter.TorchBatches`, which also says what is yielded; besides:

    path: the LMDB, as dump_imagenet.py or tensorpack's LMDBSerializer.save writes it.
    batch_size: images per batch.
    shuffle: whether each epoch is a new permutation of all records.
    seed: what permutations and crops are a function of, together with the epoch.

    >>> loader = LMDBLoader("train.lmdb", 256, transform=RandomResizedCrop(224), num_workers=8)   # doctest: +SKIP
    >>> for images, labels in loader:                                                             # doctest: +SKIP
    ...     train(images, labels)   # uint8 (256, 3, 224, 224), int64 (256,)

    Raises FileNotFoundError or ValueError if the file is missing, truncated, not an LMDB, or has a wrong index.
    """

    def __init__(self, path: str | os.PathLike[str], batch_size: int, *, shuffle: bool = True, seed: int = 0,
                 array_layout: str = "HWC", array_channels: str = "RGB", **options: Any) -> None:
        store, epoch = Store(path), Epoch(seed)
        keys = ShuffledKeys(store, epoch) if shuffle else SequentialKeys(store)
        reader = RecordReader(store, array_layout=array_layout, array_channels=array_channels)
        super().__init__(keys, reader, epoch, batch_size, **options)
