"""What the pointer chains cost the thread that iterates them: keys, shuffle and batches, without bytes or pixels."""
import time

from benchmarks.contestants import SHUFFLE_BUFFER
from dataflows.order.epoch import Epoch
from dataflows.order.local_shuffle import FiniteLocallyShuffleData
from dataflows.order.pointers import SequentialKeys, ShuffledKeys
from dataflows.tensorpack import BatchData, DataFlow


class _Records:
    """As many records as asked for, without a file: pointers never look at one."""

    path = "no file"

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count


def pointer_costs(batch_size: int, repeats: int, count: int) -> dict[str, list[float]]:
    """Processor time of one thread in µs per image, for the chain of each loader and each of `repeats` epochs."""
    costs: dict[str, list[float]] = {"loader": [], "iterloader": []}
    for number in range(repeats):
        epoch = Epoch()
        epoch.number = number
        records = _Records(count)
        costs["loader"].append(_cost(ShuffledKeys(records, epoch), batch_size))  # type: ignore[arg-type]
        sequential = SequentialKeys(records, epoch)  # type: ignore[arg-type]
        costs["iterloader"].append(_cost(FiniteLocallyShuffleData(sequential, SHUFFLE_BUFFER, epoch), batch_size))
    return costs


def _cost(pointers: DataFlow, batch_size: int) -> float:
    batches = BatchData(pointers, batch_size, remainder=True, use_list=True)
    batches.reset_state()
    started = time.thread_time()
    count = sum(len(numbers) for numbers, _ in batches)
    return (time.thread_time() - started) / count * 1e6
