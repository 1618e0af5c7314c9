"""How fast a disk delivers pieces of files that are not in memory, asked for ahead of time as the loaders do it.

Only pages that are about to be read are taken out of the page cache, and no more than some hundred MB of them.
"""
import statistics
import time
from typing import Iterator, NamedTuple, Sequence

import numpy as np

from dataflows.storage.paged_file import PagedFile, extents, on_network, open_file
from dataflows.system import told
from dataflows.threads import Threads
from dataflows.tools.advise.predict import Storage
from dataflows.tools.advise.sample import Files, Piece, Records

_BYTES = 128 * 2**20  # of each order: a tenth of a second of a fast disk, a second and more of a slow one
_REPEATS = 3
_GROUP_BYTES, _GROUP_PIECES = 16 * 2**20, 64  # asked for at once, and as many again while they are read
_PAGE = 4096
_LOOKS = 32  # at pages that should be gone


class Reading(NamedTuple):
    """What reading some pieces took."""

    nbytes: int
    seconds: float
    cpu_s: float  # of all threads of this process
    disk_bytes: int | None  # that the kernel says it read from disks; None where it does not say

    @property
    def mb_s(self) -> float:
        """Of the pieces."""
        return self.nbytes / self.seconds / 1e6


def measure_storage(source: Records | Files, num_threads: int, deadline: float) -> Storage:
    """Reads pieces of the source in both orders, in turns, until `deadline` by time.monotonic or little longer."""
    generator = np.random.default_rng(1)
    orders = {"random": source.random_pieces(generator, _BYTES),
              "sequential": source.sequential_pieces(generator, _BYTES)}
    found: dict[str, list[Reading]] = {name: [] for name in orders}
    cold = True
    turns = 2 * _REPEATS
    for turn in range(turns):
        name = "sequential" if turn % 2 else "random"
        if turn > 1 and time.monotonic() > deadline:
            break
        cold = drop(orders[name]) and cold
        left = max(0.2, (deadline - time.monotonic()) / (turns - turn))
        found[name].append(read(orders[name], num_threads, left))
    readings = [reading for each in found.values() for reading in each]
    cold = cold and _came_from_disk(readings, orders["random"][0].path)
    cpu_s_per_mb = sum(each.cpu_s for each in readings) / sum(each.nbytes for each in readings) * 1e6
    rates = {name: statistics.median(each.mb_s for each in several) for name, several in found.items()}
    return Storage(rates["sequential"], rates["random"], cpu_s_per_mb, cold, _about(source, readings, cold))


def _about(source: Records | Files, readings: Sequence[Reading], cold: bool) -> str:
    what = "pieces of it" if isinstance(source, Records) else "files of it"
    total = f"{sum(each.nbytes for each in readings) / 1e6:,.0f} MB of {what}"
    if cold:
        return f"{total}, taken out of the page cache before"
    return (f"{total}, which could not be taken out of memory: another process has them mapped, or the file system is "
            f"one in memory. So these figures are of memory, and how fast the disk is remains unknown")


def _came_from_disk(readings: Sequence[Reading], path: str) -> bool:
    if on_network(path):  # what a server sends is not counted everywhere
        return True
    counted = [each.disk_bytes for each in readings if each.disk_bytes is not None]
    return not counted or sum(counted) >= sum(each.nbytes for each in readings) / 2


def drop(pieces: Sequence[Piece]) -> bool:
    """Takes the pieces out of the page cache; whether they are gone, as far as the system tells."""
    for content, group in _grouped(pieces):
        for piece, each in zip(group, content):
            each.drop(extents(*_place(piece)))
    looks = [pieces[i] for i in np.linspace(0, len(pieces) - 1, min(_LOOKS, len(pieces))).astype(int).tolist()]
    stayed = 0
    for content, group in _grouped(looks):
        stayed += sum(each.resident(np.array([piece.offset + piece.nbytes // 2]))
                      for piece, each in zip(group, content))
    return 2 * stayed < len(looks)


def read(pieces: Sequence[Piece], num_threads: int, seconds: float) -> Reading:
    """Reads the pieces in their order, for that long or little longer, a group being asked for while one is read."""
    started, cpu, disk = time.perf_counter(), time.process_time(), _disk_bytes()
    nbytes = 0
    with Threads(num_threads, "dataflows") as pool:
        groups = _asked(pieces)
        waiting = next(groups, None)
        while waiting is not None:
            ahead = next(groups, None)
            nbytes += sum(pool.map(_touch, *waiting))
            waiting = None if time.perf_counter() - started > seconds else ahead
    now = _disk_bytes()
    return Reading(nbytes, time.perf_counter() - started, time.process_time() - cpu,
                   None if now is None or disk is None else now - disk)


def _asked(pieces: Sequence[Piece]) -> Iterator[tuple[list[PagedFile], list[Piece]]]:
    for contents, group in _grouped(pieces):
        for content, piece in zip(contents, group):
            content.will_need(extents(*_place(piece)))
        yield contents, group


def _grouped(pieces: Sequence[Piece]) -> Iterator[tuple[list[PagedFile], list[Piece]]]:
    """Groups of pieces, each with its open file; a file that several pieces in a row are of is opened once."""
    group: list[Piece] = []
    contents: list[PagedFile] = []
    nbytes = 0
    for piece in pieces:
        same = contents and group[-1].path == piece.path
        contents.append(contents[-1] if same else open_file(piece.path))
        group.append(piece)
        nbytes += piece.nbytes
        if nbytes >= _GROUP_BYTES or len(group) == _GROUP_PIECES:
            yield contents, group
            group, contents, nbytes = [], [], 0
    if group:
        yield contents, group


def _place(piece: Piece) -> tuple[np.ndarray, np.ndarray]:
    return np.array([piece.offset]), np.array([piece.nbytes])


def _touch(content: PagedFile, piece: Piece) -> int:
    content.read(piece.offset, piece.nbytes)[::_PAGE].max()
    return piece.nbytes


def _disk_bytes() -> int | None:
    """What this process has read from disks so far, in all of its threads, pages of maps included."""
    return next((int(words[1]) for words in told("/proc/self/io") if words[:1] == ["read_bytes:"]), None)
