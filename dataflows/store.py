"""The open LMDB of this process: read-only environments, a transaction per thread, values as views.

LMDB's rules, kept here so that nobody else has to: one environment per file and process; a read transaction belongs to
one thread; a view must not outlive its environment. An environment is closed when the last Store and the last view of
it are gone, never before, so there is no moment at which closing could pull the map away under a decoding thread.

LMDB also forbids to use an environment after a fork, because its reader table and its locks belong to the process that
opened it. Opened read-only without locks it has neither: a child goes on with the map it inherits, and its views stay
valid. (It could not do otherwise: py-lmdb refuses to open in the child what the parent has open.)
"""
import logging
import os
import threading
import time
import weakref
from typing import Any
from zlib import crc32

import lmdb
import numpy as np

from dataflows import record
from dataflows.index import Index, index_path, load_index

logger = logging.getLogger(__name__)

_OPEN_ATTEMPTS = 500  # at 1 ms each
KEYS = b"__keys__"  # tensorpack's list of keys: the one entry that is not a record


def _open_readonly(path: str) -> lmdb.Environment:
    """py-lmdb's environment. It refuses a file that is open, and another thread may be about to close this one."""
    for _ in range(_OPEN_ATTEMPTS):
        try:
            return lmdb.open(path, subdir=os.path.isdir(path), readonly=True, lock=False, create=False)
        except lmdb.Error as error:
            if "already open" not in str(error):
                raise
            refused = error
            time.sleep(0.001)
    raise refused


class _Environment:
    """One memory-mapped LMDB file, and this thread's read transaction on it."""

    def __init__(self, path: str) -> None:
        try:
            self._env = _open_readonly(path)
        except lmdb.Error as error:
            raise ValueError(f"{path} cannot be read as an LMDB file: {error}. Write one with dump_imagenet.py, check "
                             f"the path, or close other readers of it in this process, such as tensorpack's") from error
        self.entries = self._env.stat()["entries"]
        self._threads = threading.local()
        self.size = (self._env.info()["last_pgno"] + 1) * self._env.stat()["psize"]  # of what is used, in bytes
        self._refuse_if_truncated(path)

    def _refuse_if_truncated(self, path: str) -> None:
        # Reading a mapped page beyond the end of the file is a SIGBUS, which no handler can turn into an error.
        actual = os.path.getsize(data_file(path))
        if actual < self.size:
            self._env.close()
            raise ValueError(f"{path} is truncated: it has {actual:,} bytes and LMDB's header states {self.size:,}. "
                             f"Copy it again, or dump it again")

    @property
    def transaction(self) -> lmdb.Transaction:
        try:
            txn: lmdb.Transaction = self._threads.transaction
        except AttributeError:
            txn = self._threads.transaction = self._env.begin(buffers=True)
        return txn

    def get(self, key: bytes) -> np.ndarray | None:
        """The value of a key: uint8, read-only, a view that keeps this environment open. None if there is no such key.
        """
        value = self.transaction.get(key)
        if value is None:
            return None
        return np.asarray(_Mapped(np.frombuffer(value, np.uint8).__array_interface__, self))

    def whole(self, address: int) -> np.ndarray:
        """All of the used part of the file, as `get` gives values. `address` is where its first byte is mapped."""
        return np.asarray(_Mapped({"version": 3, "typestr": "|u1", "shape": (self.size,), "data": (address, True)},
                                  self))


class _Mapped:
    """The owner of a view into the map: it keeps the environment open for as long as numpy keeps the view."""

    __slots__ = ("__array_interface__", "environment")

    def __init__(self, interface: dict[str, Any], environment: _Environment) -> None:
        self.__array_interface__ = interface
        self.environment = environment


_environments: weakref.WeakValueDictionary[tuple[int, int], _Environment] = weakref.WeakValueDictionary()
_lock = threading.Lock()


def _renew_lock() -> None:
    """After a fork, in the child: another thread of the parent may have held the lock."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


def data_file(path: str) -> str:
    """The file that holds the data of an LMDB given as a file or, as older writers made them, as a folder."""
    return os.path.join(path, "data.mdb") if os.path.isdir(path) else path


def _open(path: str) -> _Environment:
    try:
        stat = os.stat(data_file(path))
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no LMDB file {path}. Write one with dump_imagenet.py, or check the path"
                                ) from None
    with _lock:
        environment = _environments.get((stat.st_dev, stat.st_ino))
        if environment is None:
            environment = _environments[stat.st_dev, stat.st_ino] = _Environment(path)
        return environment


class Store:
    """The records of one LMDB file, by number: 0 to len - 1 in the order of their keys.

    With an index, a record is a slice of the file, which LMDB's search is not needed to find. Opens the file on first use; may be pickled, forked and used by any number of threads, and any
    number of Stores may name one file. Raises FileNotFoundError or ValueError when the file is missing, truncated, not
    an LMDB, or holds no records.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._environment: _Environment | None = None
        self._content: np.ndarray | None = None  # of the whole file, when there is an index
        self._keys: list[bytes] | None = None
        self.index = load_index(self.path, data_file(self.path))
        self._size = self._find_size()

    def _find_size(self) -> int:
        if self.index is None:
            self._keys = self._find_keys(self._open())
            size = len(self._keys)
        else:
            size = self.index.count
            if size:
                self._refuse_foreign_index(self.index, self._open())
        if size == 0:
            raise ValueError(f"{self.path} holds no records. Dump it again, and look at the summary of that dump")
        return size

    def _refuse_foreign_index(self, index: Index, environment: _Environment) -> None:
        # Files of images of one size can have equal lengths, so the first and the last record are compared too.
        if (environment.entries - 1 != index.count or not self._contains(index, environment)
                or any(crc32(self.value(i)) != index.crc32[i] for i in (0, index.count - 1))):
            self.close()
            raise ValueError(f"{index_path(self.path)} is the index of another file than {self.path}: their records "
                             f"differ. Remove it to read the LMDB without an index, or dump again")

    def _contains(self, index: Index, environment: _Environment) -> bool:
        """Whether every record that the index names is within the file."""
        return bool((index.offset >= 0).all() and (index.nbytes > 0).all()
                    and (index.offset <= environment.size - index.nbytes).all())

    def _find_keys(self, environment: _Environment) -> list[bytes]:
        listed = environment.transaction.get(KEYS)
        if listed is None:
            logger.warning("%s has no %s, so all of its keys are read once: slow on a large file. tensorpack's "
                           "LMDBSerializer.save and dump_imagenet.py write them", self.path, KEYS.decode())
            return [bytes(key) for key in environment.transaction.cursor().iternext(keys=True, values=False)]
        try:
            keys = record.unpack_keys(np.frombuffer(listed, np.uint8))
        except record.RecordError as error:
            raise ValueError(f"{self.path}, key {KEYS.decode()}: {error}") from error
        if len(keys) != environment.entries - 1:
            raise ValueError(f"{self.path} lists {len(keys):,} keys and holds {environment.entries - 1:,} records: "
                             f"some were lost or added after it was written. Write it again")
        if len(set(keys)) != len(keys):
            raise ValueError(f"{self.path} lists a key twice, so a record would be read twice and another never. Write "
                             f"it again")
        return sorted(keys)

    def _open(self) -> _Environment:
        environment = self._environment
        if environment is None:
            environment = self._environment = _open(self.path)
        return environment

    def _open_content(self, index: Index) -> np.ndarray:
        environment = self._open()
        first = environment.get(self.key(0))
        if first is None or len(first) != index.nbytes[0]:
            raise ValueError(f"{index_path(self.path)} is the index of another file than {self.path}: their first "
                             f"records differ. Remove it to read the LMDB without an index, or dump again")
        content = self._content = environment.whole(first.__array_interface__["data"][0] - index.offset.item(0))
        return content

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
                content = self._open_content(index)
            start = index.offset.item(number)
            return content[start:start + index.nbytes.item(number)]
        value = self._open().get(self.key(number))
        if value is None:
            raise ValueError(f"{self.path} has no key {self.key(number)!r}, which its list of keys or its index "
                             f"names. Write it again")
        return value

    def close(self) -> None:
        """Lets go of the file. A later use opens it again; views that are still held stay valid."""
        self._environment = self._content = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_environment": None, "_content": None}
