"""Measures how a machine loads a data set: its disk, the steps of an image, and the loader itself in each format.

A sample is dumped in every format into a temporary folder, and read by the loaders' own chain: all formats and numbers
of threads in turns, so that what else the machine does slows them alike. Nothing is written anywhere else, no global
number of threads is touched, and the folder is removed whatever happens.
"""
import contextlib
import os
import tempfile
import time
from typing import Any, Iterator, Mapping, NamedTuple

import numpy as np

from dataflows.images.compiled import ready
from dataflows.images.transforms import RandomResizedCrop
from dataflows.jpeg.tile import make_ready
from dataflows.load.chain import Decoding
from dataflows.load.decode.reader import RecordReader
from dataflows.load.late_ranks import LateRanks
from dataflows.load.loader import TorchBatches
from dataflows.load.to_torch import ToTorch
from dataflows.order.order import Order
from dataflows.processors import usable_cpus
from dataflows.storage.store import Store
from dataflows.system import available_memory, free_bytes, load
from dataflows.tools.advise import predict
from dataflows.tools.advise.detail import compare
from dataflows.tools.advise.disk import BYTES, measure_storage
from dataflows.tools.advise.sample import PREPARATIONS, Sample, dump
from dataflows.tools.advise.sources import draw, open_source
from dataflows.tools.advise.steps import SIZE, time_steps

_MOST = 300  # images of a sample
_CONTENT_BYTES = 256 * 2**20  # of a sample's files
_DUMPED_BYTES = 768 * 2**20  # of its LMDBs together
_TRIAL = 16  # images that tell how long dumping takes
_WINDOW_S = 0.5  # of one loader in one turn, or two batches
_TURNS = 5  # that count, at most; one more comes first
_ENCODED, _PIXELS = "jpeg", "uint8 --max-side 500"  # whose scaling stands for all that are encoded, or not


def measure(path: str, workers: int, *, seconds: float = 55.0,
            storage_options: Mapping[str, Any] | None = None) -> predict.Measurements:
    """Measures for about so many seconds. Raises FileNotFoundError, ValueError or OSError for what cannot be read."""
    started, busy = time.monotonic(), load()

    def by(share: float) -> float:
        return started + share * seconds

    with contextlib.closing(open_source(path, by(0.12), storage_options)) as source:
        mean_bytes = source.mean_bytes(by(0.15))
        # Before the sample is read: pages that this process has mapped would stay.
        generator = np.random.default_rng(1)
        random, in_order = (source.pieces(generator, BYTES, in_order=in_order) for in_order in (False, True))
        storage = measure_storage(random, in_order, workers, by(0.25), source.opened)
        sample = draw(source, _MOST, _CONTENT_BYTES, by(0.4))
        stored = source.stored(sample)
        threads = min(workers, usable_cpus())
        with tempfile.TemporaryDirectory(prefix="dataflows-advise-") as folder:
            sample = _affordable(sample, folder, threads, 0.15 * seconds)
            dumps = {name: os.path.join(folder, f"{i}.lmdb") for i, name in enumerate(PREPARATIONS)}
            sizes = {name: dump(sample, PREPARATIONS[name], path, threads) for name, path in dumps.items()}
            details = {name: compare(path, dumps["uint8"], by(0.6)) for name, path in dumps.items()}
            steps = {name: time_steps(path, by(0.7)) for name, path in dumps.items()}
            runs = _run(dumps, steps, threads, by(0.97))
    bytes_now = {image.name: image.stored_bytes for image in sample.images}
    formats = []
    for name, of_images in sizes.items():
        size = predict.estimate([*of_images.values()], [bytes_now[image] for image in of_images], mean_bytes,
                                source.count)
        formats.append(predict.Format(name, *size, *runs[name, threads], steps[name], *details[name]))
    encoded, pixels = (tuple(sorted((count, run.images_per_s) for (each, count), run in runs.items() if each == name))
                       for name in (_ENCODED, _PIXELS))
    return predict.Measurements(source=path, stored=stored, images=source.count, permuted=source.permuted,
                                shards=source.shards, sampled=len(sample), processors=usable_cpus(), load=busy,
                                storage=storage, memory_bytes=available_memory(), workers=workers,
                                scaling_encoded=encoded, scaling_pixels=pixels, formats=tuple(formats))


def _affordable(sample: Sample, folder: str, threads: int, seconds: float) -> Sample:
    """As much of the sample as can be dumped in all formats in that time, and finds room on disk and in memory."""
    few = Sample(sample.root, sample.images[:_TRIAL])
    make_ready()  # compiles what tiles JPEGs, and then what decodes and resizes, before the clock starts
    ready.make_ready()
    started, nbytes = time.perf_counter(), 0
    with tempfile.TemporaryDirectory(dir=folder) as trial:
        for i, preparation in enumerate(PREPARATIONS.values()):
            try:
                nbytes += sum(dump(few, preparation, os.path.join(trial, f"{i}.lmdb"), threads).values())
            except ValueError:  # none of the few can be stored; of all images, some may
                return sample
    limits = [each // 4 for each in (free_bytes(folder), available_memory()) if each is not None]
    count = predict.sample_size(len(sample), (time.perf_counter() - started) / len(few), nbytes / len(few),
                                seconds=seconds, nbytes=min(_DUMPED_BYTES, *limits))
    return Sample(sample.root, sample.images[:count])


# --- the loader


Cell = tuple[str, int]  # a format, and a number of threads


class Run(NamedTuple):
    """What one loader reached: medians over its turns."""

    images_per_s: float
    pause: float  # the longest wait for a batch, relative to the mean
    cpu_ms: float  # processor time of all threads for an image


def _loader(path: str, threads: int, batches: int) -> TorchBatches:
    """LMDBLoader's chain over a small file, whose records come again and again: short epochs of whole batches.

    Epochs and not stretches of one: what threads have decoded when the clock stops, and nobody has taken yet, may be a
    batch or two.
    """
    store = Store(path)
    order = Order("shuffled", indices=np.resize(np.arange(len(store)), batches * predict.BATCH_SIZE))
    decoding = Decoding(predict.BATCH_SIZE, transform=RandomResizedCrop(SIZE), num_workers=threads)
    return TorchBatches(RecordReader(store), order, LateRanks(0, 1, "keep"), decoding, ToTorch())


def _run_epoch(loader: TorchBatches) -> Run:
    cpu_s, started = time.process_time(), time.perf_counter()
    taken = [time.perf_counter() for _ in loader]
    seconds, cpu_s = time.perf_counter() - started, time.process_time() - cpu_s
    images, waits = predict.BATCH_SIZE * len(taken), np.diff(taken)
    return Run(images / seconds, float(waits.max() / waits.mean()), 1e3 * cpu_s / images)


def _run(dumps: dict[str, str], steps: dict[str, predict.Steps], threads: int, deadline: float) -> dict[Cell, Run]:
    """The Run of each cell: all formats with `threads`, two of them with fewer as well."""
    cells = [(name, threads) for name in dumps]
    cells += [(name, count) for name in (_ENCODED, _PIXELS) for count in predict.worker_counts(threads)[:-1]]
    with contextlib.ExitStack() as stack:
        loaders = {(name, count): stack.enter_context(contextlib.closing(
            _loader(dumps[name], count, _batches(steps[name], count)))) for name, count in cells}
        turns = list(_turns(loaders, deadline))
    turns = turns[1:] or turns  # memory for batches is fresh in the first one, which costs page faults
    return {cell: Run(*np.median([turn[cell] for turn in turns], axis=0).tolist()) for cell in cells}


def _batches(steps: predict.Steps, threads: int) -> int:
    """How many take about _WINDOW_S, two at least."""
    seconds = (steps.copy_ms + steps.decode_ms + steps.resize_ms) / 1e3 / threads
    return max(2, round(_WINDOW_S / seconds / predict.BATCH_SIZE))


def _turns(loaders: dict[Cell, TorchBatches], deadline: float) -> Iterator[dict[Cell, Run]]:
    longest = 0.0
    for number in range(_TURNS + 1):
        started = time.monotonic()
        if number and started + longest > deadline:
            return
        # Turns go forth and back, so that nobody always follows the same neighbour.
        order = list(loaders)[::-1] if number % 2 else list(loaders)
        yield {cell: _run_epoch(loaders[cell]) for cell in order}
        longest = max(longest, time.monotonic() - started)
