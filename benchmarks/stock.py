"""The stock tensorpack chain, reading the same LMDB file through tensorpack's own components."""
import contextlib
import multiprocessing
import os
from typing import Any, Iterator

import cv2
import torch

from benchmarks.contestants import Epoch, Job
from benchmarks.opencv import center_crop, decode, random_crop

SHUFFLE_BUFFER = 2000  # records. tensorpack's tutorial takes 50,000, which is 5.5 GB a process here
_MAP_BUFFER = 200  # tensorpack's default


@contextlib.contextmanager
def tensorpack(job: Job) -> Iterator[Epoch]:
    """Stock components in the arrangement that was fastest among eight on 2 cores, for each split.

    train: LMDBData -> LocallyShuffleData -> decode -> MultiProcessRunnerZMQ -> BatchData. Every process runs its own
    reader, shuffle and decoder, so only pixels of 150 KB an image travel between processes; samples repeat and go
    missing within an epoch, as tensorpack documents. Threads (MultiThreadMapData) came within 10 %, one reader process
    with MultiProcessMapData at 0.4-0.8x, batching in the worker processes at 0.4-0.7x, MultiProcessMapAndBatchData at
    0.5x; the tutorial's nesting of runners needs an older Python.

    val: LMDBData -> MultiThreadMapData(strict=True) -> BatchData: every sample once, in nearly the file's order.
    """
    # Read when tensorpack is imported: how it reads the list of keys.
    os.environ["TENSORPACK_SERIALIZE"] = "msgpack"
    multiprocessing.set_start_method("fork", force=True)  # what its processes are written for, on any Python
    from tensorpack.dataflow import (
        BatchData,
        LMDBData,
        LocallyShuffleData,
        MapData,
        MultiProcessRunnerZMQ,
        MultiThreadMapData,
    )
    from tensorpack.utils.serialize import MsgpackSerializer

    cv2.setNumThreads(0)  # parallel already
    crop, workers = random_crop if job.training else center_crop, max(1, job.num_workers)

    def load(datapoint: list[Any]) -> list[Any]:
        image, label = MsgpackSerializer.loads(datapoint[1])
        return [crop(decode(image) if isinstance(image, bytes) else image), label]

    ds = LMDBData(job.lmdb, shuffle=False)
    if job.training:
        ds = MultiProcessRunnerZMQ(MapData(LocallyShuffleData(ds, SHUFFLE_BUFFER), load), workers)
    else:
        ds = MultiThreadMapData(ds, workers, load, buffer_size=_MAP_BUFFER, strict=True)
    ds = BatchData(ds, job.batch_size, remainder=True)
    ds.reset_state()
    yield lambda number: ((torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(labels).long())
                          for images, labels in ds)
