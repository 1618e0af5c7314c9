"""Mounting the FUSE file systems of the tests, each a script beside this one."""
import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import pytest

TIMEOUT_SECONDS = 60


@contextlib.contextmanager
def mounted(script, folder, *arguments):
    """Where one sees `folder` as `script FOLDER MOUNTPOINT ARGUMENTS` does. Skips where FUSE does not work."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("there is no /dev/fuse that this user may open")
    unmount = shutil.which("fusermount3") or shutil.which("fusermount")
    if unmount is None:
        pytest.skip("no fusermount is installed (Debian: fuse3)")
    try:
        import mfusepy  # noqa: F401
    except (ImportError, OSError) as error:
        pytest.skip(f"mfusepy or libfuse is missing: {error}")
    mountpoint = tempfile.mkdtemp(prefix="fuse-")  # any user may look into it, which is not so of tmp_path
    os.chmod(mountpoint, 0o755)
    command = [sys.executable, pathlib.Path(__file__).with_name(script), folder, mountpoint, *arguments]
    server = subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        give_up = time.monotonic() + TIMEOUT_SECONDS
        while not os.path.ismount(mountpoint):
            if server.poll() is not None:
                pytest.skip(f"FUSE cannot mount here: {server.stdout.read().strip()[-300:]}")
            assert time.monotonic() < give_up, "was not mounted"
            time.sleep(0.01)
        yield mountpoint
    finally:
        subprocess.run([unmount, "-u", "-z", mountpoint], timeout=TIMEOUT_SECONDS, capture_output=True)
        server.kill()
        server.wait(TIMEOUT_SECONDS)
        server.stdout.close()
        os.rmdir(mountpoint)
