"""Measures how well a loader's order mixes a file, from pointers and labels alone.

    print(shuffle_quality(LMDBIterLoader("train.lmdb", 256, order="block")))

No image is read, so it takes seconds for all of ImageNet.
"""
import dataclasses
from typing import Iterable

import numpy as np
from numpy.typing import NDArray

from dataflows.load.loader import TorchBatches
from dataflows.options import integer, suggests


@dataclasses.dataclass(frozen=True)
class ShuffleQuality:
    """What `shuffle_quality` finds, as means over its epochs; `str` of it is a report of a few lines.

    samples: that this rank reads in an epoch.
    batch_size: of the first batch; only the last one may be smaller.
    epochs: how many were looked at, from epoch 0 on.
    entropy: of the classes within a batch, mean over batches. In bits, from 0 (one class) to log2(batch_size).
    full_entropy: what a full shuffle of the epoch's labels, those of all ranks, gives on average in batches of the same
        sizes, in bits: exactly, by the hypergeometric distribution, no shuffle is drawn.
    from_file: distance between a sample's place in the epoch and its place in the file, among the samples of this
        epoch, relative to their number; mean over samples. 0 in the order of the file, 1/2 in reverse, 1/3 in a full
        shuffle.
    from_previous: distance between a record's place in the epoch and in the epoch before, likewise. 0 if epochs are
        alike, 1/3 if each is a full shuffle. None for one epoch, and for ranks that read other records in each epoch.
    coverage: share of an epoch's samples that come exactly once (as often as they should, with `repeats` or repeated
        `indices`); of a rank's share, where there are ranks. 0 to 1. Less than 1 is what `drop_last` leaves out.
    """

    samples: int
    batch_size: int
    epochs: int
    entropy: float
    full_entropy: float
    from_file: float
    from_previous: float | None
    coverage: float

    @property
    def mixing(self) -> float:
        """`entropy` relative to `full_entropy`: 1 as in a full shuffle, 0 if each batch is of one class.

        1 also where the file has one class only, which no order can mix.
        """
        return self.entropy / self.full_entropy if self.full_entropy else 1.0

    def __str__(self) -> str:
        previous = "" if self.from_previous is None else f", {self.from_previous:.3f} from the epoch before"
        epochs = f"{self.epochs} epochs" if self.epochs > 1 else "1 epoch"
        return (f"{self.samples:,} samples in batches of {self.batch_size:,}, {epochs}\n"
                f"classes in a batch   {self.entropy:.2f} bits, {self.mixing:.1%} of the {self.full_entropy:.2f} bits "
                f"of a full shuffle\n"
                f"displacement         {self.from_file:.3f} from the file{previous} (a full shuffle: 0.333)\n"
                f"coverage             {self.coverage:.2%} of the samples come exactly once in an epoch")


@suggests
def shuffle_quality(loader: TorchBatches, epochs: int = 2) -> ShuffleQuality:
    """Looks at the order of a loader's first epochs, as its rank reads them; the loader's own place does not change.

    loader: LMDBLoader or LMDBIterLoader. Without an index, labels are read from the whole file, with a warning. Where
        labels are vectors, equal ones count as a class.
    epochs: how many; at least 2 to compare an epoch with the one before.

    Raises ValueError for less than one epoch.

    >>> from uint_lmdb_loader import LMDBLoader
    >>> with LMDBLoader("val.lmdb", 2, shuffle=False) as loader:      # whose records are sorted by class
    ...     print(shuffle_quality(loader))
    10 samples in batches of 2, 2 epochs
    classes in a batch   0.20 bits, 27.3% of the 0.73 bits of a full shuffle
    displacement         0.000 from the file, 0.000 from the epoch before (a full shuffle: 0.333)
    coverage             100.00% of the samples come exactly once in an epoch
    """
    epochs = integer("epochs", epochs, 1)
    records, labels = loader.records, loader.labels
    if labels.ndim > 1:  # equal vectors are a class
        labels = np.unique(labels, axis=0, return_inverse=True)[1].reshape(-1)
    counts = np.unique(labels[records], return_counts=True)[1]  # labels may be any numbers
    expected = np.bincount(records, minlength=len(labels))
    entropies: list[float] = []
    sizes: list[int] = []
    from_file, from_previous, covered = [], [], []
    before = None
    for epoch in range(epochs):
        batches = [np.array(numbers, np.int64) for numbers, _ in loader.pointers(epoch)]
        entropies += [entropy(labels[batch]) for batch in batches]
        sizes += map(len, batches)
        order = np.concatenate(batches)
        from_file.append(displacement(np.argsort(order, kind="stable"), np.arange(len(order)), len(order)))
        known, places = np.unique(order, return_index=True)
        if before is not None:
            _, old, new = np.intersect1d(before[0], known, assume_unique=True, return_indices=True)
            if len(new):
                from_previous.append(displacement(before[1][old], places[new], len(order)))
        before = known, places
        seen = np.bincount(order, minlength=len(labels))
        share = len(records) / loader.world_size
        covered.append(min(1.0, float(np.where(seen <= expected, seen, 0).sum() / share)))
    return ShuffleQuality(len(order), sizes[0], epochs, _mean(entropies), shuffled_entropy(counts, sizes),
                          _mean(from_file), _mean(from_previous) if from_previous else None, _mean(covered))


def entropy(labels: np.ndarray) -> float:
    """Of the distribution of classes among these samples, in bits.

    >>> entropy(np.array([7, 7, 3, 3]))
    1.0
    """
    shares = np.unique(labels, return_counts=True)[1] / len(labels)
    return max(0.0, float(-(shares * np.log2(shares)).sum()))


def shuffled_entropy(counts: np.ndarray, sizes: Iterable[int]) -> float:
    """Expected entropy, in bits, of batches of `sizes` from a full shuffle of counts[k] samples of class k; their mean.

    The number x of samples of a class with c of n in a batch of b is hypergeometric: it is x with probability
    C(c, x) C(n - c, b - x) / C(n, b), and then adds -(x / b) log2(x / b) to the entropy.
    """
    counts = np.asarray(counts, np.int64)
    total = int(counts.sum())
    log_factorial: NDArray[np.float64] = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, total + 1)))])

    def log_choose(n: int, k: NDArray[np.int64]) -> NDArray[np.float64]:
        return log_factorial.item(n) - log_factorial[k] - log_factorial[n - k]

    def expectation(size: int) -> float:
        result = 0.0
        for count, classes in zip(*(a.tolist() for a in np.unique(counts[counts > 0], return_counts=True))):
            x = np.arange(max(1, size - (total - count)), min(size, count) + 1)
            log_p = log_choose(count, x) + log_choose(total - count, size - x) - log_choose(total, np.array(size))
            result -= classes * float((np.exp(log_p) * x / size * np.log2(x / size)).sum())
        return max(0.0, result)

    different, times = np.unique(np.fromiter(sizes, np.int64), return_counts=True)
    return float(np.average([expectation(size) for size in different.tolist()], weights=times))


def displacement(places: np.ndarray, others: np.ndarray, size: int) -> float:
    """Mean distance between two places of the same samples, relative to `size` places.

    >>> displacement(np.array([0, 1, 2, 3]), np.array([3, 2, 1, 0]), 4)
    0.5
    """
    return float(np.abs(places - others).mean() / size)


def _mean(values: list[float]) -> float:
    return float(np.mean(values))
