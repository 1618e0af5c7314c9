"""Ranges that are asked for together: each gets its own bytes, fails by itself, and none is read in vain."""
import os

import pytest

from dataflows.storage.remote.connection import TOGETHER, connect
from dataflows.storage.remote.options import RemoteOptions
from dataflows.storage.remote.pool import Pool
from helpers.waiting import eventually
from helpers.web_server import WebServer

pytest.importorskip("aiohttp")
pytest.importorskip("obstore")
CONTENT = os.urandom(300_000)
RANGES = [(start, start + 500 + start % 7) for start in range(0, 290_000, 10_000)]


@pytest.fixture
def server(tmp_path):
    (tmp_path / "file.lmdb").write_bytes(CONTENT)
    with WebServer(tmp_path) as serving:
        yield serving


def ask(server, ranges):
    url = f"{server.url}/file.lmdb"
    return connect(url, RemoteOptions(None, None, None)).ask(url, ranges)


def test_each_gets_its_own_bytes_and_nothing_else_is_read(server):
    assert len(RANGES) > 2 * TOGETHER and len(RANGES) % TOGETHER
    assert [bytes(answer.result()) for answer in ask(server, RANGES)] == [CONTENT[slice(*each)] for each in RANGES]
    asked = sorted(wanted for method, _, wanted in server.requests if method == "GET")
    assert asked == sorted(f"bytes={start}-{end - 1}" for start, end in RANGES)


def test_what_cannot_be_had_fails_alone(server):
    answers = ask(server, [*RANGES[:3], (len(CONTENT) + 5, len(CONTENT) + 9), *RANGES[3:6]])
    with pytest.raises(OSError, match=r"file\.lmdb"):
        answers.pop(3).result()
    assert [bytes(answer.result()) for answer in answers] == [CONTENT[slice(*each)] for each in RANGES[:6]]


@pytest.mark.parametrize("fault", [503, "reset", "short"])
def test_what_fails_once_is_asked_for_again(server, fault):
    server.faults.append(fault)
    assert [bytes(answer.result()) for answer in ask(server, RANGES)] == [CONTENT[slice(*each)] for each in RANGES]


def test_who_gives_up_does_not_take_the_others_along(server):
    server.delay = 0.2
    answers = ask(server, RANGES[:TOGETHER])
    assert all(answer.cancel() for answer in answers[::2])
    assert [bytes(answer.result()) for answer in answers[1::2]] == [CONTENT[slice(*each)] for each in RANGES[1:8:2]]


def test_who_gives_up_while_waiting_for_room_leaves_it_to_others(server):
    """Five at a time: one group of them has four places of 64, and waits for another, when all are given up."""
    url = f"{server.url}/file.lmdb"
    connection = connect(url, RemoteOptions(None, None, None))
    before = connection._room._value
    server.delay = 0.05
    for _ in range(3):
        answers = [answer for _ in range(30) for answer in ask(server, RANGES[:5])]
        answers[0].result()
        for answer in answers:
            answer.cancel()
    assert eventually(lambda: connection._room._value == before)
    assert [bytes(answer.result()) for answer in ask(server, RANGES)] == [CONTENT[slice(*each)] for each in RANGES]


def test_what_is_asked_for_again_does_not_leave_before_it_is_read_again(monkeypatch):
    monkeypatch.setattr("dataflows.storage.remote.pool._KEPT_BYTES", 20)
    pool = Pool(1000)
    [(_, piece)] = pool.reserve(1, [(0, 8)])
    assert pool.take(1, 0, 8) is piece
    assert pool.reserve(1, [(0, 8)]) == []
    for start in (100, 200, 300):  # more than is kept of what was read
        pool.reserve(1, [(start, 8)])
        pool.take(1, start, 8)
    assert pool.take(1, 0, 8) is piece and pool.take(1, 100, 8) is None
    pool.forget(1)
    assert pool._nbytes == 0
