"""The loaders in Lightning, in Fabric and under Accelerate; skipped where these are missing."""
import importlib.util
import json
import os
import subprocess
import sys
from collections import Counter

import pytest

from helpers.paths import ROOT

pytestmark = pytest.mark.clusters
TIMEOUT_SECONDS = 100

# What each epoch saw, batch by batch, as (epoch, batch, sums of the images), in several runs of three epochs.
LIGHTNING = """
import json, logging, sys, warnings

warnings.filterwarnings("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
import lightning
import torch
from torch import nn

from dataflows import CenterCrop, RandomResizedCrop
from dataflows.storage.shards.files import find_split
from uint_lmdb_iterloader import LMDBIterLoader
from uint_lmdb_loader import LMDBLoader

cls, folder, out = {"LMDBLoader": LMDBLoader, "LMDBIterLoader": LMDBIterLoader}[sys.argv[1]], sys.argv[2], sys.argv[3]


def make():
    return cls(find_split(folder, "train"), 4, transform=RandomResizedCrop(16), num_workers=1)


def sums(images):
    return images.sum((1, 2, 3)).tolist()


class Model(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net, self.seen, self.evaluated = nn.Sequential(nn.Flatten(), nn.Linear(768, 3)), [], []

    def training_step(self, batch, number):
        images, labels = batch
        self.seen.append([self.current_epoch, number, sums(images)])
        return nn.functional.cross_entropy(self.net(images / 255), labels)

    def validation_step(self, batch, number):
        self.evaluated.append(sums(batch[0]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


class Data(lightning.LightningDataModule):
    def train_dataloader(self):
        return make()


class SaveAt(lightning.Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(f"{out}/{self.step}.ckpt")


def fit(*data, resume=None, trainer=None, datamodule=None):
    model = Model()
    options = {"max_epochs": 3, "accelerator": "cpu", "devices": 1, "logger": False, "enable_checkpointing": False,
               "enable_progress_bar": False, "enable_model_summary": False, "default_root_dir": out}
    trainer = lightning.Trainer(**options | (trainer or {}))
    trainer.fit(model, *data, datamodule=datamodule, **({} if resume is None else
                                                        {"ckpt_path": f"{out}/{resume}.ckpt"}))
    return model, trainer.global_rank


def in_fabric():  # the same training without a Trainer, and what Fabric says to a loader that it is to wrap
    fabric, seen = lightning.Fabric(accelerator="cpu", devices=1), []
    fabric.launch()
    with make() as loader:
        try:
            fabric.setup_dataloaders(loader)
        except TypeError as error:
            refused = str(error)
        net = nn.Sequential(nn.Flatten(), nn.Linear(768, 3))
        net, optimizer = fabric.setup(net, torch.optim.SGD(net.parameters(), 0.01))
        for epoch in range(3):
            loader.set_epoch(epoch)
            for number, (images, labels) in enumerate(loader):
                optimizer.zero_grad()
                fabric.backward(nn.functional.cross_entropy(net(images / 255), labels))
                optimizer.step()
                seen.append([epoch, number, sums(images)])
    return seen, refused


def main():
    loader, seen = make(), {"expected": []}
    for epoch in range(3):
        loader.set_epoch(epoch)
        seen["expected"] += [[epoch, number, sums(images)] for number, (images, _) in enumerate(loader)]
    if len(sys.argv) > 4:
        model, rank = fit(make(), trainer={"devices": 2, "strategy": "ddp"})
        with open(f"{out}/{rank}.json", "w") as file:
            json.dump(seen | {"ddp": model.seen}, file)
        return
    seen["in Fabric"], seen["refused"] = in_fabric()
    seen["a loader"] = fit(make(), trainer={"callbacks": [SaveAt(6), SaveAt(8)]})[0].seen  # of 6 steps in an epoch
    seen["reloaded"] = fit(datamodule=Data(), trainer={"reload_dataloaders_every_n_epochs": 1})[0].seen
    for step in (6, 8):
        seen[f"resumed at {step}"] = fit(make(), resume=step)[0].seen
        seen[f"resumed at {step}, reloaded"] = fit(datamodule=Data(), resume=step,
                                                   trainer={"reload_dataloaders_every_n_epochs": 1})[0].seen
    val = LMDBLoader(find_split(folder, "val"), 4, shuffle=False, transform=CenterCrop(16, 20), num_workers=1)
    model, _ = fit(make(), val, trainer={"val_check_interval": 0.5, "num_sanity_val_steps": 0})
    seen["with evaluations"], seen["evaluated"] = model.seen, model.evaluated
    seen["to evaluate"] = [sums(images) for images, _ in val]
    with open(f"{out}/0.json", "w") as file:
        json.dump(seen, file)


if __name__ == "__main__":
    main()
"""

ACCELERATE = """
import json, sys

import torch
from accelerate import Accelerator, skip_first_batches
from torch import nn

from dataflows import RandomResizedCrop
from uint_lmdb_loader import LMDBLoader

loader = LMDBLoader(f"{sys.argv[1]}/train.manifest.json", 4, transform=RandomResizedCrop(16), num_workers=1,
                    dtype=torch.float32)
accelerator = Accelerator(cpu=True)
model = nn.Sequential(nn.Flatten(), nn.Linear(768, 3))
model, optimizer, prepared = accelerator.prepare(model, torch.optim.SGD(model.parameters(), 0.01), loader)
assert prepared is loader
seen = []
for epoch in range(2):
    loader.set_epoch(epoch)
    for images, labels in prepared:
        optimizer.zero_grad()
        accelerator.backward(nn.functional.cross_entropy(model(images), labels))
        optimizer.step()
        seen.append([epoch, 0, labels.tolist()])


def batches(loader):
    return [[labels.tolist(), list(images.shape), str(images.dtype), str(labels.dtype)] for images, labels in loader]


loader.set_epoch(2)
rest = batches(skip_first_batches(prepared, 2))
whole = batches(loader)
with open(f"{sys.argv[2]}/{accelerator.process_index}.json", "w") as file:
    json.dump({"seen": seen, "whole": whole, "rest": rest}, file)
accelerator.end_training()
"""


def run(package, code, out, *arguments, launcher=()):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    (out / "script.py").write_text(code)
    done = subprocess.run([sys.executable, *launcher, str(out / "script.py"), *map(str, arguments)], cwd=out, text=True,
                          env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=TIMEOUT_SECONDS)
    assert done.returncode == 0, done.stdout
    return [json.loads(path.read_text()) for path in sorted(out.glob("*.json"))]


def labels_of_epoch(ranks, epoch):
    return Counter(label for seen in ranks for number, _, labels in seen if number == epoch for label in labels)


@pytest.fixture(scope="module", params=["LMDBLoader", "LMDBIterLoader"])
def lightning(request, uint8_lmdb, sharded_lmdb, tmp_path_factory):
    """What was seen of a file by one loader, and by the other of several."""
    out, data = tmp_path_factory.mktemp("lightning"), uint8_lmdb if request.param == "LMDBLoader" else sharded_lmdb
    return run("lightning", LIGHTNING, out, request.param, data, out)[0]


def test_epochs_differ(lightning):
    assert len(lightning["expected"]) == 18 and len({str(sums) for _, _, sums in lightning["expected"]}) == 18


@pytest.mark.parametrize("name", ["a loader", "reloaded", "with evaluations", "in Fabric"])
def test_epochs_follow_each_other_in_lightning(lightning, name):
    assert lightning[name] == lightning["expected"]


@pytest.mark.parametrize("step", [6, 8])
@pytest.mark.parametrize("reloaded", ["", ", reloaded"])
def test_a_run_that_is_resumed_goes_on_in_lightning(lightning, step, reloaded):
    assert lightning[f"resumed at {step}{reloaded}"] == lightning["expected"][step:]


def test_fabric_says_that_it_wraps_only_a_data_loader(lightning):
    assert "Only PyTorch DataLoader" in lightning["refused"]  # so the documents give it the loader as it is


def test_evaluations_are_alike_in_lightning(lightning):
    assert lightning["evaluated"] == 6 * lightning["to evaluate"]


def test_ranks_share_a_loader_that_lightning_was_given(sharded_lmdb, tmp_path):
    ranks = run("lightning", LIGHTNING, tmp_path, "LMDBLoader", sharded_lmdb, tmp_path, "ddp")
    assert len(ranks) == 2
    for epoch in range(3):
        alone = labels_of_epoch([ranks[0]["expected"]], epoch)  # sums of images
        seen = labels_of_epoch([rank["ddp"] for rank in ranks], epoch)
        assert len(alone) == 23 and not alone - seen and seen.total() == 24


@pytest.fixture(scope="module")
def accelerate(sharded_lmdb, tmp_path_factory):
    out = tmp_path_factory.mktemp("accelerate")
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    ranks = run("accelerate", ACCELERATE, out, sharded_lmdb, out, launcher=launcher)
    assert len(ranks) == 2
    return ranks


def test_ranks_share_a_loader_that_is_older_than_the_accelerator(accelerate):
    for epoch in range(2):
        seen = labels_of_epoch([rank["seen"] for rank in accelerate], epoch)
        assert seen.total() == 24 and not Counter({0: 9, 1: 8, 2: 6}) - seen


def test_first_batches_that_accelerate_skips_are_those_of_the_epoch(accelerate):
    for rank in accelerate:
        assert len(rank["whole"]) == 3 and rank["rest"] == rank["whole"][2:]  # labels, shapes and dtypes
