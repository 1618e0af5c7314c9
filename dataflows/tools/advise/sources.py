"""What `advise` measures: an LMDB, here or at a URL, or a folder of class folders, and a sample of its images.

Records of an LMDB become what their files may have been: tiled JPEGs lose their tiles, and pixels become JPEGs of
quality 90.
"""
import contextlib
import itertools
import os
import statistics
from collections import Counter
from typing import Any, Mapping

import numpy as np

from dataflows.dump.space import in_pages
from dataflows.images.codecs import encode
from dataflows.jpeg.untile import untile
from dataflows.load.decode.reader import RecordReader
from dataflows.sources.folders import class_folders, images_below, read_file
from dataflows.sources.layouts import find_layout
from dataflows.sources.names import EXTENSIONS
from dataflows.storage.environment import data_file
from dataflows.storage.paged_file import PAGE, StoredBytes, open_file
from dataflows.storage.paths import holdings
from dataflows.storage.remote.options import RemoteOptions
from dataflows.storage.remote.remote_file import RemoteFile
from dataflows.storage.remote.urls import is_url
from dataflows.storage.store import Store
from dataflows.threads import map_ordered
from dataflows.tools.advise.disk import Piece
from dataflows.tools.advise.limits import until, up_to
from dataflows.tools.advise.sample import PREPARATIONS, Image, Sample
from dataflows.tools.info.record_kind import record_kind

_QUALITY = 90  # of the JPEGs that pixels become
_SIZES = 20_000  # files whose sizes are asked for
_READERS = 16  # files that are opened at once: what a disk or a server needs to be busy
_STRETCH = 2**18  # bytes that are read at once, in order
_STORED = {"pixels": "uint8", "tiled JPEG": "jpeg"}  # the format of records of a kind; of all others "jpeg --no-tiles"


class Records:
    """An LMDB as the source of a sample. Raises what Store raises for a file that is none."""

    def __init__(self, path: str, storage_options: Mapping[str, Any] | None = None) -> None:
        self._store = Store(path, storage_options=storage_options)
        self._remote = RemoteOptions(storage_options)
        self._reader = RecordReader(self._store)
        self.path, self.count = path, len(self._store)
        self._files = self._store.files
        self.shards = len(self._files)
        self._ends = np.cumsum(_sizes(self._store))  # of each file, were they one
        self._file_bytes = int(self._ends[-1])
        index = self._store.index
        self.permuted = None if index is None else index.meta.shuffled
        self._options = {} if index is None else index.meta.options or {}

    def stored(self, sample: Sample) -> str | None:
        """The name of the format that most of these records are in; without its limit of sizes if that is no usual one.
        """
        self._store.will_need([int(image.name) for image in sample.images])
        kinds = (record_kind(self._store, int(image.name)).kind for image in sample.images)
        [(stored, _)] = Counter(_STORED.get(kind, "jpeg --no-tiles") for kind in kinds).most_common(1)
        limits = [f"--{name.replace('_', '-')} {self._options[name]}" for name in ("max_side", "shorter_side")
                  if self._options.get(name)]
        name = " ".join([stored, *limits])
        return name if name in PREPARATIONS else stored

    def names(self, generator: np.random.Generator, most: int) -> list[Any]:
        """Of so many images, drawn at random."""
        numbers: list[Any] = generator.permutation(self.count)[:most].tolist()
        self._store.will_need(numbers)
        return numbers

    def read(self, name: int) -> Image:
        """One record as a file. Raises RecordError."""
        image, label = self._reader.view(name)
        content = encode(image, _QUALITY) if image.ndim == 3 else image.tobytes()
        label = label if isinstance(label, int) else 0  # of vectors, whose numbers cost no time
        return Image(str(name), untile(content), label, in_pages(len(self._store.value(name))))

    def mean_bytes(self, deadline: float) -> float:
        """Of the file, for each record."""
        return self._file_bytes / self.count

    def pieces(self, generator: np.random.Generator, nbytes: int, *, in_order: bool) -> list[Piece]:
        """Stretches of the file, one after the other; or of a record's mean size, at random."""
        size = min(_STRETCH, self._file_bytes, nbytes) if in_order else self._file_bytes // self.count
        size = max(PAGE, size // PAGE * PAGE)
        places = self._file_bytes // size
        count = min(places, max(1, nbytes // size))
        first = int(generator.integers(places - count + 1))
        chosen = range(first, first + count) if in_order else generator.permutation(places)[:count].tolist()
        return [self._piece(place * size, size) for place in chosen]

    def _piece(self, offset: int, nbytes: int) -> Piece:
        """A stretch of the files, were they one: it lies in the file where it starts, and ends there at the latest."""
        number = int(np.searchsorted(self._ends, offset, side="right"))
        start = int(self._ends[number - 1]) if number else 0
        own = int(self._ends[number]) - start
        return Piece(self._files[number], max(0, min(offset - start, own - nbytes)), min(nbytes, own))

    def opened(self, path: str) -> StoredBytes:
        """One of the files that `pieces` names."""
        return RemoteFile(path, self._remote) if is_url(path) else open_file(path)

    def close(self) -> None:
        """Lets go of the file."""
        self._store.close()


class Files:
    """A folder of class folders as the source of a sample; `count` is an estimate if listing all takes too long.

    `path` may be the folder of one split, or one that holds such a folder named train. Raises FileNotFoundError when
    there is none, and ValueError for other forms of ImageNet.
    """

    permuted: bool | None = None
    shards = 0
    opened = staticmethod(open_file)

    def __init__(self, path: str, deadline: float) -> None:
        self.path = _class_folder_root(path)
        folders = class_folders(self.path)
        labels = np.random.default_rng(0).permutation(len(folders)).tolist()
        listed = [[(name, label) for name in images_below(self.path, folders[label])]
                  for label in until(deadline, labels)]
        self._names = sorted(itertools.chain.from_iterable(listed))
        if not self._names:
            raise FileNotFoundError(_instead(self.path) or f"the class folders in {self.path} hold no image: none of "
                                    f"their files ends in {', '.join(EXTENSIONS)}")
        self.count = len(self._names) * len(folders) // len(listed)

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
        return statistics.fmean(self._piece(name).nbytes
                                for name, _ in until(deadline, self.names(np.random.default_rng(2), _SIZES)))

    def pieces(self, generator: np.random.Generator, nbytes: int, *, in_order: bool) -> list[Piece]:
        """Whole files, in the order of their names, in which most were written; or at random."""
        order = np.roll(np.arange(len(self._names)), int(generator.integers(len(self._names))))
        if not in_order:
            generator.shuffle(order)
        pieces = (self._piece(self._names[i][0]) for i in order.tolist())
        return list(up_to(nbytes, (piece for piece in pieces if piece.nbytes), lambda piece: piece.nbytes))

    def _piece(self, name: str) -> Piece:
        path = os.path.join(self.path, name)
        return Piece(path, 0, os.path.getsize(path))

    def close(self) -> None:
        """Nothing is held."""


def _sizes(store: Store) -> list[int]:
    """Of each file, in bytes; of those at URLs, to the end of their last record."""
    if not store.private:
        return [*map(os.path.getsize, store.files)]
    assert store.index is not None  # nothing is read at a URL without one
    sizes: list[int] = np.maximum.reduceat(store.index.offset + store.index.nbytes, store.starts).tolist()
    return sizes


def open_source(path: str, deadline: float, storage_options: Mapping[str, Any] | None = None) -> Records | Files:
    """What an LMDB or folder holds; listing a folder ends at `deadline`, by time.monotonic."""
    if is_url(path) or os.path.isfile(data_file(path)):
        return Records(path, storage_options)
    if os.path.isdir(path):
        return Files(path, deadline)
    raise FileNotFoundError(f"there is no {path}. Give an LMDB, or a folder with one sub-folder per class")


def draw(source: Records | Files, most: int, nbytes: int, deadline: float) -> Sample:
    """Up to `most` images at random, of `nbytes` together or little more; fewer if that takes until `deadline`."""
    names = source.names(np.random.default_rng(0), most)
    with contextlib.closing(map_ordered(source.read, names, _READERS, _READERS)) as found:
        return Sample(source.path, [*up_to(nbytes, until(deadline, found), lambda image: len(image.content))])


def _class_folder_root(path: str) -> str:
    """The folder of class folders."""
    for split in ("train", os.path.basename(os.path.abspath(path))):
        with contextlib.suppress(FileNotFoundError):
            layout = find_layout(path, split)
            if layout.kind == "class folders":
                return layout.path
            raise ValueError(f"{layout.path} is of {layout.kind}, and advise takes class folders or an LMDB. Dump it, "
                             f"and give the LMDB")
    raise FileNotFoundError(_instead(path) or f"{path} holds no class folders with images. Give an LMDB, a folder with "
                            f"one sub-folder per class, or one that holds such a folder named train")


def _instead(path: str) -> str:
    """What to say of a folder that has no images, but LMDBs; else nothing."""
    held = holdings(path)
    return f"{path} holds no class folders with images: it is a folder, {held}" if held else ""
