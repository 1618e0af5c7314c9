"""Requests to where a URL points: bounded in number and bytes, with time-outs and repetitions, and clear errors."""
import asyncio
import atexit
import contextlib
import errno
import functools
import os
import random
import threading
from collections import deque
from concurrent.futures import Future
from typing import Any, Awaitable, Callable

from dataflows.storage.remote.backend import Content, open_filesystem, several_ranges
from dataflows.storage.remote.ending import let_threads_return
from dataflows.storage.remote.failures import NoRanges, may_pass, texts, told
from dataflows.storage.remote.options import RemoteOptions
from dataflows.storage.remote.urls import protocol_of, refuse_secrets

PART = 8 * 2**20  # bytes of one request for a whole file
TIMEOUT_SECONDS = 30.0  # of one request
ATTEMPTS = 4
PAUSE_SECONDS = 0.2  # before the second; each further one is twice as long
IN_FLIGHT = 64  # requests of one process to one store, or as many MB
TOGETHER = 8  # small ranges by one call, where that is possible: 0.15 ms of processor time each, 0.4 ms alone
SMALL_BYTES = 2**20
_END_SECONDS = 1.0
Range = tuple[int, int]  # start, end
Answer = Content | None  # to one range: its bytes; None if it was one of several, and these did not come


class Connection:
    """One file system of one process. Threads may share it; a forked child must not, and `connect` gives it another."""

    def __init__(self, url: str, options: RemoteOptions, *, opening: bool) -> None:
        self._filesystem = open_filesystem(url, options.given, opening=opening)
        self._several = several_ranges(self._filesystem)
        self._secrets = texts(options.given)
        self._free = IN_FLIGHT
        self._queue: deque[tuple[str, list[Range], Future[list[Answer]]]] = deque()
        self._tasks: dict[Any, asyncio.Task[Any]] = {}  # of what is under way
        self._ended = False

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """What makes the requests, in a thread of fsspec's."""
        loop: asyncio.AbstractEventLoop = self._filesystem.loop
        return loop

    @property
    def together(self) -> int:
        """How many small ranges one call brings."""
        return 1 if self._several is None else TOGETHER

    def ask(self, url: str, requests: list[list[Range]]) -> "list[Future[list[Answer]]]":
        """What each range of each request gives, when there is room. Errors are those of `get`.

        A request is of one range, or of up to `together` small ones, which come by one call. If that fails, it is not
        made again: the answers are None, and whoever needs one asks by `get`, which tells whose fault it is. A request
        whose Future is cancelled is not made, or ends.
        """
        answers: list[Future[list[Answer]]] = [Future() for _ in requests]
        self.loop.call_soon_threadsafe(self._begin, url, requests, answers)  # once for all: it wakes a thread
        return answers

    def _begin(self, url: str, requests: list[list[Range]], answers: "list[Future[list[Answer]]]") -> None:
        for ranges, answer in zip(requests, answers):
            self._queue.append((url, ranges, answer))
            answer.add_done_callback(self._given_up)
        self._go_on()

    def _go_on(self) -> None:
        """Makes requests in their order while there are places, so that a large one gets its own in its turn.

        What waits has no task yet, for thousands may.
        """
        while self._queue:
            url, ranges, answer = self._queue[0]
            places = _places(ranges)
            if not answer.cancelled() and places > self._free:
                return
            self._queue.popleft()
            if self._ended:
                answer.cancel()
            if not answer.cancelled():
                self._free -= places
                self._tasks[answer] = task = self.loop.create_task(self._ranges(url, ranges))
                task.add_done_callback(functools.partial(self._answer, answer, places))

    def _answer(self, answer: "Future[list[Answer]]", places: int, task: "asyncio.Task[list[Answer]]") -> None:
        """Hands on what a task has become, also whatever a package's own runtime has raised."""
        del self._tasks[answer]
        self._free += places
        self._go_on()
        if task.cancelled():
            answer.cancel()
            return
        error = task.exception()
        if answer.set_running_or_notify_cancel():
            answer.set_exception(error) if error is not None else answer.set_result(task.result())

    def _given_up(self, answer: "Future[Any]") -> None:
        if answer.cancelled():
            self.loop.call_soon_threadsafe(self._cancel, answer)

    def _cancel(self, answer: "Future[Any]") -> None:
        if answer in self._tasks:
            self._tasks[answer].cancel()
        self._go_on()  # it may have held up others

    def end(self) -> None:
        """Ends all requests, and takes no others: for the end of the program."""
        with contextlib.suppress(Exception):  # a loop that is gone, or does not answer
            asyncio.run_coroutine_threadsafe(self._end(), self.loop).result(2 * _END_SECONDS)

    async def _end(self) -> None:
        self._ended = True
        self._go_on()
        for _, _, answer in self._queue:
            answer.cancel()
        tasks = [*self._tasks.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_END_SECONDS)

    def get(self, url: str, start: int, end: int, *, short: bool = False) -> bytes:
        """The bytes of a file from `start` to `end`, now. short: the file may end before.

        Raises OSError, with the URL: FileNotFoundError and PermissionError at once, others when all attempts failed.
        """
        content: bytes = self._now(self._range(url, start, end, short))
        return content

    def size(self, url: str) -> int:
        """The size of a file that is there, in bytes."""
        found = self._now(self._repeated(url, lambda: self._filesystem._info(url)))["size"]
        if not isinstance(found, int):
            raise OSError(errno.EIO, f"the server does not tell how long {url} is. Use one that does", url)
        return found

    def whole(self, url: str) -> bytes:
        """All of a file, in parts at once."""
        first = self.get(url, 0, PART, short=True)
        if len(first) < PART:
            return first
        size = self.size(url)
        rest = self.ask(url, [[(start, min(start + PART, size))] for start in range(PART, size, PART)])
        return b"".join([first, *(content for part in rest for content in part.result() if content is not None)])

    def exists(self, url: str) -> bool:
        """Whether there is such a file, with one byte at least."""
        try:
            return bool(self.get(url, 0, 1, short=True))
        except FileNotFoundError:
            return False

    def call(self, url: str, name: str, *args: Any, seconds: float, **options: Any) -> Any:
        """What another operation of the file system gives, repeated as reading is; one attempt takes `seconds` at most.
        """
        return self._now(self._repeated(url, lambda: getattr(self._filesystem, name)(*args, **options), seconds))

    def _now(self, request: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(self._known(request), self.loop).result()

    async def _known(self, request: Any) -> Any:
        """What a request gives, which ends with the program."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks[task] = task
        try:
            if self._ended:
                task.cancel()
            return await request
        finally:
            del self._tasks[task]

    async def _ranges(self, url: str, ranges: list[Range]) -> list[Answer]:
        if self._several is None or any(end - start > SMALL_BYTES for start, end in ranges):
            return [await self._range(url, start, end, short=False) for start, end in ranges]
        starts, ends = zip(*ranges)
        with contextlib.suppress(Exception):
            found = await _within(TIMEOUT_SECONDS, functools.partial(self._several, url, starts, ends))
            if [*map(len, found)] == [end - start for start, end in ranges]:
                return [*found]
        return [None] * len(ranges)

    async def _range(self, url: str, start: int, end: int, short: bool) -> bytes:
        async def request() -> bytes:
            content: bytes = await self._filesystem._cat_file(url, start=start, end=end)
            if len(content) > end - start:
                raise NoRanges(f"the server gave {len(content):,} bytes for a range of {end - start:,}: it does not "
                                f"serve ranges. Use one that does")
            if len(content) < end - start and not short:
                raise ConnectionError(f"{len(content):,} of {end - start:,} bytes came")
            return content

        found: bytes = await self._repeated(url, request)
        return found

    async def _repeated(self, url: str, request: Callable[[], Awaitable[Any]], seconds: float | None = None) -> Any:
        seconds = TIMEOUT_SECONDS if seconds is None else seconds
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await _within(seconds, request)
            except Exception as failed:
                error: Exception = failed
            if attempt == ATTEMPTS or not may_pass(error):
                raise told(url, error, attempt, self._secrets) from error
            await asyncio.sleep(PAUSE_SECONDS * 2 ** (attempt - 1) * (0.5 + random.SystemRandom().random()))


async def _within(seconds: float, request: Callable[[], Awaitable[Any]]) -> Any:
    """What a request gives. Raises TimeoutError if that takes longer. As asyncio.wait_for, but without another task."""
    task, late = asyncio.current_task(), False
    assert task is not None

    def expire() -> None:
        nonlocal late
        late = True
        task.cancel()

    timer = asyncio.get_running_loop().call_later(seconds, expire)
    try:
        return await request()
    except asyncio.CancelledError:
        if not late:
            raise
        if hasattr(task, "uncancel") and task.uncancel():  # since Python 3.11: somebody has given it up, too
            raise
        raise TimeoutError(f"no answer within {seconds:g} s") from None
    finally:
        timer.cancel()


def _places(ranges: list[Range]) -> int:
    """Of IN_FLIGHT, those that a request takes."""
    return min(IN_FLIGHT, sum(1 + (end - start) // 2**20 for start, end in ranges))


_connections: dict[tuple[str, str, bool], Connection] = {}
_inherited: list[Any] = []  # of the parent: never used, and never closed, which would talk to threads that are gone
_lock = threading.Lock()


def _after_fork() -> None:
    global _connections, _lock
    _inherited.append(_connections)
    _connections, _lock = {}, threading.Lock()


def _at_exit() -> None:
    for connection in [*_connections.values()]:
        connection.end()
    let_threads_return()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)


def connect(url: str, options: RemoteOptions, *, opening: bool = False) -> Connection:
    """This process's connection for a URL and options; made when it is first asked for. Raises as open_filesystem."""
    refuse_secrets(url)
    key = (protocol_of(url), repr(sorted(options.given.items(), key=lambda item: item[0])), opening)
    with _lock:
        if key not in _connections:
            _connections[key] = Connection(url, options, opening=opening)
        return _connections[key]
