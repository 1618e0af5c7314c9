"""What the system refuses or does not tell costs speed at most: kernels without hints, maps or /proc; few files."""
import json
import os
import resource
import shutil
import subprocess
import sys

import pytest

from dataflows import CenterCrop, system
from dataflows.load.workers.shared_memory import SharedMemory
from dataflows.storage.paged_file import PagedFile, on_network, readahead_bytes
from dataflows.storage.store import Store
from dataflows.system import available_memory
from helpers.limits import limited_memory
from helpers.paths import ROOT
from helpers.refusing_kernel import NUMBERS
from uint_lmdb_loader import LMDBLoader

SCRIPT = ROOT / "tests/helpers/refused_reading.py"
TIMEOUT_SECONDS = 100
HINTS = ["fadvise64", "madvise", "preadv2", "getrusage", "sched_getaffinity", "sysinfo"]
PROCESSES = {"worker_type": "process", "num_workers": 2}


def run(path, cases, *before):
    """What tests/helpers/refused_reading.py prints of these cases; in a process that the command `before` starts.

    numba asks for the processors, and does not work where it is not told. That costs speed, which one line says.
    """
    if os.uname().machine not in NUMBERS:
        pytest.skip("the numbers of system calls are not known for this processor")
    done = subprocess.run([*before, sys.executable, SCRIPT, path], input=json.dumps(cases), text=True,
                          capture_output=True, timeout=TIMEOUT_SECONDS, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    if "takes no filter" in found[-1][0]:
        pytest.skip(found[-1][0])
    return [[content, [line for line in logged if "needs numba, which does not work" not in line]]
            for content, logged in found]


@pytest.mark.parametrize("io", ["mmap", "pread"])
def test_hints_that_the_kernel_refuses_end_nothing(uint8_lmdb, io):
    errors = ["ENOSYS", "EINVAL", "EPERM", "ESPIPE", "EOPNOTSUPP"]
    (expected, _), *others = run(uint8_lmdb / "train.lmdb", [
        ["", [], {}], *([error, HINTS, {"io": io, "cache": "drop", "num_workers": 2}] for error in errors)])
    assert len(expected) == 64 and others == [[expected, []]] * len(errors)


def test_each_hint_alone(tiled_lmdb):
    """As a sandbox that knows the others: what follows one that was taken is asked, too."""
    (expected, _), *others = run(tiled_lmdb / "train.lmdb", [
        ["", [], {}], *(["ENOSYS", [call], {"cache": "drop", "num_workers": 1}] for call in HINTS)])
    assert others == [[expected, []]] * len(HINTS)


def test_without_shared_memory_workers_send_copies_and_say_so_once(uint8_lmdb):
    (expected, _), (found, logged), (other, silent) = run(uint8_lmdb / "train.lmdb", [
        ["", [], {}], ["ENOSYS", ["memfd_create"], PROCESSES], ["EPERM", ["prctl"], PROCESSES]])
    assert found == other == expected
    assert len(logged) == 1 and "Function not implemented" in logged[0] and "copies" in logged[0] and silent == []


def test_a_file_that_cannot_be_mapped_is_read_without_a_map_and_this_is_said_once(uint8_lmdb):
    path = str(uint8_lmdb / "train.lmdb")
    (expected, _), (auto, logged), (mapped, _), (read, silent) = run(path, [
        ["", [], {}], *(["ENODEV", ["mmap"], {"io": io}] for io in ("auto", "mmap", "pread"))])
    assert auto == read == expected and silent == []
    assert len(logged) == 1 and path in logged[0] and "No such device" in logged[0] and "io='pread'" in logged[0]
    for word in ("NoMap", path, "cannot be mapped", "No such device", "Leave io='mmap' out", "ulimit -v"):
        assert word in mapped


def test_a_file_without_an_index_needs_a_map_and_says_so(uint8_lmdb, tmp_path):
    path = shutil.copy(uint8_lmdb / "train.lmdb", tmp_path)
    (expected, _), (found, _) = run(path, [["", [], {}], ["ENODEV", ["mmap"], {}]])
    assert len(expected) == 64
    for word in ("OSError", path, "cannot be mapped into memory by liblmdb", "No such device", "index"):
        assert word in found


@pytest.mark.parametrize("indexed", [True, False])
def test_without_proc_and_sys(uint8_lmdb, tmp_path, indexed):
    path = shutil.copy(uint8_lmdb / "train.lmdb", tmp_path)
    if indexed:
        shutil.copy(uint8_lmdb / "train.lmdb.index.npz", tmp_path)
    command = 'mount -t tmpfs none /sys && mount -t tmpfs none /proc && exec "$@"'
    hide = ["unshare", "--mount", "sh", "-c", command, "sh"]
    if shutil.which("unshare") is None or subprocess.run([*hide, "true"], capture_output=True).returncode:
        pytest.skip("this user may not mount over /proc")
    [(expected, _)] = run(path, [["", [], {}]])
    found = run(path, [["", [], {"num_workers": 2}], ["ENOSYS", HINTS, {"num_workers": 2}]], *hide)
    assert [text for text, _ in found] == [expected] * 2


def test_facts_that_are_not_told_are_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(system, "open", no_entry, raising=False)
    assert system.told("/proc/meminfo") == [] and not on_network(str(tmp_path))
    with open(tmp_path / "file", "wb") as file:
        assert readahead_bytes(file.fileno()) == 128 * 1024
    assert 0 < available_memory() == system.memory_bytes()
    monkeypatch.setattr(os, "sysconf", lambda _: -1)
    assert system.memory_bytes() is None and available_memory() == 0


def no_entry(path, *_, **__):
    raise FileNotFoundError(2, "No such file or directory", path)


def test_a_map_of_a_file_whose_path_is_no_text(uint8_lmdb, tmp_path):
    """/proc/self/maps has it as it is."""
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(folder)
    path = os.fsdecode(folder + b"/train.lmdb")
    shutil.copy(uint8_lmdb / "train.lmdb", path)
    store, expected = Store(path), Store(uint8_lmdb / "train.lmdb")
    assert all((store.value(i) == expected.value(i)).all() for i in range(23))
    assert store.will_need([0, 5])[0] == int(expected.index.nbytes[[0, 5]].sum())  # so places were learned from the map


def test_the_system_is_asked_in_one_module_only():
    """So that no other hint can end a run."""
    for path in (ROOT / "dataflows").rglob("*.py"):
        if path.name != "system.py":
            text = path.read_text()
            for call in ("posix_fadvise", ".madvise", "sched_getaffinity", "os.sysconf", "getrusage", "getloadavg",
                         "disk_usage", 'open("/proc', 'open("/sys', "os.cpu_count"):
                assert call not in text, f"{path.name} has {call}"


# Few open files.

@pytest.fixture
def more_files():
    """A function that lets this process open so many more files than it has open."""
    previous = resource.getrlimit(resource.RLIMIT_NOFILE)

    def allow(count):
        resource.setrlimit(resource.RLIMIT_NOFILE, previous)
        free = [os.dup(0) for _ in range(count + 1)]  # the lowest numbers that are free, which the limit is about
        for fd in free:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free[-1], previous[1]))

    yield allow
    resource.setrlimit(resource.RLIMIT_NOFILE, previous)


def open_files():
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("copies", [False, True], ids=["mmap", "pread"])
def test_content_opens_all_or_nothing(uint8_lmdb, more_files, copies):
    path = str(uint8_lmdb / "train.lmdb")
    before = open_files()
    for count in range(2 if copies else 3):
        more_files(count)
        with pytest.raises(OSError, match="Too many open files.*train.lmdb") as info:
            PagedFile(path, os.path.getsize(path), copies=copies)
        more_files(10)
        assert open_files() == before, info.value  # while the error, and with it the object, is still there
    assert PagedFile(path, os.path.getsize(path), copies=copies).read(0, 100).nbytes == 100


@pytest.mark.parametrize("indexed", [True, False])
def test_a_file_is_named_that_could_not_be_opened(uint8_lmdb, tmp_path, more_files, indexed):
    path = shutil.copy(uint8_lmdb / "train.lmdb", tmp_path)
    if indexed:
        shutil.copy(uint8_lmdb / "train.lmdb.index.npz", tmp_path)
    more_files(0)
    with pytest.raises(OSError, match="Too many open files.*train.lmdb"):
        Store(path)
    more_files(10)
    assert Store(path).value(0).nbytes


def test_shared_memory_that_is_not_given_leaves_no_open_file():
    before = open_files()
    with pytest.raises((OSError, OverflowError)) as info:
        SharedMemory(2**20, 2**42)
    assert open_files() == before, info.value
    with limited_memory(), pytest.raises(OSError, match="Cannot allocate memory"):
        SharedMemory(4, 2**40)
    assert open_files() == before


def test_worker_processes_say_how_many_files_they_open(uint8_lmdb, more_files):
    """libzmq ends the process that has too few of them."""
    with LMDBLoader(uint8_lmdb / "train.lmdb", 5, transform=CenterCrop(32), **PROCESSES) as loader:
        before = open_files()
        for count in (0, 1, 2, 3, 5, 8, 13, 21, 31, 34, 40):
            more_files(count)
            with pytest.raises(OSError, match=r"Too many open files: a worker process needs 32 more .*ulimit -n"):
                list(loader)
            more_files(300)
            assert open_files() == before
        assert sum(len(labels) for _, labels in loader) == 23
