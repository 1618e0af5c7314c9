"""Which rank this process is, asked of torch.distributed when it is first used."""
from typing import Any

import torch

from dataflows.options import integer, one_of
from dataflows.order.ranks import MOST_RANKS, UNEVEN, Ranks


class LateRanks:
    """The ranks that a loader's options name; where they name none, those of torch.distributed at the first call, or 0
    of 1 while it is not initialized.

    A loader may so be made before init_process_group. From the first call on it stays as it is: a call raises
    RuntimeError if torch.distributed says otherwise later. A copy of one that was not called yet, in a worker of a rank
    too, is of the same rank; one that was pickled before torch.distributed is initialized asks for itself.

    Raises ValueError for values out of range.

    >>> LateRanks(1, 3, "pad")()
    Ranks(rank=1, world_size=3, uneven='pad')
    """

    def __init__(self, rank: int | None, world_size: int | None, uneven: str) -> None:
        one_of("uneven", uneven, UNEVEN)
        self.uneven = uneven
        self.given = rank is not None or world_size is not None
        self._ranks = self._checked(rank, world_size) if self.given else None

    def _checked(self, rank: int | None, world_size: int | None) -> Ranks:
        if rank is None or world_size is None:
            raise ValueError(f"rank={rank} and world_size={world_size}: give both, or neither to ask torch.distributed")
        world_size, rank = integer("world_size", world_size, 1), integer("rank", rank, 0)
        if world_size > MOST_RANKS:
            raise ValueError(f"world_size may be up to {MOST_RANKS:,}, not {world_size:,}")
        if rank >= world_size:
            raise ValueError(f"rank must be below world_size={world_size}, not {rank}")
        return Ranks(rank, world_size, self.uneven)

    def __call__(self) -> Ranks:
        told = None if self.given else _told()
        if self._ranks is None:
            self._ranks = Ranks(*(told or (0, 1)), self.uneven)
        elif told is not None and told != (self._ranks.rank, self._ranks.world_size):
            raise RuntimeError(
                f"this was rank {self._ranks.rank} of {self._ranks.world_size} when it was first used (by iter, len, "
                f"state_dict or the like), and torch.distributed now says rank {told[0]} of {told[1]}, whose share of "
                f"the samples is another. Call init_process_group before that first use, make a new one now, or give "
                f"rank= and world_size=")
        return self._ranks

    def __getstate__(self) -> dict[str, Any]:
        if _told() is not None:
            self()  # workers that are started, and not forked, have nobody to ask
        return self.__dict__


def _told() -> tuple[int, int] | None:
    """(rank, world size) as torch.distributed has them, where it is initialized."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return None
