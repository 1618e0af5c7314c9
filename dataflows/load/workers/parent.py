"""Runs parts of a chain in worker processes and reads them in turns, so that the order is kept."""
import atexit
import contextlib
import errno
import functools
import itertools
import logging
import multiprocessing.connection
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import multiprocessing.util
import os
import pickle
import secrets
import signal
import time
import weakref
from typing import Any, Callable, Generator, Iterator, Sequence

import zmq

from dataflows.errors import WorkerDied
from dataflows.load.meter import Meter
from dataflows.load.workers.child import TAKEN, InWorker
from dataflows.load.workers.messages import raise_again, unpicklable
from dataflows.load.workers.shared_memory import SharedMemory, lent
from dataflows.load.workers.signals import interrupts_held
from dataflows.tensorpack import DataFlow, MultiProcessRunnerZMQ, ProxyDataFlow

logger = logging.getLogger(__name__)

_POLL_MS = 200  # between looks at whether a worker that sends nothing is alive
_BINDINGS = 20  # attempts at a name of a socket that nobody has
_DESCRIPTORS = 32  # open files: a worker takes 14 of its parent's, and 8 more in its fork


class RoundRobinProcesses(ProxyDataFlow):
    """Yields the datapoints of `parts` in turns, one of each, every part made by a process of its own.

    `ds` is what the parts are parts of: `parts[i]` has its datapoints i, i + n, i + 2n, ..., so what is yielded equals
    `ds`, in its order, and `len` is its. tensorpack's runner repeats data when it has several processes, but of one
    process it promises the same data in the same order; reading n of them in turns keeps that promise. Where it would
    wait for ever for a worker that was killed, this raises WorkerDied; what a worker raises is raised here, at its
    place in the order, with the worker's traceback as its cause. Iterating starts the processes, and its end, however
    it comes, kills them; they end by themselves when their parent is gone. Several iterations may be alive at once; one
    that was begun before a fork goes on in the parent only.

    At most `prefetch` datapoints of each process, made or in the making, wait to be read. Arrays of up to
    `shared_bytes` travel in memory that the process shares with its parent, while the parent has not kept more than a
    few of them; everything else as pickled copies. `meter`, which the parts have too, is told what they spend.
    Datapoints must pickle, and under the start methods spawn and forkserver, `parts` must, too. There a process imports
    torch first, in each epoch: 2.4 s, 0.2 s after
    multiprocessing.set_forkserver_preload(["dataflows.load.workers.parent"]), 0.04 s when forked (2 processes).
    """

    def __init__(self, ds: DataFlow, parts: Sequence[DataFlow], prefetch: int, meter: Meter,
                 shared_bytes: int = 0) -> None:
        super().__init__(ds)
        self._meter = meter
        self._parts = parts
        self._prefetch = prefetch
        self._shared_bytes = shared_bytes

    def __iter__(self) -> Iterator[list[Any]]:
        iteration = self._iterate()
        _end_at_exit(iteration)
        return iteration

    def _iterate(self) -> Generator[list[Any], None, None]:
        runners: list[_Runner] = []
        messages = None
        try:
            for part in self._parts[:max(1, len(self.ds))]:
                runners.append(_Runner(part, self._prefetch, self._meter, self._shared_bytes))
                runners[-1].reset_state()
            for place, messages in itertools.cycle(enumerate([iter(runner) for runner in runners])):
                _wait(runners, place)
                kind, content = next(messages)
                if kind == "end":
                    return
                if kind == "error":
                    raise_again(content)
                yield content
        finally:
            with interrupts_held():
                messages = None
                while runners:  # none is left for the end of this frame: what finalizers are interrupted by is lost
                    runners.pop().close()


class _Runner(MultiProcessRunnerZMQ):
    """tensorpack's runner with one process, without its log lines, with an end, and with a limit that is exact: the
    queues of ZMQ and of the system would take many more small datapoints than `hwm`."""

    def __init__(self, part: DataFlow, prefetch: int, meter: Meter, shared_bytes: int) -> None:
        self._meter = meter
        _refuse_few_descriptors()
        taken, self._taken = multiprocessing.Pipe(duplex=False)
        # Besides those that wait to be read, the user has one and lets go of the one before it.
        slots = min(prefetch + 2, len(part), 255) if shared_bytes else 0
        self._shared = _shared_memory(slots, shared_bytes) if slots else None
        self._lent: dict[int, Callable[[], object | None]] = {}  # slots that hold what the user may still have
        super().__init__(InWorker(part, prefetch, meter, taken, self._shared, slots if self._shared else 0),
                         hwm=prefetch + 1)
        self._pid = os.getpid()
        # What ends this, at the latest when it is deleted, and never in a fork. Finalizers hold what they end: garbage
        # collection of a cycle would let zmq's context forget its socket, and then wait for it for ever.
        self._ends: list[multiprocessing.util.Finalize] = []

    def reset_state(self) -> None:
        method = multiprocessing.get_start_method()
        if method != "fork":  # or `start` does it: the one would unblock SIGINT, the other inherit the block
            multiprocessing.resource_tracker.ensure_running()
        if method == "forkserver":
            multiprocessing.forkserver.ensure_running()
        with interrupts_held():
            for attempt in range(_BINDINGS):
                try:
                    super().reset_state()
                    return
                except zmq.ZMQError as error:
                    # tensorpack names its sockets after the time, so those of two ranks that start together can meet.
                    self._take_back()
                    self._reset_done = False  # tensorpack's guard against a second call
                    if error.errno != errno.EADDRINUSE or attempt + 1 == _BINDINGS:
                        raise

    def _take_back(self) -> None:
        """Of what tensorpack has made before it failed: both, the context alone, or neither."""
        if hasattr(self, "socket"):
            self.socket.close(0)
            del self.socket
        if hasattr(self, "context"):
            self.context.term()
            del self.context

    def _start_processes(self) -> None:
        # Not at the exit of the interpreter: a thread may be using them.
        self._ends.append(multiprocessing.util.Finalize(self, _disconnect, (self.socket, self.context)))
        [process] = self._procs
        process.daemon = True
        self._admit_only_this_user(process)
        try:
            process.start()
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise unpicklable(f"the transform to its processes, as the start method is "
                               f"{multiprocessing.get_start_method()!r}", error,
                               "Define it at the top of a module, or use threads") from error
        self._ends.append(multiprocessing.util.Finalize(self, _kill, (process,), exitpriority=10))

    def _admit_only_this_user(self, process: Any) -> None:
        # The socket has a name that anybody on this machine may connect to, and what it receives is unpickled.
        self.socket.unbind(process.conn_name)
        self.socket.setsockopt(zmq.IPC_FILTER_UID, os.getuid())
        process.conn_name += "-" + secrets.token_hex(8)  # of its own, whoever else has had the other
        self.socket.bind(process.conn_name)

    def has_message(self) -> bool:
        """Waits a little for one."""
        if os.getpid() != self._pid:
            raise RuntimeError("an iteration with worker processes does not go on in a fork; begin another one there")
        return bool(self.socket.poll(_POLL_MS))

    def check_alive(self) -> None:
        """Raises WorkerDied if the process is gone and has left nothing to read."""
        [process] = self._procs
        if _has_ended(process) and not self.socket.poll(_POLL_MS):  # its last words may still be on the way
            code = process.exitcode
            how = (f"was killed by {signal.Signals(-code).name}" if code is not None and code < 0
                   else f"ended with exit code {code}")
            raise WorkerDied(f"worker process {process.pid} {how} before its work was done. If it was killed for want "
                             f"of memory, use fewer num_workers or a smaller batch_size or prefetch; if it could not "
                             f"start, guard your script with if __name__ == '__main__'")

    def _recv(self) -> Any:
        with interrupts_held():  # zmq looks for signals where it frees a message, and loses what their handlers raise
            kind, content = super()._recv()
        self._give_back()
        self._taken.send_bytes(TAKEN)
        if kind != "datapoint":
            return kind, content
        components, spent, sent_at = content
        self._meter.worker(spent._replace(queue=time.perf_counter() - sent_at))  # a clock that all processes share
        return kind, [self._unpacked(*component) for component in components]

    def _unpacked(self, how: str, content: Any, axes: tuple[int, ...] | None) -> Any:
        if how == "pickled":
            return pickle.loads(content)
        if how == "shared":
            assert self._shared is not None
            slot = content[0]
            content, self._lent[slot] = lent(self._shared.slot(*content))
        return content if axes is None else content.transpose(axes)

    def _give_back(self) -> None:
        for slot in [slot for slot, in_use in self._lent.items() if in_use() is None]:
            del self._lent[slot]
            self._taken.send_bytes(bytes([slot]))

    def close(self) -> None:
        """Kills the process, which SIGKILL does even if it is stopped, and closes the socket."""
        for end in self._ends:
            end()

    def __del__(self) -> None:
        """Nothing: tensorpack's would print, and what there is to be done the finalizers do."""


def _wait(runners: Sequence[_Runner], place: int) -> None:
    """Until this one has a message; raises WorkerDied when any of them is gone, also one whose turn comes later."""
    while not runners[place].has_message():
        for runner in runners:
            runner.check_alive()


_iterations: list[weakref.ref[Generator[list[Any], None, None]]] = []


def _end_at_exit(iteration: Generator[list[Any], None, None]) -> None:
    """Ends an iteration that lives until the interpreter exits, before modules are taken apart: it needs zmq's."""
    if not _iterations:
        atexit.register(_end_all)
    _iterations[:] = [*filter(lambda ref: ref() is not None, _iterations), weakref.ref(iteration)]


def _end_all() -> None:
    for iteration in [ref() for ref in _iterations]:
        if iteration is not None:
            with contextlib.suppress(ValueError):  # another thread is in it
                iteration.close()


def _refuse_few_descriptors() -> None:
    """Raises OSError where this process may not open as many files as a worker takes: libzmq would end it."""
    taken: list[int] = []
    try:
        while len(taken) < _DESCRIPTORS:
            taken += os.pipe()
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}: a worker process needs {_DESCRIPTORS} more open files to start, "
                                   f"and {len(taken)} are left. Raise the limit (ulimit -n), use fewer "
                                   f"num_workers, or threads (worker_type=\"thread\")") from error
    finally:
        for each in taken:
            os.close(each)


def _shared_memory(slots: int, nbytes: int) -> SharedMemory | None:
    """None where the system gives none: then arrays travel as copies."""
    try:
        return SharedMemory(slots, nbytes)
    except OSError as error:
        _tell_of_copies(error.strerror)
        return None


@functools.cache
def _tell_of_copies(reason: str) -> None:
    logger.warning("the system gives no memory that processes share (%s), so batches travel as copies, which takes "
                   "more processor time", reason)


def _disconnect(socket: "zmq.Socket[bytes]", context: "zmq.Context[zmq.Socket[bytes]]") -> None:
    socket.close(0)
    context.term()


def _kill(process: Any) -> None:
    process.kill()
    process.join()


def _has_ended(process: Any) -> bool:
    # Where the program ignores SIGCHLD, or waits for any child, is_alive never learns of the end.
    return bool(multiprocessing.connection.wait([process.sentinel], 0)) or not process.is_alive()
