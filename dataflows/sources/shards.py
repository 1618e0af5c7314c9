"""webdataset's shards, read in place: tars in which the members `KEY.jpg` and `KEY.cls`, or `KEY.json`, are a sample.

A key is a member's path up to the first dot of its name. The image is the member whose extension is one of `names.py`;
the label is that of `KEY.cls`, a number as text, else "label" or "cls" in `KEY.json`, a number or a list of numbers.
"class_name" in `KEY.json`, a text, is what the class of a number is called. All else is counted, and left out.
"""
import json
import os
import re
from array import array
from collections import Counter
from typing import Any, NamedTuple, Sequence

import numpy as np

from dataflows.label_vectors import Label, as_vector, size_of, size_text
from dataflows.sources.folders import Unreadable
from dataflows.sources.names import EXTENSIONS, by_kind, kind_left_out
from dataflows.sources.samples import MOST_CLASSES
from dataflows.sources.source import FilePointers, ImageSource, Listing, permutation
from dataflows.sources.tars import Member, members, refuse_compressed
from dataflows.tensorpack import DataFlow

_CLASS = re.compile(rb"\d{1,9}", re.ASCII)
_MOST_BYTES = 2**20  # of a label
_SHOWN = 3


class TarShards(ImageSource, DataFlow):
    """The samples of tar shards, as pointers `[name, label]`; name is `SHARD.tar/KEY.jpg`.

    The order is that of the shards and of the keys in each, or a permutation of it that is a function of `seed` alone.
    `len` is exact. Takes about 60 bytes of memory a sample. A shard is opened for each image that is read.

    `refuse` tells of samples without a label or an image, and of labels that are none.

    Raises ValueError for a tar that is compressed, cut off or damaged, and for shards of one name; OSError when one
    cannot be read.
    """

    unit = "sample"

    def __init__(self, paths: Sequence[str], layout: str, *, seed: int | None = None) -> None:
        super().__init__()
        self.root = os.path.dirname(os.path.abspath(paths[0]))
        self.layout = layout
        self.seed = seed
        self._paths = {os.path.basename(path): path for path in paths}
        if len(self._paths) < len(paths):
            raise ValueError(f"{layout}: two shards have one name. Rename one, or dump them in two splits")
        found = _Found()
        counts = []  # of samples, up to the end of each shard
        for shard, path in self._paths.items():
            _list_shard(path, shard, found)
            counts.append(len(found.names))
        self._shard = np.searchsorted(counts, np.arange(len(found.names)), side="right").astype(np.int32)
        names = np.array(found.names, np.bytes_)
        self._offsets, self._sizes = np.array(found.offsets), np.array(found.sizes)
        self._by_name = np.argsort(names, kind="stable")
        self._names = names
        self.left_out, self.unreadable = by_kind(found.left_out), found.faults
        labels = np.array(found.labels)
        count = int(labels.max(initial=-1)) + 1
        if found.size:
            labels, count = np.array(found.vectors).reshape(-1, found.size), found.size
        self.classes = [str(number) for number in range(count)]
        self.class_names = [found.called.get(number, str(number)) for number in range(count)]
        self._pointers = FilePointers(names, labels, permutation(len(names), seed))
        self.pointers: Sequence[list[Any]] = self._pointers

    def _told_unreadable(self) -> str:
        if not self.unreadable:
            return ""
        first = "; ".join(f"{name}: {reason}" for name, reason in self.unreadable[:_SHOWN])
        more = f"; and {len(self.unreadable) - _SHOWN:,} more" if len(self.unreadable) > _SHOWN else ""
        return (f"{len(self.unreadable):,} samples in {self.root} lack something: {first}{more}. Write the shards "
                f"again; a dump leaves these out with on_error='skip'")

    def listing(self) -> Listing:
        """All pointers as columns, and where the images are."""
        tars = [os.path.abspath(path) for path in self._paths.values()]
        return self._pointers.columns(tars, self._shard, self._offsets, self._sizes)

    def read(self, name: str) -> bytes:
        """The content of one image. Raises OSError when it cannot be read."""
        wanted = np.array(os.fsencode(name), self._names.dtype)
        found = self._by_name[int(np.searchsorted(self._names, wanted, sorter=self._by_name)) % len(self._names)]
        if self._names[found] != os.fsencode(name):
            raise FileNotFoundError(f"{self.root} holds no {name}")
        with open(self._paths[name.split("/")[0]], "rb", buffering=0) as file:
            content = os.pread(file.fileno(), int(self._sizes[found]), int(self._offsets[found]))
        if len(content) != self._sizes[found]:
            raise OSError(f"its shard ends within {name}; it was longer when it was listed")
        return content


class _Found:
    """What was found in all shards so far."""

    def __init__(self) -> None:
        self.names: list[bytes] = []
        self.labels, self.offsets, self.sizes = array("i"), array("q"), array("q")
        self.vectors = array("f")  # in place of labels
        self.size: int | None = None  # of the first label, as size_of gives it
        self.called: dict[int, str] = {}
        self.left_out: Counter[str] = Counter()
        self.faults: list[Unreadable] = []


class _Read(NamedTuple):
    label: Label
    name: str | None = None  # of its class


def _list_shard(path: str, shard: str, found: _Found) -> None:
    """Adds the samples of one shard."""
    samples: dict[str, dict[str, Member]] = {}
    with open(path, "rb", buffering=0) as file:
        fd = file.fileno()
        refuse_compressed(os.pread(fd, 8, 0), path)
        for member in members(fd, 0, os.fstat(fd).st_size, path):
            folder, base = os.path.split(member.name)
            key, _, extension = base.partition(".")
            parts = samples.setdefault(os.path.join(folder, key), {})
            wanted = extension.lower() in ("cls", "json") or f".{extension.lower()}" in EXTENSIONS
            if not wanted:
                found.left_out[kind_left_out(member.name)] += 1
            elif extension.lower() in parts:
                raise ValueError(f"{path} holds {member.name} more than once. Write it again, each key once")
            else:
                parts[extension.lower()] = member
        for key, parts in samples.items():
            if parts:
                _add(fd, f"{shard}/{key}", parts, found)


def _add(fd: int, key: str, parts: dict[str, Member], found: _Found) -> None:
    """Adds one sample, or what is wrong with it."""
    images = [member for extension, member in parts.items() if extension not in ("cls", "json")]
    if len(images) != 1:
        found.faults.append(Unreadable(key, "it has a label and no image" if not images else
                                       f"it has {len(images)} images, and must have one"))
        return
    try:
        label, name = _label(fd, parts)
        if found.size not in (None, size_of(label)):
            raise ValueError(f"its label is {size_text(size_of(label))}, and that of the first sample is "
                             f"{size_text(found.size or 0)}: all must be class numbers, or vectors of one length")
    except ValueError as error:
        found.faults.append(Unreadable(key, str(error)))
        return
    [image] = images
    if isinstance(label, int) and name is not None:
        called = found.called.setdefault(label, name)
        if called != name:
            found.faults.append(Unreadable(key, f"its class {label} is called {name!r} in it, and {called!r} before"))
            return
    found.names.append(os.fsencode(key + os.path.basename(image.name)[len(os.path.basename(key)):]))
    found.size = size_of(label)
    if isinstance(label, int):
        found.labels.append(label)
    else:
        found.vectors.frombytes(label.tobytes())
    found.offsets.append(image.offset)
    found.sizes.append(image.size)


def _label(fd: int, parts: dict[str, Member]) -> _Read:
    """Raises ValueError for one that is missing or none."""
    fields = _fields(fd, parts["json"]) if "json" in parts else {}
    name = fields.get("class_name")
    if name is not None and not isinstance(name, str):
        raise ValueError("class_name in its .json must be a text")
    if "cls" in parts:
        text = _content(fd, parts["cls"]).strip()
        number = int(text) if _CLASS.fullmatch(text) else None
        told = text[:60].decode(errors="replace")
    elif "label" in fields or "cls" in fields:
        value = fields.get("label", fields.get("cls"))
        if isinstance(value, list):
            return _Read(as_vector(value))
        number = value if type(value) is int else None
        told = str(value)[:60]
    else:
        raise ValueError("it has an image and no label: neither a .cls, nor a .json with label or cls")
    if number is None or not 0 <= number < MOST_CLASSES:
        raise ValueError(f"its label {told!r} must be a class number, a whole number from 0 to {MOST_CLASSES - 1:,}")
    return _Read(number, name)


def _fields(fd: int, member: Member) -> dict[str, Any]:
    try:
        fields = json.loads(_content(fd, member))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its .json cannot be read ({error})") from error
    if not isinstance(fields, dict):
        raise ValueError("its .json must hold an object, with label or cls")
    return fields


def _content(fd: int, member: Member) -> bytes:
    if not member.is_file or member.size > _MOST_BYTES:
        raise ValueError(f"{member.name} is no file of at most {_MOST_BYTES:,} bytes")
    return os.pread(fd, member.size, member.offset)


def is_shard(path: str) -> bool:
    """Whether a tar has a label beside one of its first images, as webdataset's have. False for what is no tar."""
    try:
        with open(path, "rb", buffering=0) as file:
            listed = members(file.fileno(), 0, os.fstat(file.fileno()).st_size, path)
            first = [os.path.basename(member.name).lower() for member, _ in zip(listed, range(20))]
    except (OSError, ValueError):
        return False
    keys = {name.partition(".")[0] for name in first if name.endswith(EXTENSIONS)}
    return any(name.partition(".")[0] in keys for name in first if name.partition(".")[2] in ("cls", "json"))
