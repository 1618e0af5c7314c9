"""Where the time of loading goes: what is told of given figures, and what a loader tells of itself."""
import dataclasses
import multiprocessing
import pickle
import time

import numpy as np
import pytest

from dataflows import CenterCrop, RandomResizedCrop
from dataflows.load.meter import Meter, Spent, Watch
from dataflows.load.stats import Stats
from uint_lmdb_iterloader import LMDBIterLoader
from uint_lmdb_loader import LMDBLoader

STAGES = ("storage", "decode", "resize", "transform", "python", "blocked")
STATS = Stats(workers=2, images=1000, batches=4, seconds=10.0, first_batch_s=0.5, waited_s=6.0, finish_s=1.0,
              consumer_s=3.0, storage_s=1.0, decode_s=8.0, resize_s=4.0, transform_s=0.0, python_s=1.0, blocked_s=0.5,
              queue_s=2.0)


def test_the_figures():
    assert STATS.images_per_second == 100
    assert STATS.waiting == 0.6
    assert STATS.idle_s == 20 - 14.5


def test_the_words():
    assert STATS.line == "100 images/s, 60 % waiting for data (decode)"
    assert str(STATS) == (
        "1,000 images in 10.0 s: 100 images/s, the first batch after 0.50 s\n"
        "the loop spent 60 % waiting for data and 10 % transferring and converting and 30 % in its body; a finished "
        "batch waited 0.50 s for it\n"
        "2 workers: storage 5 %, decode 40 %, resize 20 %, transform 0 %, python 5 %, blocked 2 %, idle 28 %\n"
        "decoding is the limit: more workers on more processors, a tiled or smaller jpeg, fast_decode=True, or uint8")


@pytest.mark.parametrize("stage", STAGES)
def test_what_workers_spend_most_time_in_is_the_limit_of_a_loop_that_waits(stage):
    stats = dataclasses.replace(STATS, **{f"{name}_s": 1.0 for name in STAGES} | {f"{stage}_s": 1.5})
    assert stats.limit == stage
    assert stats.line.endswith(f"({stage})")
    assert str(stats).splitlines()[3]


def test_a_loop_that_does_not_wait_is_the_limit_itself():
    stats = dataclasses.replace(STATS, waited_s=0.4, consumer_s=9.0, finish_s=0.6)
    assert stats.limit == "consumer"
    assert dataclasses.replace(stats, consumer_s=1.0, finish_s=8.6).limit == "transfer"


def test_converting_that_takes_more_than_waiting_is_the_limit():
    stats = dataclasses.replace(STATS, waited_s=3.0, consumer_s=1.0, finish_s=6.0)
    assert stats.limit == "transfer" and "converting batches is the limit" in str(stats)


@pytest.mark.parametrize("stage", [*STAGES, "consumer", "transfer"])
def test_processes_are_not_advised_to_who_has_them(stage):
    stats = dataclasses.replace(STATS, **{f"{name}_s": 1.0 for name in STAGES})
    if stage in STAGES:
        stats = dataclasses.replace(stats, **{f"{stage}_s": 1.5})
    else:
        stats = dataclasses.replace(stats, waited_s=0.1, **{f"{'finish' if stage == 'transfer' else stage}_s": 9.0})
    assert stats.limit == stage
    assert ("process'" in str(stats)) == (stage in ("transform", "python", "blocked"))
    processes = str(dataclasses.replace(stats, processes=True))
    assert "process'" not in processes and str(stats).startswith(processes)


def test_before_the_first_batch_there_is_nothing_to_tell(jpeg_lmdb):
    with LMDBLoader(jpeg_lmdb / "train.lmdb", 4) as loader:
        stats = loader.stats()
    assert (stats.images, stats.batches, stats.seconds, stats.images_per_second, stats.waiting) == (0, 0, 0, 0, 0)
    assert str(stats) == "no batch was loaded yet" and stats.line == "no batch yet"


# --- the meter


def test_reports_add_up_until_the_next_iteration():
    meter = Meter()
    meter.waited(2.0)
    meter.finished(0.5, 256)
    meter.consumed(1.0)
    meter.waited(0.25)
    meter.finished(0.25, 44)
    meter.worker(Spent(decode=3.0, queue=1.0))
    meter.worker(Spent(decode=1.0, storage=0.5))
    stats = meter.stats(3)
    assert stats == Stats(workers=3, images=300, batches=2, seconds=4.0, first_batch_s=2.0, waited_s=2.25,
                          finish_s=0.75, consumer_s=1.0, storage_s=0.5, decode_s=4.0, resize_s=0.0, transform_s=0.0,
                          python_s=0.0, blocked_s=0.0, queue_s=1.0)
    assert meter.stats(3) == stats
    meter.begin()
    assert meter.stats(1) == Meter().stats(1)


def test_a_process_reports_what_came_since_its_last_report():
    meter = pickle.loads(pickle.dumps(Meter()))
    meter.worker(Spent(decode=1.0))
    meter.worker(Spent(decode=2.0))
    assert meter.take() == Spent(decode=3.0)
    meter.worker(Spent(resize=4.0))
    assert meter.take() == Spent(resize=4.0)
    assert meter.take() == Spent()


def test_a_watch_tells_running_from_waiting():
    watch = Watch()
    before = time.perf_counter()
    while time.thread_time() - watch._cpu < 0.02:
        np.sort(np.arange(100_000)[::-1])
    watch.decode = time.perf_counter() - before
    time.sleep(0.05)
    spent = watch.spent(False)
    assert spent.blocked >= 0.05 and spent.storage == 0  # it slept, for at least so long, and touched no file
    assert 0 < spent.decode <= watch.decode and spent.resize == spent.transform == 0
    assert Watch().spent(True).blocked == 0


def test_what_a_transform_waits_for_is_its_own():
    watch = Watch()
    before = time.perf_counter()
    time.sleep(0.05)
    watch.transform = time.perf_counter() - before
    spent = watch.spent(False)
    assert spent.transform == watch.transform >= 0.05
    assert spent.blocked < spent.transform


# --- loaders


def check(stats, images, batches, workers):
    assert (stats.images, stats.batches, stats.workers) == (images, batches, workers)
    assert stats.seconds == pytest.approx(stats.waited_s + stats.finish_s + stats.consumer_s)
    assert 0 < stats.first_batch_s <= stats.waited_s
    assert all(value >= 0 for value in dataclasses.asdict(stats).values())
    assert stats.decode_s > 0 and stats.python_s > 0


@pytest.mark.parametrize("cls", [LMDBLoader, LMDBIterLoader])
@pytest.mark.parametrize("options", [{"num_workers": 0}, {"num_workers": 1},
                                     {"num_workers": 2, "worker_type": "process"}], ids=str)
def test_a_loader_tells_of_its_latest_iteration(cls, tiled_lmdb, options):
    with cls(tiled_lmdb / "train.lmdb", 4, transform=RandomResizedCrop(32), normalize=((0.5,) * 3, (0.5,) * 3),
             **options) as loader:
        workers = max(1, options["num_workers"])
        for _ in range(2):
            started = time.perf_counter()
            for count, _ in enumerate(loader, 1):
                assert loader.stats().batches == count
                time.sleep(0.002)
            took = time.perf_counter() - started
            stats = loader.stats()
            check(stats, 23, 6, workers)
            assert stats.processes == ("worker_type" in options)
            assert stats.resize_s > 0 and stats.transform_s == 0 and stats.finish_s > 0
            assert 6 * 0.002 <= stats.consumer_s < stats.seconds <= took
            spent = stats.storage_s + stats.decode_s + stats.resize_s + stats.python_s + stats.blocked_s
            assert spent <= (workers + 1) * took  # and the loop itself waits for the disk


@pytest.mark.parametrize("options", [{}, {"worker_type": "process"}], ids=str)
def test_a_callable_is_a_stage_of_its_own(tiled_lmdb, options):
    with LMDBLoader(tiled_lmdb / "train.lmdb", 4, transform=slow, num_workers=1, **options) as loader:
        list(loader)
        stats = loader.stats()
    check(stats, 23, 6, 1)
    assert stats.transform_s >= 23 * 0.001 and stats.resize_s == 0


def slow(pixels):
    time.sleep(0.001)
    return pixels[:8, :8]


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_workers_of_any_start_method_report(tiled_lmdb, method):
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method(method, force=True)
    try:
        with LMDBLoader(tiled_lmdb / "val.lmdb", 5, transform=CenterCrop(16, resize=20), num_workers=1,
                        worker_type="process") as loader:
            list(loader)
            check(loader.stats(), 10, 2, 1)
    finally:
        multiprocessing.set_start_method(before, force=True)


def test_an_iteration_that_is_left_is_forgotten_by_the_next(tiled_lmdb):
    with LMDBLoader(tiled_lmdb / "train.lmdb", 4, transform=RandomResizedCrop(16)) as loader:
        next(iter(loader))
        assert loader.stats().batches == 1
        list(loader)
        check(loader.stats(), 23, 6, loader.stats().workers)
