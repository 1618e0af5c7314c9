"""Which record comes when: sequential and shuffled streams of pointers.

A pointer is `[number]`, the record's number in the order of the keys. It costs nothing to shuffle, batch or prefetch;
the bytes behind it are touched once, by the thread that decodes them.
"""
from typing import Any, Iterator

from dataflows.epoch import Epoch
from dataflows.quiet import LMDBData, quiet_tensorpack
from dataflows.store import Store

_STREAM = 1  # of random numbers, besides the local shuffle's own
_CHUNK = 65_536  # numbers are turned into Python's integers in chunks: the first comes at once, few are alive


class SequentialKeys(LMDBData):
    """Yields `[number]` of `numbers` in ascending order, which is the order of the file: reading never seeks.

    A tensorpack LMDBData that yields pointers in place of (key, value) pairs, and shares the Store's open file. `len`
    is exact, iterating twice gives the same order, several iterations may be alive at once.

        3 records: [0] [1] [2]
    """

    def __init__(self, store: Store, numbers: range | None = None) -> None:
        self.store = store
        self.numbers = range(len(store)) if numbers is None else numbers
        with quiet_tensorpack():
            super().__init__(store.path, shuffle=False)

    # LMDBData opens the file by itself, and unpickles its list of keys: the Store has done both, with checks.
    def _open_lmdb(self) -> None:
        self._txn = self

    def _close_lmdb(self) -> None:
        del self._txn

    def stat(self) -> dict[str, int]:
        """What LMDBData asks of its transaction: the number of entries."""
        return {"entries": len(self.numbers)}

    def _set_keys(self, keys: Any = None) -> None:
        self.keys = self.numbers

    def reset_state(self) -> None:
        """Nothing to do: the Store opens its file in the process that reads."""

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[list[int]]:
        for number in self.numbers:
            yield [number]


class ShuffledKeys(SequentialKeys):
    """Yields `[number]` of all records in a full shuffle that is a function of (seed, epoch).

        3 records: [2] [0] [1]    and in the next epoch: [1] [0] [2]
    """

    def __init__(self, store: Store, epoch: Epoch) -> None:
        super().__init__(store)
        self._epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        order = self._epoch.generator(_STREAM).permutation(len(self))
        for start in range(0, len(order), _CHUNK):
            for number in order[start:start + _CHUNK].tolist():
                yield [number]
