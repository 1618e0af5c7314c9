"""Forks that lead a session of their own, so that whatever they leave behind can be told."""
import contextlib
import faulthandler
import os
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

import psutil
import pytest
import torch

TIMEOUT_SECONDS = 60  # until a child has ended


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
