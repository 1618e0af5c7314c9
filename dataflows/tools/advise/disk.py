"""Measures how fast a disk delivers pieces of files that are not in memory, asked for ahead as the loaders do it.

Only pages that are about to be read are taken out of the page cache, and no more than some hundred MB of them.
"""
import contextlib
import statistics
import time
from typing import Iterator, NamedTuple, Sequence

import numpy as np

from dataflows.storage.paged_file import PAGE, Extents, PagedFile, extents, on_network, open_file
from dataflows.system import disk_bytes
from dataflows.threads import Threads, map_ordered
from dataflows.tools.advise.limits import until
from dataflows.tools.advise.predict import Storage

BYTES = 128 * 2**20  # to measure one order with: a tenth of a second of a fast disk, a second and more of a slow one
_REPEATS = 3
_GROUP = 64  # pieces that are asked for at once, and as many again while they are read
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


class Reading(NamedTuple):
    """What reading some pieces took."""

    nbytes: int
    seconds: float
    cpu_s: float  # of all threads of this process
    disk_bytes: int | None  # that the kernel says it read from disks; None where it does not say


def measure_storage(random: Sequence[Piece], in_order: Sequence[Piece], num_threads: int, deadline: float) -> Storage:
    """Reads the pieces of both orders, in turns, until `deadline` by time.monotonic or little longer."""
    readings: list[Reading] = []
    cold, turns = True, 2 * _REPEATS
    for turn in range(turns):
        left = (deadline - time.monotonic()) / (turns - turn)
        if turn > 1 and left < 0:
            break
        pieces = (random, in_order)[turn % 2]
        cold = drop(pieces) and cold
        readings.append(read(pieces, num_threads, max(0.2, left)))
    nbytes = sum(each.nbytes for each in readings)
    counted = [each.disk_bytes for each in readings if each.disk_bytes is not None]
    # What a network's server sends is not counted everywhere.
    cold = cold and (on_network(random[0].path) or not counted or sum(counted) >= nbytes / 2)
    rates = [statistics.median(each.nbytes / each.seconds for each in readings[order::2]) / 1e6 for order in (0, 1)]
    about = ("they were taken out of the page cache before" if cold else
             "they could not be taken out of memory: another process maps them, or their file system is in memory. "
             "These are rates of memory; the rate of the disk is unknown")
    return Storage(rates[1], rates[0], sum(each.cpu_s for each in readings) / nbytes * 1e6, cold,
                   f"{nbytes / 1e6:,.0f} MB were read; {about}")


def drop(pieces: Sequence[Piece]) -> bool:
    """Takes the pieces out of the page cache; whether they are gone, as far as the system tells."""
    for content, piece in (opened for group in _groups(pieces) for opened in _open(group)):
        content.drop(piece.extents)
    looks = [pieces[i] for i in np.linspace(0, len(pieces) - 1, min(_LOOKS, len(pieces))).astype(int).tolist()]
    stayed = sum(content.resident(np.array([piece.offset + piece.nbytes // 2])) for content, piece in _open(looks))
    return 2 * stayed < len(looks)


def read(pieces: Sequence[Piece], num_threads: int, seconds: float) -> Reading:
    """Reads the pieces in their order, for that long or little longer; a group is asked for while one is read."""
    started, cpu_s, before = time.monotonic(), time.process_time(), disk_bytes()
    with Threads(num_threads, "dataflows") as pool, \
            contextlib.closing(map_ordered(_ask_for, _groups(pieces), num_threads=1, ahead=1)) as groups:
        nbytes = sum(sum(pool.map(_read, group)) for group in until(started + seconds, groups))
    now = disk_bytes()
    return Reading(nbytes, time.monotonic() - started, time.process_time() - cpu_s,
                   None if now is None or before is None else now - before)


def _groups(pieces: Sequence[Piece]) -> Iterator[Sequence[Piece]]:
    return (pieces[start:start + _GROUP] for start in range(0, len(pieces), _GROUP))


def _open(group: Sequence[Piece]) -> list[tuple[PagedFile, Piece]]:
    """The pieces with their files, each of which is opened once."""
    files = {path: open_file(path) for path in {piece.path for piece in group}}
    return [(files[piece.path], piece) for piece in group]


def _ask_for(group: Sequence[Piece]) -> list[tuple[PagedFile, Piece]]:
    opened = _open(group)
    for content, piece in opened:
        content.will_need(piece.extents)
    return opened


def _read(opened: tuple[PagedFile, Piece]) -> int:
    content, piece = opened
    return touch(content.read(piece.offset, piece.nbytes))


def touch(data: np.ndarray) -> int:
    """Brings all pages of these bytes into memory; how many bytes they are."""
    data[::PAGE].max(), data[-1:].max()
    return len(data)
