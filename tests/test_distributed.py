"""Distributed training with torch's own parts: DDP over gloo, started by torchrun, on two and on three ranks."""
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TIMEOUT_SECONDS = 100

# What one rank does and writes down. Samples are told apart by their pixels.
RANK = """
import json, sys
import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler
from dataflows import CenterCrop, RandomResizedCrop
from uint_lmdb_iterloader import LMDBIterDataset, LMDBIterLoader
from uint_lmdb_loader import LMDBDataset, LMDBLoader

torch.set_num_threads(1)
dist.init_process_group("gloo")
rank, world_size, path, seen = dist.get_rank(), dist.get_world_size(), sys.argv[1], {}


def names(images):  # whole images by their pixels
    return [f"{tuple(image.shape)} {int(image.sum())}" for image in images]


def everywhere(number):
    total = torch.tensor(number)
    dist.all_reduce(total)
    return int(total)


# Both loaders take rank and world_size from torch.distributed, and train a model whose gradients DDP averages.
for cls, worker_type in ((LMDBLoader, "thread"), (LMDBIterLoader, "process")):
    torch.manual_seed(rank)  # DDP starts all ranks from rank 0's weights
    model = nn.parallel.DistributedDataParallel(nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                                                              nn.Linear(4, 3)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = cls(path, 4, transform=RandomResizedCrop(16), num_workers=2, worker_type=worker_type,
                 dtype=torch.float32)
    batches = []
    for epoch in range(2):
        loader.set_epoch(epoch)
        for images, labels in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
            batches.append(len(labels))
    weights = [parameter.detach().flatten().tolist() for parameter in model.parameters()]
    seen[f"training {cls.__name__}"] = {"batches": batches, "weights": weights}

# What an epoch of each rank holds, as it is by default and for evaluation.
for name, loader in {
    "pad shuffled": LMDBLoader(path, 2, num_workers=1),
    "pad in order": LMDBIterLoader(path, 2, num_workers=1, shuffle_buffer=4),
    "keep shuffled": LMDBLoader(path, 2, num_workers=1, shuffle=False),
    "keep in order": LMDBIterLoader(path, 2, num_workers=1, order="sequential"),
    "drop shuffled": LMDBLoader(path, 2, num_workers=1, uneven="drop"),
    "drop in order": LMDBIterLoader(path, 2, num_workers=1, uneven="drop"),
}.items():
    batches = [names(images) for images, labels in loader]
    assert len(batches) == len(loader)
    seen[name] = {"batches": [len(batch) for batch in batches], "samples": sum(batches, [])}

# An evaluation: counts are summed over ranks, though ranks may have different numbers of batches.
evaluation = LMDBLoader(path, 2, transform=CenterCrop(16), num_workers=1, shuffle=False, dtype=torch.float32)
model.eval()
correct = count = 0
with torch.no_grad():
    for images, labels in evaluation:
        correct += int((model.module(images).argmax(1) == labels).sum())
        count += len(labels)
seen["evaluation"] = {"count": everywhere(count), "correct": everywhere(correct)}

# The datasets, in torch's own DataLoader. Its workers ask the dataset, not torch.distributed.
iterable = LMDBIterDataset(path)
seen["iterable dataset"] = {"samples": names(image for image, _ in DataLoader(
    iterable, batch_size=None, num_workers=2, multiprocessing_context="fork"))}
shuffled = LMDBIterDataset(path, order="block", block_size=4, seed=3)
shuffled.set_epoch(1)
seen["shuffled iterable dataset"] = {"samples": names(image for image, _ in DataLoader(
    shuffled, batch_size=None, num_workers=2, multiprocessing_context="fork"))}
dataset = LMDBDataset(path)
sampler = DistributedSampler(dataset, shuffle=True)
sampler.set_epoch(1)
seen["DistributedSampler"] = {"samples": names(image for image, _ in DataLoader(
    dataset, batch_size=None, sampler=sampler, num_workers=1, multiprocessing_context="fork"))}

seen["all"] = names(image for image, _ in dataset)
with open(f"{sys.argv[2]}/{rank}.json", "w") as file:
    json.dump(seen, file)
dist.destroy_process_group()
"""


@pytest.fixture(scope="module", params=[2, 3], ids=lambda n: f"{n} ranks")
def ranks(request, jpeg_lmdb, tmp_path_factory):
    """What each rank saw, of 23 records: a number that neither 2 nor 3 ranks divide."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "rank.py").write_text(RANK)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(request.param),
               str(folder / "rank.py"), str(jpeg_lmdb / "train.lmdb"), str(folder)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=TIMEOUT_SECONDS)
    assert done.returncode == 0, done.stdout
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(request.param)]


def samples(ranks, name):
    """How often each sample was seen by all ranks together."""
    return Counter(sample for rank in ranks for sample in rank[name]["samples"])


def test_the_records_can_be_told_apart(ranks):
    assert len(set(ranks[0]["all"])) == 23


@pytest.mark.parametrize("cls", ["LMDBLoader", "LMDBIterLoader"])
def test_ranks_train_in_step(ranks, cls):
    """Unequal numbers of batches would let DDP wait for ever; weights are the same because gradients were averaged."""
    for rank in ranks:
        assert rank[f"training {cls}"] == ranks[0][f"training {cls}"]
    assert sum(ranks[0][f"training {cls}"]["batches"]) == 2 * -(-23 // len(ranks))


@pytest.mark.parametrize("order", ["shuffled", "in order"])
def test_padded_ranks_have_equal_batches_and_see_each_sample(ranks, order):
    seen = samples(ranks, f"pad {order}")
    assert all(rank[f"pad {order}"]["batches"] == ranks[0][f"pad {order}"]["batches"] for rank in ranks)
    assert set(seen) == set(ranks[0]["all"])
    assert seen.total() == -(-23 // len(ranks)) * len(ranks)


@pytest.mark.parametrize("order", ["shuffled", "in order"])
def test_dropping_ranks_have_equal_batches_and_see_no_sample_twice(ranks, order):
    seen = samples(ranks, f"drop {order}")
    assert all(rank[f"drop {order}"]["batches"] == ranks[0][f"drop {order}"]["batches"] for rank in ranks)
    assert set(seen.values()) == {1}
    assert seen.total() == 23 // len(ranks) * len(ranks)


@pytest.mark.parametrize("order", ["shuffled", "in order"])
def test_evaluating_ranks_see_each_sample_once(ranks, order):
    assert samples(ranks, f"keep {order}") == Counter(ranks[0]["all"])


def test_an_evaluation_counts_each_sample_once(ranks):
    for rank in ranks:
        assert rank["evaluation"] == ranks[0]["evaluation"]
        assert rank["evaluation"]["count"] == 23


def test_workers_of_a_data_loader_share_out_what_their_rank_reads(ranks):
    assert samples(ranks, "iterable dataset") == Counter(ranks[0]["all"])
    shuffled = samples(ranks, "shuffled iterable dataset")
    assert set(shuffled) == set(ranks[0]["all"])
    assert shuffled.total() == -(-23 // len(ranks)) * len(ranks)


def test_the_dataset_works_with_torchs_distributed_sampler(ranks):
    seen = samples(ranks, "DistributedSampler")
    assert set(seen) == set(ranks[0]["all"])
    assert seen.total() == -(-23 // len(ranks)) * len(ranks)
