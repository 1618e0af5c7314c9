"""Threads that are gone when they are said to be, and work for several of them, in order: laziness, failures."""
import os
import threading

import pytest
from tensorpack.dataflow import DataFromList

from dataflows.threads import OrderedThreadMapData, Threads, map_ordered
from helpers.dataflow_contract import threads

WAIT_SECONDS = 30  # until something that must happen counts as never happening


@pytest.fixture(params=[0, 1, 2, 8], ids=lambda n: f"{n} threads")
def num_threads(request):
    return request.param


def square(x):
    return x * x


@pytest.mark.parametrize("ahead", [0, 1, 5, 100])
def test_results_come_in_order(num_threads, ahead):
    assert list(map_ordered(square, range(40), num_threads, ahead)) == [x * x for x in range(40)]
    assert list(map_ordered(square, [], num_threads, ahead)) == []
    assert not threads()


def test_results_come_in_order_though_they_end_in_another():
    second_done = threading.Event()

    def work(item):
        if item == 0:
            assert second_done.wait(WAIT_SECONDS)
        if item == 1:
            second_done.set()
        return item

    assert list(map_ordered(work, range(4), 2, 4)) == [0, 1, 2, 3]


def test_calls_run_at_the_same_time():
    together = threading.Barrier(3)
    assert len(list(map_ordered(lambda _: together.wait(WAIT_SECONDS), range(6), 3, 3))) == 6


def test_without_threads_each_call_runs_in_the_caller_when_it_is_asked_for():
    calls = []
    results = map_ordered(lambda x: calls.append((x, threading.current_thread())), range(3), 0, 100)
    for expected in range(3):
        assert len(calls) == expected
        next(results)
    assert calls == [(x, threading.current_thread()) for x in range(3)]


@pytest.mark.parametrize("ahead", [0, 1, 4])
def test_no_more_items_are_taken_than_may_run_ahead(num_threads, ahead):
    taken = 0

    def items():
        nonlocal taken
        for taken in range(1, 31):
            yield taken

    for result in map_ordered(square, items(), num_threads, ahead):
        assert taken <= int(result ** 0.5) + ahead


def test_an_exception_of_the_function_is_raised_at_its_place(num_threads):
    def work(item):
        if item == 5:
            raise KeyError("five")
        return item

    results, got = map_ordered(work, range(20), num_threads, 10), []
    with pytest.raises(KeyError, match="five"):
        for result in results:
            got.append(result)
    assert got == [0, 1, 2, 3, 4]
    assert not threads()


def test_an_exception_of_the_items_is_raised_at_its_place(num_threads):
    def items():
        yield from range(5)
        raise KeyError("five")

    got = []
    with pytest.raises(KeyError, match="five"):
        for result in map_ordered(square, items(), num_threads, 10):
            got.append(result)
    assert got == [0, 1, 4, 9, 16]
    assert not threads()


def test_a_stray_stop_iteration_does_not_pass_for_the_end(num_threads):
    def work(item):
        if item == 3:
            raise StopIteration
        return item

    with pytest.raises(RuntimeError, match="StopIteration"):
        list(map_ordered(work, range(20), num_threads, 4))
    assert not threads()


def test_an_iteration_that_is_left_cancels_what_waits_and_ends_its_threads(num_threads):
    started = []

    def work(item):
        started.append(item)
        return item

    for leave in (lambda results: results.close(), lambda results: None):
        started.clear()
        results = map_ordered(work, iter(range(10**9)), num_threads, 6)
        assert [next(results), next(results)] == [0, 1]
        leave(results)
        del results
        assert not threads()
        assert len(started) <= 2 + 6


def test_calls_that_run_when_an_iteration_is_left_are_waited_for():
    running, finished = threading.Event(), threading.Event()
    release = threading.Event()

    def work(item):
        if item == 1:
            running.set()
            assert release.wait(WAIT_SECONDS)
            finished.set()
        return item

    results = map_ordered(work, range(9), 1, 3)
    next(results)
    assert running.wait(WAIT_SECONDS)
    threading.Timer(0.05, release.set).start()
    results.close()
    assert finished.is_set() and not threads()


def test_an_iteration_that_was_never_started_starts_no_thread():
    results = map_ordered(square, range(3), 2, 2)
    assert not threads()
    del results


def source(count):
    return DataFromList([[number] for number in range(count)], shuffle=False)


def test_a_map_yields_what_the_function_makes_of_each_datapoint(num_threads):
    ds = OrderedThreadMapData(source(9), lambda dp: [dp[0] ** 2], num_threads=num_threads, buffer_size=3)
    assert list(ds) == [[x * x] for x in range(9)]
    assert len(ds) == 9


def test_a_map_drops_what_becomes_none(num_threads):
    ds = OrderedThreadMapData(source(9), lambda dp: dp if dp[0] % 2 else None, num_threads=num_threads, buffer_size=3)
    assert list(ds) == [[1], [3], [5], [7]]


def test_a_map_raises_what_the_function_raises_after_what_comes_before_it(num_threads):
    ds = OrderedThreadMapData(source(9), lambda dp: [6 // (dp[0] - 3)], num_threads=num_threads, buffer_size=20)
    got = []
    with pytest.raises(ZeroDivisionError):
        for datapoint in ds:
            got.append(datapoint)
    assert got == [[-2], [-3], [-6]]
    with pytest.raises(ZeroDivisionError):  # and again: a failed iteration leaves nothing behind
        list(ds)


# --- the threads themselves


def tasks():
    """Of this process, as the system has them: also threads that Python has forgotten already."""
    return set(os.listdir("/proc/self/task"))


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="the system does not list a process's threads")
@pytest.mark.parametrize("fails", [False, True])
def test_the_system_has_no_thread_left_when_the_block_ends(fails):
    before = tasks()
    for _ in range(100):
        together = threading.Barrier(3, timeout=60)
        try:
            with Threads(3, "dataflows-test") as pool:
                for future in [pool.submit(together.wait) for _ in range(3)]:
                    future.result()
                assert len(tasks() - before) == 3
                if fails:
                    raise KeyError
        except KeyError:
            assert fails
        assert tasks() <= before


def test_a_shutdown_may_leave_its_threads_alone():
    finish = threading.Event()
    pool = Threads(1, "dataflows-test")
    future = pool.submit(finish.wait, 60)
    pool.shutdown(wait=False)
    assert future.running()
    finish.set()
    assert future.result(60)
    pool.shutdown()


def test_threads_have_the_name():
    with Threads(1, "dataflows-test") as pool:
        assert pool.submit(lambda: threading.current_thread().name).result().startswith("dataflows-test")
