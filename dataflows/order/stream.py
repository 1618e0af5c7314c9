"""The pointers of one rank in one epoch by place: those at given places, or all from a place on."""
import dataclasses
from typing import Iterator

import numpy as np

_CHUNK = 65_536  # numbers are turned into Python's integers in chunks: the first comes at once, few are alive


@dataclasses.dataclass(frozen=True, eq=False)
class Stream:
    """`[number, position]` of each sample of a share.

    share: their places in `positions`, int (n,); from its length on, repetitions of its start.
    positions: what the ranks share out.
    count: samples of the epoch, over all ranks.
    order: the entry that comes at each position // repeats; None for one after the other.
    indices: the record of each entry; None for all.
    """

    share: np.ndarray
    positions: np.ndarray
    count: int
    repeats: int
    order: np.ndarray | None
    indices: np.ndarray | None

    def __len__(self) -> int:
        return len(self.share)

    def from_place(self, place: int) -> Iterator[list[int]]:
        """Those from this one on."""
        for start in range(place, len(self.share), _CHUNK):
            yield from self._pointers(self.share[start:start + _CHUNK])

    def at(self, places: np.ndarray) -> list[list[int]]:
        """Those at these places of the share."""
        return self._pointers(self.share[places])

    def _pointers(self, chosen: np.ndarray) -> list[list[int]]:
        if not len(chosen):
            return []
        size = len(self.positions)
        # What pads an epoch comes again at a position after its end, so its crop is another one.
        own = self.positions[chosen % size]
        positions = np.where(chosen < size, own, self.count + chosen.astype(np.int64) - size)
        entries = own // self.repeats
        if self.order is not None:
            entries = self.order[entries]
        numbers = entries if self.indices is None else self.indices[entries]
        return [*map(list, zip(numbers.tolist(), positions.tolist()))]
