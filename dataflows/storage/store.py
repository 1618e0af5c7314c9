"""The records of an LMDB file by number, with or without an index, in any process."""
import logging
import os
from typing import Any, Iterator, Mapping, Sequence

import numpy as np

from dataflows.options import one_of
from dataflows.storage.btree import KEYS, read_header
from dataflows.storage.environment import data_file
from dataflows.storage.index import Index, find_index, load_index
from dataflows.storage.paged_file import open_file
from dataflows.storage.paths import existing_file
from dataflows.storage.records import IndexedRecords, Records, SearchedRecords
from dataflows.storage.remote.opening import open_remote
from dataflows.storage.remote.options import RemoteOptions
from dataflows.storage.remote.pool import pool
from dataflows.storage.remote.urls import is_url
from dataflows.storage.shards.files import PathLike, read_manifest, shard_files
from dataflows.storage.shards.manifest import SUFFIX
from dataflows.storage.shards.records import ShardedRecords
from dataflows.system import allow_open_files, available_memory
from dataflows.terminal import printable
from dataflows.threads import map_ordered

_OPEN_EACH = 4  # descriptors of one file: two, its map, and the index's
_OPEN_BESIDES = 256  # that other parts of the program may need

logger = logging.getLogger(__name__)

_AT_ONCE = 16  # shards at URLs that are opened at once: each takes a few requests, one after the other


class Store:
    """The records of one LMDB file, by number: 0 to len - 1 in the order of their keys; or those of several files, one
    after the other: `path` may be what `shard_files` takes.

    With an index, a record is a stretch of the file, and liblmdb is not needed. Without one, liblmdb finds each record.
    May be pickled, forked and used by any number of threads, and any number of Stores may name one file. Writes
    nothing, and needs no write access. A pickle has the path and the options; what it is loaded in opens the file again
    when it first uses it, and raises ValueError if the file or its index is another one then. A copy within a process
    shares what was read of the index.

    index: the file's, or None; of several files, its columns are put together when they are first used. index_path:
        where it is: beside the path, or beside the file that it is a link to.

    io: "mmap" gives views of the file, "pread" copies of it, which suits file systems where a page fault is a message
        to a server; "auto" is "pread" on the network file systems that we know, else "mmap", and "pread" again where
        the system does not map the file. With "pread" nothing is mapped; else the index is, wherever it can be, so
        that processes share it. Without an index: LMDB's own map.
    cache: "drop" gives pages back to the kernel after use, so that reading a file that is larger than memory evicts
        nothing else; "keep" leaves them to be read again.
    verify: compare each record with its checksum in the index whenever it is read, and raise RecordError if it differs.
    storage_options, cache_dir, cache_bytes: of files at URLs, as LMDBLoader has them.

    A path may be a URL. Such a file is read by its index, in ranges; `io` has no meaning there. A pickle has the
    storage_options as they were given.

    Raises FileNotFoundError or ValueError when the file is missing, truncated, not an LMDB, or holds no records, and
    for options that need an index where there is none; OSError when it cannot be opened, or not mapped as it has to be.
    A record that cannot be read from an open file is a RecordError, with file and key; where the file is mapped, the
    system ends the process by SIGBUS.
    """

    def __init__(self, path: PathLike | Sequence[PathLike], *, io: str = "auto", cache: str = "keep",
                 verify: bool = False, storage_options: Mapping[str, Any] | None = None,
                 cache_dir: str | os.PathLike[str] | None = None, cache_bytes: int | None = None) -> None:
        one_of("io", io, ("auto", "mmap", "pread"))
        one_of("cache", cache, ("keep", "drop"))
        self._files: str | list[str] = (os.fspath(path) if isinstance(path, (str, os.PathLike))
                                        else [os.fspath(file) for file in path])
        self.path = self._files if isinstance(self._files, str) else ", ".join(self._files[:2]) + ", ..."
        self._options = (io, cache == "drop", verify, RemoteOptions(storage_options, cache_dir, cache_bytes))
        self._identity: int | None = None  # of the records, when this was pickled
        self._opened: Records | None = _open_records(self._files, self.path, *self._options)
        self._size = len(self._opened)
        if not self._opened.listed:
            logger.warning("%s has no %s, so all of its keys are read once: slow on a large file. tensorpack's "
                           "LMDBSerializer.save and dump_imagenet.py write them", printable(self.path), KEYS.decode())

    @property
    def _records(self) -> Records:
        if self._opened is None:
            self._opened = self._open_again()
        return self._opened

    def _open_again(self) -> Records:
        records = _open_records(self._files, self.path, *self._options)
        if (len(records), records.identity()) != (self._size, self._identity):
            raise ValueError(f"{self.path}, or its index, is not what it was when a loader or dataset of it was sent "
                             f"to this process: it was written anew or changed since. Make the loader or dataset again")
        return records

    @property
    def files(self) -> list[str]:
        """The files with the data, in the order of their records; URLs as they are."""
        paths = shard_files(self._files, self._options[-1]) or [self.path]
        return [path if is_url(path) else existing_file(path) for path in paths]

    @property
    def nbytes(self) -> int:
        """The size of the files, in bytes."""
        if self.private and self.index is not None:
            return self.index.meta.file_size
        return sum(map(os.path.getsize, self.files))

    @property
    def private(self) -> bool:
        """Whether what is asked for ahead waits in this process's memory, and not in the page cache for all of them."""
        return self._records.private

    def room(self) -> int:
        """Bytes of memory that there is for what is asked for ahead."""
        return pool().capacity if self.private else available_memory()

    @property
    def starts(self) -> np.ndarray:
        """The number of the first record of each file, int64."""
        return self._records.starts

    @property
    def index(self) -> Index | None:
        """What is known of each record without reading it; None if nothing is."""
        return self._records.index

    @property
    def index_path(self) -> str | None:
        """Where the index is, or None."""
        return self._records.index_path

    def __len__(self) -> int:
        return self._size

    @property
    def mean_nbytes(self) -> float | None:
        """Of the records' values; None without an index."""
        return self._records.mean_nbytes

    def sizes(self, numbers: list[int]) -> tuple[np.ndarray, np.ndarray] | None:
        """(heights, widths) of these records' images, int64, in pixels; None without an index."""
        return self._records.sizes(numbers)

    def names(self, numbers: np.ndarray) -> list[bytes] | None:
        """The source files of these records, in the bytes of the file system; None without an index."""
        return self._records.names(numbers)

    def key(self, number: int) -> bytes:
        """The key of record `number`."""
        return self._records.key(number)

    def place(self, number: int) -> str:
        """Where record `number` is, for errors: "PATH, key KEY"."""
        return self._records.place(number)

    def value(self, number: int) -> np.ndarray:
        """The stored bytes of record `number`: a read-only uint8 view of the map, valid for as long as it is held."""
        return self._records.value(number)

    def values(self, numbers: list[int]) -> Iterator[np.ndarray]:
        """What `value` gives for each of these records, looked up at once."""
        return self._records.values(numbers)

    def will_need(self, numbers: list[int], *, sample: int = 1) -> tuple[int, bool]:
        """Asks the kernel for the pages of these records, which will be read soon: how many bytes, and whether it did.

        Does not ask again when all of them are in memory, as far as two pages of every `sample`-th tell. Without an
        index, only those are asked for that were read before; for the others the kernel's readahead on LMDB's map has
        to do.
        """
        return self._records.will_need(numbers, sample)

    def release(self, numbers: list[int]) -> None:
        """Says that these records are done with: their pages are given back to the kernel if cache="drop"."""
        self._records.release(numbers)

    def fingerprint(self) -> int:
        """A checksum of 32 bits that tells this file from others: of all records with an index, else of two of them."""
        return self._records.fingerprint()

    def close(self) -> None:
        """Lets go of the file. A later use opens it again; views that are still held stay valid."""
        if self._opened is not None:
            self._opened.close()

    def __getstate__(self) -> dict[str, Any]:
        if self._identity is None:
            self._identity = self._records.identity()
        return self.__dict__ | {"_opened": None}

    def __deepcopy__(self, memo: dict[int, Any]) -> "Store":
        other = type(self).__new__(type(self))
        other.__dict__ |= self.__dict__ | {"_opened": self._opened and self._opened.closed_copy()}
        return other

    def __copy__(self) -> "Store":
        return self.__deepcopy__({})


def _open_records(files: str | list[str], path: str, *options: Any) -> Records:
    """The records of the LMDB, or of the LMDBs, that `files` means; `path` names them in errors."""
    remote = options[-1]
    shards = shard_files(files, remote)
    if shards is None:
        return _open_file(path, *options)
    allow_open_files(_OPEN_EACH * len(shards) + _OPEN_BESIDES)
    opened = map_ordered(lambda shard: _open_file(shard, *options), shards,
                         _AT_ONCE if any(map(is_url, shards)) else 0, _AT_ONCE)
    return ShardedRecords(path, list(opened), read_manifest(path, remote) if path.endswith(SUFFIX) else None)


def _open_file(path: str, io: str, drop: bool, verify: bool, remote: RemoteOptions) -> Records:
    records = (open_remote(path, remote, drop=drop, verify=verify) if is_url(path)
               else _open_local(path, io, drop, verify))
    if not len(records):
        raise ValueError(f"{path} holds no records. Dump it again, and look at the summary of that dump")
    return records


def _open_local(path: str, io: str, drop: bool, verify: bool) -> Records:
    file = existing_file(path)
    tree = read_header(file)
    index_path, index = find_index(path, file), load_index(path, file, tree.nbytes, copied=io == "pread")
    if index is not None and index_path is not None:
        return IndexedRecords(path, lambda: open_file(data_file(path), io), index, index_path, tree, drop=drop,
                              verify=verify)
    if io == "pread" or drop or verify:
        raise ValueError(f"io='pread', cache='drop' and verify=True need the index, which says where records are and "
                         f"has their checksums, and {path} has no index. dump_imagenet.py writes one; or leave these "
                         f"options out")
    return SearchedRecords(path)
