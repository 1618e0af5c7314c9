"""Images in a folder: in one sub-folder per class, as torchvision's ImageFolder reads it, or all in the folder itself.

    root/n01440764/n01440764_18.JPEG          root/ILSVRC2012_val_00000001.JPEG
    root/n01443537/...                        root/...

Classes are the sub-folders in sorted order; files are taken in sorted order, sub-folders of a class included, if their
extension is one of torchvision's.
"""
import os

import numpy as np

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


class FolderImages:
    """The images of one folder: those of its class folders, or, when `flat`, those in the folder itself.

    root: the folder's path.
    names: bytes array of shape (n,) of paths below root, in torchvision's order: CLASS/IMAGE, or IMAGE when `flat`.
    folders: how many images each class has, in sorted order of the classes; empty when `flat`.

    Raises FileNotFoundError when there are no images, or a class folder without any.
    """

    def __init__(self, root: str, *, flat: bool = False) -> None:
        self.root = root
        found = {"": _encoded(images_in(root))} if flat else {
            name: _encoded(_find_images(root, name)) for name in class_folders(root)}
        self.folders = {name: len(images) for name, images in found.items() if name}
        self.names = np.concatenate(list(found.values()))

    def read(self, name: str) -> bytes:
        """The content of one image. Raises OSError when it cannot be read."""
        with open(os.path.join(self.root, name), "rb") as file:
            return file.read()


def class_folders(root: str) -> list[str]:
    """The names of the sub-folders, sorted."""
    return sorted(entry.name for entry in os.scandir(root) if entry.is_dir())


def images_in(root: str) -> list[str]:
    """The names of the images in the folder itself, sorted."""
    return sorted(entry.name for entry in os.scandir(root)
                  if entry.name.lower().endswith(EXTENSIONS) and not entry.is_dir())


def _encoded(names: list[str]) -> np.ndarray:
    return np.array([os.fsencode(name) for name in names], np.bytes_)


def _find_images(root: str, folder: str) -> list[str]:
    found = [os.path.relpath(os.path.join(where, file), root)
             for where, _, files in sorted(os.walk(os.path.join(root, folder), followlinks=True))
             for file in sorted(files) if file.lower().endswith(EXTENSIONS)]
    if not found:
        raise FileNotFoundError(f"class folder {os.path.join(root, folder)} holds no image: every class needs at least "
                                f"one file ending in {', '.join(EXTENSIONS)}. Remove the folder or fill it")
    return found
