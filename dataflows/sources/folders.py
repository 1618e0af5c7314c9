"""Images in folders: one sub-folder per class, as torchvision's ImageFolder reads it, or all in one folder.

    root/n01440764/n01440764_18.JPEG          root/ILSVRC2012_val_00000001.JPEG
    root/n01443537/...                        root/...

Classes are the sub-folders in sorted order; files are taken in sorted order, sub-folders of a class included, if their
extension is one of torchvision's. All else is counted by kind (`names.py`), and what cannot be looked into is named:
no file is passed over without a word.
"""
import errno
import functools
import os
import stat
from collections import Counter
from typing import NamedTuple

import numpy as np

from dataflows.sources.names import BESIDE, COMPANION, MACOS_FOLDER, by_kind, is_companion, is_image, kind_left_out

_KINDS = {stat.S_IFIFO: "named pipe", stat.S_IFSOCK: "socket", stat.S_IFCHR: "device", stat.S_IFBLK: "device",
          stat.S_IFDIR: "folder"}


class Unreadable(NamedTuple):
    """A folder below the root, or a link that may be one to a folder, whose files nobody can tell."""

    name: str  # its path below the root
    reason: str


class FolderImages:
    """The images of one folder: those of its class folders, or, when `flat`, those in the folder itself.

    root: the folder's path.
    names: bytes array of shape (n,) of paths below root, in torchvision's order: CLASS/IMAGE, or IMAGE when `flat`.
    folders: how many images each class has, in sorted order of the classes; empty when `flat`. A class may have none.
    left_out: how many other files there are, by kind.
    unreadable: what may hold more images.

    Raises OSError when the folder itself cannot be listed.
    """

    def __init__(self, root: str, *, flat: bool = False) -> None:
        self.root = root
        walk = _Walk(root)
        listed = _list(root)
        classes = class_folders(root)
        walk.unreadable += listed.unreadable
        found = {} if flat else {name: _encoded(walk.images(name)) for name in classes}
        beside = walk.sorted_out("", listed.files)
        for name in listed.folders:
            if name not in classes:
                walk.images(name)  # for its companions
        if flat:
            found[""] = _encoded(beside)
        elif beside:
            walk.left_out[BESIDE] += len(beside)
        self.folders = {name: len(images) for name, images in found.items() if name}
        self.names = np.concatenate([*found.values(), _encoded([])])
        self.left_out = by_kind(walk.left_out)
        self.unreadable = sorted(walk.unreadable)

    def places(self) -> tuple[()]:
        """Where images are in tars: nowhere."""
        return ()

    def read(self, name: str) -> bytes:
        """The content of one image. Raises OSError when it cannot be read, or is no file."""
        return read_file(os.path.join(self.root, name))


def read_file(path: str, size: int = -1) -> bytes:
    """The content of a file, or its first `size` bytes. Raises OSError, also for a pipe or device: it might wait."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise OSError(errno.ENXIO, "it is a socket, not a file", path) from error
        raise
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode):
        os.close(fd)
        raise OSError(errno.ENXIO, f"it is a {_KINDS.get(stat.S_IFMT(mode), 'thing')}, not a file", path)
    with open(fd, "rb") as file:
        return file.read(size)


def class_folders(root: str) -> list[str]:
    """The names of the sub-folders, sorted, without one that holds only macOS's companions."""
    return [name for name in _list(root).folders if name != MACOS_FOLDER or images_below(root, name)]


def images_in(root: str) -> list[str]:
    """The names of the images in the folder itself, sorted."""
    return _Walk(root).sorted_out("", _list(root).files)


def images_below(root: str, folder: str) -> list[str]:
    """The paths below root of the images in a folder of it and in all below, in torchvision's order."""
    return _Walk(root).images(folder)


class Tree(NamedTuple):
    """All images in a folder and in those below it."""

    names: list[str]  # their paths below it, in torchvision's order
    left_out: Counter[str]  # how many other files there are, by kind
    unreadable: list[Unreadable]


def tree(root: str) -> Tree:
    """All images below a folder, classes or not. Raises OSError when the folder itself cannot be listed."""
    _list(root)
    walk = _Walk(root)
    return Tree(walk.images(""), walk.left_out, walk.unreadable)


class _Walk:
    """Looks for images below a root, and keeps what else it came across."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._at_root = _identity(root)
        self.left_out: Counter[str] = Counter()
        self.unreadable: list[Unreadable] = []

    def images(self, folder: str) -> list[str]:
        found: list[tuple[str, list[str]]] = []
        pending: list[tuple[str, tuple[tuple[int, int], ...]]] = [(folder, (self._at_root,) if folder else ())]
        while pending:
            where, above = pending.pop()
            path = os.path.join(self._root, where)
            try:
                here = _identity(path)
                if here in above:
                    raise OSError(errno.ELOOP, "it leads back to a folder that holds it")
                listed = _list(path)
            except OSError as error:
                self.unreadable.append(Unreadable(where, f"it cannot be listed: {error.strerror}"))
                continue
            found.append((where, self.sorted_out(where, listed.files)))
            pending += [(os.path.join(where, name), (*above, here)) for name in listed.folders]
            self.unreadable += [Unreadable(os.path.join(where, name), reason) for name, reason in listed.unreadable]
        return [os.path.join(where, name) for where, names in sorted(found) for name in names]

    def sorted_out(self, where: str, files: list[str]) -> list[str]:
        """Those of the files in a folder that are images; the others are counted."""
        images = []
        for name in files:
            if not is_image(name):
                self.left_out[kind_left_out(name)] += 1
            elif is_companion(name, functools.partial(_start, os.path.join(self._root, where, name))):
                self.left_out[COMPANION] += 1
            else:
                images.append(name)
        return images


class _Listed(NamedTuple):
    """What is in one folder, sorted. Names are those in it."""

    folders: list[str]
    files: list[str]
    unreadable: list[Unreadable]


def _list(path: str) -> _Listed:
    """Raises OSError when the folder cannot be listed."""
    listed = _Listed([], [], [])
    with os.scandir(path) as entries:
        for entry in entries:
            try:
                (listed.folders if _is_folder(entry) else listed.files).append(entry.name)
            except OSError as error:
                listed.unreadable.append(Unreadable(entry.name, _why(entry, error)))
    return _Listed(sorted(listed.folders), sorted(listed.files), sorted(listed.unreadable))


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    """Raises OSError where nobody can tell. What is called like an image is one, and reading it will say what is amiss.
    """
    try:
        if entry.is_dir():
            return True
        if entry.is_symlink():
            os.stat(entry.path)
    except OSError:
        if not is_image(entry.name):
            raise
    return False


def _why(entry: "os.DirEntry[str]", error: OSError) -> str:
    if error.errno == errno.ENOENT and os.path.islink(entry.path):
        return f"it is a link to {os.readlink(entry.path)}, which is not there"
    return f"it cannot be looked at: {error.strerror}"


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _start(path: str) -> bytes:
    try:
        return read_file(path, 4)
    except OSError:  # which reading all of it will name
        return b""


def _encoded(names: list[str]) -> np.ndarray:
    return np.array([os.fsencode(name) for name in names], np.bytes_)
