"""Predicts the images/s of training from measurements of a machine and a data set: arithmetic, no clock, no files.

    from memory     what the loader reached with `Measurements.workers` threads, times the speed-up of another number
    from the disk   the lower of two rates: what the disk delivers, MB/s / MB per image; and what the processors do
                    when reading takes its share of them too, 1 / (1 / from memory + seconds of reading an image)
    an epoch        from memory where the file fits into it, else from the disk, and no more than the GPU takes; from a
                    URL, which no memory of the system keeps, always as from a disk

Storage is the limit of what comes from the disk at the first of these two rates. Where processors are the limit, the
greatest of an image's steps names it: decoding, resizing, or copying in memory.
"""
import dataclasses
import math
from typing import Sequence

import numpy as np

TILED = "jpeg"
FULL_SIZED = TILED, "uint8", "uint8 --max-side 500"
SMALL = "jpeg --shorter-side 320", "uint8 --shorter-side 256", "jpeg --shorter-side 256", "uint8 --max-side 256"
PIXELS = *FULL_SIZED, *SMALL  # those that keep the most pixels first
STORAGE, GPU = "storage", "the GPU"
SHUFFLED, IN_ORDER = "LMDBLoader", "LMDBIterLoader"
BATCH_SIZE = 256
BATCH_BYTES = BATCH_SIZE * 3 * 224 * 224

MARGIN = 1.1  # a loader as fast as the GPU, on average, still lets it wait now and then
_ALIKE = 0.9  # rates within a tenth are one
_NEARLY = 0.95  # of the most that any number of threads gives
_FREE = 0.8  # of the memory that is available: training needs some, and what it needs is not known here
_PREFETCH, _MOST_PREFETCH = 2, 8  # batches; the loaders' default

Points = tuple[tuple[int, float], ...]  # (threads, images/s), ascending


@dataclasses.dataclass(frozen=True)
class Storage:
    """What the disk that holds the data set delivers, or the server of its URL."""

    sequential_mb_s: float
    random_mb_s: float  # pieces of an image's size, in random order, many of them asked for at once
    cpu_s_per_mb: float  # of all processors
    cold: bool  # whether a disk was read; if not, the figures are of memory, and tell nothing of a disk
    about: str  # what was read and how, or why nothing was cold
    remote: bool = False  # whether it is a server, of a data set at a URL


@dataclasses.dataclass(frozen=True)
class Steps:
    """Milliseconds of one processor that an image takes; a mean over the sample."""

    copy_ms: float  # bringing the bytes that the crop needs out of the page cache; 0 where that is no step by itself
    decode_ms: float  # Huffman decoding and inverse DCT; 0 for pixels
    huffman_ms: float  # decoding by libjpeg at 1/8, which needs all of the former and next to none of the latter
    resize_ms: float  # antialiased, as by default, and into the planes of the batch
    resize_linear_ms: float  # the same with antialias=False

    @property
    def greatest(self) -> str:
        """The step that takes longest, of a loader's by default."""
        steps = {"decoding": self.decode_ms, "resizing": self.resize_ms, "memory copy": self.copy_ms}
        return max(steps, key=lambda name: steps[name])


@dataclasses.dataclass(frozen=True)
class Format:
    """One way to store the data set, as it was measured on a sample."""

    name: str  # the options of dump_imagenet.py, shortened
    record_bytes: float  # of LMDB's pages, mean of the data set
    error: float  # standard error of that, relative to it: a sample is not the data set
    images_per_s: float  # that the loader reached with Measurements.workers threads, from memory
    pause: float  # the longest wait for a batch, relative to the mean
    cpu_ms: float  # processor time that the loader took for an image, all of it
    steps: Steps
    enlarged: float  # share of the crops that have fewer pixels on a side than the batch, so that they are enlarged
    psnr_db: float | None  # of a crop, against that of the full-sized image; None where they are equal


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurements:
    """All that predictions are made from."""

    source: str
    stored: str | None  # the name of the format that the source is in already; None for a folder
    images: int  # of the data set; of a large folder an estimate
    permuted: bool | None  # whether the LMDB's order is random; None for a folder, which a dump permutes
    shards: int  # files of an LMDB; 0 for a folder
    sampled: int  # images that were measured
    processors: int
    load: float  # processes that wanted one of them before anything was measured
    memory_bytes: int  # available to the page cache
    workers: int  # threads that the formats were measured with
    scaling_encoded: Points  # of "jpeg"
    scaling_pixels: Points  # of "uint8 --max-side 500"
    storage: Storage
    formats: tuple[Format, ...]

    def format(self, name: str) -> Format:
        """The one of this name."""
        return next(one for one in self.formats if one.name == name)


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What training on one format would get."""

    name: str
    file_bytes: float
    error: float  # of it, relative
    fits: bool  # in the system's memory, so that epochs after the first do not read the disk; nothing at a URL does
    loader: str
    memory_images_per_s: float
    disk_images_per_s: float | None  # of that loader; None where the disk could not be measured
    images_per_s: float  # in every epoch but the first
    bottleneck: str  # of such an epoch


@dataclasses.dataclass(frozen=True)
class Recommendation:
    """Which of them to take, and how."""

    format: str
    loader: str
    workers: int
    prefetch: int
    images_per_s: float  # in every epoch but the first, with so many workers
    enough: bool | None  # for the GPU; None where its rate is not known


def predict(found: Measurements, workers: int, gpu_rate: float | None = None) -> tuple[Prediction, ...]:
    """A Prediction for each format, with `workers` threads and a training that takes `gpu_rate` images/s."""
    chosen = (with_best_loader(found, one, workers, gpu_rate) for one in found.formats)
    return tuple(one if gpu_rate is None or one.images_per_s < gpu_rate
                 else dataclasses.replace(one, images_per_s=gpu_rate, bottleneck=GPU) for one in chosen)


def with_best_loader(found: Measurements, one: Format, workers: int, gpu_rate: float | None) -> Prediction:
    """By the full shuffle, unless reading in random order is what makes an epoch slower than it has to be."""
    shuffled, in_order = (with_loader(found, one, workers, loader) for loader in (SHUFFLED, IN_ORDER))
    wanted = min(in_order.images_per_s, MARGIN * (gpu_rate or math.inf))
    return shuffled if shuffled.images_per_s >= _ALIKE * wanted else in_order


def with_loader(found: Measurements, one: Format, workers: int, loader: str) -> Prediction:
    """What this loader gives to a training that takes all of it."""
    storage, mb = found.storage, one.record_bytes / 1e6
    memory = memory_rate(found, one, workers)
    disk = (storage.random_mb_s if loader == SHUFFLED else storage.sequential_mb_s) / mb
    while_reading = memory / (1 + memory * mb * storage.cpu_s_per_mb / min(workers, found.processors))
    fits = not storage.remote and found.images * one.record_bytes <= _FREE * found.memory_bytes
    rate, limit = memory, one.steps.greatest
    if storage.cold and not fits:
        rate, limit = (disk, STORAGE) if disk < while_reading else (while_reading, limit)
    return Prediction(one.name, found.images * one.record_bytes, one.error, fits, loader, memory,
                      min(disk, while_reading) if storage.cold else None, rate, limit)


def memory_rate(found: Measurements, one: Format, workers: int) -> float:
    """images/s of the loader with `workers` threads, from memory; it starts no more threads than processors.

    Between two numbers of threads that were measured it is on the straight line.
    """
    threads, rates = zip(*(found.scaling_encoded if one.steps.decode_ms else found.scaling_pixels))
    now, measured = np.interp([min(workers, found.processors), min(found.workers, found.processors)], threads, rates)
    return one.images_per_s * float(now / measured)


def quiet_rate(found: Measurements, one: Format, workers: int) -> float:
    """images/s from memory, at most, if nobody else wants the processors: what they have time for."""
    return 1e3 * min(workers, found.processors) / one.cpu_ms


def recommend(found: Measurements, workers: int, gpu_rate: float | None = None) -> Recommendation:
    """The format, loader, and least number of workers, up to `workers`, that give what the GPU takes; else the most.

    Formats that keep more pixels, and tiled JPEGs before all, come first among those that are fast enough. Without
    `gpu_rate`, pixels have to be more than a tenth faster than JPEGs, and images are not made smaller than 500.
    """
    predicted = [with_best_loader(found, one, workers, gpu_rate) for one in found.formats]
    best = _choose([one for one in predicted if found.storage.cold or one.fits] or predicted, gpu_rate)
    one = found.format(best.name)
    rates = [with_loader(found, one, count, best.loader).images_per_s
             for count in range(1, min(workers, found.processors) + 1)]
    wanted = min(_NEARLY * max(rates), MARGIN * (gpu_rate or math.inf))
    count, rate = next((count, rate) for count, rate in enumerate(rates, 1) if rate >= wanted)
    enough = None if gpu_rate is None else rate >= gpu_rate
    # Of batches, so many that the longest wait for one is not felt.
    prefetch = min(_MOST_PREFETCH, max(_PREFETCH, math.ceil(one.pause)))
    return Recommendation(best.name, best.loader, count, prefetch, rate, enough)


def _choose(predicted: list[Prediction], gpu_rate: float | None) -> Prediction:
    """The format to take, by what each reaches."""
    if gpu_rate is None:
        predicted = [one for one in predicted if one.name in FULL_SIZED] or predicted
    fastest = max(predicted, key=lambda one: one.images_per_s)
    wanted = _ALIKE * fastest.images_per_s if gpu_rate is None else MARGIN * gpu_rate
    fast = [one for one in predicted if one.name in PIXELS and one.images_per_s >= wanted]
    return min(fast, key=lambda one: PIXELS.index(one.name), default=fastest)


def sample_size(most: int, seconds_each: float, bytes_each: float, *, seconds: float, nbytes: float) -> int:
    """How many images to measure: `most` where time and space allow it, and at least 8."""
    return max(1, min(most, max(8, int(min(seconds / seconds_each, nbytes / bytes_each)))))


def worker_counts(most: int) -> list[int]:
    """1, 2, 4, ... below `most`, and `most`: where the scaling over threads is measured."""
    return [*(1 << i for i in range((most - 1).bit_length())), most]


def estimate(sizes: Sequence[float], stored: Sequence[float], stored_mean: float, images: int) -> tuple[float, float]:
    """(the mean size of all images, the standard error of that, relative to it), from a sample's `sizes`.

    `stored` are the sizes that the same images have now, and `stored_mean` is the mean of all `images`. Where the one
    goes with the other, as the bytes of JPEGs with and without tiles, their ratio tells more than the sample's mean,
    which a few large photos decide; where it does not, as of images that are all made small, less.
    """
    found, now = np.array(sizes, float), np.array(stored, float)
    count, mean, ratio = len(found), found.mean(), found.sum() / now.sum()
    unseen = max(0.0, 1 - count / images)
    by_mean, by_ratio = (float(np.sqrt(unseen * (differences @ differences) / max(1, count - 1) / count) / mean)
                         for differences in (found - mean, found - ratio * now))
    return (float(ratio * stored_mean), by_ratio) if by_ratio <= by_mean else (float(mean), by_mean)
