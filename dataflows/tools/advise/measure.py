"""What a machine does with a data set: its disk, the steps of an image, and the loader itself over each format.

A sample is dumped in every format into a temporary folder, and read by the loaders' own chain: all formats and numbers
of threads in turns, so that what else the machine does slows them alike. Nothing is written anywhere else, no global
number of threads is touched, and the folder is removed whatever happens.
"""
import contextlib
import functools
import os
import statistics
import tempfile
import time
from typing import Any, Callable, Iterator, NamedTuple

import numpy as np

from dataflows.dump.pack import FilePacker
from dataflows.images.codecs import ScratchBuffer, decode, decode_reduced
from dataflows.images.resize import crop
from dataflows.images.transforms import RandomResizedCrop, regions
from dataflows.jpeg.cut import cut, read_tiles
from dataflows.load.loader import TorchBatches
from dataflows.load.reader import RecordReader
from dataflows.order.epoch import Epoch
from dataflows.order.pointers import keyed_pointers
from dataflows.order.ranks import LateRanks
from dataflows.processors import usable_cpus
from dataflows.storage.flush import flush_file
from dataflows.storage.store import Store
from dataflows.system import available_memory, free_bytes, load
from dataflows.tools.advise.disk import measure_storage
from dataflows.tools.advise.predict import (
    BATCH_SIZE,
    Format,
    Measurements,
    Points,
    Steps,
    estimate,
    sample_size,
    worker_counts,
)
from dataflows.tools.advise.sample import PREPARATIONS, Sample, draw, dump, open_source

SIZE = 224  # of the crop
_MOST = 300  # images of a sample
_CONTENT_BYTES = 256 * 2**20  # of a sample's files
_DUMPED_BYTES = 768 * 2**20  # of its LMDBs together
_TRIAL = 8  # images that tell how long dumping takes
_STEPS = 100  # images whose steps are timed
_WINDOW_S = 0.5  # of one loader in one turn, or two batches
_TURNS = 5  # that count, at most; one more comes first
_SCALED = {True: "jpeg", False: "uint8 --max-side 500"}  # whose scaling stands for all that are encoded, or not
_PROBE_BYTES = 8 * 2**20
_PAGE = 4096


class _Clock:
    """The time that is left, and shared out."""

    def __init__(self, seconds: float) -> None:
        self._started, self._seconds = time.monotonic(), seconds

    def until(self, share: float) -> float:
        """When this share of all time is over, by time.monotonic."""
        return self._started + share * self._seconds


def measure(path: str, workers: int, *, seconds: float = 55.0) -> Measurements:
    """Measures for about so many seconds. Raises FileNotFoundError, ValueError or OSError for what cannot be read."""
    clock, busy = _Clock(seconds), load()
    with contextlib.closing(open_source(path, clock.until(0.12))) as source:
        mean_bytes = source.mean_bytes(clock.until(0.15))
        # Before the sample is read: pages that this process has mapped would stay.
        storage = measure_storage(source, workers, clock.until(0.25))
        sample = draw(source, _MOST, _CONTENT_BYTES, clock.until(0.4))
        stored = source.stored(sample)
        threads = min(workers, usable_cpus())
        with tempfile.TemporaryDirectory(prefix="dataflows-advise-") as folder:
            sample = _affordable(sample, folder, threads, 0.15 * seconds)
            dumps = {name: os.path.join(folder, f"{i}.lmdb") for i, name in enumerate(PREPARATIONS)}
            sizes = {name: dump(sample, PREPARATIONS[name], path, threads) for name, path in dumps.items()}
            steps = {name: time_steps(path, clock.until(0.7)) for name, path in dumps.items()}
            runs = _run(dumps, steps, threads, clock.until(0.97))
    bytes_now = {image.name: image.stored_bytes for image in sample.images}
    formats = tuple(
        Format(name, *estimate([*sizes[name].values()], [bytes_now[image] for image in sizes[name]], mean_bytes,
                               source.count), *runs[name, threads], steps[name]) for name in dumps)
    return Measurements(path, stored, source.count, source.permuted, len(sample), usable_cpus(), busy,
                        available_memory(), workers, _points(runs, _SCALED[True]), _points(runs, _SCALED[False]),
                        storage, formats)


def _affordable(sample: Sample, folder: str, threads: int, seconds: float) -> Sample:
    """As much of the sample as can be dumped in all formats in that time, and finds room on disk and in memory."""
    few = Sample(sample.root, sample.images[:_TRIAL])
    packers = [FilePacker(few, preparation, "skip") for preparation in PREPARATIONS.values()]
    for pointer in list(few)[:1]:  # numba loads or compiles
        packers[list(PREPARATIONS).index("jpeg")](pointer)
    started = time.perf_counter()
    nbytes = sum(len(packer(pointer).value or b"") for packer in packers for pointer in few)
    seconds_each = (time.perf_counter() - started) / len(few) / threads + nbytes / len(few) / _write_rate(folder)
    limits = [each // 4 for each in (free_bytes(folder), available_memory()) if each is not None]
    room = min(_DUMPED_BYTES, *limits)
    count = sample_size(len(sample), seconds_each, max(1, nbytes / len(few)), seconds=seconds, nbytes=room)
    return Sample(sample.root, sample.images[:count])


def _write_rate(folder: str) -> float:
    """Bytes per second to the disk of the temporary folder."""
    started = time.perf_counter()
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(_PROBE_BYTES))
        file.flush()
        flush_file(file.fileno())
    return _PROBE_BYTES / (time.perf_counter() - started)


# --- the steps of an image


def time_steps(path: str, deadline: float) -> Steps:
    """Means of this thread's processor time over the first records of a dump, until `deadline` by time.monotonic."""
    with contextlib.closing(Store(path)) as store:
        reader, index = RecordReader(store), store.index
        assert index is not None
        numbers = np.arange(min(_STEPS, len(store)))
        plan = RandomResizedCrop(SIZE).plan(index.height[numbers], index.width[numbers], numbers, 0, 0)
        times, memory = [], ScratchBuffer()
        for number, region, flip in zip(numbers.tolist(), regions(plan, (SIZE, SIZE)).tolist(), plan[:, 8].tolist()):
            store.value(number)[::_PAGE].max()  # its pages are mapped, and no fault is counted
            times.append(_steps(reader.view(number)[0], region, flip, memory))
            if time.monotonic() > deadline:
                break
    return Steps(*np.mean(times, axis=0).tolist())


def _steps(image: np.ndarray, region: list[int], flip: int, memory: ScratchBuffer) -> tuple[float, ...]:
    """Milliseconds to copy, decode, decode at 1/8, resize, and resize with INTER_LINEAR, of one image."""
    top, left, height, width = region
    out = np.full((3, SIZE, SIZE), 0, np.uint8)  # a batch's memory has been written to before
    decode_ms, huffman_ms, origin = 0.0, 0.0, (0, 0)
    if image.ndim == 3:
        box = image[top:top + height, left:left + width]
        pixels = np.full(box.shape, 0, np.uint8)
        copy_ms, _ = _timed(lambda: np.copyto(pixels, box))
    else:
        tiles = read_tiles(image)
        if tiles is None:
            copy_ms, encoded = _timed(lambda: image.copy())
        else:
            copy_ms, (encoded, origin) = _timed(lambda: cut(image, tiles, *region))
        decode(encoded, memory)  # memory has grown
        decode_ms, whole = _timed(lambda: decode(encoded, memory))
        huffman_ms, _ = _timed(lambda: decode_reduced(encoded, 8))
        y, x = top - origin[0], left - origin[1]
        pixels = np.ascontiguousarray(whole[y:y + height, x:x + width])
    row = [0, 0, *pixels.shape[:2], SIZE, SIZE, 0, 0, flip]
    return (copy_ms, decode_ms, huffman_ms, _timed(lambda: crop(pixels, row, True, out))[0],
            _timed(lambda: crop(pixels, row, False, out))[0])


def _timed(step: Callable[[], Any]) -> tuple[float, Any]:
    started = time.thread_time()
    result = step()
    return 1e3 * (time.thread_time() - started), result


# --- the loader


class Run(NamedTuple):
    """What one loader reached: medians over its turns."""

    images_per_s: float
    pause: float  # the longest wait for a batch, relative to the mean
    cpu_ms: float  # processor time of all threads for an image


class _Loader:
    """LMDBLoader's chain over a small file, whose records come again and again: short epochs of whole batches.

    Epochs and not stretches of one: what threads have decoded when the clock stops, and nobody has taken yet, may be a
    batch or two.
    """

    def __init__(self, path: str, threads: int, batches: int) -> None:
        store, epoch = Store(path), Epoch()
        pointers = functools.partial(keyed_pointers, store, epoch, True,
                                     indices=np.resize(np.arange(len(store)), batches * BATCH_SIZE))
        self._batches = TorchBatches(pointers, RecordReader(store), epoch, LateRanks(0, 1, "keep"), BATCH_SIZE,
                                     transform=RandomResizedCrop(SIZE), num_workers=threads)

    def run(self) -> Run:
        """One epoch."""
        cpu_s, started = time.process_time(), time.perf_counter()
        taken = [time.perf_counter() for _ in self._batches]
        seconds, cpu_s = time.perf_counter() - started, time.process_time() - cpu_s
        images = BATCH_SIZE * len(taken)
        waits = np.diff(taken)
        return Run(images / seconds, float(waits.max() / waits.mean()), 1e3 * cpu_s / images)

    def close(self) -> None:
        """Ends its threads and lets go of the file."""
        self._batches.close()


def _run(dumps: dict[str, str], steps: dict[str, Steps], threads: int, deadline: float) -> dict[tuple[str, int], Run]:
    """A Run by format and number of threads: all formats with `threads`, two of them with fewer as well."""
    cells = [(name, threads) for name in dumps]
    cells += [(name, count) for name in _SCALED.values() for count in worker_counts(threads)[:-1]]
    with contextlib.ExitStack() as stack:
        loaders = {(name, count): stack.enter_context(contextlib.closing(
            _Loader(dumps[name], count, _batches(steps[name], count)))) for name, count in cells}
        turns = list(_turns(loaders, deadline))
    turns = turns[1:] or turns  # memory for batches is fresh in the first one, which costs page faults
    return {cell: Run(*(statistics.median(values) for values in zip(*(turn[cell] for turn in turns))))
            for cell in cells}


def _batches(steps: Steps, threads: int) -> int:
    """How many take about _WINDOW_S, two at least."""
    seconds = (steps.copy_ms + steps.decode_ms + steps.resize_ms) / 1e3 / threads
    return max(2, round(_WINDOW_S / seconds / BATCH_SIZE))


def _turns(loaders: dict[tuple[str, int], _Loader], deadline: float) -> Iterator[dict[tuple[str, int], Run]]:
    longest = 0.0
    for number in range(_TURNS + 1):
        started = time.monotonic()
        if number and started + longest > deadline:
            return
        # Turns go forth and back, so that nobody always follows the same neighbour.
        order = list(loaders)[::-1] if number % 2 else list(loaders)
        yield {cell: loaders[cell].run() for cell in order}
        longest = max(longest, time.monotonic() - started)


def _points(runs: dict[tuple[str, int], Run], name: str) -> Points:
    return tuple(sorted((count, run.images_per_s) for (each, count), run in runs.items() if each == name))
