"""Measures the processor time that the crops themselves take on this machine: a limit to compare loaders with.

It is that of this project's own kernels alone, which decode and resize records in memory, some at a time, in one
thread. What is not in it is all around them: reading, order, batches, threads, and the Python of these. So "x limit" of
a loader says what that adds; for other libraries, the limit is what a loader could reach with these kernels.

Beside it stands the same by libraries, where they do no more than the crop needs:

    libraries = cv2.imdecode of a whole image x the share of its area that the crop depends on + torch's resize of that

All in ms of processor time per image, means over a sample of the job's records. Pixels need no decoding.
"""
import contextlib
from typing import Any, Callable, Iterator

import cv2
import numpy as np
import torch

from benchmarks.contestants import SIZE, Job
from benchmarks.contestants.ours import transform
from benchmarks.opencv import decode
from dataflows.images.compiled import ready
from dataflows.images.plan import FLIP
from dataflows.load.decode.crops import Crops, Source, Wanted
from dataflows.load.decode.reader import AT_ONCE, RecordReader
from dataflows.storage.store import Store
from dataflows.tools.advise.steps import resize_ms, thread_ms

SAMPLE = 300  # records
_WAYS: dict[str, dict[str, bool]] = {
    "limit_ms": {}, "limit_linear_ms": {"antialias": False}, "limit_fast_ms": {"fast_decode": True},
    "limit_linear_fast_ms": {"antialias": False, "fast_decode": True}}


@contextlib.contextmanager
def limit(job: Job) -> Iterator[Callable[[int], dict[str, Any]]]:
    """Yields `epoch(number)`, which measures the sample with that epoch's crops and returns its means.

    images          how many
    limit_ms        decoding and resizing, as a loader does it by default
    limit_linear_ms, limit_fast_ms, limit_linear_fast_ms   the same with antialias=False, fast_decode=True, or both
    libraries_ms    the formula above, antialiased
    share           the part of the image's area that the crop depends on
    """
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    ready.make_ready()
    with contextlib.closing(Store(job.lmdb)) as store:
        reader, count = RecordReader(store), min(SAMPLE, len(store))
        numbers = [i * len(store) // count for i in range(count)]  # spread evenly
        parts = [numbers[start:start + AT_ONCE] for start in range(0, count, AT_ONCE)]
        yield lambda epoch: {"images": count} | _means([_costs(reader, part, job, epoch) for part in parts])


def _costs(reader: RecordReader, numbers: list[int], job: Job, epoch: int) -> dict[str, list[float]]:
    """Of some records: ms of each way, of all together, and of each image by libraries; and the shares."""
    values = [value.copy() for value in reader.store.values(numbers)]  # read from the file before the clock starts
    sources = [reader.source(number, value) for number, value in zip(numbers, values)]
    sizes = np.array([source[:2] for source in sources])
    costs: dict[str, list[float]] = {}
    for name, options in _WAYS.items():
        crop = transform(job, **options)  # without antialias, a center crop has another plan
        crops, wanted = Crops(crop), Wanted.by(crop, sizes, True, np.array(numbers), 0, epoch)
        out = np.full((len(numbers), 3, SIZE, SIZE), 0, np.uint8)  # a batch's memory has been written to before
        ms, _ = thread_ms(lambda crops=crops, wanted=wanted, out=out: _crop(crops, values, sources, wanted, out))
        costs[name] = [ms]
    wanted = Wanted.by(transform(job), sizes, True, np.array(numbers), 0, epoch)
    shares = wanted.seen[:, 2] * wanted.seen[:, 3] / (sizes[:, 0] * sizes[:, 1])
    costs["libraries_ms"] = [_by_libraries(*each) for each in zip(
        sources, wanted.seen.tolist(), wanted.plan[:, FLIP].tolist(), shares.tolist())]
    return costs | {"share": shares.tolist()}


def _crop(crops: Crops, values: list[np.ndarray], sources: list[Source], wanted: Wanted, out: np.ndarray) -> None:
    made = crops.many(values, wanted, int(wanted.sizes.prod(axis=1).max()), True, out)
    for i, (source, slot) in enumerate(zip(sources, out)):
        if made is None or not made.done[i]:
            crops.resize(crops.decode(source, wanted.needed[i].tolist(), 1), wanted.plan[i].tolist(),
                         wanted.seen[i].tolist(), False, slot)


def _by_libraries(source: Source, region: list[int], flip: int, share: float) -> float:
    image, decode_ms = source.image.copy(), 0.0
    if image.ndim == 1:
        decode_ms, image = thread_ms(lambda: decode(image))
    return decode_ms * share + resize_ms(image, region, flip)[0]


def _means(parts: list[dict[str, list[float]]]) -> dict[str, float]:
    count = sum(len(part["share"]) for part in parts)
    return {name: sum(sum(part[name]) for part in parts) / count for name in parts[0]}
