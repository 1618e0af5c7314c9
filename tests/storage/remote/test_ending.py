"""A program may end at any moment: no thread of obstore's runtime then comes back to an interpreter that is gone."""
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from dataflows.storage.remote.ending import let_threads_return
from helpers.paths import ROOT
from helpers.web_server import WebServer

pytest.importorskip("aiohttp")
pytest.importorskip("obstore")
TIMEOUT_SECONDS = 60
TIMES = 16  # one in seven said "panicked", or died, before

ENDS = """
import random, sys, time
import numpy as np
from dataflows.storage.remote.options import PLAIN
from dataflows.storage.remote.remote_file import RemoteFile
file = RemoteFile(sys.argv[1], PLAIN)
file.will_need((np.arange(0, 300_000, 1500), np.full(200, 500)))
time.sleep(random.random() * 0.3)
"""


def test_a_program_ends_well_with_requests_under_way(tmp_path):
    (tmp_path / "file").write_bytes(os.urandom(400_000))
    with WebServer(tmp_path) as server, ThreadPoolExecutor(2) as pool:
        server.delay = 0.05
        ends = pool.map(lambda _: subprocess.run(
            [sys.executable, "-c", ENDS, f"{server.url}/file"], cwd=ROOT, text=True, capture_output=True,
            timeout=TIMEOUT_SECONDS), range(TIMES))
        assert {(done.returncode, done.stderr) for done in ends} == {(0, "")}


def test_without_such_threads_nobody_waits(monkeypatch):
    monkeypatch.setattr("dataflows.storage.remote.ending._NAME", "no thread has this name")
    started = time.monotonic()
    let_threads_return()
    assert time.monotonic() - started < 1
