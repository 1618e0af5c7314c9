"""Measures how fast a disk, or the server of a URL, delivers pieces of files, asked for ahead as the loaders do it.

Of files here, pages that are about to be read are taken out of the page cache before, some hundred MB at most.
"""
import contextlib
import statistics
import time
from typing import Callable, Iterator, NamedTuple, Sequence

import numpy as np

from dataflows.storage.paged_file import PAGE, Extents, StoredBytes, on_network, open_file
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


Opener = Callable[[str], StoredBytes]  # of a file with such pieces


class Reading(NamedTuple):
    """What reading some pieces took."""

    nbytes: int
    seconds: float
    cpu_s: float  # of all threads of this process
    disk_bytes: int | None  # that the kernel says it read from disks; None where it does not say


def measure_storage(random: Sequence[Piece], in_order: Sequence[Piece], num_threads: int, deadline: float,
                    opener: Opener = open_file) -> Storage:
    """Reads the pieces of both orders, in turns, until `deadline` by time.monotonic or little longer."""
    readings: list[Reading] = []
    remote = opener(random[0].path).private
    cold, turns = True, 2 * _REPEATS
    for turn in range(turns):
        left = (deadline - time.monotonic()) / (turns - turn)
        if turn > 1 and left < 0:
            break
        pieces = (random, in_order)[turn % 2]
        cold = (remote or drop(pieces)) and cold
        readings.append(read(pieces, num_threads, max(0.2, left), opener))
    nbytes = sum(each.nbytes for each in readings)
    counted = [each.disk_bytes for each in readings if each.disk_bytes is not None]
    # What a network's server sends is not counted everywhere.
    cold = cold and (remote or on_network(random[0].path) or not counted or sum(counted) >= nbytes / 2)
    rates = [statistics.median(each.nbytes / each.seconds for each in readings[order::2]) / 1e6 for order in (0, 1)]
    about = ("by ranges, as loaders ask for them" if remote else
             "they were taken out of the page cache before" if cold else
             "they could not be taken out of memory: another process maps them, or their file system is in memory. "
             "These are rates of memory; the rate of the disk is unknown")
    return Storage(rates[1], rates[0], sum(each.cpu_s for each in readings) / nbytes * 1e6, cold,
                   f"{nbytes / 1e6:,.0f} MB were read; {about}", remote)


def drop(pieces: Sequence[Piece]) -> bool:
    """Takes the pieces out of the page cache; whether they are gone, as far as the system tells."""
    for group in _groups(pieces):
        for content, of_file in _by_file(group, open_file):
            content.drop(_extents(content, of_file))
    looks = [pieces[i] for i in np.linspace(0, len(pieces) - 1, min(_LOOKS, len(pieces))).astype(int).tolist()]
    stayed = sum(content.resident(np.array([piece.offset + piece.nbytes // 2]))
                 for content, of_file in _by_file(looks, open_file) for piece in of_file)
    return 2 * stayed < len(looks)


def read(pieces: Sequence[Piece], num_threads: int, seconds: float, opener: Opener = open_file) -> Reading:
    """Reads the pieces in their order, for that long or little longer; a group is asked for while one is read."""
    started, cpu_s, before = time.monotonic(), time.process_time(), disk_bytes()

    def ask_for(group: Sequence[Piece]) -> list[tuple[StoredBytes, Piece]]:
        opened = _by_file(group, opener)
        for content, of_file in opened:
            content.will_need(_extents(content, of_file))
        files = {content.path: content for content, _ in opened}
        return [(files[piece.path], piece) for piece in group]

    with Threads(num_threads, "dataflows") as pool, \
            contextlib.closing(map_ordered(ask_for, _groups(pieces), num_threads=1, ahead=1)) as groups:
        nbytes = sum(sum(pool.map(_read, group)) for group in until(started + seconds, groups))
    now = disk_bytes()
    return Reading(nbytes, time.monotonic() - started, time.process_time() - cpu_s,
                   None if now is None or before is None else now - before)


def _groups(pieces: Sequence[Piece]) -> Iterator[Sequence[Piece]]:
    return (pieces[start:start + _GROUP] for start in range(0, len(pieces), _GROUP))


def _by_file(group: Sequence[Piece], opener: Opener) -> list[tuple[StoredBytes, list[Piece]]]:
    """The pieces of each file, which is opened once."""
    return [(opener(path), [piece for piece in group if piece.path == path]) for path in {each.path for each in group}]


def _extents(content: StoredBytes, pieces: Sequence[Piece]) -> Extents:
    return content.extents(np.array([piece.offset for piece in pieces]), np.array([piece.nbytes for piece in pieces]))


def _read(opened: tuple[StoredBytes, Piece]) -> int:
    content, piece = opened
    return touch(content.read(piece.offset, piece.nbytes))


def touch(data: np.ndarray) -> int:
    """Brings all pages of these bytes into memory; how many bytes they are."""
    data[::PAGE].max(), data[-1:].max()
    return len(data)
