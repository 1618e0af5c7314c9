"""Counts the time that workers and the training loop spend on each step.

Clocks are read a few times per image and a few more per slice of a batch, under 0.3 µs an image in all.
"""
import time
from collections import deque
from typing import NamedTuple

from dataflows.load.stats import Stats
from dataflows.system import major_faults


class Spent(NamedTuple):
    """Seconds of workers, those of all workers together; `queue` are of finished batches."""

    storage: float = 0.0
    decode: float = 0.0
    resize: float = 0.0
    transform: float = 0.0
    python: float = 0.0
    blocked: float = 0.0
    queue: float = 0.0


class Meter:
    """Adds up what one chain spends. Threads and, by way of messages, processes report to it without locks.

    `begin` and the methods of the loop are called by the thread that iterates, `worker` by any. Several iterations
    that are alive at once share it. May be pickled and forked: a copy in another process counts for itself.

    asks_for_pages: whether some pages of the batches that are being worked on were not in memory when they were looked
    for, so that what workers wait for is taken to be storage.
    """

    def __init__(self) -> None:
        self._reports: deque[Spent] = deque()
        self.begin()

    def __reduce__(self) -> tuple[type["Meter"], tuple[()]]:
        return Meter, ()  # threads may be reporting at this moment

    def begin(self) -> None:
        """A new iteration: forgets what was before."""
        self._reports.clear()
        self.asks_for_pages = False
        self._total = Spent()
        self._images = self._batches = 0
        self._first = self._waited = self._finish = self._consumer = 0.0

    def worker(self, spent: Spent) -> None:
        """What was spent on one piece of work."""
        self._reports.append(spent)

    def waited(self, seconds: float) -> None:
        """The loop waited for a batch."""
        if not self._batches:
            self._first += seconds
        self._waited += seconds

    def finished(self, seconds: float, images: int) -> None:
        """A batch of so many images was made ready for the loop in that time."""
        self._finish += seconds
        self._images += images
        self._batches += 1
        self.collect()  # or reports would add up to megabytes in an epoch whose stats nobody asks for

    def consumed(self, seconds: float) -> None:
        """The loop was busy with a batch."""
        self._consumer += seconds

    def collect(self) -> Spent:
        """What workers have spent since `begin`, in all."""
        while self._reports:
            self._total = Spent(*map(sum, zip(self._total, self._reports.popleft())))
        return self._total

    def take(self) -> Spent:
        """What workers have spent since the last call: for a process that reports to another."""
        spent = self.collect()
        self._total = Spent()
        return spent

    def stats(self, workers: int, processes: bool = False) -> Stats:
        """All of it so far, by so many workers."""
        spent = self.collect()
        return Stats(workers=workers, processes=processes, images=self._images, batches=self._batches,
                     seconds=self._waited + self._finish + self._consumer, first_batch_s=self._first,
                     waited_s=self._waited, finish_s=self._finish, consumer_s=self._consumer,
                     **{f"{name}_s": seconds for name, seconds in spent._asdict().items()})


class Watch:
    """Times one piece of work in the thread that does it, from its construction on.

    The thread adds to `decode`, `resize` and `transform` seconds by time.perf_counter, and to `transform_running` those
    of `transform` by time.thread_time. When it did not run and has had major faults, it waited for pages; without any,
    or where nobody counts them, for a processor or the GIL. Which of the stages that was in is not known: it is taken
    from each alike, but for a transform, which may wait for what it likes.
    """

    def __init__(self) -> None:
        self.decode = self.resize = self.transform = self.transform_running = 0.0
        self._faults, self._cpu, self._wall = major_faults(), time.thread_time(), time.perf_counter()

    def spent(self, reads: bool) -> Spent:
        """What went on since. `reads`: waiting is taken to be for storage, also without such faults, which the kernel
        does not count where pages are on their way already, and which reading an open file has none of."""
        wall = time.perf_counter() - self._wall - self.transform
        cpu = min(wall, time.thread_time() - self._cpu - self.transform_running)
        running = cpu / wall if wall > 0 else 1.0
        stalled = reads or major_faults() > self._faults
        waited = {"storage" if stalled else "blocked": wall - cpu}
        return Spent(decode=self.decode * running, resize=self.resize * running, transform=self.transform,
                     python=max(0.0, cpu - (self.decode + self.resize) * running), **waited)

