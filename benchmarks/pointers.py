"""What the pointer chains cost the thread that iterates them: keys, shuffle and batches, without bytes or pixels."""
import time

import numpy as np

from benchmarks.contestants import SHUFFLE_BUFFER
from dataflows.load.chain import batches_of, pointers_of
from dataflows.order.epoch import Epoch
from dataflows.order.order import Order
from dataflows.order.pointers import ALONE
from dataflows.tensorpack import DataFlow


class _Records:
    """As many records as asked for, without a file: pointers never look at one."""

    path = "no file"
    starts = np.zeros(1, np.int64)

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def fingerprint(self) -> int:
        """That of no file."""
        return 0


def pointer_costs(batch_size: int, repeats: int, count: int) -> dict[str, list[float]]:
    """Processor time of one thread in µs per image, for the chain of each loader and each of `repeats` epochs."""
    costs: dict[str, list[float]] = {"loader": [], "iterloader": []}
    records = _Records(count)
    for number in range(repeats):
        epoch = Epoch()
        epoch.number = number
        for name, kind in (("loader", "shuffled"), ("iterloader", "local")):
            pointers = pointers_of(records, Order(kind, shuffle_buffer=SHUFFLE_BUFFER), epoch, ALONE)
            costs[name].append(_cost(batches_of(pointers, epoch, batch_size)))
    return costs


def _cost(batches: DataFlow) -> float:
    batches.reset_state()
    started = time.thread_time()
    count = sum(len(numbers) for numbers, _ in batches)
    return (time.thread_time() - started) / count * 1e6
