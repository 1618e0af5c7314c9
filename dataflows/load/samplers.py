"""What stands for a loader's samplers, where frameworks look for those of a DataLoader."""
from typing import Iterable, Iterator, Protocol


class _Loader(Protocol):
    """What is asked of a loader here."""

    @property
    def batch_size(self) -> int: ...

    @property
    def drop_last(self) -> bool: ...

    @property
    def epoch(self) -> int: ...

    def set_epoch(self, epoch: int) -> None: ...

    def pointers(self, epoch: int) -> Iterable[list[list[int]]]: ...

    def __len__(self) -> int: ...


class EpochSampler:
    """Stands for a loader's sampler: has `set_epoch`, which Lightning calls of that only, and the epoch's records."""

    def __init__(self, loader: _Loader) -> None:
        self._loader = loader

    def set_epoch(self, epoch: int) -> None:
        """As that of the loader."""
        self._loader.set_epoch(epoch)

    def __iter__(self) -> Iterator[int]:
        """The record numbers of the loader's next epoch, of this rank."""
        for numbers in EpochBatchSampler(self._loader):
            yield from numbers

    def __len__(self) -> int:
        return sum(map(len, EpochBatchSampler(self._loader)))


class EpochBatchSampler:
    """Stands for a loader's batch sampler: the record numbers of each batch of its next epoch, of this rank.

    `DataLoader(loader.dataset, batch_sampler=loader.batch_sampler, collate_fn=loader.collate_fn)` has the samples of
    the loader in its order, with other crops.
    """

    def __init__(self, loader: _Loader) -> None:
        self._loader = loader
        self.batch_size, self.drop_last = loader.batch_size, loader.drop_last

    @property
    def sampler(self) -> EpochSampler:
        """The loader's."""
        return EpochSampler(self._loader)

    def __iter__(self) -> Iterator[list[int]]:
        for numbers, _ in self._loader.pointers(self._loader.epoch):
            yield numbers

    def __len__(self) -> int:
        return len(self._loader)
