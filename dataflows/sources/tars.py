"""Images in a tar, or in the tars of a tar, read in place: nothing is unpacked.

One pass over the headers, front to back, finds each image's offset and size in the file; then any image is one read at
its offset, in any order and in any thread. So a train split can be dumped in its random permutation, which is paid for
once here and not in every epoch. A tar in a tar is a stretch of the same file.
"""
import os
import tarfile
import weakref
from collections import Counter
from typing import IO, Any, Iterator, NamedTuple, cast

import numpy as np

from dataflows.sources.names import COMPANION, EXTENSIONS, by_kind, is_companion, is_image, kind_left_out

_BLOCK = 512  # bytes, of which headers and contents take whole ones
_LONGEST_READ = 2**20  # of a header with its long names; what claims more is damaged
_COMPRESSED = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ\0": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}


class Member(NamedTuple):
    """A file in a tar, as a stretch of the tar."""

    name: str
    offset: int
    size: int
    is_file: bool = True  # else a link or a device


class TarImages:
    """The images of one tar.

    root: the tar's path.
    names: bytes array of shape (n,), in torchvision's order: CLASS/IMAGE where the tar holds one tar per class, as
        ILSVRC2012_img_train.tar does; else IMAGE, in sorted order.
    folders: how many images each class has, which may be none, in sorted order of the classes; empty unless it holds
        tars.
    left_out: how many other members there are, by kind (`names.py`).

    Takes about 60 bytes of memory an image. Pickles, by opening the tar anew, and may be read from any thread. Raises
    ValueError for a tar that is compressed, cut off, damaged, or laid out in another way, OSError when it cannot be
    read.
    """

    def __init__(self, path: str) -> None:
        self.root = path
        self._open()
        refuse_compressed(os.pread(self._fd, 8, 0), path)
        left_out: Counter[str] = Counter()
        classes = dict(sorted(_members_by_class(self._fd, path, left_out).items()))
        self.left_out = by_kind(left_out)
        self.folders = {name: len(columns.names) for name, columns in classes.items() if name}
        self.names, self._offsets, self._sizes = (np.concatenate(column) for column in zip(*classes.values()))
        self._by_name = np.argsort(self.names, kind="stable")
        _refuse_duplicates(self.names[self._by_name], path)

    def places(self) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
        """Where the images are: the tar; and of each which one it is in, its offset and size."""
        return [os.path.abspath(self.root)], np.zeros(len(self.names), np.int32), self._offsets, self._sizes

    def read(self, name: str) -> bytes:
        """The content of one image. Raises OSError when it cannot be read."""
        if not len(self.names):
            raise FileNotFoundError(f"{self.root} holds no {name}")
        wanted = np.array(os.fsencode(name), self.names.dtype)
        found = self._by_name[int(np.searchsorted(self.names, wanted, sorter=self._by_name)) % len(self.names)]
        if self.names[found] != os.fsencode(name):
            raise FileNotFoundError(f"{self.root} holds no {name}")
        size = int(self._sizes[found])
        content = os.pread(self._fd, size, int(self._offsets[found]))
        if len(content) != size:
            raise OSError(f"{self.root} ends within {name}; it was longer when it was listed")
        return content

    def _open(self) -> None:
        self._fd = os.open(self.root, os.O_RDONLY)
        weakref.finalize(self, os.close, self._fd)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_fd"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open()


def members(fd: int, start: int, size: int, where: str) -> Iterator[Member]:
    """The members, but folders, of the tar that is `size` bytes of a file from `start`, in its order.

    Links and devices that are named like an image or a tar are an error, as are such sparse files, for their content is
    not one stretch of the tar. `where` names the tar in errors.
    """
    for member in _headers(fd, start, size, where):
        name = os.path.normpath(member.name)
        wanted = name.lower().endswith((*EXTENSIONS, ".tar"))
        if wanted and not member.isdir() and (not member.isreg() or member.issparse()):
            kind = "sparse file" if member.issparse() else "link or a device"
            raise ValueError(f"{where}: {name} is a {kind}, which has no content of its own in one place. Unpack the "
                             f"tar, and give the folder")
        if not member.isdir():
            yield Member(name, start + member.offset_data, member.size, member.isreg())


def _headers(fd: int, start: int, size: int, where: str) -> Iterator[tarfile.TarInfo]:
    try:
        tar: Any  # typeshed does not know its members
        with tarfile.open(fileobj=cast(IO[bytes], _Stretch(fd, start, size)), mode="r:") as tar:
            is_empty = tar.firstmember is None  # Python 3.10 would then look for the next one before the start
            while not is_empty and (member := tar.next()) is not None:
                tar.members.clear()  # it would keep them all
                if member.size < 0:
                    raise ValueError(f"{member.name} has a negative size")
                yield member
            if not _is_end(fd, start + tar.offset, start + size):
                raise ValueError(f"at byte {start + tar.offset:,} there is neither a member nor the end mark of a tar")
    except OSError:
        raise
    except Exception as error:  # of a damaged header, tarfile raises several kinds
        raise ValueError(f"{where} is not a whole tar ({error}). It was cut off or damaged: compare its size and "
                         f"checksum with the original's, and copy it again") from error


def _is_end(fd: int, position: int, end: int) -> bool:
    """Whether nothing but zeros follows, and a block of them at least: tarfile stops at damage as at a tar's end."""
    if end - position < _BLOCK:
        return False
    return all(not any(os.pread(fd, min(_LONGEST_READ, end - at), at)) for at in range(position, end, _LONGEST_READ))


class _Stretch:
    """What tarfile needs of a file, over a part of one."""

    def __init__(self, fd: int, start: int, size: int) -> None:
        self._fd, self._start, self._size, self._position = fd, start, size, 0

    def read(self, size: int) -> bytes:
        wanted = max(0, min(size, self._size - self._position, _LONGEST_READ))
        content = os.pread(self._fd, wanted, self._start + self._position)
        self._position += len(content)
        return content

    def seek(self, position: int) -> None:
        self._position = position

    def tell(self) -> int:
        return self._position


def _members_by_class(fd: int, path: str, left_out: Counter[str]) -> dict[str, "_Columns"]:
    """The images of each class, or those of class "" when they are in no tar of a class; other members are counted."""
    classes: dict[str, _Columns] = {}
    flat: list[Member] = []
    for member in members(fd, 0, os.fstat(fd).st_size, path):
        if member.name.lower().endswith(".tar") and not _is_companion(fd, member):
            folder, where = os.path.basename(member.name)[:-len(".tar")], f"{path}: {member.name}"
            inner = members(fd, member.offset, member.size, where)
            images = [image for image in inner if _is_wanted(fd, image, left_out)]
            if not folder or folder in classes:
                raise ValueError(f"{where} {'comes twice' if folder else 'has no name'}: every class needs one tar, "
                                 f"with the name of the class")
            classes[folder] = _columns(images, f"{folder}/")
        elif _is_wanted(fd, member, left_out):
            flat.append(member)
    if not flat and not classes:
        raise ValueError(f"{path} holds neither images nor tars of images")
    in_folders = [member.name for member in flat if os.sep in member.name]
    if in_folders or flat and classes:
        raise ValueError(f"{path} holds {(in_folders or [flat[0].name])[0]}, and {len(classes):,} tars of classes: it "
                         f"must have images only, outside of folders, or one tar per class only. Unpack it, and give "
                         f"the folder")
    return classes or {"": _columns(flat, "")}


class _Columns(NamedTuple):
    """The images of a class as arrays: names in torchvision's order, offsets and sizes."""

    names: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray


def _columns(images: list[Member], prefix: str) -> _Columns:
    ordered = sorted(images, key=lambda image: os.path.split(image.name))
    return _Columns(np.array([os.fsencode(prefix + image.name) for image in ordered], np.bytes_),
                    np.array([image.offset for image in ordered], np.int64),
                    np.array([image.size for image in ordered], np.int64))


def _is_wanted(fd: int, member: Member, left_out: Counter[str]) -> bool:
    """Whether a member is an image; others are counted."""
    if not is_image(member.name):
        left_out[kind_left_out(member.name)] += 1
    elif _is_companion(fd, member):
        left_out[COMPANION] += 1
    else:
        return True
    return False


def _is_companion(fd: int, member: Member) -> bool:
    return member.is_file and is_companion(member.name, lambda: os.pread(fd, min(4, member.size), member.offset))


def refuse_compressed(start: bytes, path: str) -> None:
    """Raises ValueError for a tar whose first bytes are those of a compressed file."""
    for magic, program in _COMPRESSED.items():
        if start.startswith(magic):
            raise ValueError(f"{path} is compressed, and nothing in it can be found without reading all that is before "
                             f"it. Uncompress it first: {program} {path}")


def _refuse_duplicates(names: np.ndarray, path: str) -> None:
    same = np.flatnonzero(names[1:] == names[:-1])
    if len(same):
        raise ValueError(f"{path} holds {os.fsdecode(names[same[0]])} more than once. Unpack it, which keeps the last "
                         f"of each name, and give the folder")
