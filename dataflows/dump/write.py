"""Writes records in transactions that a killed dump can go on from; a subclass of tensorpack's LMDBSerializer.

Each transaction holds records up to a fixed number of bytes, is on the disk when it ends, and has an environment of its
own: what LMDB keeps in memory between transactions, such as pages to use again with what was in them, decides about the
unused bytes of later pages. So the file is a function of its records, byte for byte, however often it was interrupted.
"""
import os
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Callable
from zlib import crc32

import lmdb
import msgpack

from dataflows.storage.btree import KEYS, read_header
from dataflows.storage.flush import flush
from dataflows.tensorpack import DataFlow, LMDBSerializer

_TRANSACTION_BYTES = 64 * 2**20  # held in memory up to three times: collected, handed over, and as LMDB's dirty pages
_MAP_SIZE_BYTES = 2**30  # doubled whenever it is full
# py-lmdb 3 can also write the format of LMDB 1.0, which older readers do not know.
_OLD_FORMAT: dict[str, Any] = {"lib_version": 0} if hasattr(lmdb.Environment, "lib_version") else {}


class Packed:
    """The bytes of one record, as a datapoint of their own: packed by a worker thread, not by the one that writes.

    value: None for a datapoint that is not stored, and has only a note. note: what a journal should say of it.
    """

    __slots__ = ("crc32", "note", "value")

    def __init__(self, value: bytes | None, note: Any = None) -> None:
        self.value = value
        self.crc32 = 0 if value is None else crc32(value)
        self.note = note


class PackedLMDBSerializer(LMDBSerializer):
    """tensorpack's LMDBSerializer for Packed datapoints: the file that its `save` writes in msgpack, and `load` reads.

    The stock `save` cannot be used as it is: it takes its wire format from an environment variable at import; loses a
    transaction when the map is full, and still lists its keys (upstream issue 1562); leaves the environment open when
    `df` raises, which crashed a later save in the same process; and holds 5,000 records in memory, of whatever size.
    """

    @staticmethod
    def save(df: DataFlow, path: str, *, first: int = 0, log: Callable[[list[Any]], object] | None = None) -> float:
        """Adds the Packed datapoints of `df`, and the list of keys, to an LMDB file that holds `first` records.

        Transactions are made in a thread of its own, one at a time, while `df` goes on. Before each of them, `log` is
        called there with the notes of its datapoints. When `df` raises, transactions that have begun are ended and
        nothing else is written. Returns the seconds that `log` and transactions took. Raises OSError when the disk
        fails.
        """
        df.reset_state()
        writer = _Writer(path, log)
        with ThreadPoolExecutor(1, thread_name_prefix="dataflows") as pool:
            writing: Future[None] | None = None
            count, pending_bytes = first, 0
            notes: list[Any] = []
            pending: list[tuple[bytes, bytes]] = []
            for packed in df:
                notes.append(packed.note)
                if packed.value is None:
                    continue
                pending.append((b"%08d" % count, packed.value))
                pending_bytes += len(packed.value)
                count += 1
                if pending_bytes >= _TRANSACTION_BYTES:
                    if writing is not None:
                        writing.result()
                    writing = pool.submit(writer, notes, pending)
                    notes, pending, pending_bytes = [], [], 0
            if writing is not None:
                writing.result()
            keys = msgpack.packb([b"%08d" % number for number in range(count)], use_bin_type=True)
            pool.submit(writer, notes, [*pending, (KEYS, keys)]).result()
        return writer.seconds


class _Writer:
    """Logs and writes one transaction."""

    def __init__(self, path: str, log: Callable[[list[Any]], object] | None) -> None:
        self._path, self._log = path, log
        self.seconds = 0.0

    def __call__(self, notes: list[Any], pending: list[tuple[bytes, bytes]]) -> None:
        started = time.perf_counter()
        try:
            if self._log is not None:
                self._log(notes)
            _commit(self._path, pending)
        except lmdb.MemoryError as error:  # of address space, which no disk has to do with
            raise OSError(f"{self._path} could not be written: {error}. liblmdb maps all of the file, and the system "
                          f"refuses it: raise the limit on address space (ulimit -v), if there is one") from error
        except lmdb.Error as error:
            raise OSError(f"{self._path} could not be written: {error}. Check the disk and its free space") from error
        self.seconds += time.perf_counter() - started


def _commit(path: str, pending: list[tuple[bytes, bytes]]) -> None:
    """Adds records, whose keys ascend, in one transaction. A full map is doubled, and the transaction made again.

    It is made again without flushes, too, where the file system knows none.
    """
    # Of what is used, and not of the file: a transaction that was killed may have made it longer.
    used = read_header(path).nbytes if os.path.exists(path) and os.path.getsize(path) else 0
    needed = used + 2 * sum(len(value) for _, value in pending)
    map_size, sync = _MAP_SIZE_BYTES, True
    while map_size < needed:
        map_size *= 2
    while True:
        # No lock file: nobody else may write.
        env = lmdb.open(os.fsencode(path), subdir=False, lock=False, map_size=map_size, sync=sync, **_OLD_FORMAT)
        try:
            with env.begin(write=True) as txn:
                for key, value in pending:
                    txn.put(key, value, append=True)
            return
        except lmdb.MapFullError:
            map_size *= 2
        except lmdb.Error:
            if not sync or flush(path):
                raise
            sync = False  # that was the reason: the file system refuses it, and nobody can do more
        finally:
            env.close()
