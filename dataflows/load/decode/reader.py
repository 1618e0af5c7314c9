"""Reads, cuts, decodes and crops records; every error names the file and the key."""
import functools
import logging
import math
import os
import time
from typing import Any, Callable, Iterable, Iterator, NamedTuple, TypeVar

import numpy as np

from dataflows.errors import RecordError
from dataflows.images.codecs import MAX_PIXELS, decode, refuse_bomb
from dataflows.jpeg.cut import read_tiles
from dataflows.jpeg.header import jpeg_size
from dataflows.label_vectors import Label
from dataflows.load.decode.crops import Crops, Source, Wanted, decode_whole
from dataflows.options import integer, one_of
from dataflows.storage import record
from dataflows.storage.store import Store
from dataflows.terminal import printable

# Records whose crops are made at once: each call takes the GIL for 0.06 ms, and a signal waits for as many.
AT_ONCE = 64
_MOST_BYTES = 2**24  # of these records: where they are not mapped, each thread has a copy of as many
T = TypeVar("T")
logger = logging.getLogger(__name__)


class Done(NamedTuple):
    """What `RecordReader.read_crops` tells besides the pixels: seconds by the clock, of all images together."""

    labels: np.ndarray  # int64 (n,), or float32 (n, k)
    decode_s: float  # cutting out and decoding
    resize_s: float


class RecordReader:
    """Reads and decodes the records of a Store, and adds file and key to what goes wrong. Threads may share it.

    `array_layout` and `array_channels` are those of record.view. `max_pixels` is how many pixels an image may have by
    its header. `label_size` is how many numbers each label has, where labels are vectors, else 0: as the index says,
    and without one, as the first record is.
    """

    def __init__(self, store: Store, *, array_layout: str = "HWC", array_channels: str = "RGB",
                 max_pixels: int = MAX_PIXELS) -> None:
        one_of("array_layout", array_layout, ("HWC", "CHW"))
        one_of("array_channels", array_channels, ("RGB", "BGR"))
        self.store = store
        self._max_pixels = integer("max_pixels", max_pixels, 1)
        self.label_size = _label_size(store)
        self._our_arrays = (array_layout, array_channels) == ("HWC", "RGB")
        self._view = functools.partial(record.view, array_layout=array_layout, array_channels=array_channels,
                                       label_size=self.label_size)

    def view(self, number: int) -> tuple[np.ndarray, Label]:
        """(image, label) as record.view gives them, without decoding."""
        return self._located(self._view, number, self.store.value(number))

    def pixels(self, number: int) -> tuple[np.ndarray, Label]:
        """(pixels, label): uint8 RGB, (H, W, 3), writable and the caller's own; and an int, or float32 (k,)."""
        image, label = self.view(number)
        return (image.copy() if image.ndim == 3 else self._located(_pixels, number, image, self._max_pixels)), label

    def labels(self) -> np.ndarray:
        """The label of each record: int64 (n,), or float32 (n, k) of vectors.

        Without an index, reading them reads the whole file once, with a warning.
        """
        if self.store.index is not None:
            return self.store.index.label.astype(np.float32 if self.label_size else np.int64)
        logger.warning("%s has no index, so all of its records are read once for their labels; dump_imagenet.py writes "
                       "an index", printable(self.store.path))
        labels = self.empty_labels(len(self.store))
        for number in range(len(labels)):
            labels[number] = self.view(number)[1]
        return labels

    def empty_labels(self, count: int) -> np.ndarray:
        """Memory for so many labels: int64 of shape (count,), or float32 of shape (count, k) of vectors."""
        return np.empty((count, self.label_size), np.float32) if self.label_size else np.empty(count, np.int64)

    def source_names(self, numbers: Any) -> list[str]:
        """The files that these records came from, relative to the folder that was dumped. numbers: integers, (n,)."""
        names = self.store.names(np.asarray(numbers, np.int64))
        if names is None:
            raise ValueError(f"{self.store.path} has no index, which has the names; dump_imagenet.py writes one")
        return [*map(os.fsdecode, names)]

    def read_crops(self, numbers: list[int], transform: Any, positions: np.ndarray, seed: int, epoch: int,
                   out: np.ndarray) -> Done:
        """Fills `out`, uint8 of shape (len(numbers), 3, h, w), by one of transforms.py's transforms."""
        values: Iterable[np.ndarray] = self.store.values(numbers)
        stated = None if transform.scaled_decode else self.store.sizes(numbers)
        sources: list[Source] = []
        encoded: np.ndarray | bool = True
        if stated is None:
            values = list(values)
            sources = list(map(self.source, numbers, values))
            sizes = np.array([source[:2] for source in sources], np.int64)
            encoded = np.array([source.image.ndim == 1 for source in sources])
        else:
            sizes = np.stack(stated, axis=1).astype(np.int64)
        try:
            wanted = Wanted.by(transform, sizes, encoded, positions, seed, epoch)
        except ValueError as error:
            raise RecordError(f"{self.store.path}: {error}") from error
        crops, labels, start = Crops(transform), self.empty_labels(len(numbers)), 0
        decode_s = resize_s = 0.0
        for some in _some(values):
            window = slice(start, start + len(some))
            made = crops.many(some, wanted[window], self._max_pixels, self._our_arrays, out[window])
            if made is not None:
                decode_s, resize_s = decode_s + made.decode_s, resize_s + made.resize_s
            rows = [] if made is not None and all(made.done) else wanted[window].rows()
            for i, value in enumerate(some, start):
                if made is None or not made.done[i - start]:
                    source = sources[i] if sources else self.source(numbers[i], value)
                    times = self._crop(numbers[i], source, crops, rows[i - start], out[i])
                    decode_s, resize_s = decode_s + times[0], resize_s + times[1]
                    labels[i] = source.label
                elif self.label_size or made.labels[i - start] is None:
                    labels[i] = self._located(self._view, numbers[i], value)[1]
                else:
                    labels[i] = made.labels[i - start]
            start = window.stop
        return Done(labels, decode_s, resize_s)

    def _crop(self, number: int, source: Source, crops: Crops, wanted: tuple[Any, ...], out: np.ndarray
              ) -> tuple[float, float]:
        """Fills `out` with the crop of one record, by a row of Wanted: seconds of decoding and of resizing."""
        (height, width), row, factor, seen, needed, bicubic = wanted
        if source.height != height or source.width != width:
            raise RecordError(f"{self.store.place(number)}: the index states {height} x {width} pixels, and it has "
                              f"{source.height} x {source.width}. Dump it again")
        started = time.perf_counter()
        part = self._located(crops.decode, number, source, needed, factor)
        decoded = time.perf_counter()
        crops.resize(part, row, seen, bicubic, out)
        return decoded - started, time.perf_counter() - decoded

    def source(self, number: int, value: np.ndarray) -> Source:
        return self._located(_source, number, self._view, value, self._max_pixels)

    def _located(self, fn: Callable[..., T], number: int, *args: Any) -> T:
        """fn(*args), whose ValueErrors become RecordErrors that name file and key."""
        try:
            return fn(*args)
        except ValueError as error:
            raise RecordError(f"{self.store.place(number)}: {error}") from error


def _some(values: Iterable[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """Records that are worked on at once, as lists."""
    some: list[np.ndarray] = []
    nbytes = 0
    for value in values:
        some.append(value)
        nbytes += value.nbytes
        if len(some) == AT_ONCE or nbytes >= _MOST_BYTES:
            yield some
            some, nbytes = [], 0
    if some:
        yield some


def _label_size(store: Store) -> int:
    if store.index is not None:
        return store.index.label_size
    try:
        return record.label_size(store.value(0))
    except ValueError:  # reading the record says what is wrong with it
        return 0


def _pixels(encoded: np.ndarray, max_pixels: int) -> np.ndarray:
    tiles = read_tiles(encoded)
    if tiles is not None:
        refuse_bomb(tiles.height, tiles.width, max_pixels)
        pixels = decode_whole(encoded, tiles)
        if pixels is not None:
            return pixels
    return _decode(encoded, max_pixels)


def _decode(encoded: np.ndarray, max_pixels: int) -> np.ndarray:
    """`decode`, after a look at the header."""
    size = jpeg_size(encoded)
    if size is not None:
        refuse_bomb(*size, max_pixels)
        return decode(encoded, most_pixels=math.prod(size))
    from dataflows.images.examine import examine  # Pillow, which readers of JPEGs need not import

    refuse_bomb(*examine(encoded.tobytes())[1:3], max_pixels)
    return decode(encoded, most_pixels=0)


def _source(view: Callable[[np.ndarray], tuple[np.ndarray, Label]], value: np.ndarray, max_pixels: int) -> Source:
    image, label = view(value)
    if image.ndim == 3:
        return Source(image.shape[0], image.shape[1], image, None, label)
    tiles = read_tiles(image)
    size = jpeg_size(image) if tiles is None else tiles[:2]
    if size is None:  # not a JPEG: only its decoder knows its size
        image = _decode(image, max_pixels)
        size = image.shape[:2]
    else:
        refuse_bomb(*size, max_pixels)
    return Source(*size, image, tiles, label)
