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
def tensorpack(job: Job, *, tuned: bool = False) -> Iterator[Epoch]:
    """The chain of tensorpack's documentation, or the arrangement that was fastest among nine on 2 cores.

    chain: LMDBData -> LocallyShuffleData -> MultiProcessRunnerZMQ(1) -> decode -> BatchData. One process reads and
    shuffles, and the records travel to the process that trains. For val without the shuffle.

    tuned, train: LMDBData -> LocallyShuffleData -> decode -> MultiProcessRunnerZMQ(N) -> BatchData. Every process runs
    its own reader, shuffle and decoder, so only pixels of 150 KB an image travel; samples repeat and go missing within
    an epoch, as tensorpack documents. Threads (MultiThreadMapData) came within 10 %, the other arrangements at
    0.4-0.8x; the documentation's nesting of two runners needs an older Python.

    tuned, val: LMDBData -> MultiThreadMapData(strict=True) -> BatchData: every sample once, in nearly the file's order.
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
        ds = LocallyShuffleData(ds, SHUFFLE_BUFFER)
    if not tuned:
        ds = MapData(MultiProcessRunnerZMQ(ds, 1), load)
    elif job.training:
        ds = MultiProcessRunnerZMQ(MapData(ds, load), workers)
    else:
        ds = MultiThreadMapData(ds, workers, load, buffer_size=_MAP_BUFFER, strict=True)
    ds = BatchData(ds, job.batch_size, remainder=True)
    ds.reset_state()
    yield lambda number: ((torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(labels).long())
                          for images, labels in ds)
