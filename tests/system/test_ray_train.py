"""examples/ray_train.py: a worker is killed in mid-epoch, and the run ends as one that nobody disturbed.

Ray runs on a loopback address of its own, and ends with the test; skipped where Ray Train is missing.
"""
import json
import os
import subprocess
import sys
import tempfile

import psutil
import pytest
import torch

from dataflows import RandomResizedCrop
from helpers.paths import ROOT
from uint_lmdb_loader import LMDBLoader

pytest.importorskip("ray.train.torch", reason="Ray Train is not installed")
pytestmark = pytest.mark.clusters
TIMEOUT_SECONDS = 150

# What each worker does besides: it notes its batches (epoch, place in it, sums of the images), and rank 1 is killed at
# its fifth batch, once.
NOTING = """
import json, os, signal

import ray.train
import ray_train
from uint_lmdb_loader import LMDBLoader

original = ray_train.train


class Noting(LMDBLoader):
    def __iter__(self):
        rank, out = ray.train.get_context().get_world_rank(), os.environ["OUT"]
        for images, labels in super().__iter__():
            place = self.state_dict()
            with open(f"{out}/{rank}.jsonl", "a") as file:
                file.write(json.dumps([place["epoch"], place["samples"], images.sum((1, 2, 3)).tolist()]) + "\\n")
            if rank == 1 and (place["epoch"], place["samples"]) == (0, 10):
                if not os.path.exists(f"{out}/killed"):
                    open(f"{out}/killed", "w").close()
                    os.kill(os.getpid(), signal.SIGKILL)
            yield images, labels


def train(config):
    ray_train.LMDBLoader = Noting
    original(config)
"""
SCRIPT = """
import os, sys

import noting
import ray
import ray_train

ray_train.train = noting.train
variables = {name: os.environ[name] for name in ("PYTHONPATH", "OMP_NUM_THREADS", "OUT")}
ray.init(num_cpus=2, include_dashboard=False, _node_ip_address="127.0.0.2", logging_level="ERROR",
         _temp_dir=sys.argv[2], runtime_env={"env_vars": variables})
try:
    ray_train.main([sys.argv[1], "--epochs", "2", "--batch-size", "2", "--checkpoint-every", "2", "--storage",
                    os.environ["OUT"] + "/runs"])
finally:
    ray.shutdown()
"""


def run(data, out, temporary):
    """What each rank noted of its batches."""
    out.mkdir()
    (out / "script.py").write_text(SCRIPT)
    (out / "noting.py").write_text(NOTING)
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'examples'}:{out}", "RAY_USAGE_STATS_ENABLED": "0",
                                "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1", "OUT": str(out)}
    done = subprocess.run([sys.executable, str(out / "script.py"), str(data), str(temporary)], cwd=out,
                          env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=TIMEOUT_SECONDS)
    assert done.returncode == 0, done.stdout[-5000:]
    return [[json.loads(line) for line in (out / f"{rank}.jsonl").read_text().splitlines()] for rank in range(2)]


@pytest.fixture
def temporary():
    """Ray's folder, whose sockets' paths must be short, and which Ray does not remove."""
    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        yield folder


@pytest.mark.time_limit(TIMEOUT_SECONDS + 30)
def test_a_worker_that_is_killed_leaves_no_sample_out(sharded_lmdb, tmp_path, temporary):
    ranks = run(sharded_lmdb, tmp_path / "out", temporary)
    assert (tmp_path / "out" / "killed").exists()
    for rank, seen in enumerate(ranks):
        loader = LMDBLoader(sharded_lmdb / "train.manifest.json", 2, transform=RandomResizedCrop(32), rank=rank,
                            world_size=2, dtype=torch.float32)
        expected = [[epoch, 2 * place, images.sum((1, 2, 3)).tolist()] for epoch in range(2)
                    for place, (images, _) in enumerate(loader, 1)]
        assert len(expected) == 12 and sorted(seen, key=str) != sorted(expected, key=str)  # some came again
        assert {str(batch) for batch in seen} == {str(batch) for batch in expected}
    assert not [process for process in psutil.process_iter(["cmdline"])
                if temporary in " ".join(process.info["cmdline"] or ())]
