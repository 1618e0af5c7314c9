"""Runs code where the C library looks after the memory that it lends, and ends the process at a write beside it."""
import functools
import os
import subprocess
import sys

import pytest

from helpers.paths import ROOT
from helpers.sessions import TIMEOUT_SECONDS


def checked(code, *arguments):
    """Skips the test where the C library has no such checks."""
    if not _there_are_checks():
        pytest.skip("the C library has no libc_malloc_debug.so.0")
    return _run(code, *arguments)


@functools.cache
def _there_are_checks():
    return "True" in _run("import os; print('MALLOC_CHECK_' in os.environ)").stdout and not _run("").stderr


def _run(code, *arguments):
    return subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, text=True, capture_output=True,
                          timeout=4 * TIMEOUT_SECONDS, env=os.environ | {
                              "LD_PRELOAD": "libc_malloc_debug.so.0", "MALLOC_CHECK_": "3", "MALLOC_PERTURB_": "90",
                              "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests")))})
