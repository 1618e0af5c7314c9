"""Reads an LMDB of images sequentially: the disk never seeks, and a buffer shuffles locally.

LMDBIterLoader decodes in threads and yields batches of torch tensors. LMDBIterDataset is an iterable dataset for
torch's own DataLoader, which its workers share out among themselves.
"""
import os
from typing import Any

from dataflows.adapter import TorchBatches
from dataflows.dataset import LMDBIterDataset
from dataflows.decode import RecordReader
from dataflows.epoch import Epoch
from dataflows.keys import SequentialKeys
from dataflows.shuffle import FiniteLocallyShuffleData
from dataflows.store import Store

__all__ = ["LMDBIterDataset", "LMDBIterLoader"]


class LMDBIterLoader(TorchBatches):
    """Batches of an LMDB's images in the order of the file, shuffled within a buffer.

    Takes the options of `dataflows.adapter.TorchBatches`, which also says what is yielded; besides:

    path: the LMDB, as dump_imagenet.py or tensorpack's LMDBSerializer.save writes it.
    batch_size: images per batch.
    shuffle_buffer: how many records the shuffle mixes; 0 keeps the file's order. The buffer holds pointers, no pixels:
        50,000 take about 5 MB, and the first batch comes at once. The dump has already permuted a train split, so the
        buffer only has to make epochs differ; a file sorted by class needs LMDBLoader.
    seed: what the shuffle and the crops are a function of, together with the epoch.

    >>> loader = LMDBIterLoader("train.lmdb", 256, transform=RandomResizedCrop(224), num_workers=8)   # doctest: +SKIP

    Raises FileNotFoundError or ValueError if the file is missing, truncated, not an LMDB, or has a wrong index.
    """

    def __init__(self, path: str | os.PathLike[str], batch_size: int, *, shuffle_buffer: int = 50_000, seed: int = 0,
                 array_layout: str = "HWC", array_channels: str = "RGB", **options: Any) -> None:
        store, epoch = Store(path), Epoch(seed)
        pointers = SequentialKeys(store)
        if shuffle_buffer:
            pointers = FiniteLocallyShuffleData(pointers, shuffle_buffer, epoch)
        reader = RecordReader(store, array_layout=array_layout, array_channels=array_channels)
        super().__init__(pointers, reader, epoch, batch_size, **options)
