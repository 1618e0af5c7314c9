"""One iteration after another over a chain: where each is, what its time goes for, and its end."""
import contextlib
import time
import weakref
from typing import Any, Callable, Generator

from dataflows.load.meter import Meter
from dataflows.load.state import Position
from dataflows.load.to_torch import Batch, ToTorch
from dataflows.order.epoch import Epoch
from dataflows.tensorpack import DataFlow


class Iterations:
    """The iterations of one loader, each of which is the next epoch unless `go_to` says otherwise.

    epoch: which one the next iteration is, and from where in it; the chain's components read it when they start.
    place: where the latest iteration is.
    """

    def __init__(self, epoch: Epoch, meter: Meter) -> None:
        self.epoch = epoch
        self.place = Position()
        self._meter = meter
        self._running: list[weakref.ref[Generator[Batch, None, None]]] = []
        self._closed = False

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_running": []}  # a copy has no iterations yet

    def go_to(self, place: Position) -> None:
        """Makes the next iteration start there."""
        self.epoch.go_to(*place)
        self.place = place

    def go_to_epoch(self, number: int) -> None:
        """Makes the next iteration this epoch, from its start; it keeps the place in the epoch that is next anyway."""
        epoch = self.epoch
        same = number == epoch.number
        self.go_to(Position(number, epoch.interruptions, epoch.samples_done) if same else Position(number))

    def check_open(self) -> None:
        """Raises RuntimeError after `close`."""
        if self._closed:
            raise RuntimeError("the loader is closed; make a new one to iterate again")

    def begin(self, chain: Callable[[], tuple[DataFlow, ToTorch]]) -> Generator[Batch, None, None]:
        """Batches as tensors of one iteration. It asks for the chain, and for what makes tensors of its datapoints,
        when its first batch is asked for."""
        batches = self._iterate(chain)
        self._running = [*filter(lambda ref: ref() is not None, self._running), weakref.ref(batches)]
        return batches

    def _iterate(self, chain: Callable[[], tuple[DataFlow, ToTorch]]) -> Generator[Batch, None, None]:
        epoch, meter, clock = self.epoch, self._meter, time.perf_counter
        number, interruptions, samples = epoch.number, epoch.interruptions, epoch.samples_done
        started = False
        meter.begin()
        asked_at = clock()
        dataflow, to_torch = chain()
        with contextlib.closing(iter(dataflow)) as batches:
            for datapoint in batches:
                count = len(datapoint[1])
                got_at = clock()
                meter.waited(got_at - asked_at)
                if not started:  # every component has read the epoch by now
                    epoch.go_to(number + 1)
                    started = True
                samples += count
                self.place = Position(number, interruptions, samples)
                batch = to_torch(epoch.seed, number, *datapoint)
                ready_at = clock()
                meter.finished(ready_at - got_at, count)
                yield batch
                if self._closed:
                    return
                del datapoint, batch  # or their memory could not be used for the next batch
                asked_at = clock()
                meter.consumed(asked_at - ready_at)
        if not started:  # nothing was left of it
            epoch.go_to(number + 1)
        self.place = Position(epoch.number, epoch.interruptions, epoch.samples_done)

    def close(self) -> None:
        """Ends those that run, with their threads and processes, and has none begin."""
        self._closed = True
        for batches in [ref() for ref in self._running]:
            with contextlib.suppress(ValueError):  # another thread is in it, and ends it after its next batch
                if batches is not None:
                    batches.close()
