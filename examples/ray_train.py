"""Trains a small model with Ray Train on several workers; if one dies, all go on from the last checkpoint.

    python examples/ray_train.py DIR --workers 2

DIR holds train.lmdb, or its shards with train.manifest.json, where each worker can read it. Ray is a local one, or that
of RAY_ADDRESS. The loader's place in the epoch is in the checkpoint, so that after a restart each sample of the epoch
still comes once: what follows the checkpoint comes again, and nothing is left out.
"""
import argparse
import os
import sys
import tempfile
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray.train
import torch
from ray.train import Checkpoint, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, prepare_model
from torch import nn
from torch.nn import functional

from dataflows import RandomResizedCrop
from dataflows.arguments import ArgumentParser, whole_number
from dataflows.storage.shards.files import find_split
from uint_lmdb_loader import LMDBLoader

SIZE = 32  # side of the images in pixels
PLACE = "checkpoint.pt"


def train(config: dict[str, Any]) -> None:
    """One worker. Ray Train has made the process group that the loader and DDP ask."""
    with LMDBLoader(config["path"], config["batch_size"], transform=RandomResizedCrop(SIZE), num_workers=1,
                    dtype=torch.float32) as loader:
        model = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, len(loader.classes)))
        model = prepare_model(model)
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        first = 0
        if checkpoint := ray.train.get_checkpoint():
            with checkpoint.as_directory() as folder:
                state = torch.load(os.path.join(folder, PLACE), weights_only=True)
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            loader.load_state_dict(state["loader"])
            first = loader.epoch
        for epoch in range(first, config["epochs"]):
            loader.set_epoch(epoch)  # which keeps the place in the epoch
            for step, (images, labels) in enumerate(loader, 1):
                loss = functional.cross_entropy(model(images), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                if step % config["checkpoint_every"] == 0:
                    report(loss, model, optimizer, loader)
            report(loss, model, optimizer, loader)


def report(loss: torch.Tensor, model: nn.Module, optimizer: torch.optim.Optimizer, loader: LMDBLoader) -> None:
    """To Ray Train: the loss of each worker, and a checkpoint, the same on all, of the first one."""
    metrics, state = {"loss": loss.item()}, loader.state_dict()
    if ray.train.get_context().get_world_rank():
        ray.train.report(metrics)
        return
    with tempfile.TemporaryDirectory() as folder:
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "loader": state},
                   os.path.join(folder, PLACE))
        ray.train.report(metrics, checkpoint=Checkpoint.from_directory(folder))


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add, positive = parser.add_argument, whole_number(1)
    add("data", metavar="DIR", help="folder of train.lmdb, or of its shards and train.manifest.json")
    add("--workers", type=positive, default=2, help="processes that train (default 2)")
    add("--epochs", type=positive, default=2)
    add("--batch-size", type=positive, default=64, help="of each worker")
    add("--checkpoint-every", type=positive, default=100, metavar="BATCHES", help="and after each epoch")
    add("--storage", default=None, metavar="DIR", help="where all machines find checkpoints (default: Ray's own)")
    add("--max-failures", type=whole_number(0), default=3, help="restarts before the run fails (default 3)")
    arguments = parser.parse_args(argv)
    path = find_split(arguments.data, "train")
    if path is None:
        parser.error(f"argument DIR: there is no train.lmdb in {arguments.data}, and no manifest. Write it with "
                     f"dump-imagenet")
    config = {"path": os.path.abspath(path), "batch_size": arguments.batch_size, "epochs": arguments.epochs,
              "checkpoint_every": arguments.checkpoint_every}
    trainer = TorchTrainer(train, train_loop_config=config, scaling_config=ScalingConfig(num_workers=arguments.workers),
                           run_config=RunConfig(storage_path=arguments.storage,
                                                failure_config=FailureConfig(max_failures=arguments.max_failures)))
    result = trainer.fit()
    print(f"loss {result.metrics['loss']:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
