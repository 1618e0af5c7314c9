"""Draws a sample from an LMDB or from a folder of classes, and writes it as a small LMDB in any format.

A sample holds the content of files. Records are turned back into what their files may have been: tiled JPEGs lose their
tiles (but for a restart marker a row, 0.1 % of the bytes), and pixels become JPEGs of quality 90.
"""
import contextlib
import os
import statistics
import time
from typing import Any, NamedTuple, Sequence

import numpy as np

from dataflows.dump.prepare import Preparation
from dataflows.dump.space import in_pages
from dataflows.dump.split import write_lmdb
from dataflows.errors import UnsupportedJPEG
from dataflows.images.codecs import encode
from dataflows.jpeg.cut import MAGIC, read_tiles
from dataflows.jpeg.header import APP9, segments
from dataflows.jpeg.tile import tile
from dataflows.load.reader import RecordReader
from dataflows.sources.folders import class_folders, images_below, read_file
from dataflows.sources.layouts import find_layout
from dataflows.sources.names import EXTENSIONS
from dataflows.sources.source import ImageSource
from dataflows.storage.environment import data_file
from dataflows.storage.paged_file import PAGE
from dataflows.storage.paths import holdings
from dataflows.storage.store import Store
from dataflows.tensorpack import DataFlow
from dataflows.threads import map_ordered
from dataflows.tools.advise.disk import Piece

# By the name that predict.py knows them by. Not compared again: the sample is thrown away.
PREPARATIONS = {
    "jpeg --no-tiles": Preparation("jpeg", tiles=False, fix=True),
    "jpeg": Preparation("jpeg", compare_pixels=False, fix=True),
    "uint8": Preparation("uint8", fix=True),
    "uint8 --max-side 500": Preparation("uint8", max_side=500, fix=True),
    "uint8 --shorter-side 256": Preparation("uint8", shorter_side=256, fix=True),
    "uint8 --max-side 256": Preparation("uint8", max_side=256, fix=True),
}
_QUALITY = 90  # of the JPEGs that pixels become
_SIZES = 20_000  # files whose sizes are asked for
_READERS = 16  # files that are opened at once: what a disk or a server needs to be busy


class Image(NamedTuple):
    """One image of a sample."""

    name: str
    content: bytes
    label: int
    stored_bytes: int  # as the source has it; of an LMDB whole pages


class Sample(ImageSource, DataFlow):
    """Yields `[name, label]`, and gives each file's content: a source of the dump. `len` is exact.

    Labels are numbered anew, from 0, in their order: those of other writers' files may be any numbers.
    """

    def __init__(self, root: str, images: Sequence[Image]) -> None:
        super().__init__()
        self.root = root
        self.images = images
        self._contents = {image.name: image.content for image in images}
        numbers = {label: number for number, label in enumerate(sorted({image.label for image in images}))}
        self.classes = [str(number) for number in numbers.values()]
        self.pointers = [[image.name, numbers[image.label]] for image in images]

    def read(self, name: str) -> bytes:
        """The content of one file."""
        return self._contents[name]


class Records:
    """An LMDB as the source of a sample. Raises what Store raises for a file that is none."""

    unit = "pieces of it"

    def __init__(self, path: str) -> None:
        self._store = Store(path)
        self._reader = RecordReader(self._store)
        self.path, self.count = path, len(self._store)
        self._file_bytes = os.path.getsize(data_file(path))
        meta = {} if self._store.index is None else self._store.index.meta
        self.permuted = meta["seed"] is not None if "seed" in meta else None
        self._options = meta.get("options") or {}

    def stored(self, sample: Sample) -> str | None:
        """The name of the format that most of these records are in."""
        images = [self._reader.view(int(image.name))[0] for image in sample.images]
        if sum(image.ndim == 3 for image in images) > len(images) // 2:
            limits = " ".join(f"--{name.replace('_', '-')} {self._options[name]}"
                              for name in ("max_side", "shorter_side") if self._options.get(name))
            name = f"uint8 {limits}".strip()
            return name if name in PREPARATIONS else "uint8"
        tiled = sum(image.ndim == 1 and read_tiles(image) is not None for image in images)
        return "jpeg" if tiled > len(images) // 2 else "jpeg --no-tiles"

    def names(self, generator: np.random.Generator, most: int) -> list[Any]:
        """Of so many images, drawn at random."""
        numbers: list[Any] = generator.permutation(self.count)[:most].tolist()
        self._store.will_need(numbers)
        return numbers

    def read(self, number: int) -> Image:
        """One record as a file. Raises RecordError."""
        image, label = self._reader.view(number)
        return Image(str(number), _file(image), label, in_pages(len(self._store.value(number))))

    def mean_bytes(self, deadline: float) -> float:
        """Of the file, for each record."""
        return self._file_bytes / self.count

    def pieces(self, generator: np.random.Generator, nbytes: int, *, in_order: bool) -> list[Piece]:
        """Stretches of 1 MB or less, one after the other; or of a record's mean size, at random."""
        size = min(2**20, self._file_bytes, nbytes) if in_order else self._file_bytes // self.count
        size = max(PAGE, size // PAGE * PAGE)
        places = self._file_bytes // size
        count = min(places, max(1, nbytes // size))
        first = int(generator.integers(places - count + 1))
        chosen = range(first, first + count) if in_order else generator.permutation(places)[:count].tolist()
        return [Piece(data_file(self.path), place * size, size) for place in chosen]

    def close(self) -> None:
        """Lets go of the file."""
        self._store.close()


class Files:
    """A folder of class folders as the source of a sample; `count` is an estimate if listing all takes too long.

    `path` may be the folder of one split, or one that holds such a folder named train. Raises FileNotFoundError when
    there is none, and ValueError for other forms of ImageNet.
    """

    permuted: bool | None = None
    unit = "files of it"

    def __init__(self, path: str, deadline: float) -> None:
        self.path = _root(path)
        folders = class_folders(self.path)
        self._names: list[tuple[str, int]] = []
        listed = 0
        for label in np.random.default_rng(0).permutation(len(folders)).tolist():
            self._names += [(name, label) for name in images_below(self.path, folders[label])]
            listed += 1
            if time.monotonic() > deadline:
                break
        if not self._names:
            raise FileNotFoundError(_instead(self.path) or f"the class folders in {self.path} hold no image: none of "
                                    f"their files ends in {', '.join(EXTENSIONS)}")
        self._names.sort()
        self.count = len(self._names) * len(folders) // listed

    def stored(self, sample: Sample) -> str | None:
        """None: it is no LMDB."""
        return None

    def names(self, generator: np.random.Generator, most: int) -> list[Any]:
        """Of so many images, drawn at random."""
        return [self._names[i] for i in generator.permutation(len(self._names))[:most].tolist()]

    def read(self, name: tuple[str, int]) -> Image:
        """One file. Raises OSError."""
        content = read_file(os.path.join(self.path, name[0]))
        return Image(name[0], content, name[1], len(content))

    def mean_bytes(self, deadline: float) -> float:
        """Of a file: of all, or of as many at random as the system can tell of until `deadline`, by time.monotonic."""
        nbytes = []
        for name, _ in self.names(np.random.default_rng(2), _SIZES):
            nbytes.append(os.path.getsize(os.path.join(self.path, name)))
            if time.monotonic() > deadline:
                break
        return statistics.fmean(nbytes)

    def pieces(self, generator: np.random.Generator, nbytes: int, *, in_order: bool) -> list[Piece]:
        """Whole files, in the order of their names, in which most were written; or at random."""
        order = np.roll(np.arange(len(self._names)), int(generator.integers(len(self._names))))
        if not in_order:
            generator.shuffle(order)
        pieces = []
        for i in order.tolist():
            path = os.path.join(self.path, self._names[i][0])
            size = os.path.getsize(path)
            if size:
                pieces.append(Piece(path, 0, size))
                nbytes -= size
            if nbytes <= 0:
                break
        return pieces

    def close(self) -> None:
        """Nothing is held."""


def open_source(path: str, deadline: float) -> Records | Files:
    """What an LMDB or folder holds; listing a folder ends at `deadline`, by time.monotonic."""
    if os.path.isfile(data_file(path)):
        return Records(path)
    if os.path.isdir(path):
        return Files(path, deadline)
    raise FileNotFoundError(f"there is no {path}. Give an LMDB, or a folder with one sub-folder per class")


def draw(source: Records | Files, most: int, nbytes: int, deadline: float) -> Sample:
    """Up to `most` images at random, of `nbytes` together or little more; fewer if that takes until `deadline`."""
    images: list[Image] = []
    names = source.names(np.random.default_rng(0), most)
    with contextlib.closing(map_ordered(source.read, names, _READERS, _READERS)) as found:
        for image in found:
            images.append(image)
            nbytes -= len(image.content)
            if nbytes <= 0 or time.monotonic() > deadline:
                break
    return Sample(source.path, images)


def dump(sample: Sample, preparation: Preparation, path: str, num_threads: int) -> dict[str, int]:
    """Writes the sample as the dump would, with an index; bytes of each record, in whole pages, by the image's name.

    What cannot be stored is left out. Raises ValueError when nothing is left.
    """
    index = write_lmdb(sample, preparation, path, num_threads)
    names = (os.fsdecode(bytes(name)) for name in index.name)
    return dict(zip(names, map(in_pages, index.nbytes.tolist())))


def _file(image: np.ndarray) -> bytes:
    if image.ndim == 3:
        return encode(image, _QUALITY)
    return image.tobytes() if read_tiles(image) is None else without_tiles(image.tobytes())


def without_tiles(jpeg: bytes) -> bytes:
    """The same image as a JPEG that is decoded whole. One that cannot be tiled stays as it is."""
    try:
        rows = tile(jpeg, interval_px=2**16)
    except UnsupportedJPEG:
        return jpeg
    parts, at = [], 0
    for marker, start, end in segments(rows):
        if marker == APP9 and rows[start + 4:].startswith(MAGIC):
            parts.append(rows[at:start])
            at = end
    return b"".join([*parts, rows[at:]])


def _root(path: str) -> str:
    """The folder of class folders."""
    for split in ("train", os.path.basename(os.path.abspath(path))):
        try:
            layout = find_layout(path, split)
        except FileNotFoundError:
            continue
        if layout.kind != "class folders":
            raise ValueError(f"{layout.path} is of {layout.kind}, and advise takes class folders or an LMDB. Dump it, "
                             f"and give the LMDB")
        return layout.path
    raise FileNotFoundError(_instead(path) or f"{path} holds no class folders with images. Give an LMDB, a folder with "
                            f"one sub-folder per class, or one that holds such a folder named train")


def _instead(path: str) -> str:
    """What to say of a folder that has no images, but LMDBs; else nothing."""
    held = holdings(path)
    return f"{path} holds no class folders with images: it is a folder, {held}" if held else ""
