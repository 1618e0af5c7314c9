"""Our own decoder is loaded, or compiled, beside the work: nobody waits, forks find it whole, and it may be missing."""
import builtins
import logging
import os
import subprocess
import sys
import threading

import pytest
import torch

from dataflows import RandomResizedCrop
from dataflows.images.compiled import kernels, ready
from helpers.paths import ROOT
from helpers.sessions import TIMEOUT_SECONDS
from uint_lmdb_loader import LMDBLoader


@pytest.fixture
def unprepared(monkeypatch):
    """As in a process that has not decoded a tiled JPEG yet."""
    assert ready.make_ready()
    monkeypatch.setattr(ready, "_works", [])
    monkeypatch.setattr(ready, "_threads", [])


def images(path, **options):
    with LMDBLoader(path, 8, transform=RandomResizedCrop(32, **options), num_workers=2) as loader:
        return [images for images, _ in loader]


def test_libjpeg_decodes_until_it_is_ready(tiled_lmdb, unprepared, monkeypatch):
    path, gate, own = tiled_lmdb / "train.lmdb", threading.Event(), []
    real, crop = ready._prepare, kernels.crop
    monkeypatch.setattr(ready, "_prepare", lambda: (gate.wait(TIMEOUT_SECONDS), real()))
    monkeypatch.setattr(kernels, "crop", lambda values, *args: own.extend(
        value for value in values if len(value) > 3) or crop(values, *args))  # run_all's has 3
    before = images(path)
    assert not own and not ready._works
    gate.set()
    assert ready.make_ready()
    assert all(map(torch.equal, images(path), before)) and len(own) == 23


def test_fast_decode_waits_for_it(tiled_lmdb, unprepared, monkeypatch):
    expected = images(tiled_lmdb / "train.lmdb", fast_decode=True)
    real = ready._prepare
    for name, value in (("_works", []), ("_threads", [])):
        monkeypatch.setattr(ready, name, value)
    monkeypatch.setattr(ready, "_prepare", lambda: (threading.Event().wait(0.5), real()))
    assert all(map(torch.equal, images(tiled_lmdb / "train.lmdb", fast_decode=True), expected))


@pytest.mark.parametrize("fast, kind", [(False, "jpeg"), (True, "jpeg"), (True, "tiled"), (False, "tiled")])
def test_where_numba_does_not_work_libjpeg_and_torch_do_it_and_one_line_says_so(
        request, jpeg_lmdb, unprepared, monkeypatch, caplog, fast, kind):
    real = builtins.__import__

    def missing(name, *args, **options):
        if name == "dataflows.images.compiled" and "kernels" in (args[2] or ()):
            raise ImportError("numba is broken")
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", missing)
    with caplog.at_level(logging.WARNING):
        found = images(request.getfixturevalue(f"{kind}_lmdb") / "train.lmdb", fast_decode=fast)
        for thread in ready._threads:
            thread.join()
    assert all(map(torch.equal, found, images(jpeg_lmdb / "train.lmdb", fast_decode=fast)))
    assert [record.message for record in caplog.records if "numba is broken" in record.message] == [
        "libjpeg decodes and torch resizes here, which takes longer, and fast_decode=True takes libjpeg's fast "
        "options: what does it faster needs numba, which does not work (ImportError: numba is broken). `pip "
        "install --upgrade numba` may mend it"]


def test_where_no_thread_can_be_started_libjpeg_and_torch_do_it(tiled_lmdb, unprepared, monkeypatch, caplog):
    expected = images(tiled_lmdb / "train.lmdb")
    ready._works.clear()
    ready._threads.clear()

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        assert not ready.make_ready()
    assert "a thread to load it in, which does not work (RuntimeError: can't start new thread)" in caplog.text
    assert all(map(torch.equal, images(tiled_lmdb / "train.lmdb"), expected))


FORK = """
import os, sys, threading
from dataflows import RandomResizedCrop
from dataflows.images.compiled import ready
from uint_lmdb_loader import LMDBLoader
assert "numba" not in sys.modules
loader = LMDBLoader(sys.argv[1], 8, transform=RandomResizedCrop(32))
child = os.fork()
os.write(1, f"{ready._works} {[thread.name for thread in threading.enumerate()]}\\n".encode())
if child:
    assert os.waitpid(child, 0)[1] == 0
else:
    assert ready.own_kernels(wait=False) is not None
    os._exit(sum(len(labels) for _, labels in loader) - 23)
"""


def test_a_fork_waits_for_it_and_has_it_too(tiled_lmdb):
    done = subprocess.run([sys.executable, "-c", FORK, tiled_lmdb / "train.lmdb"], cwd=ROOT, text=True,
                          capture_output=True, timeout=TIMEOUT_SECONDS)
    assert (done.returncode, done.stdout) == (0, "[True] ['MainThread']\n" * 2), done.stderr


SHORT = """
import sys
import numpy as np
from dataflows.images.compiled import kernels
from uint_lmdb_loader import LMDBLoader
pixels = np.zeros((1, 1, 3), np.uint8)
kernels.run_all = lambda: kernels.resize(  # one of them: all take a minute
    pixels, [0, 0, 1, 1, 1, 1, 0, 0, 0], [0, 0, 1, 1], pixels.transpose(2, 0, 1).copy())
loader = iter(LMDBLoader(sys.argv[1], 8, num_workers=2))
next(loader)
if sys.argv[2] == "raise":
    raise SystemExit(3)
"""


@pytest.mark.parametrize("how, code", [("return", 0), ("raise", 3)])
def test_a_process_that_ends_while_it_compiles_ends_cleanly(tiled_lmdb, tmp_path, how, code):
    done = subprocess.run([sys.executable, "-c", SHORT, tiled_lmdb / "train.lmdb", how], cwd=ROOT, text=True,
                          capture_output=True, timeout=3 * TIMEOUT_SECONDS,
                          env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)})
    assert done.returncode == code
    assert len(done.stderr.splitlines()) == 1 and "compiling what decodes and resizes" in done.stderr


USES = """
import sys, threading
from dataflows import RandomResizedCrop
from uint_lmdb_loader import LMDBDataset, LMDBLoader
for _ in LMDBLoader(sys.argv[1], 4, transform=RandomResizedCrop(16, antialias=False)): pass
LMDBDataset(sys.argv[1])[0]
assert "numba" not in sys.modules and threading.active_count() == 1
"""


@pytest.mark.parametrize("kind", ["jpeg", "uint8"])
def test_what_has_no_use_of_it_does_without(request, kind):
    path = request.getfixturevalue(f"{kind}_lmdb") / "train.lmdb"
    subprocess.run([sys.executable, "-c", USES, path], cwd=ROOT, check=True, timeout=TIMEOUT_SECONDS)
