"""Labels that are vectors: numbers in float32, as many for each image of a file.

They are for images of several classes at once, and for regression. All other labels are class numbers.
"""
from typing import Any

import numpy as np

from dataflows.errors import RecordError

Label = int | np.ndarray  # a class number, or a vector: float32 of shape (k,)
MOST_NUMBERS = 65_536
_RULE = f"a vector label must be a list or an array of 1 to {MOST_NUMBERS:,} numbers, in one dimension"


def is_vector(value: Any) -> bool:
    """Whether a label is meant as a vector: lists and arrays are, but for an array of one integer, a class number.

    >>> is_vector([1]), is_vector(np.array([0.5])), is_vector(np.array([1])), is_vector(1)
    (True, True, False, False)
    """
    if isinstance(value, (list, tuple)):
        return True
    if not getattr(value, "ndim", 0):
        return False
    array = np.asarray(value)
    return array.dtype.kind == "f" or array.size != 1


def as_vector(value: Any, *, finite: bool = True) -> np.ndarray:
    """A vector as float32 of shape (k,), in memory of its own.

    Raises RecordError for what is none, and where `finite`, for one with NaN or infinity.
    """
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:  # lists of several lengths
        raise RecordError(f"{_RULE}, and its parts are none ({error})") from error
    if array.ndim != 1 or array.dtype.kind not in "biuf" or not 1 <= array.size <= MOST_NUMBERS:
        raise RecordError(f"{_RULE}, not of {array.dtype} and shape {array.shape}")
    with np.errstate(over="ignore"):
        vector: np.ndarray = array.astype(np.float32)
    wrong = np.flatnonzero(~np.isfinite(vector)).tolist() if finite else []
    if wrong:
        raise RecordError(f"number {wrong[0]} of its label (from 0) is {array[wrong[0]]}, and float32 must hold each "
                          f"as a finite number: one NaN spoils the loss of a batch. Give another number for what is "
                          f"not known, and one more number that says so")
    return vector


def size_of(label: Any) -> int:
    """How many numbers a vector has; 0 for a class number."""
    return len(label) if isinstance(label, np.ndarray) else 0


def size_text(size: int) -> str:
    """What a label of this size is, in words.

    >>> size_text(0), size_text(3)
    ('a class number', 'a vector of 3')
    """
    return f"a vector of {size:,}" if size else "a class number"
