"""Shows records to a person: their class and file, the image, and what a transform makes of it."""
import os
from typing import Any, Iterable, Iterator, Mapping, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from dataflows.images.plan import CORNER, FLIP, OFFSET, RESIZED, SIDES
from dataflows.images.transforms import CenterCrop, RandomResizedCrop
from dataflows.label_vectors import Label
from dataflows.load.decode.reader import RecordReader
from dataflows.options import integer, one_of
from dataflows.storage.index_meta import IndexMeta
from dataflows.storage.store import Store
from dataflows.terminal import printable
from dataflows.tools.info.record_kind import record_kind

SIDE = 224  # pixels of a crop, and the height of the image beside it
WIDTH = 300  # pixels that the image beside it may have: a photo of 4 to 3
MOST = 300  # samples of a sheet: a picture of 30,000 rows
TRANSFORMS: dict[str, Any] = {"train": RandomResizedCrop(SIDE), "val": CenterCrop(SIDE)}
_NUMBERS = 4  # of a vector label
_DIMMED = 0.45  # what is left of the light outside of the box


class View(NamedTuple):
    """One record. All texts are printable."""

    key: str
    class_id: str  # its class's folder; "label 7" where there is no index; numbers of a vector
    class_name: str
    source: str  # name of the file that it was made of; "" where there is no index
    height: int  # pixels, as stored
    width: int
    before: Image.Image  # the whole image, scaled to at most (WIDTH, SIDE), with the box that the transform takes
    after: Image.Image | None  # (SIDE, SIDE): what a loader gives; None without a transform
    mirrored: bool

    @property
    def details(self) -> list[str]:
        """What tells this record from others: its class's folder, its key, its size."""
        named = [] if self.class_id == self.class_name else [self.class_id]
        return [*named, f"key {self.key}", f"{self.width} x {self.height}"]


class Views:
    """Looks at records of one file. Closes it at the end of a with statement.

    Pixels come the way that a loader's come: RecordReader.read_crops, with the transform's plan for epoch 0 and the
    record's number as its position, so that the crop of a record does not depend on which others are shown. Arrays
    of shape (3, H, W) are recognized by the first record. Errors are those of Store and RecordReader.
    """

    def __init__(self, path: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None) -> None:
        self._store = Store(path, storage_options=storage_options)
        self.path = self._store.path
        self.meta: IndexMeta | None = None
        if self._store.index is not None and self._store.index_path is not None:
            self.meta = self._store.index.checked_meta(self._store.index_path)
        self._reader = RecordReader(self._store, array_layout=record_kind(self._store, 0).array_layout)

    def __len__(self) -> int:
        return len(self._store)

    def __enter__(self) -> "Views":
        return self

    def __exit__(self, *_: object) -> None:
        self._store.close()

    def draw(self, count: int, seed: int) -> list[int]:
        """The numbers of `count` records, or of all if there are fewer: a function of the seed; ascending."""
        count, seed = integer("count", count, 1), integer("seed", seed, 0)
        if count > MOST:
            raise ValueError(f"count must be at most {MOST:,} images, which a person might look at, not {count:,}")
        drawn = np.random.default_rng([seed]).choice(len(self), min(count, len(self)), replace=False)
        return sorted(drawn.tolist())

    def __call__(self, numbers: Iterable[int], transform: str | None, seed: int = 0) -> Iterator[View]:
        """A View of each record, one after the other; `transform` is one of TRANSFORMS, or None."""
        if transform is not None:
            one_of("transform", transform, TRANSFORMS)
        numbers = list(numbers)
        self._store.will_need(numbers)
        return (self._view(number, TRANSFORMS.get(transform or ""), seed) for number in numbers)

    def _view(self, number: int, transform: Any, seed: int) -> View:
        pixels, label = self._reader.pixels(number)
        index, (height, width) = self._store.index, pixels.shape[:2]
        file = "" if index is None else os.fsdecode(bytes(index.name[number]))
        told = self._store.key(number).decode(errors="replace"), *_label_text(label, self.meta), file
        key, class_id, class_name, source = map(printable, told)
        view = View(key, class_id, class_name, source, height, width, scaled(pixels), after=None, mirrored=False)
        if transform is None:
            return view
        out = np.empty((1, SIDE, SIDE, 3), np.uint8)
        position = np.array([number])
        self._reader.read_crops([number], transform, position, seed, 0, out.transpose(0, 3, 1, 2))
        plan = transform.plan(np.array([height]), np.array([width]), position, seed, 0)
        box = window(plan[0], SIDE) / (height, width, height, width)
        return view._replace(before=with_box(view.before, box), after=Image.fromarray(out[0]),
                             mirrored=bool(plan[0, FLIP]))


def _label_text(label: Label, made: IndexMeta | None) -> tuple[str, str]:
    """(class's folder, what it is called); of a vector, twice the first of its numbers that are not 0."""
    if isinstance(label, int):
        return (f"label {label}",) * 2 if made is None else made.class_of(label)
    places = np.flatnonzero(label).tolist()
    names = [f"{place}" for place in range(len(label))] if made is None else made.classes
    text = ", ".join(f"{names[place]} {label[place]:.3g}" for place in places[:_NUMBERS]) or "all 0"
    return (text + ", ..." * (len(places) > _NUMBERS),) * 2


def window(row: np.ndarray, size: int) -> np.ndarray:
    """The part of the image that a plan's row shows in its window: top, left, height, width in pixels, float64 (4,)."""
    scale = row[SIDES] / row[RESIZED]
    return np.concatenate([row[CORNER] + row[OFFSET] * scale, size * scale])


def scaled(pixels: np.ndarray) -> Image.Image:
    """The image in at most (WIDTH, SIDE), with its proportions, but for those that would have a side below 1."""
    height, width = pixels.shape[:2]
    scale = min(WIDTH / width, SIDE / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)


def with_box(image: Image.Image, box: np.ndarray) -> Image.Image:
    """The image with all but a box dimmed, and a white frame around that; the box is in shares of the image's sides."""
    top, left, height, width = (box * np.tile(image.size[::-1], 2)).tolist()
    edges = round(left), round(top), max(round(left + width), round(left) + 1), max(round(top + height), round(top) + 1)
    dimmed = image.point(lambda level: level * _DIMMED)
    dimmed.paste(image.crop(edges), edges[:2])
    frame = ImageDraw.Draw(dimmed)
    inner = edges[0], edges[1], edges[2] - 1, edges[3] - 1
    if min(inner[2] - inner[0], inner[3] - inner[1]) >= 4:
        frame.rectangle(inner, outline="black", width=3)
        frame.rectangle((inner[0] + 1, inner[1] + 1, inner[2] - 1, inner[3] - 1), outline="white")
    return dimmed
