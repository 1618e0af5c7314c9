"""Images in a folder whose labels are in a CSV file: `file,label`.

    file,label              file,label              file,red,round
    cats/1.jpg,cat          a.png,3                 a.png,0,1
    dogs/7.jpg,dog          b.png,0                 b.png,0.5,1

The first line is the header, and its first column is called `file`: a path below the folder. Labels are class numbers,
from 0, or names of classes, which are numbered in sorted order. Several columns of labels are a vector of numbers,
which are called as the columns. Text is UTF-8, with or without a byte order mark.
"""
import csv
import io
import os
import re
from collections import Counter
from typing import Any, NamedTuple, Sequence

import numpy as np

from dataflows.label_vectors import MOST_NUMBERS
from dataflows.sources.annotations import utf8
from dataflows.sources.folders import Unreadable, read_file, tree
from dataflows.sources.names import by_kind, is_image, kind_left_out
from dataflows.sources.samples import MOST_CLASSES
from dataflows.sources.source import FilePointers, ImageSource, permutation
from dataflows.tensorpack import DataFlow

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_CLASS = re.compile(r"\d{1,9}", re.ASCII)
_GREATEST = float(np.finfo(np.float32).max)
_SHOWN = 3  # of many faults


class LabelFile(NamedTuple):
    """What a label file says, line by line."""

    files: list[str]  # normalized paths
    lines: list[int]  # where each is listed
    labels: np.ndarray  # int32 (n,); or vectors, float32 (n, k)
    classes: list[str] | None  # by class number; None where the file has numbers; of vectors, the names of columns


class LabelledFiles(ImageSource, DataFlow):
    """The images that a label file lists, as pointers `[name, label]`; name is a path below the folder `root`.

    The order is that of the file's lines, or a permutation of it that is a function of `seed` alone. `len` is exact.
    A listed file is an image, whatever its name. `refuse` tells what is listed and missing, and which images below the
    folder are not listed.

    Raises FileNotFoundError when the folder or the label file is missing, OSError when one cannot be read, and
    ValueError, with file and lines, when the label file breaks a rule.
    """

    def __init__(self, source: str | os.PathLike[str], labels: str | os.PathLike[str], *,
                 seed: int | None = None) -> None:
        super().__init__()
        self.root, self._path = os.fspath(source), os.fspath(labels)
        if not os.path.isdir(self.root):
            raise FileNotFoundError(f"there is no folder {self.root}, below which the files of {self._path} should be. "
                                    f"Give it as the source; tars must be unpacked")
        table = read_labels(self._path)
        self.classes = self.class_names = table.classes
        self.layout = f"files that {os.path.relpath(self._path, self.root)} lists"
        self._compare(table)
        self.seed = seed
        names = np.array([os.fsencode(name) for name in table.files], np.bytes_)
        self.pointers: Sequence[list[Any]] = FilePointers(names, table.labels, permutation(len(names), seed))

    def _compare(self, table: LabelFile) -> None:
        """With what is in the folder."""
        found = tree(self.root)
        listed, there = set(table.files), set(found.names)
        own = os.path.relpath(os.path.realpath(self._path), os.path.realpath(self.root))
        kinds = found.left_out - Counter(kind_left_out(name) for name in (*listed, own) if not is_image(name))
        self.left_out = by_kind(kinds)
        self._missing = [f"line {line}: {name}" for line, name in zip(table.lines, table.files)
                         if name not in there and not os.path.lexists(os.path.join(self.root, name))]
        self._unlisted = [name for name in found.names if name not in listed]
        self._folders = sorted(found.unreadable)
        self.unreadable = [*self._folders]
        if self._unlisted:
            self.unreadable.append(Unreadable(own, f"it does not list {_some(self._unlisted, 'images')}"))

    def _told_unreadable(self) -> str:
        told = []
        if self._folders:
            folders = [os.path.join(self.root, name) for name, _ in self._folders]
            told.append(f"{_some(folders, 'folders or links')} may hold images, and cannot be looked into")
        if self._missing:
            told.append(f"{self._path} lists {_some(self._missing, 'files')}, which are not in {self.root}")
        if self._unlisted:
            told.append(f"{self.root} holds {_some(self._unlisted, 'images')}, which are not in {self._path}")
        remedy = ("Complete or correct one of the two; a dump leaves out what has no label, or no file, with "
                  "on_error='skip'")
        return ". ".join([*told, remedy]) if told else ""

    def read(self, name: str) -> bytes:
        """The content of one file. Raises OSError when it cannot be read."""
        return read_file(os.path.join(self.root, name))


def read_labels(path: str) -> LabelFile:
    """What a label file says. Raises OSError when it cannot be read, and ValueError that names its wrong lines."""
    with open(path, "rb") as file:
        text = utf8(file.read(), path)
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    faults = _Faults(path)
    files: dict[str, int] = {}  # and the line of each
    labels: list[list[str]] = []
    try:
        header = [name.strip() for name in next(rows, [])]
        _refuse_header(header, path)
        for row in rows:
            if row:
                _add(row, len(header), rows.line_num, files, labels, faults)
    except csv.Error as error:
        raise ValueError(f"{path}, line {rows.line_num}: it is not CSV ({error})") from error
    read = _classes if len(header) == 2 else _vectors
    numbers, classes = read(labels, [*files.values()], header[1:], faults)
    faults.refuse()
    if not files:
        raise ValueError(f"{path} lists no file: its header must be followed by lines such as cats/1.jpg,cat")
    return LabelFile([*files], [*files.values()], numbers, classes)


class _Faults:
    """The wrong lines of a file: how many, and what is wrong with the first few."""

    def __init__(self, path: str) -> None:
        self._path, self._count = path, 0
        self._first: list[str] = []

    def add(self, line: int, what: str) -> None:
        self._count += 1
        if self._count <= _SHOWN:
            self._first.append(f"line {line}: {what}")

    def refuse(self) -> None:
        """Raises ValueError if there is one."""
        if self._count:
            more = f"; and {self._count - _SHOWN:,} more" if self._count > _SHOWN else ""
            raise ValueError(f"{self._path} has {self._count:,} wrong {'line' if self._count == 1 else 'lines'}: "
                             f"{'; '.join(self._first)}{more}. Correct or remove them")


def _refuse_header(header: list[str], path: str) -> None:
    if len(header) < 2 or header[0] != "file":
        raise ValueError(f"{path}, line 1: {','.join(header)[:60]!r} must be the header, file,label: the names of two "
                         f"or more columns, of which the first is called file. Add it as the first line")
    if len(header) > 2 and (len(set(header)) < len(header) or "" in header):
        raise ValueError(f"{path}, line 1: the columns of a header must have names, and each its own, for they are the "
                         f"names of the label's numbers; {','.join(header)[:60]!r} has not. Rename or remove columns")
    if len(header) > MOST_NUMBERS + 1:
        raise ValueError(f"{path}, line 1: it has {len(header):,} columns, and a label may have {MOST_NUMBERS:,}")


def _add(row: list[str], columns: int, line: int, files: dict[str, int], labels: list[list[str]], faults: _Faults
         ) -> None:
    """Adds one line, or tells what is wrong with its columns or its file."""
    name = os.path.normpath(row[0]) if row[0] else ""
    if len(row) != columns:
        faults.add(line, f"it has {len(row)} columns, and the header has {columns}; quote a comma that belongs to "
                         f"a name")
    elif not name or "\0" in name or name.split(os.sep)[0] in ("", "..", "."):
        faults.add(line, f"file {row[0][:60]!r} must be a path below the folder of the source")
    elif name in files:
        faults.add(line, f"{name} is listed already, in line {files[name]}")
    else:
        files[name] = line
        labels.append([label.strip() for label in row[1:]])


def _vectors(rows: list[list[str]], lines: list[int], names: list[str], faults: _Faults
             ) -> tuple[np.ndarray, list[str] | None]:
    """Vectors, float32 (n, k), and the names of their numbers."""
    vectors = np.zeros((len(rows), len(names)), np.float32)
    for row, line, vector in zip(rows, lines, vectors):
        wrong = next((place for place, text in enumerate(row) if not _is_number(text)), None)
        if wrong is None:
            vector[:] = [float(text) for text in row]
        else:
            faults.add(line, f"{names[wrong]} is {row[wrong][:60]!r}, and must be a number that float32 holds. Several "
                             f"columns of labels are numbers, and none is missing, NaN or infinite")
    return vectors, names


def _is_number(text: str) -> bool:
    return _NUMBER.fullmatch(text) is not None and abs(float(text)) <= _GREATEST


def _classes(rows: list[list[str]], lines: list[int], _: list[str], faults: _Faults
             ) -> tuple[np.ndarray, list[str] | None]:
    """Class numbers, int32 (n,), and the names of classes, or None where the labels are numbers."""
    labels = [label for [label] in rows]
    numeric = bool(labels) and _NUMBER.fullmatch(labels[0]) is not None
    for label, line in zip(labels, lines):
        if (_NUMBER.fullmatch(label) is not None) != numeric or not label:
            kinds = ("a name", "a number") if numeric else ("a number", "a name")
            faults.add(line, f"label {label[:60]!r} is {kinds[0]}, and that of line {lines[0]} is {kinds[1]}: all must "
                             f"be class numbers, or all names of classes" if label else "it has no label")
        elif numeric and not (_CLASS.fullmatch(label) and int(label) < MOST_CLASSES):
            faults.add(line, f"label {label[:60]!r} must be a class number, a whole number from 0 to "
                             f"{MOST_CLASSES - 1:,}")
    faults.refuse()
    if numeric:
        return np.array([int(label) for label in labels], np.int32), None
    classes, numbers = np.unique(labels, return_inverse=True)
    return numbers.astype(np.int32), classes.tolist()


def _some(names: list[str], what: str) -> str:
    shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    return f"{len(names):,} {what} ({shown})"
