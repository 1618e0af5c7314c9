"""Times the steps of one image on this thread: copying its bytes, decoding, resizing."""
import contextlib
import time
from typing import Any, Callable

import numpy as np

from dataflows.images.codecs import MAX_PIXELS, ScratchBuffer, decode, decode_reduced
from dataflows.images.plan import FLIP
from dataflows.images.resize import resize_into
from dataflows.images.transforms import RandomResizedCrop
from dataflows.jpeg.cut import cut, read_tiles
from dataflows.load.decode.crops import Crops, Wanted
from dataflows.load.decode.reader import RecordReader
from dataflows.storage.store import Store
from dataflows.tools.advise.disk import touch
from dataflows.tools.advise.limits import until
from dataflows.tools.advise.predict import Steps

SIZE = 224  # of the crop
_STEPS = 100  # images whose steps are timed


def thread_ms(step: Callable[[], Any]) -> tuple[float, Any]:
    """(milliseconds of this thread's processor time, result) of a step."""
    started = time.thread_time()
    result = step()
    return 1e3 * (time.thread_time() - started), result


def resize_ms(pixels: np.ndarray, region: list[int], flip: int) -> tuple[float, float]:
    """Milliseconds to resize a region of the pixels into the planes of a batch: antialiased, and by INTER_LINEAR."""
    row = [*region, SIZE, SIZE, 0, 0, flip]
    out = np.full((3, SIZE, SIZE), 0, np.uint8)  # a batch's memory has been written to before
    return (thread_ms(lambda: resize_into(pixels, row, True, out))[0],
            thread_ms(lambda: resize_into(pixels, row, False, out))[0])


def time_steps(path: str, deadline: float) -> Steps:
    """Means over the first records of a dump; ends at `deadline`, by time.monotonic."""
    transform = RandomResizedCrop(SIZE)
    with contextlib.closing(Store(path)) as store:
        reader, index, memory = RecordReader(store), store.index, ScratchBuffer()
        assert index is not None
        numbers = np.arange(min(_STEPS, len(store)))
        sizes = np.stack([index.height[numbers], index.width[numbers]], axis=1).astype(np.int64)
        wanted, crops, times = Wanted.by(transform, sizes, True, numbers, 0, 0), Crops(transform), []
        for number in until(deadline, numbers.tolist()):
            value, one = store.value(number), wanted[number:number + 1]
            touch(value)  # its pages are mapped, and no fault is counted
            by_libraries = _steps_ms(reader.view(number)[0], one.seen[0].tolist(), int(one.plan[0, FLIP]), memory)
            times.append(_by_kernels(crops, value, one, by_libraries))
    return Steps(*np.mean(times, axis=0).tolist())


def _by_kernels(crops: Crops, value: np.ndarray, wanted: Wanted, by_libraries: tuple[float, ...]) -> tuple[float, ...]:
    """The same where kernels make a loader's crop: they read the bytes where they lie, and have no step for that."""
    out = np.full((1, 3, SIZE, SIZE), 0, np.uint8)
    crops.many([value], wanted, MAX_PIXELS, True, out)  # what it needs is in the caches of the processor, as below
    ms, made = thread_ms(lambda: crops.many([value], wanted, MAX_PIXELS, True, out))
    if made is None or not made.done[0]:
        return by_libraries
    resizing = made.resize_s / (made.decode_s + made.resize_s)
    return 0.0, ms * (1 - resizing), by_libraries[2], ms * resizing, by_libraries[4]


def _steps_ms(image: np.ndarray, region: list[int], flip: int, memory: ScratchBuffer) -> tuple[float, ...]:
    """Milliseconds to copy, decode, decode at 1/8, resize, and resize by INTER_LINEAR."""
    top, left, height, width = region
    if image.ndim == 3:
        box = image[top:top + height, left:left + width]
        pixels = np.full(box.shape, 0, np.uint8)
        copy_ms, _ = thread_ms(lambda: np.copyto(pixels, box))
        decode_ms = huffman_ms = 0.0
    else:
        tiles = read_tiles(image)
        copy_ms, (encoded, (y, x)) = thread_ms(
            lambda: (image.copy(), (0, 0)) if tiles is None else cut(image, tiles, *region))
        decode(encoded, memory)  # memory has grown
        decode_ms, whole = thread_ms(lambda: decode(encoded, memory))
        huffman_ms, _ = thread_ms(lambda: decode_reduced(encoded, 8))
        pixels = np.ascontiguousarray(whole[top - y:top - y + height, left - x:left - x + width])
    return copy_ms, decode_ms, huffman_ms, *resize_ms(pixels, [0, 0, *pixels.shape[:2]], flip)
