"""Streams of pointers, which say which record comes when: sequential, shuffled in blocks or files, or fully shuffled.

A pointer is `[number, position]`: the record's number in the order of the keys, and the sample's position in the epoch,
which its random crop is a function of. It costs nothing to shuffle, batch or prefetch; the bytes behind it are touched
once, by the thread that decodes them.
"""
from typing import Any, Iterator, Protocol

import numpy as np

from dataflows.options import integer
from dataflows.order.epoch import Epoch
from dataflows.order.local_shuffle import not_yet_shuffled
from dataflows.order.ranks import Ranks, integers, left_over, number_type
from dataflows.order.stream import Stream
from dataflows.tensorpack import LMDBData, quiet_tensorpack

_STREAM = 1  # of random numbers, besides the local shuffle's own
ALONE = Ranks(0, 1, "keep")


class RecordFile(Protocol):
    """What an order knows of a file: its path, for errors; its number of records; a checksum."""

    path: str

    def __len__(self) -> int: ...

    def fingerprint(self) -> int:
        """A checksum of 32 bits that tells this file from others."""

    @property
    def starts(self) -> np.ndarray:
        """The number of the first record of each file, where there are several: int64."""


class SequentialKeys(LMDBData):
    """Yields `[number, position]` in the order of the file: reading never seeks.

    A tensorpack LMDBData that yields pointers in place of (key, value) pairs, and shares the Store's open file. `len`
    is exact, but for an epoch that was interrupted; iterating twice gives the same order until the epoch changes, and
    several iterations may be alive at once. Ranks read one contiguous range each.

        3 records: [0, 0] [1, 1] [2, 2]

    indices: which records, in this order, an integer array of shape (n,); by default all. One may come several times.
    repeats: how often each comes in a row, each time at a position of its own: repeated augmentation.
    buffer_size: of the local shuffle that follows, so that what is left of an interrupted epoch can be told; 0 if none.
    pinned: each rank reads one contiguous range, the same in every epoch, and shuffles within it.
    part: (i, n) for the i-th of n contiguous parts of what this rank reads, as workers of a DataLoader share it out.

    Raises ValueError for indices beyond the file.

    >>> from dataflows.storage.store import Store
    >>> list(SequentialKeys(Store("train.lmdb"), Epoch(), indices=[5, 7], repeats=2))
    [[5, 0], [5, 1], [7, 2], [7, 3]]
    """

    def __init__(self, file: RecordFile, epoch: Epoch, *, ranks: Ranks = ALONE, indices: Any = None, repeats: int = 1,
                 buffer_size: int = 0, pinned: bool = False, part: tuple[int, int] = (0, 1)) -> None:
        self.file = file
        self.ranks = ranks
        self._epoch = epoch
        self._indices = checked_indices(indices, file)
        self._repeats = integer("repeats", repeats, 1)
        self._buffer_size, self._pinned = buffer_size, pinned
        self._part = part
        with quiet_tensorpack():
            super().__init__(file.path, shuffle=False)

    # LMDBData opens the file by itself, and unpickles its list of keys: the Store has done both, with checks.
    def _open_lmdb(self) -> None:
        self._txn = self

    def _close_lmdb(self) -> None:
        del self._txn

    def stat(self) -> dict[str, int]:
        """What LMDBData asks of its transaction: the number of entries."""
        return {"entries": len(self)}

    def _set_keys(self, keys: Any = None) -> None:
        self.keys = range(len(self.file))

    def reset_state(self) -> None:
        """Nothing to do: the Store opens its file in the process that reads."""

    @property
    def count(self) -> int:
        """Samples of an epoch, over all ranks."""
        return self._repeats * (len(self.file) if self._indices is None else len(self._indices))

    def __len__(self) -> int:
        size, (i, n) = self.ranks.size(self.count), self._part
        return size * (i + 1) // n - size * i // n

    def __iter__(self) -> Iterator[list[int]]:
        return self.from_place(0)

    def from_place(self, place: int) -> Iterator[list[int]]:
        """What the iteration yields after so many pointers."""
        yield from self.stream().from_place(place)  # which is made when the first one is asked for

    def stream(self) -> Stream:
        """The pointers of the coming iteration by place."""
        epoch, order = self._epoch, None if self._pinned else self._order()
        positions: np.ndarray | range = range(self.count)
        if epoch.interruptions:
            positions = left_over(self.count, epoch.interruptions, self.ranks.uneven, self._first)
        share, (i, n) = self._share(positions, self.ranks, len(epoch.interruptions)), self._part
        share = share[len(share) * i // n:len(share) * (i + 1) // n]
        return Stream(share, positions, self.count, self._repeats, order, self._indices)

    def _order(self) -> np.ndarray | None:
        """Which of the indices comes when in this epoch; None for one after the other."""
        size = self.count // self._repeats
        runs = self._runs(integers(range(size)))
        return None if runs is None else permuted_runs(runs, self._epoch.generator(_STREAM))

    def _runs(self, entries: np.ndarray) -> np.ndarray | None:
        """For each of these indices, by number, the run that it stays in when runs are permuted; None to permute none.
        """
        return None

    def _share(self, positions: np.ndarray | range, ranks: Ranks, interruptions: int) -> np.ndarray | range:
        """The places in `positions` of a rank's samples, in its order; places after its end are repetitions."""
        if not self._pinned:
            return self._rotating_share(len(positions), ranks)
        share = ranks.contiguous(len(positions), 0)
        own = integers(share)
        entries = own % max(1, len(positions))
        runs = self._runs((entries if isinstance(positions, range) else positions[entries]) // self._repeats)
        if runs is None:
            return share
        pinned: np.ndarray = own[permuted_runs(runs, self._epoch.generator(_STREAM, ranks.rank, interruptions))]
        return pinned

    def _rotating_share(self, count: int, ranks: Ranks) -> range:
        return ranks.contiguous(count, self._epoch.number)

    def _first(self, positions: np.ndarray, ranks: Ranks, interruptions: int, samples: int) -> np.ndarray:
        """What a rank of another run yielded at first, as `left_over` asks for it."""
        share = self._share(positions, ranks, interruptions)
        share = integers(share) if isinstance(share, range) else share
        if not self._buffer_size:
            return share[:samples]
        yielded = np.ones(len(share), bool)
        yielded[not_yet_shuffled(len(share), min(samples, len(share)), self._buffer_size, self._epoch, ranks.rank,
                                 interruptions)] = False
        return share[yielded]


class BlockShuffledKeys(SequentialKeys):
    """Yields `[number, position]` in blocks of `block_size` records in a row, the blocks in an order by (seed, epoch).

    A local shuffle after it mixes blocks from all over the file, which reading in blocks costs a seek each.

        6 records in blocks of 2: [2, 0] [3, 1] [4, 2] [5, 3] [0, 4] [1, 5]
    """

    def __init__(self, file: RecordFile, epoch: Epoch, block_size: int, **options: Any) -> None:
        self._block_size = integer("block_size", block_size, 1)
        super().__init__(file, epoch, **options)

    def _runs(self, entries: np.ndarray) -> np.ndarray:
        return entries // self._block_size


class ShardShuffledKeys(SequentialKeys):
    """Yields `[number, position]` in whole files of several, one after the other, in an order by (seed, epoch).

    Of a single file, this is its order. A local shuffle after it mixes files that follow each other.

        3 files of 2 records: [2, 0] [3, 1] [4, 2] [5, 3] [0, 4] [1, 5]
    """

    def _runs(self, entries: np.ndarray) -> np.ndarray:
        return shards_of(entries if self._indices is None else self._indices[entries], self.file)


class ShuffledKeys(SequentialKeys):
    """Yields `[number, position]` in a full shuffle that is a function of (seed, epoch); ranks take turns.

        4 records: [3, 0] [1, 1] [2, 2] [0, 3]    and in the next epoch: [0, 0] [3, 1] [1, 2] [2, 3]
    """

    def _order(self) -> np.ndarray:
        size = self.count // self._repeats
        order = integers(range(size))
        self._epoch.generator(_STREAM).shuffle(order)
        return order

    def _runs(self, entries: np.ndarray) -> np.ndarray:
        return entries

    def _rotating_share(self, count: int, ranks: Ranks) -> range:
        return ranks.strided(count)


def permuted_runs(runs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The places in `runs` in an order that permutes stretches of equal values, and keeps each one's own order.

    >>> permuted_runs(np.array([7, 7, 8, 9, 9]), np.random.default_rng(0)).tolist()
    [3, 4, 0, 1, 2]
    """
    size = len(runs)
    starts = np.flatnonzero(np.append(size > 0, runs[1:] != runs[:-1])).astype(number_type(size))
    lengths = np.diff(starts, append=starts.dtype.type(size))
    order = rng.permutation(len(starts))
    starts, lengths = starts[order], lengths[order]
    behind = starts - np.append(0, np.cumsum(lengths[:-1], dtype=starts.dtype)).astype(starts.dtype)
    order = np.repeat(behind, lengths)
    order += np.arange(size, dtype=starts.dtype)
    return order


def shards_of(records: np.ndarray, file: RecordFile) -> np.ndarray:
    """The number of the file that has each of these records."""
    return np.searchsorted(file.starts, records, side="right").astype(np.int32)


def checked_indices(indices: Any, file: RecordFile) -> np.ndarray | None:
    """A copy of an option of this name: int64, or None. Raises ValueError for what names no records."""
    if indices is None:
        return None
    given = np.asarray(indices)
    if given.ndim != 1 or given.dtype.kind not in "iu" or not len(given):
        raise ValueError(f"indices must be a list or array of one or more record numbers, not {given.dtype} of shape "
                         f"{given.shape}; turn a mask into numbers with numpy.flatnonzero")
    numbers = given.astype(np.int64)
    if numbers.min() < 0 or numbers.max() >= len(file):
        wrong = numbers[(numbers < 0) | (numbers >= len(file))][0]
        raise ValueError(f"indices must be record numbers from 0 to {len(file) - 1} of {file.path}, not {wrong}")
    return numbers
