"""Training scripts: interpreters of their own, which lead a session and are held to leaving nothing behind."""
import contextlib
import os
import signal
import subprocess
import sys

from helpers.paths import ROOT
from helpers.sessions import session
from helpers.waiting import eventually

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
