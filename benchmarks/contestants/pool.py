"""The least that loading can cost: a bare thread pool over bytes in memory or in one file.

What a user could write in an afternoon, and what libraries with a raw format do at their core. Threads fill slices of
a few batches at once, each sample in its slot. Every batch has memory of its own.
"""
import collections
import contextlib
import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Callable, Iterator

import cv2
import numpy as np
import torch

from benchmarks.contestants import SIZE, Epoch, Job
from benchmarks.copies import copy_of, files_in_order
from benchmarks.decoder import Decoder, planar
from benchmarks.opencv import center_crop, random_crop
from dataflows.load.decode.reader import RecordReader
from dataflows.storage.store import Store

_SLICE = 128  # samples that a thread takes at a time, at most: it waits for the GIL in between
_AHEAD = 2  # batches in work besides the one that is wanted

Load = Callable[[int, np.ndarray], None]


@contextlib.contextmanager
def pool(job: Job) -> Iterator[Epoch]:
    """The files' bytes in this process's memory, decoded whole."""
    files, decoder = files_in_order(job), Decoder(job.training)
    encoded = [files.read(name) for name, _ in files]
    labels = np.array([label for _, label in files], np.int64)

    def load(number: int, out: np.ndarray) -> None:
        decoder(encoded[number], out)

    with _epochs(job, labels, load) as epoch:
        yield epoch


@contextlib.contextmanager
def memmap(job: Job) -> Iterator[Epoch]:
    """The pixels of the LMDB's records one after the other in one file, mapped into memory, and nothing to decode."""
    folder = copy_of(job, "memmap", lambda partial: _write_pixels(job, partial))
    pixels = np.memmap(os.path.join(folder, "pixels"), np.uint8, "r")
    shapes, labels = np.load(os.path.join(folder, "shapes.npy")).tolist(), np.load(os.path.join(folder, "labels.npy"))
    ends = np.cumsum([height * width * 3 for height, width in shapes]).tolist()
    crop = random_crop if job.training else center_crop

    def load(number: int, out: np.ndarray) -> None:
        height, width = shapes[number]
        end = ends[number]
        crop(view[end - height * width * 3:end].reshape(height, width, 3), out)

    view = pixels.view(np.ndarray)  # slices of a memmap cost three times as much to make
    with _epochs(job, labels, load) as epoch:
        yield epoch


def _write_pixels(job: Job, folder: str) -> None:
    store = Store(job.lmdb)
    reader, shapes, labels = RecordReader(store), [], []
    with open(os.path.join(folder, "pixels"), "wb") as file:
        for number in range(len(store)):
            pixels, label = reader.pixels(number)
            file.write(pixels.tobytes())
            shapes.append(pixels.shape[:2])
            labels.append(label)
    store.close()
    np.save(os.path.join(folder, "shapes.npy"), np.array(shapes))
    np.save(os.path.join(folder, "labels.npy"), np.array(labels, np.int64))


@contextlib.contextmanager
def _epochs(job: Job, labels: np.ndarray, load: Load) -> Iterator[Epoch]:
    """Epochs of one thread pool. `load(number, out)` fills the slot of one sample."""
    cv2.setNumThreads(0)  # parallel already
    workers = max(1, job.num_workers)
    each = max(1, min(_SLICE, job.batch_size // workers))

    def fill(images: np.ndarray, numbers: list[int]) -> None:
        for number, out in zip(numbers, images):
            load(number, out)

    with ThreadPoolExecutor(workers) as threads:
        def start(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[Future[None]]]:
            images = np.empty((len(numbers), SIZE, SIZE, 3), np.uint8)
            parts = [slice(first, first + each) for first in range(0, len(numbers), each)]
            return images, labels[numbers], [threads.submit(fill, images[part], numbers[part].tolist())
                                             for part in parts]

        def epoch(number: int) -> Iterator[Any]:
            order = np.arange(len(labels))
            if job.training:
                order = np.random.default_rng(number).permutation(order)
            started: collections.deque[Any] = collections.deque()
            for first in range(0, len(order), job.batch_size):
                started.append(start(order[first:first + job.batch_size]))
                if len(started) > _AHEAD:
                    yield _finish(*started.popleft())
            while started:
                yield _finish(*started.popleft())

        yield epoch


def _finish(images: np.ndarray, labels: np.ndarray, parts: list[Future[None]]) -> tuple[torch.Tensor, torch.Tensor]:
    for part in parts:
        part.result()
    return planar(images, labels)
