"""The index `train.lmdb.index.npz` beside `train.lmdb`: what is known of each record without reading it.

One numpy archive without pickles (mapped_arrays.py), which is mapped, so that processes share it. Arrays, one entry per
record in the order of the keys:

    label    int32    class number; or vectors: float32 of shape (count, k), in version 3
    height   int32    pixels, as stored
    width    int32    pixels, as stored
    nbytes   int64    bytes of the LMDB value
    offset   int64    where the value starts in the LMDB file, in bytes
    crc32    uint32   of the LMDB value
    name     bytes    source file relative to the split's folder, as the file system has it, padded with zero bytes

and `meta`, the UTF-8 bytes of a JSON object: version (of this table: 2, or 3 where labels are vectors), count (of
records), and the parts that index_meta.py lists.

The archive ends with a checksum of all bytes before it. So no byte of an index can change unnoticed, and with it none
of the LMDB.

It is written last: its presence means that the dump is complete.
"""
import dataclasses
import errno
import json
import os
import zlib
from typing import IO, Any

import numpy as np

from dataflows.mapped_arrays import Archive, write_arrays
from dataflows.storage.flush import flush_file
from dataflows.storage.index_meta import IndexMeta
from dataflows.system import naming

VERSION, OF_VECTORS = 2, 3  # the latter has another `label`, which readers that know only 2 would misread
REMEDY = "Remove it to read the LMDB without an index, or dump again"
_DTYPES = {"label": "<i4", "height": "<i4", "width": "<i4", "nbytes": "<i8", "offset": "<i8", "crc32": "<u4"}


@dataclasses.dataclass(frozen=True, eq=False)
class Index:
    """The arrays of the table above, of shape (count,) but for labels that are vectors, and its meta object."""

    label: np.ndarray
    height: np.ndarray
    width: np.ndarray
    nbytes: np.ndarray
    offset: np.ndarray
    crc32: np.ndarray
    name: np.ndarray
    meta: IndexMeta

    @property
    def count(self) -> int:
        """How many records the LMDB holds."""
        return len(self.label)

    @property
    def label_size(self) -> int:
        """How many numbers each label has, where labels are vectors; 0 where they are class numbers."""
        return 0 if self.label.ndim == 1 else self.label.shape[1]

    @property
    def classes(self) -> list[str]:
        """Class folder names (wnids, for ImageNet), by class number; of vectors, what each number is called."""
        return list(self.meta.classes)

    @property
    def class_names(self) -> list[str]:
        """What classes are called, by class number; `classes` where the source does not say."""
        return list(self.meta.class_names)

    def fingerprint(self) -> int:
        """A checksum of the checksums of all records."""
        return zlib.crc32(np.ascontiguousarray(self.crc32))

    def written_meta(self) -> dict[str, Any]:
        """The meta object as it is written."""
        return self.meta.to_dict(OF_VECTORS if self.label_size else VERSION, self.count)

    def checked_meta(self, path: str) -> IndexMeta:
        """`meta`, once all of its types are checked: what is shown to people and looked up in arrays.

        The checksum says that nothing in an index is damaged; but anyone can write one. Raises ValueError, naming its
        `path`, where a part is not what its table says.
        """
        wrong = self.meta.wrong_part(self.count)
        if wrong is not None:
            raise ValueError(f"{path}: {wrong} of its meta object is not what the format fixes. {REMEDY}")
        return self.meta


def index_path(lmdb_path: str) -> str:
    """Where the index of an LMDB file is."""
    return lmdb_path.rstrip(os.sep) + ".index.npz"


def find_index(lmdb_path: str, data_file: str) -> str | None:
    """The index that an LMDB file has: beside the path that is given, else beside the file that it is a link to.

    `data_file` holds the data; it is another than `lmdb_path` where that is a folder, and may be a link, too.
    """
    targets = map(os.path.realpath, (lmdb_path, data_file))
    return next(filter(os.path.lexists, map(index_path, (lmdb_path, *targets))), None)


def write_index(index: Index, lmdb_path: str) -> str:
    """Writes the index under a temporary name beside its LMDB, down to the disk, and returns that name."""
    temporary, arrays = temporary_index_path(lmdb_path), _arrays(index)
    try:
        with open(temporary, "w+b") as file:
            write_arrays(file, arrays)
            file.flush()
            flush_file(file.fileno(), temporary)
    except BaseException:
        os.unlink(temporary)
        raise
    return temporary


def temporary_index_path(lmdb_path: str) -> str:
    """Where the index of an LMDB file is written, before it is renamed."""
    return index_path(lmdb_path) + ".partial"


def _arrays(index: Index) -> dict[str, np.ndarray]:
    columns = {name: np.asarray(getattr(index, name), dtype) for name, dtype in _dtypes(bool(index.label_size)).items()}
    meta = json.dumps(index.written_meta()).encode()
    return columns | {"name": index.name, "meta": np.frombuffer(meta, np.uint8)}


def load_index(lmdb_path: str, data_file: str, used: int | None = None, *, copied: bool = False) -> Index | None:
    """The index of an LMDB file, or None when it has none. Its columns are views of the file, or of a copy if `copied`.

    `data_file` is the file whose size the index must state, and `used`, where it is known, how many of its bytes are in
    use by its own header. Raises ValueError, naming file and remedy, when the index is damaged, of another version, or
    belongs to another file, and OSError, with its name, when it cannot be read.

    >>> index = load_index("val.lmdb", "val.lmdb")
    >>> index.count, index.classes, bytes(index.name[0])
    (10, ['n01440764', 'n01443537', 'n01484850'], b'n01440764/n01440764_0.JPEG')
    """
    path = find_index(lmdb_path, data_file)
    if path is None:
        return None
    try:
        with naming(path), open(path, "rb") as file:
            index = read_index(path, file, copied=copied)
    except FileNotFoundError as error:
        raise ValueError(f"{path} is a link to {os.path.realpath(path)}, which is not there. {REMEDY}") from error
    except IsADirectoryError as error:
        raise ValueError(f"{path} is a folder, not an index. {REMEDY}") from error
    if os.path.exists(data_file):
        _refuse_size(path, index.meta.file_size, data_file, used)
    return index


def read_index(path: str, file: IO[bytes], *, copied: bool) -> Index:
    """The index in an open file, which `path` names in errors. Raises OSError and ValueError as load_index does."""
    try:
        return _parse(Archive(file, copied=copied))
    except _OtherVersion as error:
        raise ValueError(f"{path} {error}") from error
    except Exception as error:  # a damaged archive can make zipfile, zlib, numpy and json raise nearly anything
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # a place before the file's start
            raise
        raise ValueError(f"{path} is not a readable index ({type(error).__name__}: {error}). {REMEDY}") from error


def _refuse_size(path: str, stated: int, data_file: str, used: int | None) -> None:
    actual = os.path.getsize(data_file)
    if actual == stated:
        return
    if used == stated:
        raise ValueError(f"{data_file} is longer than it was: it has {actual:,} bytes, and {stated:,} according to "
                         f"LMDB's header and the index {path}. Something was added behind its end: cut it off "
                         f"(truncate -s {stated}), or copy the file again")
    index_is_newer = os.stat(path).st_mtime_ns >= os.stat(data_file).st_mtime_ns
    what = ("the index is the newer one: it came from another dump, or the LMDB was put back" if index_is_newer
            else "the LMDB is the newer one: it was dumped again or changed, and the index was not")
    raise ValueError(f"{path} is the index of another file: it states {stated:,} bytes and {data_file} has {actual:,}; "
                     f"{what}. {REMEDY}")


class _OtherVersion(ValueError):
    """The index is of another version of the table."""


def _refuse_version(version: Any) -> None:
    if version not in (VERSION, OF_VECTORS):
        newer = isinstance(version, int) and version > OF_VECTORS
        raise _OtherVersion(f"is an index of version {version!r}, and this package reads versions {VERSION} and "
                            f"{OF_VECTORS}: it was written by {'a newer' if newer else 'an older'} one. "
                            f"{'Update this package. ' * newer}{REMEDY}")


def _parse(archive: Archive) -> Index:
    written = json.loads(archive["meta"].tobytes())
    _refuse_version(written["version"])
    if not archive.is_sealed():
        raise ValueError("its bytes are not those that were written: their checksum is another")
    meta = IndexMeta.from_dict(written)
    arrays = {name: archive[name] for name in (*_DTYPES, "name")}
    count, vectors = written["count"], written["version"] == OF_VECTORS
    shapes = dict.fromkeys(arrays, (count,)) | ({"label": (count, len(meta.classes) or 1)} if vectors else {})
    if any(array.shape != shapes[name] for name, array in arrays.items()):
        raise ValueError(f"it states {count} records and its arrays have other lengths")
    if arrays["name"].dtype.kind != "S" or any(arrays[name].dtype != dtype for name, dtype in _dtypes(vectors).items()):
        raise ValueError("an array has another dtype than the format fixes")
    return Index(meta=meta, **arrays)


def _dtypes(vectors: bool) -> dict[str, str]:
    return _DTYPES | {"label": "<f4"} if vectors else _DTYPES
