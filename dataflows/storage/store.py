"""The records of an LMDB file by number: keys, index, and where each record is."""
import logging
import os
from typing import Any, Iterator
from zlib import crc32

import numpy as np

from dataflows.errors import RecordError
from dataflows.options import one_of
from dataflows.storage import record
from dataflows.storage.btree import KEYS, Tree, check_tree, read_header
from dataflows.storage.environment import Environment, data_file, open_environment
from dataflows.storage.index import REMEDY, Index, find_index, load_index
from dataflows.storage.paged_file import Content, extents, open_content
from dataflows.storage.paths import existing_file
from dataflows.terminal import printable

logger = logging.getLogger(__name__)


class Store:
    """The records of one LMDB file, by number: 0 to len - 1 in the order of their keys.

    With an index, a record is a stretch of the file, and liblmdb is not needed. Without one, liblmdb finds each record.
    Opens the file on first use; may be pickled, forked and used by any number of threads, and any number of Stores may
    name one file. Writes nothing, and needs no write access.

    index: the file's, or None. index_path: where it is: beside the path, or beside the file that it is a link to.

    io: "mmap" gives views of the file, "pread" copies of it, which suits file systems where a page fault is a message
        to a server; "auto" is "pread" on the network file systems that we know, else "mmap", and "pread" again where
        the system does not map the file. With "pread" nothing is mapped. Without an index: LMDB's own map.
    cache: "drop" gives pages back to the kernel after use, so that reading a file that is larger than memory evicts
        nothing else; "keep" leaves them to be read again.
    verify: compare each record with its checksum in the index whenever it is read, and raise RecordError if it differs.

    Raises FileNotFoundError or ValueError when the file is missing, truncated, not an LMDB, or holds no records, and
    for options that need an index where there is none; OSError when it cannot be opened, or not mapped as it has to be.
    A record that cannot be read from an open file is a RecordError, with file and key; where the file is mapped, the
    system ends the process by SIGBUS.
    """

    def __init__(self, path: str | os.PathLike[str], *, io: str = "auto", cache: str = "keep",
                 verify: bool = False) -> None:
        one_of("io", io, ("auto", "mmap", "pread"))
        one_of("cache", cache, ("keep", "drop"))
        self.path = os.fspath(path)
        self._io, self._cache, self._verify = io, cache, False
        self._environment: Environment | None = None
        self._content: Content | None = None
        self._keys: list[bytes] | None = None
        file = existing_file(self.path)
        tree = read_header(file)
        self.index_path = find_index(self.path, file)
        self.index = load_index(self.path, file, tree.nbytes)
        if self.index is None and (io == "pread" or cache == "drop" or verify):
            raise ValueError(f"io='pread', cache='drop' and verify=True need to know where records are and what their "
                             f"checksums are, and {self.path} has no index. dump_imagenet.py writes one; or leave "
                             f"these options out")
        self._size = self._check(tree)  # has its own word on what differs
        self._verify = verify

    def _check(self, tree: Tree) -> int:
        """Compares the index with the file, or finds the keys; the number of records."""
        if self.index is None:
            check_tree(data_file(self.path))
            self._environment = open_environment(self.path)
            self._keys = self._find_keys(self._environment)
            size = len(self._keys)
            self._learned = np.zeros((2, size), np.int64)  # offset and bytes of each record that was read
        else:
            size = self.index.count
            self._refuse_foreign_index(self.index, tree)
        if size == 0:
            raise ValueError(f"{self.path} holds no records. Dump it again, and look at the summary of that dump")
        return size

    def _refuse_foreign_index(self, index: Index, tree: Tree) -> None:
        different = ""
        if tree.entries - 1 != index.count:
            different = f"the file holds {max(0, tree.entries - 1):,} records, and the index {index.count:,}"
        elif not _contains(index, tree):
            different = "the index has records that are not within the file, or have no size"
        else:  # files of images of one size can have equal lengths
            ends = [0, index.count - 1] if index.count else []
            wrong = [number for number in ends if crc32(self.value(number)) != index.crc32[number]]
            if wrong:
                different = (f"record {self.key(wrong[0]).decode()} has another checksum. If only the record was "
                             f"damaged, `python -m dataflows verify` says so")
        if different:
            raise ValueError(f"{self.index_path} is the index of another file than {self.path}: {different}. {REMEDY}")

    def _find_keys(self, environment: Environment) -> list[bytes]:
        listed = environment.transaction.get(KEYS)
        if listed is None:
            logger.warning("%s has no %s, so all of its keys are read once: slow on a large file. tensorpack's "
                           "LMDBSerializer.save and dump_imagenet.py write them", printable(self.path), KEYS.decode())
            return [bytes(key) for key in environment.transaction.cursor().iternext(keys=True, values=False)]
        try:
            keys = record.unpack_keys(np.frombuffer(listed, np.uint8))
        except RecordError as error:
            raise ValueError(f"{self.path}, key {KEYS.decode()}: {error}") from error
        if len(keys) != environment.entries - 1:
            raise ValueError(f"{self.path} lists {len(keys):,} keys and holds {environment.entries - 1:,} records: "
                             f"some were lost or added after it was written. Write it again")
        if len(set(keys)) != len(keys):
            raise ValueError(f"{self.path} lists a key twice, so a record would be read twice and another never. Write "
                             f"it again")
        return sorted(keys)

    def __len__(self) -> int:
        return self._size

    def key(self, number: int) -> bytes:
        """The key of record `number`."""
        return b"%08d" % number if self._keys is None else self._keys[number]

    def value(self, number: int) -> np.ndarray:
        """The stored bytes of record `number`: a read-only uint8 view of the map, valid for as long as it is held."""
        index = self.index
        if index is not None:
            content = self._content
            if content is None:
                content = self._open_content()
            offset, nbytes = index.offset.item(number), index.nbytes.item(number)
            try:
                value = content.read(offset, nbytes)
            except OSError as error:
                raise self._unreadable(number, error) from error
            return self._verified(number, value)
        if self._environment is None:
            self._environment = open_environment(self.path)
        found = self._environment.get(self.key(number))
        if found is None:
            raise ValueError(f"{self.path} has no key {self.key(number)!r}, which its list of keys names. Write it "
                             f"again")
        if self._environment.base is not None:
            self._learned[:, number] = found.__array_interface__["data"][0] - self._environment.base, len(found)
        return found

    def values(self, numbers: list[int]) -> Iterator[np.ndarray]:
        """What `value` gives for each of these records, looked up at once."""
        if self.index is None:
            yield from map(self.value, numbers)
            return
        content = self._content or self._open_content()
        values = map(content.read, self.index.offset[numbers].tolist(), self.index.nbytes[numbers].tolist())
        for number in numbers:
            try:
                value = next(values)
            except OSError as error:
                raise self._unreadable(number, error) from error
            yield self._verified(number, value)

    def _unreadable(self, number: int, error: OSError) -> RecordError:
        return RecordError(f"{self.path}, key {self.key(number).decode()}: it cannot be read: {error.strerror}. "
                                  f"Look after the disk or the network, or copy the file again")

    def _verified(self, number: int, value: np.ndarray) -> np.ndarray:
        if self._verify and self.index is not None and crc32(value) != self.index.crc32[number]:
            raise RecordError(f"{self.path}, key {self.key(number).decode()}: the record is not what was "
                                     f"written, by its checksum. Copy the file again, or dump it again; `python -m "
                                     f"dataflows verify` finds all such records")
        return value

    def _open_content(self) -> Content:
        # Without an index nothing is read through it, and pages are asked for.
        io = "pread" if self.index is None else self._io
        content = self._content = open_content(data_file(self.path), io)
        return content

    def fetch(self, numbers: list[int], *, sample: int = 1) -> tuple[int, bool]:
        """Asks the kernel for the pages of these records, which will be read soon: how many bytes, and whether it did.

        Does not ask again when all of them are in memory, as far as two pages of every `sample`-th tell. Without an
        index, only those are asked for that were read before; for the others the kernel's readahead on LMDB's map has
        to do.
        """
        if self.index is not None:
            offsets, nbytes = self.index.offset[numbers], self.index.nbytes[numbers]
        else:
            offsets, nbytes = self._learned[:, numbers]
            offsets, nbytes = offsets[nbytes > 0], nbytes[nbytes > 0]
            if not len(offsets):
                return 0, False
        content = self._content or self._open_content()
        # A crop touches some pages of its record; when memory is short the others go first. Between a record's quarter
        # and its end lies most of it. All records: one that is missed costs a fault and a wait for every page of it.
        ends, quarters = (offsets + nbytes - 1)[::sample], (offsets + nbytes // 4)[::sample]
        missing = not (content.resident(ends) and content.resident(quarters))
        if missing:
            content.fetch(extents(offsets, nbytes))
        return int(nbytes.sum()), missing

    def release(self, numbers: list[int]) -> None:
        """Says that these records are done with: their pages are given back to the kernel if cache="drop"."""
        if self._cache == "drop" and self.index is not None and self._content is not None:
            self._content.drop(extents(self.index.offset[numbers], self.index.nbytes[numbers]))

    def fingerprint(self) -> int:
        """A checksum of 32 bits that tells this file from others: of all records with an index, else of two of them."""
        if self.index is not None:
            return crc32(self.index.crc32.tobytes())
        return crc32(self.value(len(self) - 1), crc32(self.value(0), len(self)))

    def close(self) -> None:
        """Lets go of the file. A later use opens it again; views that are still held stay valid."""
        self._environment = self._content = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_environment": None, "_content": None}


def _contains(index: Index, tree: Tree) -> bool:
    """Whether every record that the index names is within the file, and has a size."""
    return bool((index.height > 0).all() and (index.width > 0).all()
                and (index.offset >= 0).all() and (index.nbytes > 0).all()
                and (index.offset <= tree.nbytes - index.nbytes).all())
