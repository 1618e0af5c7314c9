"""Measures how fast a disk delivers pieces of files that are not in memory, asked for ahead as the loaders do it.

Only pages that are about to be read are taken out of the page cache, and no more than some hundred MB of them.
"""
import statistics
import time
from typing import Iterator, NamedTuple, Protocol, Sequence

import numpy as np

from dataflows.storage.paged_file import PAGE, Extents, PagedFile, extents, on_network, open_file
from dataflows.system import disk_bytes
from dataflows.threads import Threads
from dataflows.tools.advise.predict import Storage

_BYTES = 128 * 2**20  # of each order: a tenth of a second of a fast disk, a second and more of a slow one
_REPEATS = 3
_GROUP_BYTES, _GROUP_PIECES = 16 * 2**20, 64  # asked for at once, and as many again while they are read
_LOOKS = 32  # at pages that should be gone


class Piece(NamedTuple):
    """A stretch of a file."""

    path: str
    offset: int
    nbytes: int

    @property
    def extents(self) -> Extents:
        """Its pages."""
        return extents(np.array([self.offset]), np.array([self.nbytes]))


class Source(Protocol):
    """What pieces are taken from."""

    unit: str  # what its pieces are

    def pieces(self, generator: np.random.Generator, nbytes: int, *, in_order: bool) -> list[Piece]:
        """Pieces of so many bytes together: one after the other, or at random."""


class Reading(NamedTuple):
    """What reading some pieces took."""

    nbytes: int
    seconds: float
    cpu_s: float  # of all threads of this process
    disk_bytes: int | None  # that the kernel says it read from disks; None where it does not say


def measure_storage(source: Source, num_threads: int, deadline: float) -> Storage:
    """Reads pieces of the source in both orders, in turns, until `deadline` by time.monotonic or little longer."""
    generator = np.random.default_rng(1)
    orders = [source.pieces(generator, _BYTES, in_order=in_order) for in_order in (False, True)]
    readings: tuple[list[Reading], list[Reading]] = [], []
    cold, turns = True, 2 * _REPEATS
    for turn in range(turns):
        pieces = orders[turn % 2]
        if turn > 1 and time.monotonic() > deadline:
            break
        cold = drop(pieces) and cold
        left = max(0.2, (deadline - time.monotonic()) / (turns - turn))
        readings[turn % 2].append(read(pieces, num_threads, left))
    both = readings[0] + readings[1]
    nbytes = sum(each.nbytes for each in both)
    cold = cold and (on_network(orders[0][0].path) or _came_from_disk(both, nbytes))
    random, in_order = (statistics.median(each.nbytes / each.seconds for each in one) / 1e6 for one in readings)
    return Storage(in_order, random, sum(each.cpu_s for each in both) / nbytes * 1e6, cold,
                   f"{nbytes / 1e6:,.0f} MB of {source.unit}, " + (
                       "taken out of the page cache before" if cold else
                       "which could not be taken out of memory: another process has them mapped, or the file system is "
                       "one in memory. So these figures are of memory, and how fast the disk is remains unknown"))


def _came_from_disk(readings: Sequence[Reading], nbytes: int) -> bool:
    """Whether the kernel counted half of the bytes or more; what a network's server sends is not counted everywhere."""
    counted = [each.disk_bytes for each in readings if each.disk_bytes is not None]
    return not counted or sum(counted) >= nbytes / 2


def drop(pieces: Sequence[Piece]) -> bool:
    """Takes the pieces out of the page cache; whether they are gone, as far as the system tells."""
    for group in _opened(pieces):
        for content, piece in group:
            content.drop(piece.extents)
    looks = [pieces[i] for i in np.linspace(0, len(pieces) - 1, min(_LOOKS, len(pieces))).astype(int).tolist()]
    stayed = sum(content.resident(np.array([piece.offset + piece.nbytes // 2]))
                 for group in _opened(looks) for content, piece in group)
    return 2 * stayed < len(looks)


def read(pieces: Sequence[Piece], num_threads: int, seconds: float) -> Reading:
    """Reads the pieces in their order, for that long or little longer, a group being asked for while one is read."""
    started, cpu_s, before, nbytes = time.perf_counter(), time.process_time(), disk_bytes(), 0
    with Threads(num_threads, "dataflows") as pool:
        groups = _asked_for(pieces)
        waiting = next(groups, None)
        while waiting is not None:
            ahead = next(groups, None)
            nbytes += sum(pool.map(_read, waiting))
            waiting = None if time.perf_counter() - started > seconds else ahead
    now = disk_bytes()
    return Reading(nbytes, time.perf_counter() - started, time.process_time() - cpu_s,
                   None if now is None or before is None else now - before)


def _asked_for(pieces: Sequence[Piece]) -> Iterator[list[tuple[PagedFile, Piece]]]:
    for group in _opened(pieces):
        for content, piece in group:
            content.will_need(piece.extents)
        yield group


def _opened(pieces: Sequence[Piece]) -> Iterator[list[tuple[PagedFile, Piece]]]:
    """Groups of pieces, each with its open file; a file that several pieces in a row are of is opened once."""
    group: list[tuple[PagedFile, Piece]] = []
    for piece in pieces:
        same = group and group[-1][1].path == piece.path
        group.append((group[-1][0] if same else open_file(piece.path), piece))
        if len(group) == _GROUP_PIECES or sum(one.nbytes for _, one in group) >= _GROUP_BYTES:
            yield group
            group = []
    if group:
        yield group


def _read(opened: tuple[PagedFile, Piece]) -> int:
    content, piece = opened
    return touch(content.read(piece.offset, piece.nbytes))


def touch(data: np.ndarray) -> int:
    """Brings all pages of these bytes into memory; how many bytes they are."""
    data[::PAGE].max(), data[-1:].max()
    return len(data)
