"""LMDB environments of this process: read-only, one per file, open as long as a view of a value lives.

LMDB's rules, kept here so that nobody else has to: one environment per file and process; a read transaction belongs to
one thread; a view must not outlive its environment. An environment is closed when the last user and the last view of
it are gone, never before, so there is no moment at which closing could pull the map away under a decoding thread.

LMDB also forbids to use an environment after a fork, because its reader table and its locks belong to the process that
opened it. Opened read-only without locks it has neither: a child goes on with the map it inherits, and its views stay
valid. (It could not do otherwise: py-lmdb refuses to open in the child what the parent has open.)
"""
import errno
import os
import threading
import time
import weakref

import lmdb
import numpy as np

from dataflows.owned_arrays import Owner
from dataflows.storage.btree import read_header
from dataflows.system import told

_OPEN_ATTEMPTS = 500  # at 1 ms each


def _open_readonly(path: str) -> lmdb.Environment:
    """py-lmdb's environment. It refuses a file that is open, and another thread may be about to close this one."""
    for _ in range(_OPEN_ATTEMPTS):
        try:
            return lmdb.open(os.fsencode(path), subdir=os.path.isdir(path), readonly=True, lock=False, create=False)
        except lmdb.Error as error:
            if "already open" not in str(error):
                raise
            refused = error
            time.sleep(0.001)
    raise refused


class Environment:
    """One memory-mapped LMDB file, and this thread's read transaction on it.

    entries: in it, the list of keys included.
    """

    def __init__(self, path: str) -> None:
        self.entries = read_header(data_file(path)).entries  # liblmdb would trust what it says
        try:
            self._env = _open_readonly(path)
        except lmdb.Error as error:
            raise _refused(path, str(error)) from error
        self._threads = threading.local()
        self._stat = os.stat(data_file(path))

    @property
    def base(self) -> int | None:
        """The address of the file's first byte, so that a value's address less this is its offset in the file; None
        where the system does not tell. Not looked for until it is needed, which it is not with an index.
        """
        # Not a cached_property: before Python 3.12 it holds a lock, which a fork meanwhile leaves locked in the child.
        if not hasattr(self, "_base"):
            self._base = _map_address(self._stat)
        return self._base

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
        return np.asarray(Owner(np.frombuffer(value, np.uint8).__array_interface__, self))


def _refused(path: str, reason: str) -> Exception:
    """What to raise when liblmdb does not open a file whose header is right."""
    if "already open" in reason:
        return ValueError(f"{path} cannot be read by liblmdb: {reason}. Close other readers of it in this process, "
                          f"such as tensorpack's")
    number = next((number for number in errno.errorcode if reason.endswith(os.strerror(number))), None)
    if number is None:
        return ValueError(f"{path} cannot be read as an LMDB file: {reason}. Copy it again, or write it again")
    if number in (errno.EMFILE, errno.ENFILE, errno.EACCES):
        return OSError(number, os.strerror(number), path)
    return OSError(number, f"{path} cannot be mapped into memory by liblmdb: {os.strerror(number)}. Copy it to another "
                           f"file system, or raise the limit on memory, if there is one (ulimit -v); one with an index "
                           f"is also read without a map (io='pread')")


def _map_address(stat: os.stat_result) -> int | None:
    """Where this process maps a file from its start."""
    device = f"{os.major(stat.st_dev):02x}:{os.minor(stat.st_dev):02x}"
    found = [int(fields[0].split("-")[0], 16) for fields in told("/proc/self/maps")
             if fields[2:5] == ["00000000", device, str(stat.st_ino)]]
    return found[0] if len(found) == 1 else None


_environments: weakref.WeakValueDictionary[tuple[int, int], Environment] = weakref.WeakValueDictionary()
_lock = threading.Lock()


def _renew_lock() -> None:
    """After a fork, in the child: another thread of the parent may have held the lock."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


def data_file(path: str) -> str:
    """The file that holds the data of an LMDB given as a file or, as older writers made them, as a folder."""
    return os.path.join(path, "data.mdb") if os.path.isdir(path) else path


def open_environment(path: str) -> Environment:
    """This process's environment of an LMDB file.

    Raises ValueError if it is no LMDB file, or truncated, and OSError if it is not there or the system refuses it.
    """
    stat = os.stat(data_file(path))
    with _lock:
        environment = _environments.get((stat.st_dev, stat.st_ino))
        if environment is None:
            environment = _environments[stat.st_dev, stat.st_ino] = Environment(path)
        return environment
