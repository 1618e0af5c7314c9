"""The images of a source that was listed before: whoever has its columns need not list it again."""
import os
from typing import Any, Sequence

import numpy as np

from dataflows.sources.folders import read_file
from dataflows.sources.source import ImageSource, Listing, Loaded
from dataflows.tensorpack import DataFlow


class ListedFiles(ImageSource, DataFlow):
    """The images of a Listing, as pointers `[name, label, number]`; number is that of its row.

    like: all else that the source which was listed tells of itself, such as its root.
    """

    def __init__(self, listing: Listing, **like: Any) -> None:
        super().__init__()
        self.__dict__.update(like)
        self._listing = listing
        self.pointers = _Rows(listing.names, listing.labels)

    def load(self, pointer: list[Any]) -> Loaded:
        """The image that a pointer points to, and its label. Raises OSError when it cannot be read."""
        name, label, number = pointer
        if self._listing.tar is None:
            return read_file(os.path.join(self.root, name)), label
        return self._read_member(name, number), label

    def _read_member(self, name: str, number: int) -> bytes:
        tar, offset, size = (int(column[number]) for column in self._listing[3:] if column is not None)
        path = self._listing.tars[tar]
        with open(path, "rb", buffering=0) as file:
            content = os.pread(file.fileno(), size, offset)
        if len(content) != size:
            raise OSError(f"{path} ends within {name}; it was longer when it was listed")
        return content


class _Rows(Sequence[list[Any]]):
    """The pointers, made when they are asked for."""

    def __init__(self, names: np.ndarray, labels: np.ndarray) -> None:
        self._names, self._labels = names, labels

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        label = self._labels[number]
        return [os.fsdecode(self._names[number]), label if label.ndim else int(label), number]
