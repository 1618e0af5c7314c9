"""Writing records with tensorpack's LMDBSerializer, and reading them back before anyone relies on them."""
import contextlib
import mmap
import os
import threading
from typing import Any, Callable, Iterator
from zlib import crc32

import msgpack
import numpy as np
import tqdm

from dataflows.quiet import DataFlow, LMDBSerializer, quiet_tensorpack
from dataflows.store import Store

_TRANSACTION_BYTES = 128 * 2**20  # LMDB holds a transaction's pages in memory until it is committed
_PAGE = mmap.PAGESIZE


class Packed:
    """The bytes of one record, as a datapoint of their own: packed by a worker thread, not by the one that writes."""

    __slots__ = ("crc32", "value")

    def __init__(self, value: bytes) -> None:
        self.value = value
        self.crc32 = crc32(value)


def _dumps(obj: Any) -> bytes:
    value: bytes = obj.value if isinstance(obj, Packed) else msgpack.packb(obj, use_bin_type=True)
    return value


def _no_bar(*_: Any, **__: Any) -> tqdm.tqdm:
    return tqdm.tqdm(disable=True)


_save_lock = threading.Lock()


@contextlib.contextmanager
def _pinned_serializer() -> Iterator[None]:
    """tensorpack chooses its wire format when it is imported, by an environment variable: here it is ours to choose."""
    from tensorpack.dataflow import serialize

    pinned = {"dumps": _dumps, "get_tqdm": _no_bar}
    with _save_lock, quiet_tensorpack():
        original = {name: getattr(serialize, name) for name in pinned}
        vars(serialize).update(pinned)
        try:
            yield
        finally:
            vars(serialize).update(original)


def save_records(ds: DataFlow, path: str, record_bytes: float) -> None:
    """Writes the Packed datapoints of `ds` to a new LMDB file with tensorpack's LMDBSerializer.save.

    `record_bytes` is their mean size, which bounds the memory of a transaction. The format is msgpack whatever
    TENSORPACK_SERIALIZE says. LMDB's lock file does not stay behind.
    """
    try:
        with _pinned_serializer():
            LMDBSerializer.save(ds, path, write_frequency=max(1, int(_TRANSACTION_BYTES / record_bytes)))
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + "-lock")


def read_back(path: str, checksums: list[int], advance: Callable[[], object]) -> tuple[np.ndarray, np.ndarray]:
    """(nbytes, offset), int64, of every record of a new LMDB, after comparing each with its checksum.

    Calls `advance` after each record. Raises OSError if a record is missing or differs: tensorpack can lose a
    transaction when its map is full, and disks can lie.
    """
    remedy = "Nothing of it was kept; check the disk, then dump again"
    with contextlib.closing(Store(path)) as store:
        if len(store) != len(checksums):
            raise OSError(f"{path}: {len(checksums):,} records were written and {len(store):,} are there. {remedy}")
        nbytes, addresses = np.empty(len(store), np.int64), np.empty(len(store), np.int64)
        for number, expected in enumerate(checksums):
            value = store.value(number)
            if crc32(value) != expected:
                raise OSError(f"{path}, key {store.key(number).decode()}: what was read back is not what was "
                              f"written. {remedy}")
            nbytes[number], addresses[number] = len(value), value.__array_interface__["data"][0]
            advance()
        return nbytes, addresses - _map_base(path, store)


def _map_base(path: str, store: Store) -> int:
    """Where in memory the LMDB is mapped: an address less this is an offset in the file."""
    first, last = store.value(0), store.value(len(store) - 1)
    address, last_address = (value.__array_interface__["data"][0] for value in (first, last))
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        needle = first[:_PAGE].tobytes()
        offset = content.find(needle)
        while offset >= 0:
            base: int = address - offset
            end = last_address - base
            # Maps start on a page; and an equal value elsewhere in the file would misplace the last record.
            if base % _PAGE == 0 and content[end:end + len(last)] == last.tobytes():
                return base
            offset = content.find(needle, offset + 1)
    raise OSError(f"{path}: its records are not where LMDB's map shows them")
