"""Random numbers of a sample: functions of (seed, epoch, position), each from a column of its own.

    0-39  the box of RandomResizedCrop: ten attempts of four numbers
    40    whether it is mirrored
    41    its interpolation, where that is "random"
    64    the seed of what is called for its image
    65    the seed of a batch_transform, of the first sample of a batch
    66    the seed of a RandomErasing that is done for a batch
"""
import numpy as np
from numpy.typing import NDArray


def uniforms(columns: range, seed: int, epoch: int, positions: np.ndarray) -> np.ndarray:
    """Random numbers in [0, 1), float64 of shape (len(positions), len(columns)), a function of the arguments alone.

    Each position has a row of numbers without end, of which these are the ones in `columns`.

    SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014) used as a hash of
    a counter: any position can be had without the ones before it, which numpy's generators cannot do for an array.
    """
    with np.errstate(over="ignore"):
        stream = _splitmix64(_splitmix64(np.asarray(seed % 2**64, np.uint64)) ^ np.uint64(epoch))
        samples = _splitmix64(stream ^ np.asarray(positions, np.uint64))
        counters = np.arange(columns.start, columns.stop, dtype=np.uint64)
        bits = _splitmix64(samples[:, None] + counters * np.uint64(0x9E3779B97F4A7C15))
    return (bits >> np.uint64(11)) * 2.0**-53


def _splitmix64(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
