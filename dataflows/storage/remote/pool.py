"""The stretches of files that were asked for ahead of their use, and wait in the memory of this process."""
import os
import threading
from collections import OrderedDict

from dataflows.processors import ranks_here
from dataflows.storage.remote.request import Piece, Request, Stretch, requests_for
from dataflows.system import available_memory

LEAST_BYTES = 256 * 2**20  # what loaders ask for ahead
_SHARE = 4  # of the memory that is available, one in so many may be taken
_KEPT_BYTES = 16 * 2**20  # of stretches that were read, for those who read them again

Key = tuple[int, int]  # number of the file, where the stretch starts


class Pool:
    """Bounded in bytes: the oldest leave first, and of those that were read all but the latest few. Threads share it.

    capacity: bytes that all pieces may have.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._lock = threading.Lock()
        self._waiting: OrderedDict[Key, Piece] = OrderedDict()
        self._read: OrderedDict[Key, Piece] = OrderedDict()
        self._waiting_bytes = self._read_bytes = 0

    def reserve(self, file: int, stretches: list[Stretch], together: int) -> list[Request]:
        """Requests for those stretches that are not here, of so many ranges each: whoever asks has to make them."""
        new: dict[int, int] = {}
        with self._lock:
            for start, nbytes in stretches:
                if (file, start) in self._waiting or start in new:
                    continue
                piece = self._read.pop((file, start), None)  # it will be read again, and must not leave before that
                if piece is None:
                    new[start] = nbytes
                    continue
                self._read_bytes -= piece.nbytes
                self._wait_for(file, start, piece)
            requests = requests_for([*new.items()], together)
            for request in requests:
                for start, piece in request.pieces:
                    self._wait_for(file, start, piece)
            self._make_room()
        return requests

    def _wait_for(self, file: int, start: int, piece: Piece) -> None:
        self._waiting[file, start] = piece
        self._waiting_bytes += piece.nbytes

    def take(self, file: int, start: int, nbytes: int) -> Piece | None:
        """A stretch that is about to be read, or None if it is not here."""
        with self._lock:
            piece = self._waiting.pop((file, start), None)
            if piece is None:
                piece = self._read.get((file, start))
            else:
                self._waiting_bytes -= piece.nbytes
                self._read[file, start] = piece
                self._read_bytes += piece.nbytes
                self._make_room()
        return piece if piece is not None and piece.nbytes == nbytes else None

    def forget(self, file: int, starts: list[int] | None = None) -> None:
        """These stretches of a file are done with, or all of it."""
        with self._lock:
            for pieces in (self._waiting, self._read):
                keys = [key for key in pieces if key[0] == file] if starts is None else [(file, at) for at in starts]
                for key in keys:
                    if key in pieces:
                        self._remove(pieces, key)

    def _make_room(self) -> None:
        while self._read and (self._read_bytes > _KEPT_BYTES or self._nbytes > self.capacity):
            self._remove(self._read, next(iter(self._read)))
        while len(self._waiting) > 1 and self._nbytes > self.capacity:
            self._remove(self._waiting, next(iter(self._waiting)))

    @property
    def _nbytes(self) -> int:
        return self._waiting_bytes + self._read_bytes

    def _remove(self, pieces: "OrderedDict[Key, Piece]", key: Key) -> None:
        piece = pieces.pop(key)
        if pieces is self._waiting:
            self._waiting_bytes -= piece.nbytes
        else:
            self._read_bytes -= piece.nbytes


_pool: Pool | None = None
_lock = threading.Lock()


def _after_fork() -> None:
    global _pool, _lock
    _pool, _lock = None, threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


def pool() -> Pool:
    """That of this process."""
    global _pool
    with _lock:
        if _pool is None:
            _pool = Pool(max(LEAST_BYTES, available_memory() // _SHARE // ranks_here()))
        return _pool
