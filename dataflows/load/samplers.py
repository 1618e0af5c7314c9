"""What stands for a loader's samplers, where frameworks look for those of a DataLoader."""
from typing import TYPE_CHECKING, Iterator

if TYPE_CHECKING:
    from dataflows.load.loader import TorchBatches


class EpochSampler:
    """Stands for a loader's sampler: has `set_epoch`, which Lightning calls of that only, and the epoch's records."""

    def __init__(self, loader: "TorchBatches") -> None:
        self._loader = loader

    def set_epoch(self, epoch: int) -> None:
        """As that of the loader."""
        self._loader.set_epoch(epoch)

    def __iter__(self) -> Iterator[int]:
        """The record numbers of the loader's next epoch, of this rank."""
        for numbers in self._loader.batch_sampler:
            yield from numbers

    def __len__(self) -> int:
        return sum(map(len, self._loader.batch_sampler))


class EpochBatchSampler:
    """Stands for a loader's batch sampler: the record numbers of each batch of its next epoch, of this rank.

    `DataLoader(loader.dataset, batch_sampler=loader.batch_sampler, collate_fn=loader.collate_fn)` has the samples of
    the loader in its order, with other crops.
    """

    def __init__(self, loader: "TorchBatches") -> None:
        self._loader = loader
        self.batch_size, self.drop_last = loader.batch_size, loader.drop_last

    @property
    def sampler(self) -> EpochSampler:
        """The loader's."""
        return self._loader.sampler

    def __iter__(self) -> Iterator[list[int]]:
        for numbers, _ in self._loader.pointers(self._loader.epoch):
            yield numbers

    def __len__(self) -> int:
        return len(self._loader)
