"""Where images come from: a folder per class, as torchvision's ImageFolder reads it.

    source/train/n01440764/n01440764_18.JPEG
    source/train/n01443537/...
    source/val/n01440764/...

Classes are the split's sub-folders in sorted order, numbered from 0; files are taken in sorted order, sub-folders of a
class included, if their extension is one of torchvision's.
"""
import os
from typing import Any, Iterator

import numpy as np

from dataflows.quiet import DataFlow

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


class ImageNetFiles(DataFlow):
    """The image files of one split: pointers to them, and the way to read one.

    Yields `[name, label]`: name is the file's path relative to the split's folder, label its class number. The order
    is that of torchvision's ImageFolder, or a permutation of it that is a function of `seed` alone when `seed` is not
    None. `len` is exact. Raises FileNotFoundError when the split's folder is missing, holds no class folders, or when
    a class folder holds no image.
    """

    def __init__(self, source: str | os.PathLike[str], split: str, *, seed: int | None = None) -> None:
        self.root = os.path.join(os.fspath(source), split)
        self.classes = _find_classes(self.root)
        pointers = [[name, label] for label, folder in enumerate(self.classes)
                    for name in _find_images(self.root, folder)]
        order = range(len(pointers)) if seed is None else np.random.default_rng(seed).permutation(len(pointers))
        self.pointers = [pointers[i] for i in order]

    def __len__(self) -> int:
        return len(self.pointers)

    def __iter__(self) -> Iterator[list[Any]]:
        return iter(self.pointers)

    def read(self, name: str) -> bytes:
        """The content of one file. Raises OSError when it cannot be read."""
        with open(os.path.join(self.root, name), "rb") as file:
            return file.read()


def _find_classes(root: str) -> list[str]:
    rule = "A split is a folder with one sub-folder per class: SOURCE/SPLIT/CLASS/image.JPEG"
    if not os.path.isdir(root):
        raise FileNotFoundError(f"there is no folder {root}. {rule}; check --source and --split")
    classes = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
    if not classes:
        raise FileNotFoundError(f"{root} holds no class folders. {rule}; sort its images into such folders first")
    return classes


def _find_images(root: str, folder: str) -> list[str]:
    found = [os.path.relpath(os.path.join(where, file), root)
             for where, _, files in sorted(os.walk(os.path.join(root, folder), followlinks=True))
             for file in sorted(files) if file.lower().endswith(EXTENSIONS)]
    if not found:
        raise FileNotFoundError(f"class folder {os.path.join(root, folder)} holds no image: every class needs at least "
                                f"one file ending in {', '.join(EXTENSIONS)}. Remove the folder or fill it")
    return found
