"""What was asked for ahead: bounded in bytes, cut out of what a request brought, and kept by nothing else."""
import gc
import weakref
from concurrent.futures import Future

import numpy as np
import pytest

from dataflows.storage.remote.pool import Pool
from dataflows.storage.remote.request import requests_for

CONTENT = bytes(range(256)) * 400


def brought(request, failed=lambda starts: None):
    """Answers a request with what lies there."""
    answer = Future()
    request.follow(answer, failed)
    answer.set_result([CONTENT[slice(*each)] for each in request.ranges])
    return answer


def test_what_is_asked_for_again_does_not_leave_before_it_is_read_again(monkeypatch):
    monkeypatch.setattr("dataflows.storage.remote.pool._KEPT_BYTES", 20)
    pool = Pool(1000)
    [request] = pool.reserve(1, [(0, 8)], 1)
    [(_, piece)] = request.pieces
    assert pool.take(1, 0, 8) is piece
    assert pool.reserve(1, [(0, 8)], 1) == []
    for start in (100, 200, 300):  # more than is kept of what was read
        pool.reserve(1, [(start, 8)], 1)
        pool.take(1, start, 8)
    assert pool.take(1, 0, 8) is piece and pool.take(1, 100, 8) is None
    pool.forget(1)
    assert pool._nbytes == 0


def test_each_piece_is_cut_out_of_its_range():
    stretches = [(70_000, 50), (10, 20), (40, 30), (0, 10)]
    pool = Pool(10**6)
    [request] = pool.reserve(1, stretches, 8)
    assert request.ranges == [(70_000, 70_050), (0, 70)]
    brought(request)
    for start, nbytes in stretches:
        assert bytes(pool.take(1, start, nbytes).content()) == CONTENT[start:start + nbytes]


def test_who_gives_up_leaves_nothing_and_who_waits_is_told_what_failed():
    [given_up, failed] = requests_for([(0, 10), (50_000, 10)], 1)
    [(_, nothing)], [(_, raising)] = given_up.pieces, failed.pieces
    missing = []
    for request in (given_up, failed):
        answer = Future()
        request.follow(answer, missing.extend)
        answer.cancel() if request is given_up else answer.set_exception(OSError("gone"))
    assert missing == [0, 50_000] and nothing.content() is None
    with pytest.raises(OSError, match="gone"):
        raising.content()


def test_two_stretches_that_start_at_one_place_count_once():
    pool = Pool(1000)
    [request] = pool.reserve(1, [(0, 10), (0, 20)], 8)
    brought(request)
    assert pool._nbytes == 10 and pool.take(1, 0, 20) is None
    pool.forget(1)
    assert pool._nbytes == 0


def test_nobody_waits_for_what_an_interrupted_request_would_bring(monkeypatch):
    from dataflows.storage.remote import remote_file
    from dataflows.storage.remote import request as request_module
    from dataflows.storage.remote.options import RemoteOptions

    file = remote_file.RemoteFile("memory://nothing/here", RemoteOptions())
    follow, followed = request_module.Request.follow, []

    def interrupted(request, *arguments):
        followed.append(request)
        if len(followed) == 2:
            raise KeyboardInterrupt
        follow(request, *arguments)

    monkeypatch.setattr(request_module.Request, "follow", interrupted)
    stretches = np.array([(start, 10) for start in range(0, 500_000, 100_000)]).T
    with pytest.raises(KeyboardInterrupt):
        file.will_need(tuple(stretches))
    for start in range(0, 500_000, 100_000):
        with pytest.raises(FileNotFoundError):  # at once, of a request of its own
            file.read(start, 10)


def test_bytes_are_free_when_their_piece_is_without_the_garbage_collector(monkeypatch):
    monkeypatch.setattr("dataflows.storage.remote.pool._KEPT_BYTES", 0)
    pool = Pool(10**6)
    [request] = pool.reserve(1, [(0, 100), (60_000, 100)], 8)
    answer = Future()
    request.follow(answer, None)
    first, second = (np.arange(100, dtype=np.uint8) for _ in range(2))
    answer.set_result([first, second])
    gone = [*map(weakref.ref, (first, second))]
    del first, second
    gc.disable()
    try:
        assert pool.take(1, 0, 100).content()[5] == 5
        assert gone[0]() is None and gone[1]() is not None
        pool.forget(1)
        assert gone[1]() is None
    finally:
        gc.enable()
    assert answer.done()
