"""Checks of options that several classes take."""
import operator
from typing import Any


def integer(name: str, value: Any, least: int) -> int:
    """`value` as an int, numpy's integers included. Raises ValueError unless it is one of at least `least`."""
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        wanted = "a non-negative integer" if least == 0 else f"an integer of at least {least}"
        raise ValueError(f"{name} must be {wanted}, not {value!r}")
    return number
