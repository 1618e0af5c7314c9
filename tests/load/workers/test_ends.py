"""However a worker ends, or an iteration: an error and never a hang, and nothing is left behind."""
import faulthandler
import gc
import os
import re
import signal
import threading
import time

import psutil
import pytest

from dataflows.errors import WorkerDied
from helpers.sessions import in_child
from helpers.waiting import eventually
from helpers.worker_processes import (
    CROP,
    NamedError,
    batches_of,
    failing_at,
    frozen,
    processes,
    stop,
    threads,
    workers,
)

TIMEOUT_SECONDS = 60
DEATH_SECONDS = 30  # until the death of a worker is an error


# --- of workers


def crash():
    faulthandler.disable()
    os.kill(os.getpid(), signal.SIGSEGV)


@pytest.mark.parametrize("end", [lambda: os._exit(3), crash], ids=["exit", "crash"])
def test_a_worker_that_ends_by_itself_is_an_error(path, end):
    loader, got = processes(path, 1, transform=failing_at(path, 6, end)), []
    with pytest.raises(WorkerDied, match="exit code 3|SIGSEGV"):
        for batch in loader:
            got.append(batch)
    assert len(got) <= 6  # those that had left the process
    assert not workers()


@pytest.mark.parametrize("when", ["starting", "decoding", "idle"])
def test_a_killed_worker_is_an_error_and_never_a_hang(path, when):
    def transform(pixels):
        if when == "decoding":
            time.sleep(0.2)
        return pixels

    loader = processes(path, 2, transform=transform, repeats=20)
    batches = iter(loader)
    if when == "starting":
        killer = threading.Thread(target=lambda: eventually(workers) and workers()[0].kill())
        killer.start()
    else:
        next(batches)
        if when == "idle":
            eventually(lambda: all(w.status() == psutil.STATUS_SLEEPING for w in workers()))
        workers()[1].kill()
    started = time.monotonic()
    with pytest.raises(WorkerDied, match="killed by SIGKILL.*num_workers"):
        for _ in batches:
            started = time.monotonic()
    assert time.monotonic() - started < DEATH_SECONDS
    assert not workers()


def test_a_killed_worker_is_noticed_before_its_turn(path):
    """The other one is at work on the batch that comes first, and will be for long."""
    batches = iter(processes(path, 2, transform=lambda pixels: time.sleep(TIMEOUT_SECONDS) or pixels))
    threading.Thread(target=lambda: eventually(lambda: len(workers()) == 2) and workers()[1].kill()).start()
    started = time.monotonic()
    with pytest.raises(WorkerDied, match="killed by SIGKILL"):
        next(batches)
    assert time.monotonic() - started < DEATH_SECONDS
    assert not workers()


def test_a_killed_worker_is_noticed_where_sigchld_is_ignored(path):
    """Nobody can be waited for then, so that multiprocessing takes every process for alive."""
    previous = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        batches = iter(processes(path, repeats=20))
        next(batches)
        workers()[0].kill()
        with pytest.raises(WorkerDied):
            list(batches)
    finally:
        signal.signal(signal.SIGCHLD, previous)
    assert not workers()


def test_a_stopped_worker_goes_on_where_it_was(path):
    expected = batches_of(threads(path, transform=CROP))
    batches = iter(processes(path, transform=CROP))
    got = [frozen(next(batches))]
    [worker, _] = workers()
    stop(worker)
    timer = threading.Timer(1, worker.resume)
    timer.start()
    assert got + batches_of(batches) == expected
    timer.join()


def test_a_stopped_worker_does_not_outlive_close(path):
    loader = processes(path, transform=CROP, repeats=20)
    batches = iter(loader)
    next(batches)
    for worker in workers():
        stop(worker)
    loader.close()
    assert not workers()


# --- of iterations


def left_by_break(loader):
    for _ in loader:
        break


def dropped(loader):
    batches = iter(loader)
    next(batches)
    del batches


def dropped_in_a_cycle(loader):
    batches = iter(loader)
    next(batches)
    cycle = [batches]
    cycle.append(cycle)
    del batches, cycle
    gc.collect()


def closed_in_the_loop(loader):
    assert sum(1 for _ in loader if loader.close() is None) == 1


def left_by_an_exception(loader):
    try:
        for _ in loader:
            raise NamedError
    except NamedError:
        pass


def closed_by_another_thread_in_the_loop(loader):
    for number, _ in enumerate(loader):
        assert number == 0
        closer = threading.Thread(target=loader.close)
        closer.start()
        closer.join()


def closed_by_another_thread_while_waiting(loader):
    loader.transform = lambda pixels: time.sleep(0.2) or pixels
    closer = threading.Timer(0.1, loader.close)
    closer.start()
    assert sum(1 for _ in loader) == 1
    closer.join()


def never_started(loader):
    iter(loader)


ENDS = [left_by_break, dropped, dropped_in_a_cycle, closed_in_the_loop, left_by_an_exception,
        closed_by_another_thread_in_the_loop, closed_by_another_thread_while_waiting, never_started]


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
def test_however_an_iteration_ends_its_workers_end(cls, path, end):
    end(processes(path, cls=cls, transform=CROP, repeats=20))
    assert not workers()


def test_epochs_leave_no_files_threads_processes_or_shared_memory(path):
    def resources():
        return {"files": len(os.listdir("/proc/self/fd")), "threads": len(os.listdir("/proc/self/task")),
                "processes": len(workers())}

    shared = set(os.listdir("/dev/shm"))
    loader = processes(path, 4, transform=CROP)
    list(loader)
    gc.collect()
    before = resources()
    for epoch in range(20):
        for number, _ in enumerate(loader):
            if number == epoch % 7:
                break
    assert eventually(lambda: resources() == before), resources()
    own = re.compile(rf"(?<!\d){os.getpid()}(?!\d)")  # other processes make files there, too
    assert not [name for name in set(os.listdir("/dev/shm")) - shared if own.search(name)]


def test_a_fork_in_mid_iteration_harms_neither_side(path):
    """What the child inherits of an iteration must not reach the workers, which are its parent's."""
    expected = batches_of(threads(path, transform=CROP))
    loader = processes(path, transform=CROP)
    batches = iter(loader)
    got = [frozen(next(batches))]

    def child():
        with pytest.raises(RuntimeError, match="fork"):
            next(batches)
        batches.close()
        gc.collect()
        loader.set_epoch(0)
        assert batches_of(loader) == expected

    with in_child(child) as (pid, log):
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, log.read_text()
    assert got + batches_of(batches) == expected
