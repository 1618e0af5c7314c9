"""From batches of pointers to batches of pixels: threads decode each sample into its slot of the batch."""
import contextlib
import dataclasses
import functools
import random
import time
from collections import deque
from typing import Any, Callable, Generator, Iterator

import numpy as np
import torch

from dataflows.images.resize import to_planes
from dataflows.images.transforms import CenterCrop, RandomResizedCrop, is_fused
from dataflows.images.uniforms import uniforms
from dataflows.load.meter import Meter, Spent, Watch
from dataflows.load.reader import RecordReader
from dataflows.load.workers.shared_memory import lent
from dataflows.order.epoch import Epoch
from dataflows.processors import usable_cpus
from dataflows.tensorpack import DataFlow, ProxyDataFlow
from dataflows.threads import map_ordered

Transform = Callable[[np.ndarray], Any] | RandomResizedCrop | CenterCrop

# Samples a task, at most; threads share each batch evenly all the same. Between tasks, threads wait for each other's
# GIL: parts of 16, 64 and 128 gave 4,150, 5,200 and 5,750 images/s of uint8 records in 2 threads.
_SLICE = 128
_SEED_COLUMN = 64  # of the numbers that a position has, in uniforms.py: crops take those before


class _Recycler:
    """Memory for batches of one shape, used again as soon as nobody references it.

    A fresh batch of 256 costs 18 ms of page faults, more than a third of decoding it from uint8 records. What the user
    still holds, in whole or as any view, is never handed out again. The last `keep` batches are remembered: of those
    that are held for longer, the memory goes back to the system when the user is done with it.
    """

    def __init__(self, shape: tuple[int, ...], keep: int | None) -> None:
        self._shape = shape
        self._lent: deque[tuple[Callable[[], object | None], np.ndarray]] = deque(maxlen=keep)

    def __reduce__(self) -> tuple[type["_Recycler"], tuple[tuple[int, ...], int | None]]:
        return _Recycler, (self._shape, self._lent.maxlen)

    def take(self) -> np.ndarray:
        memory = self._returned()
        if memory is None:
            memory = np.empty(self._shape, np.uint8)
        view, in_use = lent(memory)
        self._lent.append((in_use, memory))
        return view

    def _returned(self) -> np.ndarray | None:
        for _ in range(len(self._lent)):
            try:
                in_use, memory = self._lent.popleft()  # whole steps: iterations in other threads take from it, too
            except IndexError:
                return None
            if in_use() is None:
                return memory
            self._lent.append((in_use, memory))
        return None


@dataclasses.dataclass(eq=False)
class _Batch:
    numbers: list[int]
    positions: np.ndarray
    labels: np.ndarray
    images: Any  # an array to fill, or a list to fill
    done_at: float = 0.0  # when a part of it was decoded last, by time.perf_counter


class DecodeBatches(ProxyDataFlow):
    """Reads, decodes and transforms batches of pointers, in `num_threads` threads and in order.
    Of transforms.py's transforms, no more threads run than there are processors.

    `ds` yields `[numbers, positions]`, lists of up to `batch_size` record numbers and of their positions in the epoch.
    Yields `[images, labels]`: labels int64 of shape (B,). With a fused transform, images are uint8 RGB of
    shape (B, 3, h, w), in channels-last memory if `channels_last`. With transform=None they are a list of such arrays
    of shape (3, H, W), and with a callable a list of its results, where arrays and PIL images of shape (H, W, 3) become
    arrays of shape (3, H, W).

    The order is that of `ds`; pixels are a function of (seed, epoch, position), whatever the number of threads. `len`
    is that of `ds`. Several iterations may be alive at once, each with threads of its own. Besides the batch that is
    being yielded, at most `prefetch` batches are in memory, or what it takes to keep all threads busy. `meter`
    is told where the time goes. `seeds` is for processes of our own: before each call of a callable, the global
    generators of Python, numpy and torch are seeded from (seed, epoch, position). Raises RecordError with file and key,
    and whatever the callable raises, at the sample's place in the order.
    """

    def __init__(self, ds: DataFlow, reader: RecordReader, transform: Transform | None, epoch: Epoch,
                 *, batch_size: int, num_threads: int, prefetch: int, meter: Meter,
                 channels_last: bool = False, seeds: bool = False) -> None:
        super().__init__(ds)
        self._seeds = seeds
        self._reader, self._transform, self._epoch, self._meter = reader, transform, epoch, meter
        self._channels_last = channels_last
        self._memory = None
        if is_fused(transform):
            height, width = transform.window
            shape = (height, width, 3) if channels_last else (3, height, width)
            self._memory = _Recycler((batch_size, *shape), keep=prefetch + 4)
            # Decoding never waits, so more threads than processors would only take turns, and memory with it.
            num_threads = min(num_threads, usable_cpus())
        self.num_threads = num_threads
        self._slice = max(1, min(_SLICE, batch_size // max(1, num_threads)))
        self._ahead = max(prefetch * -(-batch_size // self._slice), num_threads)

    def __iter__(self) -> Iterator[list[Any]]:
        epoch = self._epoch.number
        decode = functools.partial(self._decode, epoch)
        # Closed here, for the traceback of a failure keeps it, and with it whatever `ds` holds open.
        with contextlib.closing(self._tasks()) as tasks:
            for batch in map_ordered(decode, tasks, self.num_threads, self._ahead):
                if batch is not None:
                    self._meter.worker(Spent(queue=time.perf_counter() - batch.done_at))
                    yield [batch.images, batch.labels]

    def _tasks(self) -> Generator[tuple[_Batch, range], None, None]:
        for numbers, positions in self.ds:
            batch = _Batch(numbers, np.array(positions, np.int64), np.empty(len(numbers), np.int64),
                           self._slots(len(numbers)))
            for start in range(0, len(numbers), self._slice):
                yield batch, range(start, min(start + self._slice, len(numbers)))

    def _slots(self, count: int) -> Any:
        if self._memory is None:
            return [None] * count
        images = self._memory.take()[:count]
        return images.transpose(0, 3, 1, 2) if self._channels_last else images

    def _decode(self, epoch: int, task: tuple[_Batch, range]) -> _Batch | None:
        """Decodes one part of a batch, and returns the batch if the part is its last: results come in order."""
        batch, part = task
        watch = Watch()
        if self._memory is None:
            self._decode_and_apply(batch, part, epoch, watch)
        else:
            self._decode_and_crop(batch, part, epoch, watch)
        self._reader.store.release(batch.numbers[part.start:part.stop])
        self._meter.worker(watch.spent(self._meter.asks_for_pages))
        batch.done_at = time.perf_counter()
        return batch if part.stop == len(batch.numbers) else None

    def _decode_and_crop(self, batch: _Batch, part: range, epoch: int, watch: Watch) -> None:
        window = slice(part.start, part.stop)
        crops = self._reader.read_crops(batch.numbers[window], self._transform, batch.positions[window],
                                        self._epoch.seed, epoch, batch.images[window])
        batch.labels[window] = crops.labels
        watch.decode, watch.resize = crops.decode_s, crops.resize_s

    def _decode_and_apply(self, batch: _Batch, part: range, epoch: int, watch: Watch) -> None:
        for i in part:
            started = time.perf_counter()
            pixels, batch.labels[i] = self._reader.pixels(batch.numbers[i])
            decoded, running = time.perf_counter(), time.thread_time()
            if self._seeds:
                [[draw]] = uniforms(range(_SEED_COLUMN, _SEED_COLUMN + 1), self._epoch.seed, epoch,
                                    batch.positions[i:i + 1])
                _seed_global_generators(int(draw * 2**53))
            batch.images[i] = self._apply(pixels, batch.numbers[i])
            watch.decode += decoded - started
            watch.transform += time.perf_counter() - decoded
            watch.transform_running += time.thread_time() - running

    def _apply(self, pixels: np.ndarray, number: int) -> Any:
        if self._transform is None:
            return to_planes(pixels)
        assert callable(self._transform)
        try:
            result = self._transform(pixels)
            if result is None:
                raise TypeError("the transform gave None: it must return an image, so a `return` may be missing")
            return planar(result)
        except Exception as error:
            if hasattr(error, "add_note"):  # Python 3.11 and later
                error.add_note(f"raised by the transform of {self._reader.store.place(number)}")
            raise


def _seed_global_generators(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def planar(image: Any) -> Any:
    """An array or PIL image as an array that torch takes, (3, H, W) if it was (H, W, 3); other things as they are."""
    if not hasattr(image, "__array_interface__"):  # numpy and PIL have it, torch tensors lack it
        return image
    image = np.asarray(image)
    if not image.size:
        raise ValueError(f"the transform gave an image without pixels, of shape {image.shape}")
    if image.ndim == 3 and image.shape[2] == 3:
        return to_planes(image) if image.dtype == np.uint8 else np.ascontiguousarray(image.transpose(2, 0, 1))
    return image if image.flags.writeable and image.flags.c_contiguous else image.copy("C")
