"""Checks of options that several classes take."""
import operator
from typing import Any, Iterable


def integer(name: str, value: Any, least: int, most: int = 2**63 - 1) -> int:
    """`value` as an int, numpy's integers included. Raises ValueError unless it is one from `least` to `most`.

    >>> integer("num_workers", 2.5, 0)
    Traceback (most recent call last):
    ValueError: num_workers must be a non-negative integer, not 2.5
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if not least <= number <= most:
        wanted = "a non-negative integer" if least == 0 else f"an integer of at least {least}"
        wanted += f", {most:,} at most" * (number > most)
        raise ValueError(f"{name} must be {wanted}, not {value!r}")
    return number


def check_state(state: Any, order: dict[str, Any], names: Iterable[str]) -> None:
    """Raises ValueError unless `state` is a state_dict that has `names` and was taken of an order like `order`."""
    if not isinstance(state, dict) or state.get("version") != 1 or not isinstance(state.get("order"), dict):
        raise ValueError("this is not what state_dict of a loader or a dataset's iterator of this version gives")
    missing = [name for name in names if name not in state]
    if missing:
        raise ValueError(f"the state has no {' and no '.join(missing)}: it is not what state_dict gave")
    for name, value in order.items():
        taken = state["order"].get(name)
        if taken != value:
            raise ValueError(f"the state was taken with another {name}: {taken!r} and not {value!r}. Use the file and "
                             f"the options of the run that was interrupted, or start its epoch anew with "
                             f"set_epoch({state['epoch']})")
