"""The place in an epoch as a dict of plain numbers and texts, and back, with checks of what comes from elsewhere."""
from typing import Any, Iterable, NamedTuple

from dataflows.options import integer
from dataflows.order.ranks import Done, check_done


class Position(NamedTuple):
    """Where an iteration is: which epoch, its interruptions so far, and how many samples this rank has had since."""

    epoch: int = 0
    interruptions: Done = ()
    samples: int = 0


def saved(position: Position, world_size: int, order: dict[str, int | str]) -> dict[str, Any]:
    """What state_dict of a loader gives: `position`, for a run of so many ranks and an order so described."""
    return {"version": 1, "epoch": position.epoch, "done": [list(pair) for pair in position.interruptions],
            "samples": position.samples, "world_size": world_size, "order": dict(order)}


def restored(state: Any, world_size: int, order: dict[str, int | str], most_samples: int) -> Position:
    """The position that `state` tells, for a run of so many ranks.

    That of another number of ranks is one more interruption of its epoch. Raises ValueError if the state is of another
    file or order, or if an epoch of `most_samples`, over all ranks, cannot have been interrupted so.
    """
    check_state(state, order, ("epoch", "done", "samples", "world_size"))
    epoch, samples = integer("epoch", state["epoch"], 0), integer("samples", state["samples"], 0)
    saved_by = integer("world_size", state["world_size"], 1)
    try:
        interruptions = tuple((integer("world_size", ranks, 1), integer("samples", each, 0))
                              for ranks, each in list(state["done"]))
    except (TypeError, ValueError) as error:
        raise ValueError(f"the state's done must be a list of pairs of integers, not {state['done']!r}") from error
    check_done(most_samples, (*interruptions, (saved_by, samples)))
    if saved_by != world_size and samples:
        interruptions, samples = (*interruptions, (saved_by, samples)), 0
    return Position(epoch, interruptions, samples)


def check_state(state: Any, order: dict[str, int | str], names: Iterable[str]) -> None:
    """Raises ValueError unless `state` is a state_dict that has `names` and was taken of an order like `order`."""
    if not isinstance(state, dict) or state.get("version") != 1 or not isinstance(state.get("order"), dict):
        raise ValueError("this is not what state_dict of a loader or a dataset's iterator of this version gives")
    missing = [name for name in names if name not in state]
    if missing:
        raise ValueError(f"the state has no {' and no '.join(missing)}: it is not what state_dict gave")
    for name in {**order, **state["order"]}:
        taken, own = state["order"].get(name), order.get(name)
        if taken != own:
            taken, own = ("the default" if value is None else repr(value) for value in (taken, own))
            raise ValueError(f"the state was taken with another {name}: {taken} and not {own}. Use the file and "
                             f"the options of the run that was interrupted, or start its epoch anew with "
                             f"set_epoch({state['epoch']})")
