"""How many workers there are by default: processors, quotas of control groups, and the ranks of a machine."""
import contextlib
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import pytest

from dataflows import processors
from dataflows.processors import default_workers, ranks_here, usable_cpus
from helpers.paths import ROOT
from uint_lmdb_loader import LMDBLoader

TIMEOUT_SECONDS = 60
CPUS = len(os.sched_getaffinity(0))


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    for name in ("LOCAL_WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)


# --- control groups


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Makes files of control groups, and says in which of them this process is, as the kernel would."""
    def make(own, **files):
        for name, content in files.items():
            path = tmp_path / "fs" / name.replace("__", "/").replace("cpu_", "cpu.")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{content}\n")
        (tmp_path / "own").write_text(own)

    monkeypatch.setattr(processors, "_CGROUPS", tmp_path / "fs")
    monkeypatch.setattr(processors, "_OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    return make


@pytest.mark.parametrize("quota, cpus", [("max 100000", 8), ("50000 100000", 1), ("100000 100000", 1),
                                         ("250000 100000", 3), ("800000 100000", 8), ("1600000 100000", 8),
                                         ("1000 1000000", 1), ("", 8), ("nonsense", 8), ("0 0", 8), ("1 2 3", 8)])
def test_a_quota_of_version_2_counts(groups, quota, cpus):
    groups("0::/\n", cpu_max=quota)
    assert usable_cpus() == default_workers() == cpus


@pytest.mark.parametrize("quota, cpus", [(-1, 8), (50000, 1), (250000, 3), (10**7, 8), ("", 8)])
@pytest.mark.parametrize("controller", ["cpu", "cpu,cpuacct"])
def test_a_quota_of_version_1_counts(groups, quota, cpus, controller):
    groups(f"4:memory:/a\n3:{controller}:/a/b\n", **{
        f"{controller}__a__b__cpu_cfs_quota_us": quota, f"{controller}__a__b__cpu_cfs_period_us": 100000,
        "memory__a__cpu_cfs_quota_us": 1, "memory__a__cpu_cfs_period_us": 100000})
    assert usable_cpus() == cpus


def test_the_least_of_all_groups_around_counts(groups):
    groups("0::/a/b/c\n", a__cpu_max="200000 100000", a__b__cpu_max="max 100000", a__b__c__cpu_max="400000 100000")
    assert usable_cpus() == 2


def test_a_container_whose_groups_have_other_names_outside_is_looked_up_at_the_root(groups):
    groups("3:cpu,cpuacct:/docker/0123\n0::/docker/0123\n", cpu__cpu_cfs_quota_us=150000,
           cpu__cpu_cfs_period_us=100000)
    assert usable_cpus() == 2


def test_processors_that_this_process_may_not_run_on_do_not_count(groups, monkeypatch):
    groups("0::/\n", cpu_max="400000 100000")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5, 7})
    assert usable_cpus() == 2


@contextlib.contextmanager
def real_group():
    """The folder of a control group with a quota of half a processor, of the version that this machine has."""
    for parent, limits in (("/sys/fs/cgroup/cpu", {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "50000"}),
                           ("/sys/fs/cgroup", {"cpu.max": "50000 100000"})):
        folder = None
        try:
            folder = pathlib.Path(tempfile.mkdtemp(prefix="test-cpus-", dir=parent))
            for name, value in limits.items():
                (folder / name).write_text(value)
        except OSError:
            if folder is not None:
                folder.rmdir()
            continue
        try:
            yield folder
        finally:
            give_up = time.monotonic() + 30
            while folder.exists():
                with contextlib.suppress(OSError):  # its last process is still being taken down
                    folder.rmdir()
                assert time.monotonic() < give_up
                time.sleep(0.02)
        return
    pytest.skip("no control group with a quota can be made")


def test_half_a_processor_is_one():
    code = ("import os, sys; open(sys.argv[1] + '/cgroup.procs', 'w').write(str(os.getpid())); "
            "from dataflows.processors import usable_cpus; print(usable_cpus())")
    with real_group() as group:
        done = subprocess.run([sys.executable, "-c", code, str(group)], cwd=ROOT, text=True, capture_output=True,
                              timeout=TIMEOUT_SECONDS)
    assert (done.stdout, done.stderr) == ("1\n", "")


# --- ranks


def test_alone_there_is_one_rank():
    assert ranks_here() == 1 and default_workers() == usable_cpus() <= CPUS


@pytest.mark.parametrize("told, ranks", [("8", 8), ("1", 1), ("0", 1), ("", 1), ("-2", 1), ("many", 1)])
def test_torchrun_tells_how_many_ranks_there_are_here(groups, monkeypatch, told, ranks):
    groups("0::/\n")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", told)
    assert ranks_here() == ranks and default_workers() == 8 // ranks
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "100")
    assert default_workers() == 1


def test_a_loader_takes_its_ranks_share_by_default(groups, monkeypatch, jpeg_lmdb):
    groups("0::/\n")
    with LMDBLoader(jpeg_lmdb / "val.lmdb", 4) as loader:
        assert loader.num_workers == 8
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
        assert loader.num_workers == 2
        list(loader)
        assert loader.stats().workers == 2
        assert loader.dataflow.ds._ahead_bytes == 64 * 2**20
    with LMDBLoader(jpeg_lmdb / "val.lmdb", 4, num_workers=3, worker_type="process") as loader:
        list(loader)
        assert loader.num_workers == loader.stats().workers == 3


GROUP = """
import os, sys
import torch.distributed as dist
from dataflows.processors import ranks_here

os.environ["MASTER_ADDR"] = sys.argv[1]
print(ranks_here())
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=int(sys.argv[3]), world_size=2)
print(ranks_here())
dist.barrier()  # who destroys it while the other still connects closes that one's connection
dist.destroy_process_group()
print(ranks_here())
"""


@pytest.mark.parametrize("address, ranks", [("localhost", 2), ("127.0.0.1", 2), ("192.0.2.1", 1)])
def test_ranks_whose_master_is_here_are_here(tmp_path, address, ranks):
    started = [subprocess.Popen([sys.executable, "-c", GROUP, address, str(tmp_path / "store"), str(rank)], cwd=ROOT,
                                text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for rank in range(2)]
    try:
        for process in started:
            out, err = process.communicate(timeout=TIMEOUT_SECONDS)
            assert out.split() == ["1", str(ranks), "1"], err
    finally:
        for process in started:
            process.kill()
            process.wait()
