"""From batches of pointers to batches of pixels: threads decode each sample into its slot of the batch."""
import contextlib
import dataclasses
import functools
import time
from typing import Any, Callable, ContextManager, Generator, Iterator

import numpy as np

from dataflows.images.image_types import as_image, planar
from dataflows.images.pipeline import Pipeline
from dataflows.images.resize import to_planes
from dataflows.load.decode.batch_memory import Recycler, ResultMemory, Results
from dataflows.load.decode.noted import Noted
from dataflows.load.decode.reader import RecordReader
from dataflows.load.decode.seeds import PER_IMAGE, generators_kept, seed_generators, seeds_of
from dataflows.load.meter import Meter, Spent, Watch
from dataflows.order.epoch import Epoch
from dataflows.processors import usable_cpus
from dataflows.tensorpack import DataFlow, ProxyDataFlow
from dataflows.threads import map_ordered, torch_in_one_thread

# Samples a task, at least (of crops) and at most, as far as the batch has them; within these, threads share each batch
# evenly. A task takes the GIL for 0.5 ms and 8 us a sample, for which threads wait: with tasks of 16 and of 64 samples,
# 16 threads gave 10,906 and 24,148 images/s of uint8 records; with 64 and 128, 2 threads gave 5,200 and 5,750.
_LEAST, _MOST = 64, 128
_CROPS = 32  # decoded at once before callables get them one by one


@dataclasses.dataclass(eq=False)
class _Batch:
    numbers: list[int]
    positions: np.ndarray
    labels: np.ndarray
    images: Any  # an array to fill, a list to fill, or Results
    done_at: float = 0.0  # when a part of it was decoded last, by time.perf_counter


class DecodeBatches(ProxyDataFlow):
    """Reads, decodes and transforms batches of pointers, in `num_threads` threads and in order.
    With nothing but a crop, no more threads run than there are processors.

    `ds` yields `[numbers, positions]`, lists of up to `batch_size` record numbers and of their positions in the epoch.
    Yields `[images, labels]`: labels int64 of shape (B,), float32 of shape (B, k) where they are vectors, or a list of
    what `target_transform` gives for each. With a crop and nothing after it, images are uint8 RGB of shape (B, 3, h,
    w), in channels-last memory if `channels_last`. Without any transform they are a list of such arrays of shape (3, H,
    W). With callables they are their results, where arrays and PIL images of shape (H, W, 3) become (3, H, W): one
    array if all are numbers in host memory, of one shape and dtype, else a list. With `pointers`, record numbers and
    positions follow: int64 of shape (B,) each.

    The order is that of `ds`; crops are a function of (seed, epoch, position), whatever the number of threads. So is
    what callables draw from the global generators of Python, numpy and torch with num_threads=0 or in a process of
    our own (`seeds`), where these are seeded before each image; several threads share those of the program. `len`
    is that of `ds`. Several iterations may be alive at once, each with threads of its own. Besides the batch that is
    being yielded, at most `prefetch` batches are in memory, or what it takes to keep all threads busy. `meter`
    is told where the time goes. Raises RecordError with file and key, and whatever a callable raises, at the sample's
    place in the order.
    """

    def __init__(self, ds: DataFlow, reader: RecordReader, pipeline: Pipeline, epoch: Epoch,
                 *, batch_size: int, num_threads: int, prefetch: int, meter: Meter, channels_last: bool = False,
                 seeds: bool = False, target_transform: Callable[[Any], Any] | None = None,
                 pointers: bool = False) -> None:
        super().__init__(ds)
        self._seeds = seeds or num_threads == 0
        self._in_caller = num_threads == 0 and not seeds
        self._reader, self._pipeline, self._epoch, self._meter = reader, pipeline, epoch, meter
        self._channels_last, self._target_transform, self._pointers = channels_last, target_transform, pointers
        only_crops = pipeline.crop is not None and not pipeline.steps
        if only_crops:  # which never wait: more threads than processors would only take turns, and memory with it
            num_threads = min(num_threads, usable_cpus())
        self.num_threads = num_threads
        tasks = max(-(-batch_size // _MOST), min(num_threads, batch_size // (_LEAST if only_crops else 1)), 1)
        self._slice = -(-batch_size // tasks)
        self._ahead = max(prefetch * tasks, num_threads)
        keep = max(prefetch, -(-self._ahead // tasks)) + 4
        self._results = ResultMemory(batch_size, keep)
        self._batches = self._crops = None
        if pipeline.window is not None:
            height, width = pipeline.window
            shape = (height, width, 3) if channels_last else (3, height, width)
            self._batches = Recycler((batch_size, *shape), keep)
            self._crops = Recycler(pipeline.crops_shape(min(_CROPS, batch_size)), num_threads + 1)

    def __iter__(self) -> Iterator[list[Any]]:
        epoch = self._epoch.number
        decode = functools.partial(self._decode, epoch)
        # Closed here, for the traceback of a failure keeps it, and with it whatever `ds` holds open.
        with contextlib.closing(self._tasks()) as tasks:
            for batch in map_ordered(decode, tasks, self.num_threads, self._ahead):
                if batch is not None:
                    self._meter.worker(Spent(queue=time.perf_counter() - batch.done_at))
                    images = batch.images.all() if isinstance(batch.images, Results) else batch.images
                    pointers = [np.array(batch.numbers, np.int64), batch.positions] if self._pointers else []
                    yield [images, self._targets(batch), *pointers]

    def _tasks(self) -> Generator[tuple[_Batch, range], None, None]:
        for numbers, positions in self.ds:
            batch = _Batch(numbers, np.array(positions, np.int64),
                           self._reader.empty_labels(len(numbers)), self._slots(len(numbers)))
            for start in range(0, len(numbers), self._slice):
                yield batch, range(start, min(start + self._slice, len(numbers)))

    def _slots(self, count: int) -> Any:
        if self._pipeline.steps:
            return Results(count, self._results)
        if self._batches is None:
            return [None] * count
        images = self._batches.take()[:count]
        return images.transpose(0, 3, 1, 2) if self._channels_last else images

    def _decode(self, epoch: int, task: tuple[_Batch, range]) -> _Batch | None:
        """Decodes one part of a batch, and returns the batch if the part is its last: results come in order."""
        batch, part = task
        watch = Watch()
        if self._pipeline.steps:
            self._decode_and_apply(batch, part, epoch, watch)
        elif self._pipeline.crop is None:
            for i, pixels in self._whole(batch, part, watch):
                batch.images[i] = to_planes(pixels)
        else:
            self._read_crops(batch, slice(part.start, part.stop), epoch, watch, batch.images[part.start:part.stop])
        self._reader.store.release(batch.numbers[part.start:part.stop])
        self._meter.worker(watch.spent(self._meter.asks_for_pages))
        batch.done_at = time.perf_counter()
        return batch if part.stop == len(batch.numbers) else None

    def _read_crops(self, batch: _Batch, window: slice, epoch: int, watch: Watch, out: np.ndarray) -> None:
        crops = self._reader.read_crops(batch.numbers[window], self._pipeline.crop, batch.positions[window],
                                        self._epoch.seed, epoch, out)
        batch.labels[window] = crops.labels
        watch.decode += crops.decode_s
        watch.resize += crops.resize_s

    def _whole(self, batch: _Batch, part: range, watch: Watch) -> Iterator[tuple[int, np.ndarray]]:
        """(place, pixels) of each image of a part: uint8 RGB of shape (H, W, 3)."""
        for i in part:
            started = time.perf_counter()
            pixels, batch.labels[i] = self._reader.pixels(batch.numbers[i])  # of the file's label_size, or an error
            watch.decode += time.perf_counter() - started
            yield i, pixels

    def _images(self, batch: _Batch, part: range, epoch: int, watch: Watch) -> Generator[tuple[int, Any], None, None]:
        """(place, image) of each, as the first step gets it. Some crops are decoded at once."""
        if self._pipeline.crop is None:
            for i, pixels in self._whole(batch, part, watch):
                yield i, as_image(pixels, self._pipeline.image_type)
            return
        assert self._crops is not None
        for start in range(part.start, part.stop, self._crops.shape[0]):
            stop = min(start + self._crops.shape[0], part.stop)
            crops = self._crops.take()[:stop - start]
            self._read_crops(batch, slice(start, stop), epoch, watch, self._pipeline.as_planes(crops))
            yield from enumerate(map(self._pipeline.as_image, crops), start)

    def _decode_and_apply(self, batch: _Batch, part: range, epoch: int, watch: Watch) -> None:
        images = self._images(batch, part, epoch, watch)
        positions = batch.positions[part.start:part.stop]
        seeds = seeds_of(PER_IMAGE, self._epoch.seed, epoch, positions) if self._seeds else []
        kept: ContextManager[None] = generators_kept() if self._in_caller else contextlib.nullcontext()
        with kept, torch_in_one_thread(), contextlib.closing(images):
            for i, image in images:
                started, running = time.perf_counter(), time.thread_time()
                if seeds:
                    seed_generators(seeds[i - part.start])
                batch.images.put(i, self._apply(image, batch.numbers[i]))
                watch.transform += time.perf_counter() - started
                watch.transform_running += time.thread_time() - running

    def _apply(self, image: Any, number: int) -> Any:
        with Noted("transform", self._reader.store, number):
            result = self._pipeline.apply(image)
            if result is None:
                raise TypeError("the transform gave None: it must return an image, so a `return` may be missing")
            return planar(result)

    def _targets(self, batch: _Batch) -> Any:
        if self._target_transform is None:
            return batch.labels
        targets = []
        for number, label in zip(batch.numbers, batch.labels if self._reader.label_size else batch.labels.tolist()):
            with Noted("target_transform", self._reader.store, number):
                targets.append(self._target_transform(label))
        return targets
