"""A split of ImageNet in any of its forms (`layouts.py`), or of any folder of classes, as a DataFlow of its images."""
import os
from typing import Any, Iterator, Sequence

import numpy as np

from dataflows.sources import ground_truth
from dataflows.sources.folders import FolderImages, Unreadable
from dataflows.sources.layouts import Layout, find_layout
from dataflows.sources.names import EXTENSIONS
from dataflows.sources.tars import TarImages
from dataflows.tensorpack import DataFlow

__all__ = ["EXTENSIONS", "ImageNetFiles"]


class ImageNetFiles(DataFlow):
    """The images of one split: pointers to them, and the way to read one.

    Yields `[name, label]`: name is the file's path below `root`, the split's folder or tar; label its class number.
    The order is that of torchvision's ImageFolder, whatever the layout, or a permutation of it that is a function of
    `seed` alone when `seed` is not None. `len` is exact.

    pointers: all of them, as a sequence.
    classes: wnids, or names of class folders, by class number: sorted.
    class_names: what they are called, by class number; the same as classes where no file beside the images says it.
    layout: one line that says what was found, with paths relative to the source.
    left_out: how many files there are that are no images by their names, by kind (`names.py`).
    unreadable: folders and links whose files nobody can tell; empty unless `tolerant`.
    empty: paths of the folders, or members of the tar, of classes without an image; empty unless `tolerant`.

    Pickles; `read` may be called from any thread. Raises FileNotFoundError when the split, or the ground truth that
    it needs, is missing; ValueError when the source holds the split in several forms, or a file of it is damaged or
    does not fit the others; and, unless `tolerant`, what `refuse` raises.
    """

    def __init__(self, source: str | os.PathLike[str], split: str, *, seed: int | None = None,
                 tolerant: bool = False) -> None:
        source = os.fspath(source)
        found = find_layout(source, split)
        near = ground_truth.folders_near(found.path)
        self._images = (TarImages(found.path) if found.kind == "tar" else
                        FolderImages(found.path, flat=found.kind == "flat images"))
        self.classes, labels, truths = _classify(self._images, near)
        called, names_file = ground_truth.class_names(near)
        self.class_names = [called.get(name, name) for name in self.classes]
        self.root = self._images.root
        self.left_out = self._images.left_out
        self.unreadable: list[Unreadable] = getattr(self._images, "unreadable", [])
        self.empty = [os.path.join(self.root, name) if found.kind != "tar" else f"{self.root}: {name}.tar"
                      for name, count in self._images.folders.items() if not count]
        if not tolerant:
            self.refuse()
        self.layout = _describe(found, self._images, source, truths, called, names_file)
        order = np.argsort(labels, kind="stable")
        if seed is not None:
            order = order[np.random.default_rng(seed).permutation(len(order))]
        self.pointers = _Pointers(self._images.names, labels, order)

    def refuse(self, *, unreadable: bool = True) -> None:
        """Raises for what would leave images out, naming all of it: FileNotFoundError for classes without any, and
        OSError for folders and links that cannot be looked into, unless `unreadable` is False.
        """
        told = []
        if unreadable and self.unreadable:
            named = "; ".join(f"{os.path.join(self.root, name)}: {reason}" for name, reason in self.unreadable)
            told.append(f"{len(self.unreadable):,} folders or links may hold more images, and cannot be looked into: "
                        f"{named}. Make them readable or remove them; a dump leaves them out with on_error='skip'")
        if self.empty:
            one = len(self.empty) == 1
            told.append(f"{'class' if one else 'classes'} {', '.join(self.empty)} {'holds' if one else 'hold'} no "
                        f"image: every class needs at least one file ending in {', '.join(EXTENSIONS)}. Remove or fill "
                        f"{'it' if one else 'them'}")
        if told:
            raise (OSError if unreadable and self.unreadable else FileNotFoundError)(". ".join(told))

    def __len__(self) -> int:
        return len(self.pointers)

    def __iter__(self) -> Iterator[list[Any]]:
        return iter(self.pointers)

    def read(self, name: str) -> bytes:
        """The content of one file. Raises OSError when it cannot be read."""
        return self._images.read(name)


class _Pointers(Sequence[list[Any]]):
    """`[name, label]` lists, made when they are asked for: a list of 1.28 million takes 200 MB."""

    def __init__(self, names: np.ndarray, labels: np.ndarray, order: np.ndarray) -> None:
        self._names, self._labels, self._order = names, labels, order

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        place = self._order[number]
        return [os.fsdecode(self._names[place]), int(self._labels[place])]


def _classify(images: FolderImages | TarImages, near: list[str]) -> tuple[list[str], np.ndarray, list[str]]:
    """Class names, the class number of each image, and the files that say so where folders do not."""
    if images.folders:
        counts = list(images.folders.values())
        return list(images.folders), np.repeat(np.arange(len(counts), dtype=np.int32), counts), []
    try:
        wnids, truths = ground_truth.labels_of([os.fsdecode(name) for name in images.names], near)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{images.root} holds no class folders, and {error}. Put one there, or sort its images "
                                f"into such folders first") from error
    except ValueError as error:
        raise ValueError(f"{images.root}: {error}") from error
    classes, labels = np.unique(wnids, return_inverse=True)
    return classes.tolist(), labels.astype(np.int32), truths


def _describe(found: Layout, images: FolderImages | TarImages, source: str, truths: list[str],
              called: dict[str, str], names_file: str | None) -> str:
    # Relative, so that the index, which keeps it, tells nothing of the machine.
    start = source if os.path.isdir(source) else os.path.dirname(os.path.abspath(source))
    relative = [os.path.relpath(path, start) for path in (found.path, *truths)]
    kind = ("tars of classes" if images.folders else "flat images") if found.kind == "tar" else found.kind
    labelled = f", labels of {' and '.join(relative[1:])}" if truths else ""
    if names_file is None:
        return f"{kind} in {relative[0]}{labelled}"
    missing = "" if called else " need scipy: pip install 'imagenet-lmdb[devkit]'"
    return f"{kind} in {relative[0]}{labelled}, class names of {os.path.relpath(names_file, start)}{missing}"
