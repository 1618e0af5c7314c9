"""Compares every byte of an LMDB file and its index with their checksums, at the speed of the disk.

The index holds the checksum of each record, of all bytes between them, and of itself. The file is read in regions, in
the order of their place, by several threads, and past the page cache: what a disk holds is of interest, and not what
memory does. Nothing is mapped, so the memory that is used is that of a few regions, however large the file is.
"""
import contextlib
import os
import time
from typing import Any, Callable, Mapping, NamedTuple, Sequence
from zlib import crc32

import numpy as np

from dataflows.errors import Damaged, NoChecksums
from dataflows.options import suggests
from dataflows.processors import default_workers
from dataflows.storage.btree import locate, read_header
from dataflows.storage.index import Index, find_index, index_path, load_index
from dataflows.storage.paths import existing_file
from dataflows.storage.remote.once import FAR_THREADS, ReadOnce, opened_once
from dataflows.storage.remote.opening import remote_header, remote_index
from dataflows.storage.remote.options import PLAIN, RemoteOptions
from dataflows.storage.remote.urls import is_url
from dataflows.storage.shards.files import PathLike, shard_files
from dataflows.storage.store import Store
from dataflows.terminal import printable, progress_bar
from dataflows.threads import map_ordered

OUTSIDE = "bytes outside of the records, which are LMDB's own, are not what was written, or cannot be read"
_REGION_BYTES = 8 * 2**20  # and what is left of the last record in it


class VerifyReport(NamedTuple):
    """What a verification found."""

    path: str
    records: int
    size: int  # bytes of the LMDB
    bad: list[str]  # what differs: a record by its key and source file, or what is between the records
    seconds: float

    def __str__(self) -> str:
        found = ["these are bad:", *self.bad] if self.bad else ["all as they were written"]
        text = (f"{self.path}: {self.records:,} records, {self.size / 1e6:,.1f} MB read in {self.seconds:.1f} s, "
                f"{self.size / 1e6 / self.seconds:,.0f} MB/s: {found[0]}")
        return "\n  ".join(map(printable, (text, *found[1:])))


@suggests
def verify(path: PathLike | Sequence[PathLike], *, num_threads: int | None = None, progress: bool = True,
           storage_options: Mapping[str, Any] | None = None) -> VerifyReport:
    """Reads an LMDB and its index again, and compares each byte with the checksums that were taken when dumping.

    path: of an LMDB, or what means several: a manifest, a pattern or a list, whose files are verified one by one. Each
        may be a URL, but for a pattern, and is read once in full.
    num_threads: that read, by default one per processor, and 8 for URLs. progress: show a progress bar on stderr.
    storage_options: how to reach URLs, as LMDBLoader has them.

    Raises FileNotFoundError when there is no such file, NoChecksums when it has no index, and ValueError when one of
    the two cannot be read at all: it is truncated, or is something else. OSError when a request to a URL failed.

    >>> print(verify("val.lmdb", progress=False))
    val.lmdb: 10 records, ... MB read in ... s, ... MB/s: all as they were written
    """
    remote = RemoteOptions(storage_options)
    files = shard_files(path, remote)
    if files is None:
        assert isinstance(path, (str, os.PathLike))
        return _verify_file(os.fspath(path), num_threads, progress, remote)
    store = Store(path, storage_options=storage_options)  # which compares the shards with their manifest
    reports = [_verify_file(file, num_threads, progress, remote) for file in files]
    return VerifyReport(store.path, len(store), sum(one.size for one in reports),
                        [f"{one.path}, {reason}" for one in reports for reason in one.bad],
                        sum(one.seconds for one in reports))


def _verify_file(path: str, num_threads: int | None, progress: bool, remote: RemoteOptions) -> VerifyReport:
    started, (file, index) = time.perf_counter(), _index_of(path, remote)
    size = index.meta.file_size
    num_threads = num_threads or (FAR_THREADS if is_url(path) else default_workers())
    with progress_bar("verifying", size, shown=progress, unit="B", unit_scale=True) as bar:
        bad, rest = checksums(file, index.nbytes, index.offset, index.crc32, remote=remote,
                              num_threads=num_threads, advance=bar.update)
    reasons = [f"key {number:08d} ({_name(index, number)}): {reason}" for number, reason in sorted(bad.items())]
    if rest != index.meta.rest_crc32:
        reasons.append(OUTSIDE)
    return VerifyReport(path, index.count, size, reasons, time.perf_counter() - started)


def _index_of(path: str, remote: RemoteOptions) -> tuple[str, Index]:
    """(the file with the data, its index) of the LMDB at a path or URL."""
    if is_url(path):
        return path, remote_index(path, remote, remote_header(path, remote))
    file = existing_file(path)
    if find_index(path, file) is None:
        raise NoChecksums(f"{path} has no index {os.path.basename(index_path(path))}, which holds the checksums to "
                          f"compare it with. Dump it again to have one")
    index = load_index(path, file, read_header(file).nbytes)
    assert index is not None
    return file, index


def _name(index: Index, number: int) -> str:
    return printable(os.fsdecode(bytes(index.name[number])))


def read_back(path: str, expected: Sequence[int], *, name: str, num_threads: int, progress: bool
              ) -> tuple[np.ndarray, np.ndarray, int]:
    """Compares what the disk holds of a file that was just written with the checksum of each record.

    Gives where the records are, nbytes and offsets, int64 (count,), and the crc32 of all bytes outside of them. The
    progress bar calls the file `name`. Raises Damaged if anything differs.
    """
    size, count = os.path.getsize(path), len(expected)
    try:
        nbytes, offsets = locate(path)
        if len(nbytes) != count:
            raise ValueError(f"{path}: {count:,} records were written and {len(nbytes):,} are there")
        with progress_bar(f"reading {name} back", size, shown=progress, unit="B", unit_scale=True) as bar:
            bad, rest = checksums(path, nbytes, offsets, np.array(expected, np.uint32), num_threads=num_threads,
                                  advance=bar.update)
        if bad or rest is None:
            where = f"key {min(bad):08d}" if bad else "outside of its records"
            raise ValueError(f"{path}, {where}: what was read back is not what was written; {len(bad):,} bad records "
                             f"in all")
    except ValueError as error:
        raise Damaged(f"{error}. Check the disk, then dump again") from error
    return nbytes, offsets, rest


def checksums(path: str, nbytes: np.ndarray, offsets: np.ndarray, expected: np.ndarray, *, num_threads: int,
              advance: Callable[[int], object], remote: RemoteOptions = PLAIN) -> tuple[dict[int, str], int | None]:
    """({number: reason} of each record that is not as expected, the crc32 of all bytes outside of records).

    nbytes, offsets: int64, where the records are; expected: uint32, their checksums; all of shape (count,).
    The crc32 is None if some of those bytes cannot be read. `advance` is told of bytes as they are done with. Raises
    ValueError if records overlap or are not within the file. `remote`: how to reach a path that is a URL.
    """
    with opened_once(path, remote) as file:
        return _compared(file, path, nbytes, offsets, expected, num_threads, advance)


def _compared(file: ReadOnce, path: str, nbytes: np.ndarray, offsets: np.ndarray, expected: np.ndarray,
              num_threads: int, advance: Callable[[int], object]) -> tuple[dict[int, str], int | None]:
    size, order = file.size, np.argsort(offsets, kind="stable")
    starts, ends = offsets[order], (offsets + nbytes)[order]
    if len(order) and (starts[0] < 0 or ends[-1] > size or (nbytes < 0).any() or (starts[1:] < ends[:-1]).any()):
        raise ValueError(f"{path}: its records overlap, or reach beyond its end")
    bad: dict[int, str] = {}
    rest: int | None = 0
    regions = _regions(ends, size)
    with contextlib.closing(map_ordered(_RegionReader(file, order, starts, ends, expected), regions, num_threads,
                                        2 * num_threads)) as done:
        for (_, _, start, end), (found, between) in zip(regions, done):
            bad |= found
            rest = None if rest is None or between is None else crc32(between, rest)
            advance(end - start)
    return bad, rest


def _regions(ends: np.ndarray, size: int) -> list[tuple[int, int, int, int]]:
    """(first record, last one + 1, start, end) of stretches of a file that end with a record, the last with the file.

    Records are counted in the order of their place.
    """
    cuts = np.flatnonzero(np.diff(ends // _REGION_BYTES)) + 1
    records = [0, *cuts.tolist(), len(ends)]
    places = [0, *ends[cuts - 1].tolist(), size]
    return [*zip(records[:-1], records[1:], places[:-1], places[1:])]


class _RegionReader:
    """Reads one region of the file, in one thread, and compares its records."""

    def __init__(self, file: ReadOnce, order: np.ndarray, starts: np.ndarray, ends: np.ndarray,
                 expected: np.ndarray) -> None:
        self._file = file
        self._order, self._starts, self._ends, self._expected = order, starts, ends, expected

    def __call__(self, region: tuple[int, int, int, int]) -> tuple[dict[int, str], bytes | None]:
        """({number: reason} of its bad records, its bytes outside of records, or None if some cannot be read)."""
        first, last, at, end = region
        self._file.forget(at, end)
        pieces = _Pieces(self._file, at, end)
        bad: dict[int, str] = {}
        between: list[memoryview] = []
        readable = True
        numbers = self._order[first:last].tolist()
        records = zip(numbers, self._starts[first:last].tolist(), self._ends[first:last].tolist())
        for number, start, stop in [*records, (None, end, end)]:
            try:
                between.append(pieces.read(at, start))
            except OSError:
                readable = False
            at = stop
            try:
                if number is not None and crc32(pieces.read(start, stop)) != self._expected[number]:
                    bad[number] = "its bytes are not what was written"
            except OSError as error:
                bad[number] = f"it cannot be read: {error.strerror}"
        return bad, b"".join(between) if readable else None


class _Pieces:
    """Parts of one region, which is read at once; where that fails, each part is read by itself, to tell which does."""

    def __init__(self, file: ReadOnce, start: int, end: int) -> None:
        self._file, self._start = file, start
        self._content: memoryview | None = None
        with contextlib.suppress(OSError):
            self._content = memoryview(file.read(start, end))

    def read(self, start: int, end: int) -> memoryview:
        if self._content is None:
            return memoryview(self._file.read(start, end))
        return self._content[start - self._start:end - self._start]

