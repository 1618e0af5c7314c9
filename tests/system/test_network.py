"""Two machines that train together, each a network of its own, whose link goes down: both end, and nothing is lost."""
import contextlib
import json
import os
import subprocess
import sys
import uuid
from collections import Counter

import psutil
import pytest

from helpers.paths import ROOT
from helpers.waiting import eventually
from uint_lmdb_iterloader import LMDBIterLoader

pytestmark = pytest.mark.clusters
TIMEOUT_SECONDS = 100

# One rank: it notes what it has seen, and its loader's state, after each step that all ranks have made.
RANK = """
import datetime, json, sys, time
import torch
import torch.distributed as dist
from dataflows import RandomResizedCrop
from uint_lmdb_iterloader import LMDBIterLoader

torch.set_num_threads(1)
path, out = sys.argv[1:]
loader = LMDBIterLoader(path, 1, transform=RandomResizedCrop(16), num_workers=1, worker_type="process", uneven="keep",
                        return_index=True)
dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=5))
seen, steps = [], []
for images, labels, numbers in loader:
    dist.all_reduce(torch.ones(1))
    seen += numbers.tolist()
    steps.append([list(seen), loader.state_dict()])
    with open(f"{out}/{dist.get_rank()}.jsonl", "a") as file:
        file.write(json.dumps(steps[-1]) + "\\n")
    time.sleep(0.3)
"""


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=20)


@pytest.fixture
def machines():
    """Two network namespaces with a link between them: their names, and that of the link's end in the first."""
    tag = uuid.uuid4().hex[:6]
    names, link = [f"m{number}-{tag}" for number in range(2)], f"v{tag}"
    try:
        for name in names:
            ip("netns", "add", name)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("network namespaces need `ip`, and root's rights")
    try:
        ip("link", "add", f"{link}0", "netns", names[0], "type", "veth", "peer", "name", f"{link}1", "netns", names[1])
        for number, name in enumerate(names):
            ip("-n", name, "address", "add", f"10.77.0.{number + 1}/24", "dev", f"{link}{number}")
            for device in ("lo", f"{link}{number}"):
                ip("-n", name, "link", "set", device, "up")
        yield names, link
    finally:
        for name in names:
            with contextlib.suppress(subprocess.CalledProcessError):
                ip("netns", "delete", name)


def start(machine, link, rank, *arguments):
    environment = os.environ | {
        "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MASTER_ADDR": "10.77.0.1", "MASTER_PORT": "29500",
        "RANK": str(rank), "WORLD_SIZE": "2", "GLOO_SOCKET_IFNAME": f"{link}{rank}"}
    return subprocess.Popen(["ip", "netns", "exec", machine, sys.executable, *map(str, arguments)], env=environment,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def noted(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.time_limit(TIMEOUT_SECONDS + 30)
def test_a_link_that_goes_down_ends_both_and_another_machine_goes_on(machines, sharded_lmdb, tmp_path):
    names, link = machines
    path, notes = sharded_lmdb / "train.manifest.json", [tmp_path / f"{rank}.jsonl" for rank in range(2)]
    (tmp_path / "rank.py").write_text(RANK)
    ranks = [start(name, link, rank, tmp_path / "rank.py", path, tmp_path) for rank, name in enumerate(names)]
    try:
        assert eventually(lambda: min(len(noted(note)) for note in notes) >= 3, seconds=60), [
            rank.communicate(timeout=30)[0] for rank in ranks if rank.poll() is not None]
        workers = [child for rank in ranks for child in psutil.Process(rank.pid).children(recursive=True)]
        ip("-n", names[0], "link", "set", f"{link}0", "down")
        for rank in ranks:
            output, _ = rank.communicate(timeout=TIMEOUT_SECONDS)
            assert rank.returncode == 1 and "Error" in output, output
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    assert workers and eventually(lambda: not any(worker.is_running() for worker in workers))
    common = min(len(noted(note)) for note in notes)
    assert 3 <= common < 11
    done = [noted(note)[common - 1] for note in notes]
    assert done[0][1] == done[1][1]
    rest = LMDBIterLoader(path, 4, rank=0, world_size=1, uneven="keep", return_index=True)
    rest.load_state_dict(done[0][1])
    seen = [*done[0][0], *done[1][0], *(number for *_, numbers in rest for number in numbers.tolist())]
    assert Counter(seen) == Counter(range(23))
