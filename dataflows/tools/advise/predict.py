"""Predicts the images/s of training from measurements of a machine and a data set: arithmetic, no clock, no files.

    from memory     what the loader reached with `Measurements.workers` threads, times the speed-up of another number
    from the disk   the lower of two rates: what the disk delivers, MB/s / MB per image; and what the processors do
                    when reading takes its share of them too, 1 / (1 / from memory + seconds of reading an image)
    an epoch        from memory where the file fits into it, else from the disk, and no more than the GPU takes

Storage is the limit of what comes from the disk at the first of these two rates. Where processors are the limit, the
greatest of an image's steps names it: decoding, resizing, or copying in memory.
"""
import dataclasses
import math
import statistics
from typing import Iterable, Sequence

TILED = "jpeg"
PIXELS = TILED, "uint8", "uint8 --max-side 500", "uint8 --shorter-side 256", "uint8 --max-side 256"  # most first
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
    """What the disk that holds the data set delivers."""

    sequential_mb_s: float
    random_mb_s: float  # pieces of an image's size, in random order, many of them asked for at once
    cpu_s_per_mb: float  # of all processors
    cold: bool  # whether a disk was read; if not, the figures are of memory, and tell nothing of a disk
    about: str  # what was read and how, or why nothing was cold


@dataclasses.dataclass(frozen=True)
class Steps:
    """Milliseconds of one processor that an image takes; a mean over the sample."""

    copy_ms: float  # bringing the bytes that the crop needs out of the page cache
    decode_ms: float  # Huffman decoding and inverse DCT; 0 for pixels
    huffman_ms: float  # what of it decoding at 1/8 takes, which needs all of the former and next to none of the latter
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

    @property
    def encoded(self) -> bool:
        """Whether it holds JPEGs, and not pixels."""
        return self.steps.decode_ms > 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurements:
    """All that predictions are made from."""

    source: str
    stored: str | None  # the name of the format that the source is in already; None for a folder
    images: int  # of the data set; of a large folder an estimate
    permuted: bool | None  # whether the LMDB's order is random; None for a folder, which a dump permutes
    sampled: int  # images that were measured
    processors: int
    load: float  # processes that wanted one of them before anything was measured
    memory_bytes: int  # available to the page cache
    workers: int  # threads that the formats were measured with
    scaling_encoded: Points  # of "jpeg"
    scaling_pixels: Points  # of "uint8 --max-side 500"
    storage: Storage
    formats: tuple[Format, ...]


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What training on one format would get."""

    name: str
    file_bytes: float
    error: float  # of it, relative
    fits: bool  # in memory, so that epochs after the first do not read the disk
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
    return tuple(_predict(found, one, workers, gpu_rate) for one in found.formats)


def _predict(found: Measurements, one: Format, workers: int, gpu_rate: float | None) -> Prediction:
    loader = choose_loader(found, one, workers, gpu_rate)
    rate, limit = epoch_rate(found, one, workers, loader)
    if gpu_rate is not None and gpu_rate <= rate:
        rate, limit = gpu_rate, GPU
    return Prediction(one.name, file_bytes(found, one), one.error, fits(found, one), loader,
                      memory_rate(found, one, workers), disk_rate(found, one, workers, loader), rate, limit)


def file_bytes(found: Measurements, one: Format) -> float:
    """The size of the LMDB of the whole data set."""
    return found.images * one.record_bytes


def fits(found: Measurements, one: Format) -> bool:
    """Whether the page cache can hold the file beside a training."""
    return file_bytes(found, one) <= _FREE * found.memory_bytes


def memory_rate(found: Measurements, one: Format, workers: int) -> float:
    """images/s of the loader with `workers` threads, from memory."""
    points = found.scaling_encoded if one.encoded else found.scaling_pixels
    return one.images_per_s * _at(points, workers, found) / _at(points, found.workers, found)


def _at(points: Points, workers: int, found: Measurements) -> float:
    """images/s there, on the straight line between its neighbours: loaders start no more threads than processors."""
    threads = min(workers, found.processors)
    for (low, low_rate), (high, high_rate) in zip(points, points[1:]):
        if low <= threads <= high:
            return low_rate + (high_rate - low_rate) * (threads - low) / (high - low)
    return points[0][1] if threads <= points[0][0] else points[-1][1]


def quiet_rate(found: Measurements, one: Format, workers: int) -> float:
    """images/s from memory, at most, if nobody else wants the processors: what they have time for."""
    return 1e3 * min(workers, found.processors) / one.cpu_ms


def storage_rate(found: Measurements, one: Format, loader: str) -> float | None:
    """images/s that the disk delivers in the order of this loader; None where it could not be measured."""
    if not found.storage.cold:
        return None
    mb_s = found.storage.random_mb_s if loader == SHUFFLED else found.storage.sequential_mb_s
    return mb_s / (one.record_bytes / 1e6)


def disk_rate(found: Measurements, one: Format, workers: int, loader: str) -> float | None:
    """images/s of the loader when nothing is in memory; None where the disk could not be measured."""
    storage = storage_rate(found, one, loader)
    return None if storage is None else min(storage, _while_reading(found, one, workers))


def _while_reading(found: Measurements, one: Format, workers: int) -> float:
    """What the processors do when reading takes its share of them."""
    reading_s = one.record_bytes / 1e6 * found.storage.cpu_s_per_mb / min(workers, found.processors)
    return 1 / (1 / memory_rate(found, one, workers) + reading_s)


def epoch_rate(found: Measurements, one: Format, workers: int, loader: str) -> tuple[float, str]:
    """images/s of the loader in every epoch but the first, and what limits it."""
    storage = storage_rate(found, one, loader)
    if storage is None or fits(found, one):
        return memory_rate(found, one, workers), one.steps.greatest
    processors = _while_reading(found, one, workers)
    return (storage, STORAGE) if storage < processors else (processors, one.steps.greatest)


def choose_loader(found: Measurements, one: Format, workers: int, gpu_rate: float | None) -> str:
    """The full shuffle, unless reading in random order is what makes an epoch slower than it has to be."""
    shuffled, _ = epoch_rate(found, one, workers, SHUFFLED)
    in_order, _ = epoch_rate(found, one, workers, IN_ORDER)
    wanted = in_order if gpu_rate is None else min(in_order, MARGIN * gpu_rate)
    return SHUFFLED if shuffled >= _ALIKE * wanted else IN_ORDER


def recommend(found: Measurements, workers: int, gpu_rate: float | None = None) -> Recommendation:
    """The format, loader, and least number of workers, up to `workers`, that give what the GPU takes; else the most.

    Formats that keep more pixels, and tiled JPEGs before all, come first among those that are fast enough. Without
    `gpu_rate`, pixels have to be more than a tenth faster than JPEGs, and images are not made smaller than 500.
    """
    loaders = {one.name: choose_loader(found, one, workers, gpu_rate) for one in found.formats}
    rates = {one.name: epoch_rate(found, one, workers, loaders[one.name])[0] for one in found.formats}
    known = [one for one in found.formats if found.storage.cold or fits(found, one)] or list(found.formats)
    best = _choose({one.name: rates[one.name] for one in known}, gpu_rate)
    [one] = [one for one in found.formats if one.name == best]
    most = range(1, min(workers, found.processors) + 1)
    by_workers = [epoch_rate(found, one, count, loaders[best])[0] for count in most]
    wanted = _NEARLY * max(by_workers)
    if gpu_rate is not None:
        wanted = min(wanted, MARGIN * gpu_rate)
    count, rate = next((count, rate) for count, rate in zip(most, by_workers) if rate >= wanted)
    return Recommendation(best, loaders[best], count, prefetch(one.pause), rate,
                          None if gpu_rate is None else rate >= gpu_rate)


def _choose(rates: dict[str, float], gpu_rate: float | None) -> str:
    """The name of the format to take, by what each reaches."""
    fastest = max(rates, key=lambda name: rates[name])
    if gpu_rate is None:
        rates = {name: rate for name, rate in rates.items() if name in PIXELS[:3]} or rates
        fastest = max(rates, key=lambda name: rates[name])
        enough = {name for name, rate in rates.items() if rate >= _ALIKE * rates[fastest]}
    else:
        enough = {name for name, rate in rates.items() if rate >= MARGIN * gpu_rate}
    return next((name for name in PIXELS if name in enough), fastest)


def prefetch(pause: float) -> int:
    """Batches to decode ahead, so that the longest wait for one, relative to the mean, is not felt."""
    return min(_MOST_PREFETCH, max(_PREFETCH, math.ceil(pause)))


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
    count, mean, ratio = len(sizes), statistics.fmean(sizes), math.fsum(sizes) / math.fsum(stored)

    def error(differences: Iterable[float]) -> float:
        return math.sqrt(math.fsum(each**2 for each in differences) / max(1, count - 1) / count) / mean

    by_mean = error(size - mean for size in sizes)
    by_ratio = error(size - ratio * one for size, one in zip(sizes, stored))
    unseen = math.sqrt(max(0.0, 1 - count / images))
    return (ratio * stored_mean, unseen * by_ratio) if by_ratio <= by_mean else (mean, unseen * by_mean)
