"""Runs contestants in child processes, epoch by epoch in turns: the parent's side.

While one contestant runs an epoch, all others are stopped (SIGSTOP to their process groups). A chain that prefetches
without end, as the stock tensorpack chain does, thus neither takes time from others nor gets a head start. POSIX only.
"""
import atexit
import contextlib
import multiprocessing
import os
import signal
import statistics
import tempfile
import time
from typing import Any, Callable, Sequence

from benchmarks.child import LOG, serve
from benchmarks.contestants import Contestant, Job
from benchmarks.processes import PeakMemory, anonymous_bytes, cpu_seconds

_SAMPLE_S = 0.05  # between looks at the child's memory
_CLOSING_S = 10.0  # for a contestant to close by itself, before it is killed
_ERROR_LINES = 20  # of a failed contestant's output


class ContestantError(Exception):
    """A contestant raised, died or hung."""


class Child:
    """One contestant in a process of its own: started, run epoch by epoch, closed.

    Whatever goes wrong with the contestant ends its process group and is kept in `error`; later calls do nothing.
    """

    def __init__(self, contestant: Contestant, job: Job, timeout_s: float) -> None:
        self.contestant = contestant
        self.error: str | None = None
        self.open_s: float | None = None
        self.epochs: list[dict[str, Any]] = []
        self._timeout_s = timeout_s
        # For what it leaves behind when it is killed, its log among it.
        self._folder = tempfile.TemporaryDirectory(prefix="benchmark-", ignore_cleanup_errors=True)
        context = multiprocessing.get_context("spawn")
        self._commands, commands = context.Pipe()
        lifeline, self._lifeline = context.Pipe(duplex=False)
        self._process = context.Process(target=serve, args=(contestant, job, commands, lifeline, self._folder.name))
        self._closed = False
        atexit.register(self.kill)  # before multiprocessing's own, which would wait for the child
        self._process.start()
        commands.close()
        lifeline.close()

    def open(self) -> None:
        """Waits until the contestant is ready, then stops it."""
        self._guarded(self._open)

    def _open(self) -> None:
        self.open_s = self._receive()["open_s"]
        self._signal(signal.SIGSTOP)

    def run_epoch(self, number: int) -> None:
        """Runs one epoch and appends its figures to `epochs`."""
        self._guarded(lambda: self.epochs.append(self._run_epoch(number)))

    def _run_epoch(self, number: int) -> dict[str, Any]:
        pid = self._process.pid
        assert pid is not None
        before, memory = cpu_seconds(pid), PeakMemory(pid)
        memory.sample()
        # Sent first, so that nothing runs ahead of the clock between the two.
        self._commands.send(number)
        self._signal(signal.SIGCONT)
        figures = self._receive(memory.sample)
        self._signal(signal.SIGSTOP)
        memory.sample()
        after, anonymous = cpu_seconds(pid), anonymous_bytes(pid)
        figures["cpu_ms_per_image"] = None if after is None else (after - before) / figures["images"] * 1e3
        figures["peak_mb"] = None if memory.bytes is None else memory.bytes / 1e6
        figures["anonymous_mb"] = None if anonymous is None else anonymous / 1e6
        return figures

    def _guarded(self, step: Callable[[], Any]) -> None:
        if self.error is not None:
            return
        try:
            step()
        except (ContestantError, OSError) as error:  # OSError: it died between two messages
            self.error = str(error)
            self.kill()

    def _receive(self, sample: Callable[[], None] = lambda: None, timeout_s: float | None = None) -> dict[str, Any]:
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        deadline = time.monotonic() + timeout_s
        while not self._commands.poll(_SAMPLE_S):
            sample()
            # Its end of the pipe may live on in its workers, so that of the process itself is looked for.
            if not self._process.is_alive() and not self._commands.poll():
                raise ContestantError(self._obituary())
            if time.monotonic() > deadline:
                raise ContestantError(f"no answer within {timeout_s:g} s{self._output()}")
        try:
            message: dict[str, Any] = self._commands.recv()
        except (EOFError, OSError):
            self._wait_for_end()
            raise ContestantError(self._obituary()) from None
        if "error" in message:
            raise ContestantError(message["error"].strip())
        return message

    def _wait_for_end(self) -> None:
        # join() would wait for its workers as well: they inherit what it waits on.
        give_up = time.monotonic() + _CLOSING_S
        while self._process.is_alive() and time.monotonic() < give_up:
            time.sleep(0.01)

    def _obituary(self) -> str:
        return f"its process ended with exit code {self._process.exitcode}{self._output()}"

    def _output(self) -> str:
        with open(os.path.join(self._folder.name, LOG), errors="replace") as log:
            lines = log.read().strip().splitlines()[-_ERROR_LINES:]
        return "\n".join([". The end of its output:", *lines]) if lines else ""

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close() if kind is None else self.kill()

    def close(self) -> None:
        """Lets the contestant close, then ends its whole process group. Closing twice is fine."""
        if not self._closed and self.error is None:
            self._signal(signal.SIGCONT)
            with contextlib.suppress(ContestantError, OSError):
                self._commands.send(None)
                self._receive(timeout_s=_CLOSING_S)
                self._wait_for_end()
        self.kill()

    def kill(self) -> None:
        """Ends its whole process group at once."""
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self.kill)
        # The group first: once its leader is reaped, its number could become another's. There may be no group yet.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.join()
        self._process.close()
        self._commands.close()
        self._lifeline.close()
        self._folder.cleanup()


def run_group(contestants: Sequence[Contestant], job: Job, epochs: int, timeout_s: float,
              report: Callable[[str], None]) -> list[dict[str, Any]]:
    """One result per contestant: figures of a warm-up epoch and `epochs` counted ones, or the error that ended it.

    A result is {"contestant", "error", "skipped", "open_s", "epochs", "median", "growth_mb"}. "skipped" is whether the
    error kept somebody else's library from starting: that is no fault of the run. The first of "epochs" is the
    warm-up; "median" has the medians of the others, and "growth_mb" is by how much anonymous memory at the end of the
    last one exceeds that at the end of the first of them (None for a single one). Both are None after an error.
    `report` gets a line of progress.
    """
    with contextlib.ExitStack() as stack:
        children: list[Child] = []
        for contestant in contestants:
            report(f"starting {contestant.name}")
            children.append(stack.enter_context(Child(contestant, job, timeout_s)))
            children[-1].open()
        for number in range(epochs + 1):
            # Turns go forth and back, so that nobody always follows the same neighbour.
            for child in children[::-1] if number % 2 else children:
                report(f"epoch {number} of {epochs}: {child.contestant.name}")
                child.run_epoch(number)
    return [_result(child) for child in children]


def _result(child: Child) -> dict[str, Any]:
    skipped = child.error is not None and child.open_s is None and bool(child.contestant.needs)
    return {"contestant": child.contestant.name, "error": child.error, "skipped": skipped, "open_s": child.open_s,
            "epochs": child.epochs, "median": None if child.error else medians(child.epochs[1:]),
            "growth_mb": None if child.error else _growth([epoch["anonymous_mb"] for epoch in child.epochs[1:]])}


def _growth(sizes: list[float | None]) -> float | None:
    first, last = sizes[0], sizes[-1]
    return None if len(sizes) < 2 or first is None or last is None else last - first


def medians(epochs: list[dict[str, Any]]) -> dict[str, Any]:
    """The median of each figure; None for one that the system does not give."""
    return {name: None if epochs[0][name] is None else statistics.median(epoch[name] for epoch in epochs)
            for name in epochs[0]}
