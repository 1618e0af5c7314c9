"""Threads that are gone when they are said to be."""
import os
import threading

import pytest

from dataflows.threads import Threads


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
