"""Parts of a stream: every n-th of its datapoints, and the rest of an epoch after a restart."""
import itertools
from typing import Any, Iterator

from dataflows.order.epoch import Epoch
from dataflows.tensorpack import DataFlow, ProxyDataFlow


class Slice(ProxyDataFlow):
    """Yields each `step`-th datapoint of `ds`, from number `start` on. `len` is exact when that of `ds` is.

        ds: 0 1 2 3 4 5 6    start=1, step=3:    1 4
    """

    def __init__(self, ds: DataFlow, start: int, step: int = 1) -> None:
        super().__init__(ds)
        self._start, self._step = start, step

    def __len__(self) -> int:
        return len(range(self._start, len(self.ds), self._step))

    def __iter__(self) -> Iterator[Any]:
        return itertools.islice(self.ds, self._start, None, self._step)


class RestOfEpoch(ProxyDataFlow):
    """Yields the datapoints of `ds`, which can start anywhere, from number `epoch.samples_done` on: an earlier run has
    read those before.

    `len` is that of `ds`: of an epoch that was not interrupted.
    """

    def __init__(self, ds: DataFlow, epoch: Epoch) -> None:
        super().__init__(ds)
        self._epoch = epoch

    def __iter__(self) -> Iterator[list[Any]]:
        done = self._epoch.samples_done
        rest: Iterator[list[Any]] = self.ds.from_place(done) if done else iter(self.ds)
        return rest
