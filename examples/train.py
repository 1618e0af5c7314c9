#!/usr/bin/env python3
"""Trains a small ResNet on a dump of dump_imagenet.py: the loop to copy, with checkpoints, resuming, DDP and growing
resolution.

    python examples/train.py DIR --epochs 18 --batch-size 256 --size 224 --start-size 128 --checkpoint DIR/run.pt
    torchrun --nproc-per-node 8 examples/train.py DIR ...       # --batch-size is that of each process
    ... --resume                                                # goes on where the checkpoint was taken

DIR holds train.lmdb and val.lmdb. A run that was killed and resumed computes what it would have computed without that,
bit for bit on a CPU with the same number of threads and processes.
"""
import argparse
import contextlib
import itertools
import math
import os
import pathlib
import pickle
import sys
import time

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional

from dataflows import CenterCrop, RandomResizedCrop
from dataflows.arguments import ArgumentParser, whole_number
from dataflows.storage.shards.files import find_split
from uint_lmdb_loader import LMDBDataset, LMDBLoader

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Block(nn.Module):
    """Two convolutions beside a shortcut; `stride` shrinks the map."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs))
        self.shortcut = nn.Identity() if (inputs, stride) == (outputs, 1) else nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.body(x) + self.shortcut(x))


def resnet(classes: int, width: int, blocks: int) -> nn.Module:
    """A ResNet of four stages of `blocks` blocks; width=64, blocks=2 is ResNet-18. Takes images of any size."""
    widths = [width, width, 2 * width, 4 * width, 8 * width]
    stages = [Block(widths[i] if b == 0 else widths[i + 1], widths[i + 1], 2 if b == 0 and i else 1)
              for i in range(4) for b in range(blocks)]
    return nn.Sequential(nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
                         nn.MaxPool2d(3, 2, 1), *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(widths[-1], classes))


def learning_rate(step: int, steps: int) -> float:
    """What the highest learning rate is multiplied with: a linear warm-up over a tenth of all steps, then a cosine."""
    warm_up = max(1, steps // 10)
    return min((step + 1) / warm_up, (1 + math.cos(math.pi * step / steps)) / 2)


def resolution(epoch: int, args: argparse.Namespace) -> int:
    """The side of the crops: from --start-size to --size in steps of 16, over the first two thirds of the epochs."""
    progress = min(1.0, epoch / max(1, 2 * args.epochs / 3))
    return min(args.size, args.start_size + round((args.size - args.start_size) * progress / 16) * 16)


def class_count(train: str, val: str) -> int:
    """How many classes there are. Raises ValueError if a label of val means another class than in train."""
    names, others = (LMDBDataset(path).classes for path in (train, val))
    numbered = any(found == [str(number) for number in range(len(found))] for found in (names, others))  # no index
    if len(others) > len(names) or names != others and not numbered:
        pairs = enumerate(itertools.zip_longest(names, others, fillvalue="missing"))
        number, (name, other) = next((number, pair) for number, pair in pairs if pair[0] != pair[1])
        raise ValueError(f"{train} has {len(names)} classes and {val} {len(others)}; number {number} is {name} in the "
                         f"one and {other} in the other. Dump both splits of a source whose class folders are the same")
    return len(names)


class Training:
    """All that a run is: `state_dict` is what a checkpoint holds, and the same on each rank."""

    def __init__(self, args: argparse.Namespace, device: torch.device) -> None:
        gpu = device.type == "cuda"
        self.args, self.device = args, device
        # On a GPU, channels_last convolutions in bfloat16 are the fast ones.
        self.layout = torch.channels_last if gpu else torch.contiguous_format
        self.train_loader, self.val_loader = self.make_loaders()
        classes = class_count(*(find_split(args.data, split) for split in ("train", "val")))
        torch.manual_seed(args.seed)
        self.model = resnet(classes, args.width, args.blocks).to(device, memory_format=self.layout)
        self.ddp = self.model
        if dist.is_initialized():
            self.ddp = nn.parallel.DistributedDataParallel(self.model, [device.index] if gpu else None)
        self.optimizer = torch.optim.SGD(self.model.parameters(), args.lr, 0.9, weight_decay=5e-5, nesterov=True)
        steps = args.epochs * len(self.train_loader)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: learning_rate(step, steps))

    def make_loaders(self) -> tuple[LMDBLoader, LMDBLoader]:
        """Of train and of val."""
        args, gpu = self.args, self.device.type == "cuda"
        options = dict(num_workers=args.workers, worker_type=args.worker_type, seed=args.seed, device=self.device,
                       pin_memory=gpu, channels_last=gpu, normalize=(MEAN, STD))
        # Ranks are those of torch.distributed. "pad" gives each equally many batches, without which DDP would hang.
        train = LMDBLoader(find_split(args.data, "train"), args.batch_size, drop_last=True, uneven="pad",
                           transform=RandomResizedCrop(resolution(0, args)), **options)
        return train, LMDBLoader(find_split(args.data, "val"), args.batch_size, shuffle=False, uneven="keep",
                                 transform=CenterCrop(args.size, resize=args.size * 8 // 7), **options)

    def start_epoch(self, epoch: int) -> None:
        self.train_loader.set_epoch(epoch)  # after resuming, this keeps the place in the epoch
        if self.train_loader.transform.size[0] != resolution(epoch, self.args):
            self.train_loader.transform = RandomResizedCrop(resolution(epoch, self.args))

    def run(self) -> float:
        """Trains from where the run is to its end, and returns the share of val that the model gets right."""
        accuracy = math.nan
        # The loader knows the epoch, also in the middle of one.
        for epoch in range(self.train_loader.state_dict()["epoch"], self.args.epochs):
            start = time.perf_counter()
            trained = self.train(epoch)
            accuracy = self.evaluate()
            log(f"epoch {epoch}: {resolution(epoch, self.args)} px, {trained}, val accuracy {accuracy:.1%}, "
                f"{time.perf_counter() - start:.1f} s")
        return self.evaluate() if math.isnan(accuracy) else accuracy

    def train(self, epoch: int) -> str:
        """Trains for what is left of an epoch, and returns its mean loss and its speed, of all ranks, as text."""
        self.start_epoch(epoch)
        self.ddp.train()
        losses, batches, start = torch.zeros((), dtype=torch.float64, device=self.device), 0, time.perf_counter()
        for images, labels in self.train_loader:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
                loss = functional.cross_entropy(self.ddp(images), labels, label_smoothing=0.1)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.scheduler.step()
            losses += loss.detach()
            batches += 1
            if self.scheduler.last_epoch % self.args.checkpoint_every == 0:
                self.check(loss.item())
                self.save()
                log(f"epoch {epoch}, step {self.scheduler.last_epoch}: loss {loss.item():.3f}")
        ranks = 1
        if dist.is_initialized():
            ranks = dist.get_world_size()
            dist.all_reduce(losses)
        mean = losses.item() / max(1, batches) / ranks  # waits for the device, before the clock is read
        rate = batches * self.args.batch_size * ranks / (time.perf_counter() - start)
        self.check(mean)
        self.save()
        return f"loss {mean:.3f}, {rate:,.0f} images/s" if batches else "nothing left to train"

    def check(self, loss: float) -> None:
        """Ends a training that has diverged, before its weights replace those of the last checkpoint."""
        if not math.isfinite(loss):
            raise ValueError(f"the loss is {loss} by step {self.scheduler.last_epoch}: the training has diverged. "
                             f"Start anew, without --resume, with an --lr lower than {self.args.lr:g}")

    @torch.inference_mode()
    def evaluate(self) -> float:
        """Of all ranks: each counts its part of val, and only the counts are exchanged."""
        if dist.is_initialized():
            for buffer in self.model.buffers():  # each rank has running means of its own
                dist.broadcast(buffer, 0)
        self.model.eval()
        counts = torch.zeros(2, dtype=torch.int64, device=self.device)  # right, all
        for images, labels in self.val_loader:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
                right = (self.model(images).argmax(1) == labels).sum()
            counts += torch.stack([right, torch.tensor(len(labels), device=self.device)])
        if dist.is_initialized():
            dist.all_reduce(counts)
        return counts[0].item() / counts[1].item()

    def state_dict(self) -> dict:
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(),
                "scheduler": self.scheduler.state_dict(), "loader": self.train_loader.state_dict()}

    def save(self) -> None:
        """In one step: whenever the run dies, the file is a whole checkpoint, this one or the one before."""
        if self.args.checkpoint is None or (dist.is_initialized() and dist.get_rank()):
            return
        self.args.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        partial = self.args.checkpoint.with_name(self.args.checkpoint.name + ".partial")
        torch.save(self.state_dict(), partial)
        os.replace(partial, self.args.checkpoint)

    def resume(self) -> None:
        try:
            state = torch.load(self.args.checkpoint, map_location=self.device, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scheduler.load_state_dict(state["scheduler"])
        except (pickle.UnpicklingError, EOFError, KeyError, RuntimeError, TypeError) as error:
            raise ValueError(f"{self.args.checkpoint} is no checkpoint of this model. Give --width, --blocks and DATA "
                             f"of the run that wrote it, or start anew, without --resume") from error
        self.train_loader.load_state_dict(state["loader"])
        log(f"resumed {self.args.checkpoint} in epoch {state['loader']['epoch']}, step {self.scheduler.last_epoch}")


def log(text: str) -> None:
    if not dist.is_initialized() or dist.get_rank() == 0:
        print(text, flush=True)


@contextlib.contextmanager
def process_group(device: str):
    """The device of this process, with a process group around it if torchrun started it."""
    gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    rank = int(os.environ.get("LOCAL_RANK", 0))
    if gpu:
        torch.cuda.set_device(rank)
    if "LOCAL_RANK" in os.environ:
        dist.init_process_group("nccl" if gpu else "gloo")
    try:
        yield torch.device("cuda", rank) if gpu else torch.device("cpu")
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def main(argv: list[str] | None = None) -> int:
    parser = ArgumentParser(description="Train a small ResNet on train.lmdb, and evaluate it on val.lmdb.",
                            formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    positive = whole_number(1)
    parser.add_argument("data", metavar="DATA", type=pathlib.Path,
                        help="folder of train.lmdb and val.lmdb, or of shards of them with a manifest")
    parser.add_argument("--epochs", type=positive, default=18)
    parser.add_argument("--batch-size", type=positive, default=256, help="of each process")
    parser.add_argument("--lr", type=float, default=0.5, help="the highest learning rate")
    parser.add_argument("--size", type=positive, default=224, help="side of the images in pixels")
    parser.add_argument("--start-size", type=positive, help="side in the first epoch (default: as --size)")
    parser.add_argument("--width", type=positive, default=64, help="channels of the first stage")
    parser.add_argument("--blocks", type=positive, default=2, help="blocks in each of the four stages")
    parser.add_argument("--workers", type=whole_number(0), help="of each process (default: its share of processors)")
    parser.add_argument("--worker-type", choices=("thread", "process"), default="thread")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--seed", type=whole_number(0), default=0)
    parser.add_argument("--checkpoint", type=pathlib.Path, help="file to write, and to resume (default: none)")
    parser.add_argument("--checkpoint-every", type=positive, default=500, metavar="BATCHES",
                        help="and after each epoch")
    parser.add_argument("--resume", action="store_true", help="go on from --checkpoint, if it is there")
    parser.add_argument("--expect-accuracy", type=float, default=0.0, metavar="SHARE", help="fail below this, 0 to 1")
    args = parser.parse_args(argv)
    args.start_size = args.start_size or args.size
    if args.resume and args.checkpoint is None:
        parser.error("--resume needs --checkpoint")
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("argument --device: torch finds no CUDA device here; leave the option out to train on the CPU")
    if args.checkpoint is not None and args.checkpoint.is_dir():
        parser.error(f"argument --checkpoint: {args.checkpoint} is a folder; name a file in it, such as "
                     f"{args.checkpoint / 'run.pt'}")
    if args.data.is_file() or (args.data / "data.mdb").exists():  # an LMDB may be a folder
        parser.error(f"argument DATA: give the folder of train.lmdb and val.lmdb, {args.data.parent}, not {args.data}")
    if missing := [f"{split}.lmdb" for split in ("train", "val") if find_split(args.data, split) is None]:
        parser.error(f"argument DATA: there is no {' and no '.join(missing)} in {args.data}, and no manifest. Write "
                     f"each with dump-imagenet --source IMAGENET --target {args.data} --split "
                     f"{' or '.join(name.removesuffix('.lmdb') for name in missing)}")
    try:
        with process_group(args.device) as device:
            training = Training(args, device)
            if args.resume and args.checkpoint.exists():
                training.resume()
            accuracy = training.run()
            log(f"accuracy on val: {accuracy:.1%}")
    except (OSError, ValueError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    if accuracy < args.expect_accuracy:
        print(f"{parser.prog}: {accuracy:.1%} is less than --expect-accuracy {args.expect_accuracy:.1%}",
              file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
