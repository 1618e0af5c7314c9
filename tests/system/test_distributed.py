"""Distributed training with torch's own parts: DDP over gloo, started by torchrun, on two and on three ranks."""
import json
import os
import subprocess
import sys
from collections import Counter

import pytest

from helpers.paths import ROOT

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


# Loaders and datasets that are made, and pickled, before there is a process group; and what is too late.
LATE = """
import copy, json, pickle, sys
import torch.distributed as dist
from torch.utils.data import DataLoader
from dataflows import CenterCrop, RandomResizedCrop
from dataflows.processors import usable_cpus
from dataflows.load.shuffle_quality import shuffle_quality
from uint_lmdb_iterloader import LMDBIterDataset, LMDBIterLoader
from uint_lmdb_loader import LMDBLoader


def labels_of(batches):
    return sum((labels.tolist() for _, labels in batches), [])


def error(use):
    try:
        use()
    except (RuntimeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"


def main():
    path, seen, options = sys.argv[1], {}, {"transform": RandomResizedCrop(16), "num_workers": 1}
    loaders = {"by key": LMDBLoader(path, 4, **options), "in order": LMDBIterLoader(path, 4, **options),
               "processes": LMDBLoader(path, 4, worker_type="process", **options)}
    loaders |= {f"{name}, copied": pickle.loads(pickle.dumps(loader)) for name, loader in loaders.items()}
    for loader in loaders.values():
        loader.transform = CenterCrop(16, 20)
        loader.set_epoch(1)
    given = LMDBLoader(path, 4, rank=0, world_size=1, **options)
    datasets = {method: LMDBIterDataset(path) for method in (None, "fork", "spawn")}
    alone = [LMDBLoader(path, 4, **options) for _ in range(5)]
    few = LMDBLoader(path, 15, drop_last=True, **options)
    by_default = LMDBLoader(path, 4)
    dataset = LMDBIterDataset(path)
    uses = {"len": lambda: len(alone[0]), "iter": lambda: next(iter(alone[1])), "state": alone[2].state_dict,
            "load": lambda: alone[3].load_state_dict(state), "pointers": lambda: alone[4].pointers(0),
            "dataset": lambda: len(dataset), "worker": lambda: next(iter(dataset))}
    state = alone[0].state_dict()
    assert not any(map(error, uses.values()))

    dist.init_process_group("gloo")
    rank = dist.get_rank()
    for name, loader in loaders.items():
        assert loader.state_dict()["world_size"] == dist.get_world_size()
        seen[name] = {"samples": labels_of(loader), "len": len(loader), "quality": shuffle_quality(loader).samples}
    seen["given"] = {"samples": labels_of(given)}
    for method, late in datasets.items():
        batches = DataLoader(late, batch_size=1, num_workers=0 if method is None else 2,
                             multiprocessing_context=method)
        seen[f"dataset, {method}"] = {"samples": labels_of(batches), "len": len(late)}
    seen["too late"] = {name: error(use) for name, use in uses.items()}
    seen["too late"]["copied"] = error(lambda: pickle.dumps(alone[0]))
    seen["few"] = error(lambda: len(few))
    seen["workers"] = [by_default.num_workers, max(1, usable_cpus() // dist.get_world_size())]
    dist.destroy_process_group()
    for loader in loaders.values():
        assert len(loader) == seen["by key"]["len"]
    with open(f"{sys.argv[2]}/{rank}.json", "w") as file:
        json.dump(seen, file)


if __name__ == "__main__":
    main()
"""


def torchrun(code, processes, path, folder):
    """What each rank has written into folder/RANK.json, when torchrun has run `code` with these arguments."""
    (folder / "rank.py").write_text(code)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes),
               str(folder / "rank.py"), str(path), str(folder)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=TIMEOUT_SECONDS)
    assert done.returncode == 0, done.stdout
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(processes)]


@pytest.fixture(scope="module", params=[2, 3], ids=lambda n: f"{n} ranks")
def ranks(request, jpeg_lmdb, tmp_path_factory):
    """What each rank saw, of 23 records: a number that neither 2 nor 3 ranks divide."""
    return torchrun(RANK, request.param, jpeg_lmdb / "train.lmdb", tmp_path_factory.mktemp("ranks"))


@pytest.fixture(scope="module")
def late(sharded_lmdb, tmp_path_factory):
    """What each of two ranks saw of loaders of several files that are older than their process group."""
    return torchrun(LATE, 2, sharded_lmdb / "train.manifest.json", tmp_path_factory.mktemp("late"))


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


# --- made before there is a process group


@pytest.mark.parametrize("name", [f"{kind}{copied}" for kind in ("by key", "in order", "processes")
                                  for copied in ("", ", copied")])
def test_a_loader_that_was_made_before_the_process_group_reads_its_share(late, name):
    assert [len(rank[name]["samples"]) for rank in late] == [12, 12]
    assert [rank[name]["len"] for rank in late] == [3, 3]
    assert [rank[name]["quality"] for rank in late] == [12, 12]
    seen = Counter(label for rank in late for label in rank[name]["samples"])
    assert not Counter({0: 9, 1: 8, 2: 6}) - seen  # with one that comes twice


@pytest.mark.parametrize("method", [None, "fork", "spawn"])
def test_a_dataset_that_was_made_before_the_process_group_reads_its_share_in_any_worker(late, method):
    assert [rank[f"dataset, {method}"]["len"] for rank in late] == [12, 11]
    assert [len(rank[f"dataset, {method}"]["samples"]) for rank in late] == [12, 11]
    assert Counter(label for rank in late for label in rank[f"dataset, {method}"]["samples"]) == {0: 9, 1: 8, 2: 6}


def test_ranks_that_are_given_stay_as_they_are(late):
    assert [len(rank["given"]["samples"]) for rank in late] == [23, 23]


@pytest.mark.parametrize("use", ["len", "iter", "state", "load", "pointers", "dataset", "worker", "copied"])
def test_what_was_used_before_the_process_group_is_refused_after_it(late, use):
    for number, rank in enumerate(late):
        assert rank["too late"][use].startswith("RuntimeError: this was rank 0 of 1 when it was first used")
        assert (f"torch.distributed now says rank {number} of 2, whose share of the samples is another. Call "
                f"init_process_group before that first use, ") in rank["too late"][use]


def test_a_share_that_is_too_small_is_refused_when_it_is_known(late):
    for rank in late:
        assert rank["few"].startswith("ValueError: nothing is left of 12 samples per rank with batch_size=15, drop_")


def test_by_default_ranks_share_out_the_processors(late):
    for rank in late:
        assert rank["workers"][0] == rank["workers"][1]
