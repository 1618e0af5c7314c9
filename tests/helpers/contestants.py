"""Contestants for tests of the benchmark: good ones, and ones that fail in each way. Each leaves its processes' ids."""
import contextlib
import os
import pathlib
import sys
import tempfile
import time
from types import SimpleNamespace

import psutil

from benchmarks.contestants import Contestant, Job

IMAGES = 10


def _leave_pid(job, pid=None):
    (pathlib.Path(job.scratch) / str(pid or os.getpid())).touch()


def _start_worker(job):
    pid = os.fork()
    if pid == 0:
        time.sleep(600)
        os._exit(0)
    _leave_pid(job, pid)


class Labels:
    dtype = "torch.int64"

    def __init__(self, count):
        self.shape = (count,)

    def __len__(self):
        return self.shape[0]


def batches(count, side=224):
    """What looks like batches of tensors to the benchmark, without importing torch in every process."""
    return [(SimpleNamespace(dtype="torch.uint8", shape=(count, 3, side, side)), Labels(count))]


@contextlib.contextmanager
def good(job):
    _leave_pid(job)
    _start_worker(job)
    yield lambda number: batches(IMAGES)


@contextlib.contextmanager
def too_few(job):
    _leave_pid(job)
    yield lambda number: batches(IMAGES - 1)


@contextlib.contextmanager
def too_small(job):
    _leave_pid(job)
    yield lambda number: batches(IMAGES, side=223)


@contextlib.contextmanager
def grows(job):
    """By 20 MB an epoch, and leaves something in its folder for temporary files."""
    kept = []
    tempfile.mkstemp()
    _leave_pid(job)

    def epoch(number):
        kept.append(b"x" * 20_000_000)
        return batches(IMAGES)

    yield epoch


@contextlib.contextmanager
def raises_at_start(job):
    _leave_pid(job)
    _start_worker(job)
    raise RuntimeError("no such disk")
    yield


@contextlib.contextmanager
def does_not_import(job):
    _leave_pid(job)
    try:
        import no_such_library  # noqa: F401
    except ImportError as error:
        raise ImportError("no_such_library is not what it needs:\n  a hint of several lines\nends here") from error
    yield


@contextlib.contextmanager
def raises_in_second_epoch(job):
    _leave_pid(job)
    yield lambda number: batches(IMAGES) if number == 0 else 1 / 0


@contextlib.contextmanager
def exits(job):
    _leave_pid(job)
    _start_worker(job)
    print("last words")
    sys.stdout.flush()
    yield lambda number: os._exit(3)


@contextlib.contextmanager
def hangs(job):
    _leave_pid(job)
    _start_worker(job)
    yield lambda number: time.sleep(600)


@contextlib.contextmanager
def hangs_at_the_end(job):
    _leave_pid(job)
    _start_worker(job)
    yield lambda number: batches(IMAGES)
    time.sleep(600)


def fake(function):
    return Contestant(function.__name__, f"{__name__}:{function.__name__}", "for a test")


def fake_job(scratch):
    return Job(source="", split="train", lmdb="", scratch=str(scratch), images=IMAGES, batch_size=IMAGES,
               num_workers=1)


def survivors(folder):
    """Processes that wrote their ids there and are alive."""
    alive = []
    for pid in map(int, os.listdir(folder)):
        with contextlib.suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                alive.append(pid)
    return alive
