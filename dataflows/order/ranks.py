"""Which part of an epoch each process of distributed training reads, and what is left of an epoch that was interrupted.

All of it is arithmetic on positions: an epoch is `count` positions, 0 to count - 1, and every rank computes for itself
which of them are its own. The rules are those of torch's DistributedSampler where it has any.
"""
import dataclasses
from typing import Any, Callable

import numpy as np

UNEVEN = ("pad", "drop", "keep")
MOST_RANKS = 2**16  # what was yielded by ranks of an earlier run is replayed for each of them
MOST_INTERRUPTIONS = 1000
Done = tuple[tuple[int, int], ...]  # (world size, samples of each rank), one pair for each interruption of an epoch


@dataclasses.dataclass(frozen=True)
class Ranks:
    """Which rank of how many this process is, and what becomes of a count that the ranks do not divide.

    uneven: "pad" repeats samples of the epoch's start until all ranks have equally many; "drop" leaves out the few at
        its end; "keep" does neither, so some ranks have one sample, and maybe one batch, more than others.
    """

    rank: int
    world_size: int
    uneven: str

    def size(self, count: int) -> int:
        """How many of `count` samples this rank reads, repeated ones included."""
        if self.uneven == "keep":
            return (count + self.world_size - 1 - self.rank) // self.world_size
        return count // self.world_size if self.uneven == "drop" else -(-count // self.world_size)

    def strided(self, count: int) -> range:
        """This rank's positions: every world_size-th. Those from `count` on are repetitions of the epoch's start.

        >>> [Ranks(rank, 3, "pad").strided(7) for rank in range(3)]
        [range(0, 9, 3), range(1, 10, 3), range(2, 11, 3)]
        """
        return range(self.rank, self.rank + self.world_size * self.size(count), self.world_size)

    def contiguous(self, count: int, turn: int) -> range:
        """This rank's positions: one range. Ranks change places with each `turn`, so that in time each reads all.

        >>> [Ranks(0, 3, "drop").contiguous(7, turn) for turn in range(3)]
        [range(0, 2), range(2, 4), range(4, 6)]
        """
        size = self.size(count)
        if self.uneven == "keep":  # the first `more` ranks have one more; changing places would change their sizes
            start = self.rank * (count // self.world_size) + min(self.rank, count % self.world_size)
        else:
            start = (self.rank + turn) % self.world_size * size
        return range(start, start + size)


def check_done(count: int, done: Done) -> None:
    """Raises ValueError unless an epoch of `count` samples, or a few less, can have been interrupted at `done`."""
    if len(done) > MOST_INTERRUPTIONS:
        raise ValueError(f"the state has {len(done):,} interruptions of one epoch, and at most "
                         f"{MOST_INTERRUPTIONS:,} can be replayed. Start the epoch anew with set_epoch")
    left = count
    for world_size, samples in done:
        if world_size > MOST_RANKS or samples > -(-left // world_size):
            raise ValueError(f"the state says that {world_size:,} ranks read {samples:,} samples each, but the epoch "
                             f"had at most {left:,} left, and there are at most {MOST_RANKS:,} ranks: this is no "
                             f"state of state_dict")
        left = max(0, left - world_size * samples)


def left_over(count: int, done: Done, uneven: str,
              first: Callable[[np.ndarray, Ranks, int, int], np.ndarray]) -> np.ndarray:
    """The positions, ascending, that are left of an epoch of `count` after interruptions at `done`.

    `first(positions, ranks, interruptions, samples)` says which of these positions, by their places in the array, are
    the first so many samples of one rank that shares them with others, after so many interruptions. Places from the
    array's end on are repetitions.
    """
    positions = integers(range(count))
    for interruptions, (world_size, samples) in enumerate(done):
        left = np.ones(len(positions), bool)
        for rank in range(world_size):
            seen = first(positions, Ranks(rank, world_size, uneven), interruptions, samples)
            left[seen[seen < len(left)]] = False
        positions = positions[left]
    return positions


def integers(numbers: range) -> np.ndarray:
    """A range as an array: int64, or int32 where that suffices."""
    return np.arange(numbers.start, numbers.stop, numbers.step, dtype=np.dtype(number_type(numbers.stop)))


def number_type(count: int) -> type[np.signedinteger[Any]]:
    """The smaller integer type that has the numbers below `count`: full shuffles of millions are held in memory."""
    return np.int32 if count <= 2**31 else np.int64
