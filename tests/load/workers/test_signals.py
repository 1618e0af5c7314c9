"""Signals at any moment: Ctrl-C, a killed parent, killed and stopped workers. Nothing is left behind."""
import contextlib
import os
import signal
import threading
import time

import numpy as np
import psutil
import pytest

from dataflows.errors import WorkerDied
from helpers.sessions import exit_code, in_child, session
from helpers.waiting import eventually
from helpers.worker_processes import CROP, NamedError, failing_at, processes, raises, stop, workers

TIMEOUT_SECONDS = 60
SEED = 5


def interrupted(path, ready):
    """A training loop that goes on until it is interrupted, and says whether it left anything."""
    try:
        loader = processes(path, transform=CROP)
        ready()
        while True:
            for _ in loader:
                pass
    except KeyboardInterrupt:
        pass
    return len(workers())


def run_round(kind, path, random):
    """One fault at a random moment, and what must come of it."""
    delay, (ready, write) = random.uniform(0, 0.12), os.pipe()

    def body():
        if kind in ("interrupt", "parent killed"):
            return interrupted(path, lambda: os.write(write, b"x"))
        loader = processes(path, transform=CROP, num_workers=int(random.integers(1, 4)), repeats=50)
        batches = iter(loader)
        os.write(write, b"x")
        if kind == "raise":
            loader.transform = failing_at(path, int(random.integers(23)), raises(NamedError("no")))
            with pytest.raises(NamedError):
                list(loader)
        elif kind == "kill":
            timer = threading.Timer(delay, lambda: [worker.kill() for worker in workers()[-1:]])
            timer.start()
            with contextlib.suppress(WorkerDied):
                list(batches)
            timer.join()
        else:
            next(batches)
            for _ in range(int(delay * 100)):
                next(batches)
            for worker in workers()[:1]:
                stop(worker)
            batches.close() if random.random() < 0.5 else loader.close()
        return len(workers())

    with in_child(body) as (pid, log):
        os.close(write)
        assert os.read(ready, 1) == b"x"
        os.close(ready)
        if kind in ("interrupt", "parent killed"):
            time.sleep(delay)
            if kind == "interrupt":
                os.killpg(pid, signal.SIGINT)
            else:
                os.kill(pid, signal.SIGKILL)
        expected = -signal.SIGKILL if kind == "parent killed" else 0
        assert exit_code(pid, log) == expected, log.read_text()
        assert eventually(lambda: not session(pid)), [psutil.Process(left) for left in session(pid)]
        assert log.read_text() == ""


def test_a_stopped_worker_does_not_outlive_a_killed_parent(path):
    ready, write = os.pipe()

    def body():
        batches = iter(processes(path, transform=CROP, repeats=50))
        next(batches), next(batches)  # one of each: both have started
        os.write(write, b"x")
        time.sleep(TIMEOUT_SECONDS)

    with in_child(body) as (pid, log):
        os.close(write)
        assert os.read(ready, 1) == b"x", log.read_text()
        os.close(ready)
        [one, _] = set(session(pid)) - {pid}
        stop(psutil.Process(one))
        os.kill(pid, signal.SIGKILL)
        assert exit_code(pid, log) == -signal.SIGKILL
        assert eventually(lambda: not session(pid))


FAULTS = ("raise", "kill", "stop", "parent killed", "interrupt")


@pytest.mark.parametrize("number", range(5))
def test_random_faults_leave_nothing_behind(path, number):
    """50 rounds in all."""
    for turn in range(2):
        for kind in FAULTS:
            run_round(kind, path, np.random.default_rng([SEED, number, turn, FAULTS.index(kind)]))


@pytest.mark.parametrize("number", range(3))
def test_interrupts_while_workers_start_and_end_leave_nothing_behind(path, number):
    """One batch an epoch: most of the time workers are being started or killed. Other threads take signals, too."""
    for turn in range(5):
        delay = float(np.random.default_rng([SEED, number, turn]).uniform(0, 0.2))
        ready, write = os.pipe()

        def body(write=write):
            threading.Thread(target=threading.Event().wait, daemon=True).start()
            try:
                loader = processes(path, 23, transform=CROP)
                os.write(write, b"x")
                while True:
                    list(loader)
            except KeyboardInterrupt:
                pass
            return len(workers())

        with in_child(body) as (pid, log):
            os.close(write)
            assert os.read(ready, 1) == b"x"
            os.close(ready)
            time.sleep(delay)
            os.killpg(pid, signal.SIGINT)
            assert exit_code(pid, log) == 0, log.read_text()
            assert eventually(lambda pid=pid: not session(pid))
            assert log.read_text() == ""
