"""Shared inputs, and what holds for every test: it ends, and it leaves no thread and no process behind."""
import faulthandler
import gc
import multiprocessing
import os
import signal
import tempfile
import threading
import time

import psutil
import pytest
from hypothesis import settings

from dump_imagenet import dump_split
from helpers.photos import write_photos

TIMEOUT_SECONDS = 120
GRACE_SECONDS = 30  # for what has been told to end; other programs may be at work on the machine

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in a shell's background job; tests send it to their children
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Of torch's, here and in every process that a test starts: several spin while they wait for each other, and the images
# are too small to be shared out. A test of the number of threads sets another one first.
os.environ["OMP_NUM_THREADS"] = "1"

settings.register_profile("tests", deadline=None, derandomize=True, database=None)
settings.register_profile("fuzz", parent=settings.get_profile("tests"), derandomize=False, max_examples=2000,
                          print_blob=True)
settings.load_profile("tests")


# Collecting makes millions of objects that stay. Looking for garbage among them takes a fifth of its time, and in each
# gc.collect() of a test half a second.
gc.disable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop():
    gc.freeze()
    gc.enable()


def pytest_configure(config):
    config.addinivalue_line("markers", "clusters: starts Ray, Slurm, networks or other loaders; `make test-clusters`")
    config.addinivalue_line("markers", f"time_limit(seconds): how long the test may take, if not {TIMEOUT_SECONDS} s")


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """A folder in ImageNet's layout: train (3 classes, 23 JPEGs) and val (3 classes, 10 JPEGs), of 60 to 200 pixels."""
    folder = tmp_path_factory.mktemp("photos")
    write_photos(folder / "train", (9, 8, 6))
    write_photos(folder / "val", (4, 3, 3))
    return folder


def _dump(photos, folder, image_format, **options):
    for split in ("train", "val"):
        dump_split(photos, folder, split, format=image_format, progress=False, **options)
    return folder


@pytest.fixture(scope="session")
def jpeg_lmdb(photos, tmp_path_factory):
    """The folder of train.lmdb and val.lmdb with the files' own bytes. Read only: copy it to change it."""
    return _dump(photos, tmp_path_factory.mktemp("jpeg"), "jpeg", tiles=False)


@pytest.fixture(scope="session")
def tiled_lmdb(photos, tmp_path_factory):
    """The folder of train.lmdb and val.lmdb with tiled JPEGs, as dumps have them by default. Read only."""
    return _dump(photos, tmp_path_factory.mktemp("tiled"), "jpeg")


@pytest.fixture(scope="session")
def uint8_lmdb(photos, tmp_path_factory):
    """The folder of train.lmdb and val.lmdb with decoded pixels. Read only: copy it to change it."""
    return _dump(photos, tmp_path_factory.mktemp("uint8"), "uint8")


@pytest.fixture(scope="session")
def sharded_lmdb(photos, tmp_path_factory):
    """The same of uint8_lmdb in three files each, with manifests. Read only."""
    return _dump(photos, tmp_path_factory.mktemp("sharded"), "uint8", shards=3)


@pytest.fixture
def several_threads():
    """torch has three threads, and not one, to which its number might be set unnoticed."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def terminal(request):
    """A file on the terminal itself, which pytest's capturing does not swallow."""
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        file = os.fdopen(os.dup(2), "w")
    with file:
        yield file


@pytest.fixture(scope="session", autouse=True)
def _temporary_files_of_children(tmp_path_factory):
    """What killed processes leave behind is in pytest's own folder, and goes with it."""
    tempfile.gettempdir()  # this process keeps the system's: not all users may look into pytest's
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("t", numbered=False)))  # short: sockets have 107 characters
        yield


@pytest.fixture(autouse=True)
def _ends_in_time(request, terminal):
    """Fails a test that takes too long; when it hangs where no signal reaches it, shows where and ends the run."""
    mark = request.node.get_closest_marker("time_limit")
    seconds = mark.args[0] if mark else TIMEOUT_SECONDS
    seconds = seconds * settings.default.max_examples // 100  # `make fuzz` asks for more than the usual 100

    def expired(*_):
        pytest.fail(f"the test took more than {seconds} s")

    previous = signal.signal(signal.SIGALRM, expired)
    signal.alarm(seconds)
    faulthandler.dump_traceback_later(seconds + 10, exit=True, file=terminal)
    yield
    faulthandler.cancel_dump_traceback_later()
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


def _threads():
    return {thread for thread in threading.enumerate() if thread.name.startswith("dataflows")}


def _is_service(process):
    """multiprocessing's own servers, which live as long as the interpreter."""
    line = " ".join(process.cmdline())
    return "multiprocessing.resource_tracker" in line or "multiprocessing.forkserver" in line


def _children():
    multiprocessing.active_children()  # joins those that have ended
    found = set()
    for child in psutil.Process().children(recursive=True):
        try:
            if child.status() != psutil.STATUS_ZOMBIE and not _is_service(child):
                found.add(child)
        except psutil.NoSuchProcess:
            pass
    return found


@pytest.fixture(autouse=True)
def _leaves_nothing_behind(_ends_in_time):
    """Fails a test after which a thread of ours, or a child process, is still alive."""
    before = _threads() | _children()
    yield
    give_up = time.monotonic() + GRACE_SECONDS
    while (left := (_threads() | _children()) - before) and time.monotonic() < give_up:
        time.sleep(0.01)
    for process in left - _threads():
        process.kill()  # it would keep the output of the whole run open
    assert not left, f"left behind: {left}"
