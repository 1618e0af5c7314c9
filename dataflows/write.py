"""Writing records with tensorpack's LMDBSerializer, made safe, and reading them back before anyone relies on them."""
import contextlib
import mmap
from typing import Any, Callable, Iterable
from zlib import crc32

import lmdb
import msgpack
import numpy as np

from dataflows.quiet import DataFlow, LMDBSerializer
from dataflows.store import KEYS, Store

_TRANSACTION_BYTES = 64 * 2**20  # a transaction is held in memory twice: as records here, as dirty pages by LMDB
_MAP_SIZE_BYTES = 2**30  # doubled whenever it is full
# py-lmdb 3 can also write the format of LMDB 1.0, which older readers do not know.
_OLD_FORMAT = {"lib_version": 0} if hasattr(lmdb.Environment, "lib_version") else {}


class Packed:
    """The bytes of one record, as a datapoint of their own: packed by a worker thread, not by the one that writes."""

    __slots__ = ("crc32", "value")

    def __init__(self, value: bytes) -> None:
        self.value = value
        self.crc32 = crc32(value)


class PackedLMDBSerializer(LMDBSerializer):
    """tensorpack's LMDBSerializer for Packed datapoints: the file that its `save` writes in msgpack, and `load` reads.

    The stock `save` cannot be used as it is: it takes its wire format from an environment variable at import; loses a
    transaction when the map is full, and still lists its keys (upstream issue 1562); leaves the environment open when
    `df` raises, which crashed a later save in the same process; and holds 5,000 records in memory, of whatever size.
    """

    @staticmethod
    def save(df: DataFlow, path: str) -> None:
        """Writes the Packed datapoints of `df` to a new LMDB file, and its list of keys. Raises OSError on failure."""
        df.reset_state()
        # No lock file: nobody else knows the file yet. No sync until the end: half a file is of no use.
        env = lmdb.open(path, subdir=False, lock=False, sync=False, meminit=False, map_size=_MAP_SIZE_BYTES,
                        **_OLD_FORMAT)
        try:
            count = pending_bytes = 0
            pending: list[tuple[bytes, bytes]] = []
            for packed in df:
                pending.append((b"%08d" % count, packed.value))
                pending_bytes += len(packed.value)
                count += 1
                if pending_bytes >= _TRANSACTION_BYTES:
                    _commit(env, pending)
                    pending, pending_bytes = [], 0
            keys = msgpack.packb([b"%08d" % number for number in range(count)], use_bin_type=True)
            _commit(env, [*pending, (KEYS, keys)])
            env.sync(True)
        except lmdb.Error as error:
            raise OSError(f"{path} could not be written: {error}. Check the disk and its free space, then dump again"
                          ) from error
        finally:
            env.close()


def _commit(env: Any, pending: Iterable[tuple[bytes, bytes]]) -> None:
    """Adds records, whose keys ascend, in one transaction. A full map is doubled, and the transaction made again."""
    while True:
        try:
            with env.begin(write=True) as txn:
                for key, value in pending:
                    txn.put(key, value, append=True)
            return
        except lmdb.MapFullError:
            env.set_mapsize(2 * env.info()["map_size"])


def read_back(path: str, checksums: list[int], advance: Callable[[], object]) -> tuple[np.ndarray, np.ndarray]:
    """(nbytes, offset), int64, of every record of a new LMDB, after comparing each with its checksum.

    Calls `advance` after each record. Raises OSError if a record is missing or differs: disks can lie.
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
        return nbytes, addresses - _map_base(path, store, nbytes, addresses)


def _map_base(path: str, store: Store, nbytes: np.ndarray, addresses: np.ndarray) -> int:
    """Where in memory the LMDB is mapped: an address less this is an offset in the file.

    Found by looking for the largest record in the file; the map starts on a page.
    """
    largest = int(nbytes.argmax())
    value, address = store.value(largest).tobytes(), int(addresses[largest])
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        offset = content.find(value)
        while offset >= 0:
            base = address - offset
            starts = addresses - base
            if base % mmap.PAGESIZE == 0 and starts.min() >= 0 and (starts + nbytes).max() <= len(content) and all(
                    content[starts[i]:starts[i] + nbytes[i]] == store.value(i).tobytes() for i in (0, len(store) - 1)):
                return base
            offset = content.find(value, offset + 1)
    raise OSError(f"{path}: its records are not where LMDB's map shows them")
