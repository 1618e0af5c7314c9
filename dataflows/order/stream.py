"""The pointers of one rank in one epoch by place: those at given places, or all from a place on."""
import dataclasses
from typing import Iterator

import numpy as np

from dataflows.order.ranks import integers

_CHUNK = 65_536  # numbers are turned into Python's integers in chunks: the first comes at once, few are alive


@dataclasses.dataclass(frozen=True, eq=False)
class Stream:
    """`[number, position]` of each sample of a share.

    share: their places in `positions`, an array of integers of shape (n,), or a range; from its length on,
        repetitions of its start.
    positions: what the ranks share out, an array or a range from 0.
    count: samples of the epoch, over all ranks.
    order: the entry that comes at each position // repeats; None for one after the other.
    indices: the record of each entry; None for all.
    """

    share: np.ndarray | range
    positions: np.ndarray | range
    count: int
    repeats: int
    order: np.ndarray | None
    indices: np.ndarray | None

    def __len__(self) -> int:
        return len(self.share)

    def from_place(self, place: int) -> Iterator[list[int]]:
        """Those from this one on."""
        for start in range(place, len(self.share), _CHUNK):
            chunk = self.share[start:start + _CHUNK]
            yield from self._pointers(integers(chunk) if isinstance(chunk, range) else chunk)

    def at(self, places: np.ndarray) -> list[list[int]]:
        """Those at these places of the share."""
        share = self.share
        return self._pointers(share.start + share.step * places if isinstance(share, range) else share[places])

    def _pointers(self, chosen: np.ndarray) -> list[list[int]]:
        if not len(chosen):
            return []
        size = len(self.positions)
        # What pads an epoch comes again at a position after its end, so its crop is another one.
        own = chosen % size if isinstance(self.positions, range) else self.positions[chosen % size]
        positions = np.where(chosen < size, own, self.count + chosen.astype(np.int64) - size)
        entries = own // self.repeats
        if self.order is not None:
            entries = self.order[entries]
        numbers = entries if self.indices is None else self.indices[entries]
        return [*map(list, zip(numbers.tolist(), positions.tolist()))]
