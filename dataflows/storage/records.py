"""The records of one open LMDB file by number: at places that an index states, or found by their keys."""
import abc
import copy
import json
from typing import Callable, Iterator, TypeVar
from zlib import crc32

import numpy as np

from dataflows.errors import RecordError
from dataflows.storage import page_cache, record
from dataflows.storage.btree import KEYS, Tree, check_tree
from dataflows.storage.environment import Environment, data_file, open_environment
from dataflows.storage.index import REMEDY, Index
from dataflows.storage.paged_file import StoredBytes, open_file

R = TypeVar("R", bound="Records")
_CHUNK = 2**20  # records that are checked at once, so that checking takes little memory


class Records(abc.ABC):
    """The records of one file, by number: 0 to len - 1 in the order of their keys. See `Store`.

    index, index_path: the file's index and where it is, or None. listed: whether the file lists its keys. private:
    whether what is asked for ahead waits in this process's memory, and not in the page cache.
    starts: the number of the first record of each file that this is.
    mean_nbytes: of the records' values, or None if nobody knows without reading.
    """

    index: Index | None = None
    index_path: str | None = None
    listed = True
    mean_nbytes: float | None = None
    starts = np.zeros(1, np.int64)
    private = False

    def __init__(self, path: str, opener: Callable[[], StoredBytes] | None, *, drop: bool = False) -> None:
        self.path = path
        self._opener, self._drop = opener, drop
        self._file: StoredBytes | None = None

    def _open(self) -> StoredBytes:
        assert self._opener is not None
        file = self._file = self._opener()
        return file

    def close(self) -> None:
        """Lets go of the file. A later use opens it again; views that are still held stay valid."""
        if self._file is not None:
            self._file.close()
        self._file = None

    def closed_copy(self: R) -> R:
        """Another one on the same file, which opens it for itself; what is known of the file is shared."""
        other = copy.copy(self)
        other._file = None  # not closed: it is the other one's, too
        other.close()
        return other

    def opened_by(self: R, opener: Callable[[], StoredBytes]) -> R:
        """Another one on the same file, which opens it so."""
        other = self.closed_copy()
        other._opener = opener
        return other

    def place(self, number: int) -> str:
        """Where record `number` is, for errors: "PATH, key KEY"."""
        return f"{self.path}, key {self.key(number).decode(errors='replace')}"

    def release(self, numbers: list[int]) -> None:
        """Says that these records are done with."""
        if self._drop and self._file is not None:
            page_cache.give_back(self._file, *self.places(numbers))

    @abc.abstractmethod
    def __len__(self) -> int: ...

    @abc.abstractmethod
    def key(self, number: int) -> bytes:
        """The key of record `number`."""

    @abc.abstractmethod
    def value(self, number: int) -> np.ndarray:
        """The stored bytes of record `number`: uint8, read-only."""

    @abc.abstractmethod
    def values(self, numbers: list[int]) -> Iterator[np.ndarray]:
        """What `value` gives for each of these records, looked up at once."""

    @abc.abstractmethod
    def places(self, numbers: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """(offset, nbytes), int64: where in the file those of these records are whose place is known."""

    @abc.abstractmethod
    def sizes(self, numbers: list[int]) -> tuple[np.ndarray, np.ndarray] | None:
        """(heights, widths) of these records' images, int64, in pixels; None if they are not known without reading."""

    @abc.abstractmethod
    def names(self, numbers: np.ndarray) -> list[bytes] | None:
        """The source files of these records, or None if nobody knows."""

    @abc.abstractmethod
    def fingerprint(self) -> int:
        """A checksum of 32 bits that tells this file's records from those of others."""

    @abc.abstractmethod
    def identity(self) -> int:
        """A checksum of 32 bits of all that is known of the file."""

    def will_need(self, numbers: list[int], sample: int) -> tuple[int, bool]:
        """Asks for the pages of those records whose place is known: how many bytes, and whether it had to."""
        offsets, nbytes = self.places(numbers)
        if not len(offsets):
            return 0, False
        return int(nbytes.sum()), page_cache.ask_for(self._file or self._open(), offsets, nbytes, sample)


class IndexedRecords(Records):
    """Records that are stretches of the file by its index: liblmdb is not needed.

    Raises ValueError where the index is another file's.
    """

    def __init__(self, path: str, opener: Callable[[], StoredBytes], index: Index, index_path: str, tree: Tree, *,
                 drop: bool, verify: bool) -> None:
        super().__init__(path, opener, drop=drop)
        self.index: Index = index
        self.index_path: str = index_path
        self._verify = False
        self._refuse_foreign_index(tree)  # says more of a checksum that differs than `verify` does
        self._verify = verify
        self.mean_nbytes = float(index.nbytes.mean()) if index.count else 0.0

    def _refuse_foreign_index(self, tree: Tree) -> None:
        index, different = self.index, ""
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

    def __len__(self) -> int:
        return self.index.count

    def key(self, number: int) -> bytes:
        """Dumps name records by their number."""
        return b"%08d" % number

    def value(self, number: int) -> np.ndarray:
        """A view of the map, or a copy. Raises RecordError where it cannot be read, or is not what was written."""
        file = self._file or self._open()
        offset, nbytes = self.index.offset.item(number), self.index.nbytes.item(number)
        try:
            value = file.read(offset, nbytes)
        except OSError as error:
            raise self._unreadable(number, error) from error
        return self._verified(number, value)

    def values(self, numbers: list[int]) -> Iterator[np.ndarray]:
        """What `value` gives for each."""
        file = self._file or self._open()
        values = map(file.read, self.index.offset[numbers].tolist(), self.index.nbytes[numbers].tolist())
        for number in numbers:
            try:
                value = next(values)
            except OSError as error:
                raise self._unreadable(number, error) from error
            yield self._verified(number, value)

    def _unreadable(self, number: int, error: OSError) -> RecordError:
        return RecordError(f"{self.place(number)}: it cannot be read: {error.strerror}"
                           + ". Check the disk or the network, or copy the file again" * (not self.private))

    def _verified(self, number: int, value: np.ndarray) -> np.ndarray:
        if self._verify and crc32(value) != self.index.crc32[number]:
            raise RecordError(f"{self.place(number)}: the record is not what was written, by its checksum. Copy the "
                              f"file again, or dump it again; `python -m dataflows verify` finds all such records")
        return value

    def places(self, numbers: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """The places of all of them."""
        return self.index.offset[numbers], self.index.nbytes[numbers]

    def sizes(self, numbers: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """As the index has them."""
        return self.index.height[numbers].astype(np.int64), self.index.width[numbers].astype(np.int64)

    def names(self, numbers: np.ndarray) -> list[bytes]:
        """As the index has them."""
        names: list[bytes] = self.index.name[numbers].tolist()
        return names

    def fingerprint(self) -> int:
        """A checksum of the checksums of all records."""
        return self.index.fingerprint()

    def identity(self) -> int:
        """A checksum of all columns of the index, and of its meta object."""
        checksum = crc32(json.dumps(self.index.written_meta()).encode())
        for name, column in vars(self.index).items():
            if name != "meta":
                checksum = crc32(np.ascontiguousarray(column).view(np.uint8), checksum)
        return checksum


class SearchedRecords(Records):
    """Records that liblmdb finds by their keys, as the file lists them, or without a list all that it has.

    Where it finds one in the file is remembered. Values are views of LMDB's own map. Raises ValueError where the file's
    tree or its list of keys is damaged.
    """

    def __init__(self, path: str) -> None:
        # Nothing is read so, and pages are asked for.
        super().__init__(path, lambda: open_file(data_file(path), "pread"))
        check_tree(data_file(path))
        self._environment: Environment | None = open_environment(path)
        listed = self._environment.transaction.get(KEYS)
        self.listed = listed is not None
        if listed is None:
            cursor = self._environment.transaction.cursor()
            self._keys = [bytes(key) for key in cursor.iternext(keys=True, values=False)]
        else:
            self._keys = self._read_keys(np.frombuffer(listed, np.uint8), self._environment.entries - 1)
        self._learned = np.zeros((2, len(self._keys)), np.int64)  # offset and bytes of each record that was read

    def _read_keys(self, listed: np.ndarray, count: int) -> list[bytes]:
        try:
            keys = record.unpack_keys(listed)
        except RecordError as error:
            raise ValueError(f"{self.path}, key {KEYS.decode()}: {error}") from error
        if len(keys) != count:
            raise ValueError(f"{self.path} lists {len(keys):,} keys and holds {count:,} records: some were lost or "
                             f"added after it was written. Write it again")
        if len(set(keys)) != len(keys):
            raise ValueError(f"{self.path} lists a key twice, so a record would be read twice and another never. Write "
                             f"it again")
        return sorted(keys)

    def close(self) -> None:
        """Lets go of LMDB's map, too."""
        super().close()
        self._environment = None

    def __len__(self) -> int:
        return len(self._keys)

    def key(self, number: int) -> bytes:
        """As the file has it."""
        return self._keys[number]

    def value(self, number: int) -> np.ndarray:
        """A view of LMDB's map. Raises ValueError where a key that is listed is missing."""
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
        """What `value` gives for each, one after the other."""
        return map(self.value, numbers)

    def places(self, numbers: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """The places of records that were read before; for others, the kernel's readahead on LMDB's map must do."""
        offsets, nbytes = self._learned[:, numbers]
        return offsets[nbytes > 0], nbytes[nbytes > 0]

    def sizes(self, numbers: list[int]) -> None:
        """Not known."""

    def names(self, numbers: np.ndarray) -> None:
        """Not known."""

    def fingerprint(self) -> int:
        """A checksum of their number, the first one and the last one: reading all would take long."""
        return crc32(self.value(len(self) - 1), crc32(self.value(0), len(self)))

    def identity(self) -> int:
        """A checksum of all keys, the first record and the last one."""
        return crc32(b"\0".join(self._keys), self.fingerprint())


def _contains(index: Index, tree: Tree) -> bool:
    """Whether every record that the index names is within the file, and has a size."""
    for start in range(0, index.count, _CHUNK):
        part = slice(start, start + _CHUNK)
        offset, nbytes = index.offset[part], index.nbytes[part]
        if not ((index.height[part] > 0).all() and (index.width[part] > 0).all() and (offset >= 0).all()
                and (nbytes > 0).all() and (offset <= tree.nbytes - nbytes).all()):
            return False
    return True
