"""Worker processes: the batches of threads, failures at their place, and nothing left behind however it ends.

Processes are forked in the test's own process where that shows all there is to see. What ends the training process
itself is tried on `children`, forks with a session of their own, whose survivors can be told; what a start method or
the exit of an interpreter does is tried on scripts.
"""
import contextlib
import faulthandler
import gc
import itertools
import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import uuid
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
import zmq

from dataflows import CenterCrop, RandomResizedCrop
from dataflows.errors import WorkerDied
from helpers.paths import ROOT
from uint_lmdb_iterloader import LMDBIterLoader
from uint_lmdb_loader import LMDBLoader

LOADERS = [LMDBLoader, LMDBIterLoader]
TIMEOUT_SECONDS = 60  # of what must happen
DEATH_SECONDS = 5  # until the death of a worker is an error, or that of the parent the end of its workers
CROP = RandomResizedCrop(16)
SEED = 5


@pytest.fixture(autouse=True)
def _fork():
    """As Python before 3.14 does by default."""
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("fork", force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


@pytest.fixture(params=LOADERS, ids=lambda cls: cls.__name__)
def cls(request):
    return request.param


@pytest.fixture
def path(jpeg_lmdb):
    return jpeg_lmdb / "train.lmdb"


def processes(path, batch_size=2, *, cls=LMDBLoader, num_workers=2, **options):
    return cls(path, batch_size, num_workers=num_workers, worker_type="process", **options)


def threads(path, batch_size=2, *, cls=LMDBLoader, **options):
    return cls(path, batch_size, num_workers=2, **options)


def frozen(value):
    """A value as what compares by content: tensors with type, shape, dtype and bytes."""
    if isinstance(value, torch.Tensor):
        return type(value), value.shape, value.dtype, value.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    if isinstance(value, (list, tuple)):
        return type(value), tuple(map(frozen, value))
    if isinstance(value, dict):
        return {key: frozen(item) for key, item in value.items()}
    return value


def batches_of(loader):
    return [frozen(batch) for batch in loader]


_others = set()  # children of earlier tests' making: the servers of multiprocessing live as long as the interpreter


@pytest.fixture(autouse=True)
def _know_the_others():
    _others.clear()
    _others.update(psutil.Process().children())


def workers():
    """The worker processes of this process, also those that have ended and were not waited for."""
    return [child for child in psutil.Process().children() if child not in _others]


def eventually(condition, seconds=DEATH_SECONDS):
    give_up = time.monotonic() + seconds
    while not condition() and time.monotonic() < give_up:
        time.sleep(0.01)
    return condition()


def is_stopped(process):
    return process.status() == psutil.STATUS_STOPPED


def stop(process):
    process.suspend()
    assert eventually(lambda: is_stopped(process))


# --- starting


def test_names_of_sockets_that_others_have_are_passed_over(cls, path, monkeypatch):
    """tensorpack names them after the time, in tenths of microseconds: two ranks met in a run of the tests."""
    names = itertools.chain(["11111111"] * 3, map(str, itertools.count(10**7)))
    monkeypatch.setattr(uuid, "uuid1", lambda: next(names))
    with zmq.Context() as context, context.socket(zmq.PULL) as other:
        other.bind("ipc://@dataflow-pipe-11111111")
        assert frozen(list(processes(path, cls=cls))) == frozen(list(threads(path, cls=cls)))


# --- the same batches


OPTIONS = {
    "fused": {"transform": CROP}, "whole images": {}, "center": {"transform": CenterCrop(16, resize=20)},
    "channels_last": {"transform": CROP, "channels_last": True}, "drop_last": {"transform": CROP, "drop_last": True},
    "scaled_decode": {"transform": RandomResizedCrop(16, scaled_decode=True)},
    "normalize": {"transform": CROP, "normalize": ([0.5] * 3, [0.2] * 3)}}


@pytest.mark.parametrize(("name", "num_workers"), [("fused", 1), ("fused", 2), ("fused", 8), ("whole images", 1),
                                                   ("whole images", 8), *((name, 3) for name in OPTIONS)])
def test_batches_are_those_of_threads(cls, path, name, num_workers):
    expected = list(threads(path, cls=cls, **OPTIONS[name]))
    got = list(processes(path, cls=cls, num_workers=num_workers, **OPTIONS[name]))
    assert frozen(got) == frozen(expected)
    for (images, _), (others, _) in zip(got, expected):
        if isinstance(images, torch.Tensor):
            assert images.stride() == others.stride()
    assert not workers()


RESULTS = {
    "arrays": lambda pixels: pixels[:20, :30],
    "arrays of several shapes": lambda pixels: pixels[::2],
    "float arrays": lambda pixels: pixels[:20, :30] / np.float32(255),
    "other arrays": lambda pixels: pixels[:2].astype(">u4"),
    "numbers of numpy": lambda pixels: pixels.mean(),
    "tensors": lambda pixels: torch.from_numpy(pixels[:20, :30]),
    "permuted tensors": lambda pixels: torch.from_numpy(pixels[:20, :30]).permute(2, 0, 1),
    "tensors of several shapes": lambda pixels: torch.from_numpy(pixels).permute(2, 0, 1),
    "bfloat16": lambda pixels: torch.from_numpy(pixels[:20, :30]).bfloat16(),
    "tensors with a gradient": lambda pixels: torch.nn.Parameter(torch.ones(2)),
    "a tensor or an array": lambda pixels: pixels[:9, :9] if pixels.sum() % 2 else torch.zeros(9),
    "dicts": lambda pixels: {"crop": torch.from_numpy(pixels[:4]), "views": [pixels.shape, "text"]},
    "None": lambda pixels: None,
}


@pytest.mark.parametrize("transform", RESULTS.values(), ids=RESULTS)
def test_whatever_a_callable_returns_arrives_as_from_threads(path, transform):
    outcomes = []
    for make in (threads, processes):
        loader = make(path, 3, transform=transform)
        try:
            outcomes.append([(frozen(b), images.stride() if isinstance(images, torch.Tensor) else 0)
                             for b in loader for images in b[:1]])
        except (TypeError, ValueError) as error:  # what torch refuses, it refuses in either case
            outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]


def test_pil_images_arrive_as_from_threads(path):
    image = pytest.importorskip("PIL.Image")

    def transform(pixels):
        return image.fromarray(pixels).resize((12, 10))

    assert batches_of(processes(path, transform=transform)) == batches_of(threads(path, transform=transform))


def test_tensors_within_other_things_hold_no_files_open(path):
    """torch's own pickling for processes sends one handle for each: 1,024 of them are all that a process may have."""
    def files():
        return len(os.listdir("/proc/self/fd"))

    before = files()
    loader = processes(path, 23, transform=lambda pixels: {"crop": torch.from_numpy(pixels[:4])})
    kept = []
    for images, _ in loader:
        kept.append(images)
    del loader, _
    assert eventually(lambda: files() <= before)
    assert kept[0][0]["crop"].shape[0] == 4


def test_several_epochs_are_those_of_threads(cls, path):
    one, other = processes(path, cls=cls, transform=CROP), threads(path, cls=cls, transform=CROP)
    for _ in range(4):
        assert batches_of(one) == batches_of(other)
    for loader in (one, other):
        loader.set_epoch(9)
        next(iter(loader))  # and the epoch after one that was left early
    assert batches_of(one) == batches_of(other)


def test_more_workers_than_batches_do_no_harm(path):
    assert batches_of(processes(path, 20, num_workers=8)) == batches_of(threads(path, 20))


def test_the_empty_rest_of_an_epoch_is_empty(path):
    loader = processes(path, transform=CROP)
    batches = iter(loader)
    for _ in range(len(loader)):
        next(batches)
    state = loader.state_dict()
    resumed = processes(path, transform=CROP, num_workers=3)
    resumed.load_state_dict(state)
    assert list(resumed) == []
    assert batches_of(resumed) == batches_of(loader)  # epoch 1
    batches.close()


def test_two_loaders_and_two_iterations_at_once(path, tiled_lmdb):
    one, other = processes(path, transform=CROP), processes(tiled_lmdb / "train.lmdb", transform=CROP)
    first, second = zip(*zip(one, other))
    assert frozen(list(first)) == frozen(list(threads(path, transform=CROP)))
    assert frozen(list(second)) == frozen(list(threads(tiled_lmdb / "train.lmdb", transform=CROP)))
    a = iter(one)
    head = [next(a)]
    b = iter(one)
    other_head = [next(b)]
    expected = threads(path, transform=CROP)
    expected.set_epoch(1)
    assert frozen(head + list(a)) == frozen(list(expected))
    assert frozen(other_head + list(b)) == frozen(list(expected))
    assert not workers()


def test_iterations_in_threads_that_are_not_the_main_one(path):
    expected, got = batches_of(threads(path, transform=CROP)), {}

    def run(name):
        got[name] = batches_of(processes(path, transform=CROP))

    running = [threading.Thread(target=run, args=(name,)) for name in range(3)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(TIMEOUT_SECONDS)
    assert got == dict.fromkeys(range(3), expected)
    assert not workers()


def test_workers_start_though_torch_has_used_its_threads(path):
    """OpenMP's pool does not survive a fork; whoever uses it in a child waits for ever."""
    def use():
        a = torch.ones(400, 400)
        torch.nn.functional.interpolate((a @ a)[None, None], size=(999, 999), mode="bilinear")

    expected = batches_of(threads(path, transform=CROP))
    use()
    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert batches_of(processes(path, transform=CROP)) == expected
    transform = torch.nn.AdaptiveAvgPool2d(8)
    loader = processes(path, transform=lambda pixels: transform(torch.from_numpy(pixels).permute(2, 0, 1).float()))
    assert len(batches_of(loader)) == len(loader)


# --- bounded memory


@pytest.mark.parametrize("prefetch", [1, 2, 5])
def test_workers_stop_when_nobody_reads(path, prefetch):
    """Batches of 1 are so small that ZMQ's and the system's queues alone would take them all."""
    calls = multiprocessing.Value("i", 0)

    def transform(pixels):
        with calls.get_lock():
            calls.value += 1
        return pixels[:2, :2]

    loader = processes(path, 1, transform=transform, prefetch=prefetch, repeats=10)
    batches = iter(loader)
    for taken in (1, 2, 3):
        next(batches)
        assert eventually(lambda expected=taken + 2 * prefetch: calls.value >= expected)
        time.sleep(0.1)
        assert calls.value == taken + 2 * prefetch
    batches.close()


# --- failures


class NoisyError(Exception):
    def __init__(self, code, reason):
        super().__init__(f"{reason} ({code})")


class NamedError(Exception):
    pass


class OwnPickle(NamedError):
    """As several libraries have them: what is added to it later does not travel."""

    def __reduce__(self):
        return type(self), self.args


def failing_at(path, place, raising):
    """A transform that fails for one record: that at `place` in the order."""
    wanted = []

    def remember(pixels):
        wanted.append(pixels.tobytes())
        return pixels

    list(LMDBLoader(path, 1, num_workers=0, transform=remember))
    return lambda pixels: raising() if pixels.tobytes() == wanted[place] else pixels


def raises(error):
    def raising():
        raise error
    return raising


@pytest.mark.parametrize("error", [NamedError, OwnPickle])
@pytest.mark.parametrize("place", [0, 1, 7, 22])
@pytest.mark.parametrize("num_workers", [1, 3])
def test_an_exception_comes_at_its_place_and_names_file_and_key(path, place, num_workers, error):
    loader = processes(path, 1, num_workers=num_workers, transform=failing_at(path, place, raises(error("no"))))
    got = []
    with pytest.raises(NamedError, match="^no") as failed:
        for batch in loader:
            got.append(batch)
    assert len(got) == place
    assert "in raising" in str(failed.value.__cause__)  # the worker's traceback
    if sys.version_info >= (3, 11):
        [note] = failed.value.__notes__
        assert str(path) in note and "key 000000" in note
    assert not workers()


def test_a_wrong_record_is_named(jpeg_lmdb, tmp_path):
    """By file and key, in the very exception of the threads."""
    import lmdb

    from dataflows.errors import RecordError

    with lmdb.open(str(tmp_path / "broken.lmdb"), subdir=False, map_size=2**24) as env:
        with lmdb.open(str(jpeg_lmdb / "train.lmdb"), subdir=False, readonly=True, lock=False) as source:
            with source.begin() as read, env.begin(write=True) as txn:
                for key, value in read.cursor():
                    txn.put(key, value[:50] if key == b"00000004" else value)
    errors = []
    for make in (threads, processes):
        with pytest.raises(RecordError, match="broken.lmdb.*00000004") as failed:
            list(make(tmp_path / "broken.lmdb", transform=CROP))
        errors.append(str(failed.value))
    assert errors[0] == errors[1]


@pytest.mark.parametrize(("error", "expected", "text"), [
    (NoisyError(3, "why"), RuntimeError, r"NoisyError: why \(3\)"),  # pickles, and then does not unpickle
    (type("Local", (Exception,), {})("x"), RuntimeError, "Local: x"),
    (ValueError(threading.Lock()), RuntimeError, "ValueError: <unlocked"),
    (SystemExit(3), SystemExit, "^3$"),
    (KeyboardInterrupt("own"), KeyboardInterrupt, "own"),
    (MemoryError("much"), MemoryError, "much"),
    (StopIteration(), RuntimeError, "StopIteration"),
], ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "")
def test_any_exception_arrives(path, error, expected, text):
    """As itself, or if it does not pickle as a RuntimeError that says all."""
    loader = processes(path, 1, transform=failing_at(path, 5, raises(error)))
    with pytest.raises(expected, match=text) as failed:
        list(loader)
    if sys.version_info >= (3, 11) and expected is RuntimeError and not isinstance(error, StopIteration):
        assert str(path) in str(failed.value)
    assert not workers()


def test_results_that_do_not_pickle_are_refused(path):
    with pytest.raises(TypeError, match="worker_type='process' sends what the transform returns.*generator.*threads"):
        list(processes(path, transform=lambda pixels: (row for row in pixels)))
    assert not workers()


class Unreadable:
    def __reduce__(self):
        return pickle.loads, (b"",)


def test_results_that_do_not_unpickle_raise_what_unpickling_raises(path):
    with pytest.raises(EOFError):
        list(processes(path, transform=lambda pixels: Unreadable()))
    assert not workers()


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


# --- ends


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
                "processes": len(workers()), "temporary": os.listdir(tempfile.gettempdir())}

    shared = set(os.listdir("/dev/shm"))
    loader = processes(path, 4, transform=CROP)
    list(loader)
    gc.collect()
    before = resources()
    for epoch in range(20):
        for number, _ in enumerate(loader):
            if number == epoch % 7:
                break
    assert eventually(lambda: {**resources(), "temporary": 0} == {**before, "temporary": 0}), resources()
    assert not [name for name in set(os.listdir("/dev/shm")) - shared if str(os.getpid()) in name]


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


# --- what transforms draw at random


def draw(_):
    """One number of each global generator."""
    return torch.tensor([torch.rand(()).item(), np.random.rand(), random.random()], dtype=torch.float64)


@pytest.mark.parametrize("cls", LOADERS)
def test_random_transforms_draw_the_same_on_any_number_of_processes(cls, path):
    epochs = []
    for num_workers, batch_size in ((1, 5), (2, 5), (3, 4)):
        random.seed(num_workers)  # what the program has drawn before does not matter
        torch.manual_seed(num_workers)
        loader = processes(path, batch_size, cls=cls, num_workers=num_workers, transform=draw, seed=1)
        epochs.append([torch.cat([images for images, _ in loader]) for _ in range(2)])
    assert all(torch.equal(a, b) for other in epochs[1:] for a, b in zip(epochs[0], other, strict=True))
    numbers = torch.cat(epochs[0])
    assert numbers.shape == (46, 3) and len(numbers.unique(dim=0)) == 46  # each image, in each epoch, its own
    other = torch.cat([images for images, _ in processes(path, 5, cls=cls, transform=draw, seed=2)])
    assert not torch.isin(other, numbers).any()


def test_the_programs_own_generators_are_left_alone(path):
    before = random.getstate(), torch.get_rng_state(), np.random.get_state()[1]
    list(processes(path, 5, transform=draw))
    after = random.getstate(), torch.get_rng_state(), np.random.get_state()[1]
    assert before[0] == after[0] and torch.equal(before[1], after[1]) and (before[2] == after[2]).all()


# --- the end of the training process


def session(pid):
    """Processes of a session that live."""
    found = []
    for other in psutil.pids():
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getsid(other) == pid and psutil.Process(other).status() != psutil.STATUS_ZOMBIE:
                found.append(other)
    return found


@contextlib.contextmanager
def in_child(function):
    """Runs `function` in a fork that leads a session; yields its process id, and a file with its output.

    The exit code is what the function returns, or 70 if it raises. Kills what is left at the end.
    """
    handle, name = tempfile.mkstemp(prefix="child")
    os.close(handle)
    log = Path(name)
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            os.setsid()
            torch.set_num_threads(1)  # OpenMP's pool does not survive a fork
            signal.signal(signal.SIGINT, signal.default_int_handler)
            sys.stdout = sys.stderr = log.open("w", buffering=1)
            os.dup2(sys.stdout.fileno(), 1)
            os.dup2(sys.stdout.fileno(), 2)
            sys.unraisablehook = sys.__unraisablehook__  # pytest's would collect what is lost in finalizers
            faulthandler.register(signal.SIGUSR1, chain=False)  # where it hangs, when `exit_code` asks
            code = function() or 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    try:
        yield pid, log
    finally:
        for left in session(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(left, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
        log.unlink()


def exit_code(pid, log):
    give_up = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < give_up:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    left = [(process.pid, process.status(), process.cmdline()[:3]) for process in map(psutil.Process, session(pid))]
    os.kill(pid, signal.SIGUSR1)
    time.sleep(0.5)
    pytest.fail(f"the child {pid} hangs, and with it {left}; it wrote:\n{log.read_text()}")


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


# --- scripts


SCRIPT = """
import multiprocessing, os, signal, sys, threading, time
import torch
import zmq
sys.path.insert(0, {root!r})
from dataflows import RandomResizedCrop
from dataflows.load.workers.parent import WorkerDied
from uint_lmdb_iterloader import LMDBIterLoader
from uint_lmdb_loader import LMDBLoader

def slow(pixels):
    time.sleep(0.05)
    return pixels[:9, :9]

def fail(pixels):
    raise ZeroDivisionError("no")

def make(transform=RandomResizedCrop(16), cls=LMDBLoader, **options):
    return cls({path!r}, 2, transform=transform, **(dict(num_workers=2, worker_type="process") | options))

def say(*words):
    print(*words, flush=True)

def main():
    {code}

{guard}
"""
GUARD = """
if __name__ == "__main__":
    multiprocessing.set_start_method({method!r})
    multiprocessing.set_forkserver_preload(["dataflows.load.workers.parent"])
    main()
"""


@contextlib.contextmanager
def script(tmp_path, path, code, *, method="fork", guard=GUARD):
    """A training script as a process that leads a session. Kills what is left of it at the end."""
    body = "\n    ".join(code.strip().splitlines())
    file = tmp_path / "train.py"
    file.write_text(SCRIPT.format(root=str(ROOT), path=str(path), code=body, guard=guard.format(method=method)))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    process = subprocess.Popen([sys.executable, str(file)], cwd=tmp_path, env=environment, text=True,
                               start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        yield process
        assert eventually(lambda: not session(process.pid)), session(process.pid)
        left = {found.name for found in tmp_path.iterdir()} - {"train.py"}
        # multiprocessing's own folder, of the forkserver's socket, needs a parent that removes it.
        assert not left or process.returncode == -signal.SIGKILL and method == "forkserver", left
    finally:
        for left in session(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(left, signal.SIGKILL)
        process.communicate()


IDENTITY = """
for cls in (LMDBLoader, LMDBIterLoader):
    pairs = zip(make(cls=cls, num_workers={n}), make(cls=cls, worker_type="thread"), strict=True)
    say(all(torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in pairs))
"""
FAILURES = """
try:
    list(make(fail, num_workers=1))
except ZeroDivisionError as error:
    say(error, *getattr(error, "__notes__", [{path!r}]))
batches = iter(make(num_workers=1, repeats=20))
next(batches)
[worker] = multiprocessing.active_children()
os.kill(worker.pid, signal.SIGKILL)
try:
    list(batches)
except WorkerDied as error:
    say(error)
try:
    list(make(lambda pixels: pixels))
except TypeError as error:
    say(error)
"""


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_other_start_methods_give_the_same_batches_and_failures(path, tmp_path, method):
    code = IDENTITY.format(n=2 if method == "forkserver" else 1) + FAILURES.format(path=str(path))
    with script(tmp_path, path, code, method=method) as process:
        out, err = process.communicate(timeout=2 * TIMEOUT_SECONDS)
    assert (process.returncode, err) == (0, "")
    first, second, failure, death, refusal = out.splitlines()
    assert first == second == "True"
    assert failure.startswith("no ") and str(path) in failure
    assert "killed by SIGKILL" in death
    for words in ("worker_type='process'", repr(method), "lambda", "top of a module", "threads"):
        assert words in refusal


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_without_the_guard_it_fails_and_does_not_hang(path, tmp_path, method):
    unguarded = GUARD.replace('if __name__ == "__main__":', "if True:").replace("method!r}", "method!r}, force=True")
    with script(tmp_path, path, "say(len(list(make(num_workers=1))))", method=method, guard=unguarded) as process:
        _, err = process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode == 1
    assert "WorkerDied" in err and "if __name__ == '__main__'" in err


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_workers_do_not_outlive_a_killed_parent(path, tmp_path, method):
    """`script` asserts that nothing is left. The random faults above fork, and kill parents, too."""
    code = "batches = iter(make(slow, repeats=20, num_workers=1)); next(batches); say('go'); time.sleep(600)"
    with script(tmp_path, path, code, method=method) as process:
        assert process.stdout.readline() == "go\n"
        process.kill()
        process.wait()


EXITS = {
    "the end of the script": ("", 0, ""),
    "sys.exit": ("sys.exit(3)", 3, ""),
    "an exception": ("raise ValueError('mine')", 1, "ValueError: mine"),
    "a stopped worker": ("os.kill(multiprocessing.active_children()[0].pid, signal.SIGSTOP)", 0, ""),
    "os._exit": ("os._exit(4)", 4, ""),
    "a thread that goes on": ("threading.Thread(target=list, args=(batches,), daemon=True).start(); time.sleep(0.3)", 0,
                              ""),
    "somebody who keeps the main module": ("""
import types
sys.modules["keeper"] = types.ModuleType("keeper")
sys.modules["keeper"].main = sys.modules["__main__"]""", 0, ""),
    "a process of multiprocessing": ("""
def child():
    global more
    more = iter(make(slow, repeats=20))
    next(more)
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGSTOP)
process = multiprocessing.Process(target=child)
process.start()
process.join()
sys.exit(process.exitcode)""", 0, ""),
}
FORKS = """
for number, code in enumerate({codes}):
    pid = os.fork()
    if pid == 0:  # an interpreter that exits in its own way, without the seconds that a new one takes to import torch
        os.dup2(os.open(f"{{sys.argv[0]}}.{{number}}", os.O_WRONLY | os.O_CREAT), 2)
        globals()["batches"] = iter(make(slow, repeats=20))
        next(batches)
        exec(code, globals())
        return
    say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.fixture(scope="module")
def exits(jpeg_lmdb, tmp_path_factory):
    """Exit code and stderr of each of EXITS, in mid-epoch. `script` asserts that nothing is left."""
    folder = tmp_path_factory.mktemp("exits")
    code = FORKS.format(codes=[code for code, _, _ in EXITS.values()])
    with script(folder, jpeg_lmdb / "train.lmdb", code) as process:
        out, err = process.communicate(timeout=TIMEOUT_SECONDS)
        assert (process.returncode, err) == (0, "")
        errors = [folder / f"train.py.{number}" for number in range(len(EXITS))]
        results = dict(zip(EXITS, zip(map(int, out.split()), [error.read_text() for error in errors])))
        for error in errors:
            error.unlink()
    return results


@pytest.mark.parametrize("name", EXITS)
def test_the_interpreter_may_exit_in_mid_epoch(exits, name):
    (_, status, last), (code, err) = EXITS[name], exits[name]
    assert code == status, err
    assert (err.splitlines() or [""])[-1] == last
    assert err.count("Traceback") == bool(last)


def test_what_a_transform_prints_is_not_lost(path, tmp_path):
    code = "list(make(lambda pixels: print('seen') or pixels, num_workers=1))"
    with script(tmp_path, path, code) as process:
        out, err = process.communicate(timeout=TIMEOUT_SECONDS)
    assert (out, err) == ("seen\n" * 23, "")


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_batches_that_the_user_keeps_are_never_overwritten(path, method, tmp_path):
    """More than there is shared memory for: the others travel as copies."""
    script = tmp_path / "keeps.py"
    script.write_text(f"""
import multiprocessing, torch
from dataflows import RandomResizedCrop
from uint_lmdb_loader import LMDBLoader
if __name__ == "__main__":
    multiprocessing.set_start_method({method!r})
    options = dict(transform=RandomResizedCrop(160), seed=3)  # 77 kB an image: shared
    expected = [images.clone() for images, _ in LMDBLoader({str(path)!r}, 1, num_workers=0, **options)]
    kept = [images for images, _ in LMDBLoader({str(path)!r}, 1, num_workers=2, worker_type="process", **options)]
    assert len(kept) > 10 and all(map(torch.equal, expected, kept))
    with LMDBLoader({str(path)!r}, 1, num_workers=1, worker_type="process", prefetch=1, **options) as loader:
        views = [images[0, 0] for images, _ in loader]  # a view keeps its memory too
    assert all(torch.equal(image[0, 0], view) for image, view in zip(expected, views, strict=True))
""")
    subprocess.run([sys.executable, str(script)], check=True, timeout=100, env=os.environ | {"PYTHONPATH": str(ROOT)})
