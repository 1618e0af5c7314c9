"""A split of ImageNet in any of its forms (`layouts.py`), or of any folder of classes, as a DataFlow of its images."""
import os
from typing import Any, Sequence

import numpy as np

from dataflows.sources import ground_truth
from dataflows.sources.folders import FolderImages
from dataflows.sources.layouts import Layout, find_layout
from dataflows.sources.names import EXTENSIONS
from dataflows.sources.source import FilePointers, ImageSource, Listing, permutation
from dataflows.sources.tars import TarImages
from dataflows.tensorpack import DataFlow

__all__ = ["EXTENSIONS", "ImageNetFiles"]


class ImageNetFiles(ImageSource, DataFlow):
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
        super().__init__()
        source = os.fspath(source)
        found = find_layout(source, split)
        near = ground_truth.folders_near(found.path)
        self._images = (TarImages(found.path) if found.kind == "tar" else
                        FolderImages(found.path, flat=found.kind == "flat images"))
        classes, labels, truths = _classify(self._images, near)
        called, names_file = ground_truth.class_names(near)
        self.classes: list[str] = classes
        self.class_names = [called.get(name, name) for name in classes]
        self.root = self._images.root
        self.left_out = self._images.left_out
        self.unreadable = getattr(self._images, "unreadable", [])
        self.empty = [os.path.join(self.root, name) if found.kind != "tar" else f"{self.root}: {name}.tar"
                      for name, count in self._images.folders.items() if not count]
        if not tolerant:
            self.refuse()
        self.layout = _describe(found, self._images, source, truths, called, names_file)
        self.seed = seed
        order = np.argsort(labels, kind="stable")[permutation(len(labels), seed)]
        self._pointers = FilePointers(self._images.names, labels, order)
        self.pointers: Sequence[list[Any]] = self._pointers

    def listing(self) -> Listing:
        """All pointers as columns, and where the images are."""
        return self._pointers.columns(*self._images.places())

    def read(self, name: str) -> bytes:
        """The content of one file. Raises OSError when it cannot be read."""
        return self._images.read(name)


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
