"""Puts values into the bins of a histogram, with bounds that a person would choose."""
import itertools

import numpy as np


def bins(values: np.ndarray | list[int], limit: int = 12) -> list[dict[str, int]]:
    """The values, non-negative integers, in at most `limit` bins, ascending; none for no values. Each bin is the
    `number` of values from `least` to `most`, both included.

    All are 1, 2 or 5 times a power of ten wide, but for the outer two, which reach to the least and to the greatest
    value: the width is chosen for the middle 98 %, for few images of 10,000 pixels would leave the others one bin.

    >>> [tuple(found.values()) for found in bins([375, 500, 500, 640], limit=5)]
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
    found = [{"least": at * step, "most": at * step + step - 1, "number": count}
             for at, count in enumerate(counts, first)]
    found[0]["least"] = min(found[0]["least"], int(values.min()))
    found[-1]["most"] = max(found[-1]["most"], int(values.max()))
    return found
