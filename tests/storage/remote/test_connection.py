"""Ranges that are asked for together: each gets its own bytes, fails by itself, and none is read in vain."""
import gc
import os

import pytest

from dataflows.storage.remote.connection import connect, content_of
from dataflows.storage.remote.options import RemoteOptions
from helpers.waiting import eventually
from helpers.web_server import WebServer

pytest.importorskip("aiohttp")
obstore = pytest.importorskip("obstore")
CONTENT = os.urandom(300_000)
RANGES = [(start, start + 500 + start % 7) for start in range(0, 290_000, 10_000)]


@pytest.fixture
def server(tmp_path):
    (tmp_path / "file.lmdb").write_bytes(CONTENT)
    with WebServer(tmp_path) as serving:
        yield serving


def connection_to(server):
    return connect(f"{server.url}/file.lmdb", RemoteOptions(None, None, None))


def ask(server, *requests):
    return connection_to(server).ask(f"{server.url}/file.lmdb", list(requests))


def bytes_of(answers):
    return [bytes(content_of(found)) for answer in answers for found in answer.result()]


def content(ranges):
    return [CONTENT[slice(*each)] for each in ranges]


def test_each_gets_its_own_bytes_and_nothing_else_is_read(server):
    groups = [RANGES[at:at + 8] for at in range(0, len(RANGES), 8)]
    assert len(groups) > 2 and len(groups[-1]) < 8
    assert bytes_of(ask(server, *groups)) == content(RANGES)
    asked = sorted(wanted for method, _, wanted in server.requests if method == "GET")
    assert asked == sorted(f"bytes={start}-{end - 1}" for start, end in RANGES)


def test_what_cannot_be_had_fails_alone(server):
    [answer] = ask(server, [*RANGES[:3], (len(CONTENT) + 5, len(CONTENT) + 9), *RANGES[3:6]])
    found = answer.result()
    with pytest.raises(OSError, match=r"file\.lmdb"):
        content_of(found.pop(3))
    assert [*map(bytes, found)] == content(RANGES[:6])


@pytest.mark.parametrize("fault", [503, "reset", "short"])
def test_what_fails_once_is_asked_for_again(server, fault):
    server.faults.append(fault)
    assert bytes_of(ask(server, RANGES)) == content(RANGES)


def test_who_gives_up_does_not_take_the_others_along(server):
    server.delay = 0.2
    answers = ask(server, *([each] for each in RANGES[:8]))
    assert all(answer.cancel() for answer in answers[::2])
    assert bytes_of(answers[1::2]) == content(RANGES[1:8:2])


def test_who_gives_up_while_waiting_for_room_leaves_it_to_others(server):
    """Five at a time: one request of them has four places of 64, and waits for another, when all are given up."""
    connection = connection_to(server)
    before = connection._free
    server.delay = 0.05
    for _ in range(3):
        answers = ask(server, *([RANGES[:5]] * 30))
        answers[0].result()
        for answer in answers:
            answer.cancel()
    assert eventually(lambda: connection._free == before)
    assert bytes_of(ask(server, RANGES)) == content(RANGES)


def test_bytes_are_free_without_the_garbage_collector(server):
    def there():
        return sum(type(each) is obstore.Bytes and bytes(each) in wanted for each in gc.get_objects())

    wanted = content(RANGES[:8])

    gc.disable()
    try:
        answers = ask(server, RANGES[:8])
        [found] = [answer.result() for answer in answers]
        if not isinstance(found[0], obstore.Bytes):
            pytest.skip("obstore for this Python is read by copies, whose end nothing tells")
        assert there() == 8
        del answers, found
        assert eventually(lambda: not there())
    finally:
        gc.enable()
