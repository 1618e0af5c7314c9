"""What every source of images tells, and what the dump asks of it.

A pointer is a list that starts with the image's name. `ImageSource` is that of files, `[name, label]`; samples.py has
pointers that hold their image.
"""
import copy
import os
from typing import Any, Iterator, NamedTuple, Sequence

import numpy as np

from dataflows.sources.folders import Unreadable
from dataflows.sources.names import EXTENSIONS
from dataflows.terminal import plural

Loaded = tuple[Any, Any]  # an image as its encoded bytes, or as pixels, uint8 RGB (H, W, 3) or gray (H, W); and a Label


class Listing(NamedTuple):
    """The images of a split, in the order of their dump.

    names: bytes (n,), as those of pointers. labels: int32 (n,), or vectors, float32 (n, k). tars: paths; none where
    each image is a file below the source's root. Else, of each image: tar, int32 (n,), which of them it is in; offsets
    and sizes, int64 (n,), its place there in bytes.
    """

    names: np.ndarray
    labels: np.ndarray
    tars: Sequence[str] = ()
    tar: np.ndarray | None = None
    offsets: np.ndarray | None = None
    sizes: np.ndarray | None = None


class ImageSource:
    """The images of one split: pointers to them, and the way to read one. Its classes are DataFlows, too.

    pointers: all of them, as a sequence; None where they come one by one, in an order that only the source knows.
    listed: whether the pointers tell names and labels before any image is read.
    seed: of the permutation in which they come; None where they have the order of the source.
    root: where the names are, for messages: a folder or a tar; "" where they are nowhere on the disk.
    unit: what a pointer points to, for messages.
    classes: the name of each class number; None where the greatest label tells how many there are. Where labels are
        vectors, the name of each of their numbers.
    class_names: what they are called; the same where nothing says it.
    layout: one line that says what was found, with paths relative to the source.
    left_out: how many files there are that are no images by their names, by kind (`names.py`).
    unreadable: folders, links and parts whose images nobody can tell.
    empty: paths of the classes without an image.
    """

    pointers: Sequence[list[Any]] | None = None
    listed = True
    seed: int | None = None
    root = ""
    unit = "file"
    classes: list[str] | None = None
    class_names: list[str] | None = None
    layout = ""

    def __init__(self) -> None:
        self.left_out: dict[str, int] = {}
        self.unreadable: list[Unreadable] = []
        self.empty: list[str] = []

    def refuse(self, *, unreadable: bool = True) -> None:
        """Raises for what would leave images out, naming all of it: FileNotFoundError for classes without any, and
        OSError for what is in `unreadable`, unless that is False, and for classes of which it hides all images.
        """
        closed = {name: inside for name in self.empty if (inside := self._unreadable_in(name))}
        lost = self._told_unreadable() if unreadable else ""
        told = [lost] if lost else []
        if closed:  # whoever removed these as empty would lose their images
            one = len(closed) == 1
            why = "; ".join(f"{os.path.join(self.root, name)}: {reason}" for each in closed.values()
                            for name, reason in each)
            told.append(f"{'class' if one else 'classes'} {', '.join(closed)} {'has' if one else 'have'} no image that "
                        f"can be seen{'' if lost else f' ({why})'}: every class needs one, also with on_error='skip'. "
                        f"Make {'it' if one else 'them'} readable, or remove {'it' if one else 'them'}")
        empty = [name for name in self.empty if name not in closed]
        if empty:
            one = len(empty) == 1
            told.append(f"{'class' if one else 'classes'} {', '.join(empty)} {'holds' if one else 'hold'} no "
                        f"image: every class needs at least one file ending in {', '.join(EXTENSIONS)}. Remove or fill "
                        f"{'it' if one else 'them'}")
        if told:
            raise (OSError if lost or closed else FileNotFoundError)(". ".join(told))

    def _unreadable_in(self, folder: str) -> list[Unreadable]:
        """What nobody can look into of a class, which is named as in `empty`."""
        return [each for each in self.unreadable
                if os.path.join(self.root, each.name, "").startswith(os.path.join(folder, ""))]

    def _told_unreadable(self) -> str:
        if not self.unreadable:
            return ""
        named = "; ".join(f"{os.path.join(self.root, name)}: {reason}" for name, reason in self.unreadable)
        count = len(self.unreadable)
        them = "it" if count == 1 else "them"
        return (f"{plural(count, 'folder or link', 'folders or links')} may hold more images, and cannot be looked "
                f"into: {named}. Make {them} readable or remove {them}; a dump leaves {them} out with on_error='skip'")

    @property
    def count(self) -> int | None:
        """How many pointers there are, or None where that is not known before the last."""
        return None if self.pointers is None else len(self.pointers)

    def part(self, start: int, stop: int) -> "ImageSource":
        """Those of its images from `start` to before `stop`; what nobody could look into is the whole's."""
        assert self.pointers is not None
        other = copy.copy(self)
        other.pointers, other.unreadable = _Stretch(self.pointers, start, stop), []
        return other

    def listing(self) -> Listing:
        """All pointers as columns, and where the images are, for a source that is `listed`."""
        assert isinstance(self.pointers, FilePointers)
        return self.pointers.columns()

    def __len__(self) -> int:
        if self.pointers is None:
            raise TypeError(f"{type(self).__name__} does not know its length")
        return len(self.pointers)

    def __iter__(self) -> Iterator[list[Any]]:
        assert self.pointers is not None
        return iter(self.pointers)

    def read(self, name: str) -> bytes:
        """The content of one file. Raises OSError when it cannot be read. May be called from any thread."""
        raise NotImplementedError

    def load(self, pointer: list[Any]) -> Loaded:
        """The image that a pointer points to, and its label. Raises OSError or RecordError. For any thread."""
        return self.read(pointer[0]), pointer[1]

    def place(self, pointer: list[Any]) -> str:
        """Where that image is, for messages."""
        return os.path.join(self.root, pointer[0])


class _Stretch(Sequence[list[Any]]):
    """Consecutive items of a sequence, asked for when they are needed."""

    def __init__(self, items: Sequence[list[Any]], start: int, stop: int) -> None:
        self._items, self._start, self._count = items, start, stop - start

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(self._count))]
        if not 0 <= number < self._count:
            raise IndexError(number)
        return self._items[self._start + number]


class FilePointers(Sequence[list[Any]]):
    """`[name, label]` lists, made when they are asked for: a list of 1.28 million takes 200 MB.

    names: bytes array (n,). labels: int32 (n,), or vectors, float32 (n, k). order: int64 array
    (n,), which of them comes when.
    """

    def __init__(self, names: np.ndarray, labels: np.ndarray, order: np.ndarray) -> None:
        self._names, self._labels, self._order = names, labels, order

    def columns(self, tars: Sequence[str] = (), *where: np.ndarray) -> Listing:
        """The same as columns, in their order. where: tar, offsets and sizes of a Listing, in the order of names."""
        return Listing(self._names[self._order], self._labels[self._order], tars,
                       *(column[self._order] for column in where))

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        place = self._order[number]
        label = self._labels[place]
        return [os.fsdecode(self._names[place]), label if label.ndim else int(label)]


def permutation(count: int, seed: int | None) -> np.ndarray:
    """The order of `count` pointers: int64 (count,), a function of `seed` alone, or the source's own where it is None.
    """
    return np.arange(count) if seed is None else np.random.default_rng(seed).permutation(count)
