"""Puts values into the bins of a histogram, with bounds that a person would choose."""
import itertools
from typing import NamedTuple

import numpy as np


class Bin(NamedTuple):
    """The number of values from `least` to `most`, both included."""

    least: int
    most: int
    number: int


def bins(values: np.ndarray, limit: int = 12) -> list[Bin]:
    """The values, non-negative integers, in at most `limit` bins, ascending; none for no values.

    All are 1, 2 or 5 times a power of ten wide, but for the outer two, which reach to the least and to the greatest
    value: the width is chosen for the middle 98 %, for few images of 10,000 pixels would leave the others one bin.

    >>> [tuple(found) for found in bins(np.array([375, 500, 500, 640]), limit=5)]
    [(300, 399, 1), (400, 499, 0), (500, 599, 2), (600, 699, 1)]
    """
    values = np.asarray(values, np.int64)
    if not len(values):
        return []
    low, high = np.quantile(values, [0.01, 0.99], method="nearest").tolist()
    steps = (factor * 10**power for power in itertools.count() for factor in (1, 2, 5))
    step = next(step for step in steps if high // step - low // step < limit)
    first, last = low // step, high // step
    counts = np.bincount(np.clip(values // step, first, last) - first, minlength=last - first + 1).tolist()
    found = [Bin(at * step, at * step + step - 1, count) for at, count in zip(range(first, last + 1), counts)]
    found[0] = found[0]._replace(least=min(found[0].least, int(values.min())))
    found[-1] = found[-1]._replace(most=max(found[-1].most, int(values.max())))
    return found
