"""Contestants of `benchmark.py --cold`: ways to read an epoch's bytes off a disk; only the loaders decode.

Each opens its file within the epoch, reads every record once, and touches all of its pages in `num_workers` threads.
"""
import contextlib
import gc
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Generator, Iterator

import lmdb
import numpy as np

from benchmarks.contestants import SHUFFLE_BUFFER, Job
from dataflows.load.chain import batches_of, pointers_of, prefetched
from dataflows.load.meter import Meter
from dataflows.order.epoch import Epoch
from dataflows.order.order import Order
from dataflows.order.pointers import ALONE
from dataflows.sources.imagenet import ImageNetFiles
from dataflows.storage.store import Store
from dataflows.system import disk_bytes
from dataflows.tools.advise.disk import touch

Steps = Generator[tuple[int, int], None, None]  # images and bytes that were needed, of one batch after the other
Figures = Callable[[int], dict[str, Any]]


def _figures(steps: Steps) -> dict[str, Any]:
    images, needed, first_batch_s = 0, 0, None
    started, read = time.perf_counter(), disk_bytes()
    for count, nbytes in steps:
        if first_batch_s is None:
            first_batch_s = time.perf_counter() - started
        images, needed = images + count, needed + nbytes
    seconds = time.perf_counter() - started
    gc.collect()  # a map that is still alive would keep its pages in memory
    now = disk_bytes()
    return {"seconds": seconds, "images": images, "images_per_s": images / seconds, "mb_per_s": needed / seconds / 1e6,
            "read_per_needed": None if now is None or read is None else (now - read) / needed,
            "first_batch_s": first_batch_s}


@contextlib.contextmanager
def reading(job: Job, *, how: str) -> Iterator[Figures]:
    """Yields `epoch(number)`, which reads by one of the functions below and returns its figures."""
    with contextlib.closing(_WAYS[how](job, 0)) as steps:
        next(steps)  # brings the code that it runs into memory, which dropping the page cache would have it wait for
    gc.collect()
    yield lambda number: _figures(_WAYS[how](job, number))


def _whole_file(job: Job, number: int) -> Steps:
    """The file from its start to its end: what the disk can do."""
    batches = -(-job.images // job.batch_size)
    buffer = bytearray(-(-os.path.getsize(job.lmdb) // batches))
    with open(job.lmdb, "rb", buffering=0) as file:
        for batch in range(batches):
            done = 0
            while done < len(buffer) and (count := file.readinto(memoryview(buffer)[done:])):
                done += count
            yield min(job.batch_size, job.images - batch * job.batch_size), done


def _files(job: Job, number: int) -> Steps:
    files = ImageNetFiles(job.source, job.split)
    return _in_threads(job, number, lambda i: len(files.read(files.pointers[i][0])))


def _lmdb(job: Job, number: int, readahead: bool) -> Steps:
    with lmdb.open(job.lmdb, subdir=False, readonly=True, lock=False, readahead=readahead) as environment:
        def read(i: int) -> int:
            with environment.begin(buffers=True) as transaction:
                return touch(np.frombuffer(transaction.get(b"%08d" % i), np.uint8))

        yield from _in_threads(job, number, read)


def _in_threads(job: Job, number: int, read: Callable[[int], int]) -> Steps:
    """Each image once in a random order; what `read` returns is its bytes."""
    order = np.random.default_rng(number).permutation(job.images).tolist()
    with ThreadPoolExecutor(job.num_workers) as pool:
        for start in range(0, len(order), job.batch_size):
            batch = order[start:start + job.batch_size]
            yield len(batch), sum(pool.map(read, batch))


def _chain(job: Job, number: int, shuffled: bool) -> Steps:
    """This project's chain from pointers to bytes."""
    epoch = Epoch()
    epoch.number = number
    with contextlib.closing(Store(job.lmdb)) as store, ThreadPoolExecutor(job.num_workers) as pool:
        order = Order("shuffled" if shuffled else "local", shuffle_buffer=SHUFFLE_BUFFER)
        pointers = pointers_of(store, order, epoch, ALONE)
        for numbers, _ in prefetched(batches_of(pointers, epoch, job.batch_size), pointers, store, Meter()):
            yield len(numbers), sum(pool.map(lambda i: touch(store.value(i)), numbers))


def _loader(job: Job, number: int, name: str) -> Steps:
    """A loader of this project with decoding, to batches."""
    from benchmarks.contestants import ours  # torch with it, which the others start without

    with contextlib.closing(Store(job.lmdb)) as store:
        mean_bytes = 0 if store.index is None else int(store.index.nbytes.mean())
    with getattr(ours, name)(job) as epoch:
        for _, labels in epoch(number):
            yield len(labels), len(labels) * mean_bytes


_WAYS: dict[str, Callable[[Job, int], Steps]] = {
    "file": _whole_file,
    "files": _files,
    "lmdb-readahead": lambda job, number: _lmdb(job, number, True),
    "lmdb-random": lambda job, number: _lmdb(job, number, False),
    "ours-shuffled": lambda job, number: _chain(job, number, True),
    "ours-sequential": lambda job, number: _chain(job, number, False),
    "loader": lambda job, number: _loader(job, number, "loader"),
    "iterloader": lambda job, number: _loader(job, number, "iterloader"),
}
