#!/usr/bin/env python3
"""Trains one small ResNet from torchvision's ImageFolder and from LMDBLoader, with several seeds, and compares what it
learns.

    OMP_NUM_THREADS=1 python examples/fidelity.py --seeds 5 --out fidelity.json    # one thread: the model is small

The model, the optimizer and the loop are those of train.py; the photos, of four classes, are made anew in a temporary
folder. A seed sets the initial weights, the order and the crops, each loader's own. Prints the accuracy on val: mean
and standard deviation over the seeds, and by how many standard errors of the difference a loader is away from
ImageFolder. Needs torchvision.
"""
import argparse
import contextlib
import importlib.util
import itertools
import json
import math
import pathlib
import statistics
import sys
import tempfile
from typing import Any

import torch

from dataflows import CenterCrop, RandomResizedCrop
from dataflows.arguments import ArgumentParser, whole_number
from dump_imagenet import dump_split
from synthetic_photos import write_photos
from train import MEAN, STD, Training
from uint_lmdb_loader import LMDBLoader

FOLDER, OURS, FAST = LOADERS = ("ImageFolder", "LMDBLoader", "LMDBLoader, fast_decode")
PLAIN, TRIVIAL = RECIPES = ("plain", "TrivialAugment")
# Of Training. With the defaults of the options it learns the photos well, but not perfectly: a difference would show.
SETTINGS = {"batch_size": 16, "lr": 0.1, "width": 16, "blocks": 1, "workers": 2, "checkpoint": None,
            "checkpoint_every": sys.maxsize}


def transforms(recipe: str, size: int) -> tuple[list[Any], list[Any]]:
    """Those of train and of val, as torchvision's reference training has them."""
    from torchvision import transforms as tv

    end = [tv.PILToTensor(), tv.ConvertImageDtype(torch.float32), tv.Normalize(MEAN, STD)]
    augment = [tv.TrivialAugmentWide()] if recipe == TRIVIAL else []
    return ([tv.RandomResizedCrop(size), tv.RandomHorizontalFlip(), *augment, *end],
            [tv.Resize(size * 8 // 7), tv.CenterCrop(size), *end])


def fast_transforms(recipe: str, size: int) -> tuple[list[Any], list[Any]]:
    """The same, with crops of this package that decode fast in the place of the first two."""
    train, val = transforms(recipe, size)
    return ([RandomResizedCrop(size, fast_decode=True), *train[2:]],
            [CenterCrop(size, resize=size * 8 // 7, fast_decode=True), *val[2:]])


class FolderLoader(torch.utils.data.DataLoader):
    """torch's DataLoader over torchvision's ImageFolder, with the epochs that Training sets."""

    def __init__(self, folder: pathlib.Path, transform: list[Any], args: argparse.Namespace, train: bool) -> None:
        from torchvision.datasets import ImageFolder
        from torchvision.transforms import Compose

        super().__init__(ImageFolder(folder, Compose(transform)), args.batch_size, shuffle=train, drop_last=train,
                         num_workers=args.workers)
        self.seed = args.seed

    def set_epoch(self, epoch: int) -> None:
        torch.manual_seed(1000 * self.seed + epoch)

    def close(self) -> None:
        """There is nothing to close: its workers end with each epoch."""


class Run(Training):
    """A training of train.py from one of LOADERS, with one of RECIPES."""

    def __init__(self, loader: str, recipe: str, args: argparse.Namespace) -> None:
        self.loader = loader
        self.transforms = (fast_transforms if loader == FAST else transforms)(recipe, args.size)
        super().__init__(args, torch.device("cpu"))

    def make_loaders(self) -> tuple[Any, Any]:
        args, (train, val) = self.args, self.transforms
        if self.loader == FOLDER:
            return (FolderLoader(args.data / "train", train, args, train=True),
                    FolderLoader(args.data / "val", val, args, train=False))
        return (LMDBLoader(args.data / "train.lmdb", args.batch_size, transform=train, seed=args.seed, drop_last=True,
                           num_workers=args.workers),
                LMDBLoader(args.data / "val.lmdb", args.batch_size, transform=val, shuffle=False,
                           num_workers=args.workers))

    def start_epoch(self, epoch: int) -> None:
        self.train_loader.set_epoch(epoch)

    def run(self) -> float:
        """The share of val that the model gets right after all epochs."""
        with contextlib.closing(self.train_loader), contextlib.closing(self.val_loader):
            for epoch in range(self.args.epochs):
                self.train(epoch)
            return self.evaluate()


def write_data(folder: pathlib.Path, images: int) -> None:
    """Photos of four classes, `images` of them in each split, as files and as LMDBs of tiled JPEGs."""
    write_photos(folder, train=images, val=images)
    for split in ("train", "val"):
        dump_split(folder, folder, split, format="jpeg", progress=False)


def measure(data: pathlib.Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """{"loader", "recipe", "seed", "accuracy"} of each run; accuracy is from 0 to 1."""
    results = []
    for seed, recipe, loader in itertools.product(range(args.seeds), RECIPES, LOADERS):
        settings = argparse.Namespace(data=data, seed=seed, epochs=args.epochs, size=args.size, **SETTINGS)
        accuracy = Run(loader, recipe, settings).run()
        results.append({"loader": loader, "recipe": recipe, "seed": seed, "accuracy": accuracy})
        print(f"seed {seed}, {recipe}, {loader}: {accuracy:.1%}", file=sys.stderr, flush=True)
    return results


def accuracies(results: list[dict[str, Any]], loader: str, recipe: str) -> list[float]:
    return [result["accuracy"] for result in results if (result["loader"], result["recipe"]) == (loader, recipe)]


def difference(found: list[float], reference: list[float]) -> tuple[float, float]:
    """(of the means, the same in units of its standard error); the latter is infinite where nothing varies."""
    gap = statistics.mean(found) - statistics.mean(reference)
    error = math.sqrt(sum(statistics.variance(group) / len(group) for group in (found, reference)))
    return gap, gap / error if error else math.copysign(math.inf, gap) if gap else 0.0


def table(results: list[dict[str, Any]]) -> str:
    """As Markdown, of which the documents are made, too."""
    lines = ["| recipe | loader | mean accuracy | standard deviation | n | to ImageFolder | in standard errors |",
             "|---|---|---|---|---|---|---|"]
    for recipe, loader in itertools.product(RECIPES, LOADERS):
        found = accuracies(results, loader, recipe)
        gap, errors = difference(found, accuracies(results, FOLDER, recipe))
        compared = " | " if loader == FOLDER else f"{100 * gap:+.1f} points | {errors:+.1f}"
        lines.append(f"| {recipe} | {loader} | {statistics.mean(found):.1%} | {100 * statistics.stdev(found):.1f} "
                     f"points | {len(found)} | {compared} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = ArgumentParser(description="Compare what a small ResNet learns from ImageFolder and from LMDBLoader.",
                            formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--seeds", type=whole_number(2), default=5, metavar="N", help="runs of each combination")
    parser.add_argument("--epochs", type=whole_number(1), default=4, metavar="N", help="of each run")
    parser.add_argument("--size", type=whole_number(8), default=32, help="side of the crops in pixels")
    parser.add_argument("--images", type=whole_number(16), default=160, metavar="N", help="photos in each split")
    parser.add_argument("--out", type=pathlib.Path, metavar="FILE.json", help="where to write each run's accuracy")
    args = parser.parse_args(argv)
    if args.out is not None and (args.out.is_dir() or not args.out.parent.is_dir()):
        parser.error(f"argument --out: {args.out} is no file in a folder that exists; name one, such as fidelity.json")
    if importlib.util.find_spec("torchvision") is None:
        print(f"{parser.prog}: torchvision is not installed, and the loaders are compared with its ImageFolder. "
              f"Install the version that fits torch {torch.__version__}: pip install torchvision", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        write_data(pathlib.Path(folder), args.images)
        results = measure(pathlib.Path(folder), args)
    print(table(results))
    if args.out is not None:
        arguments = {"seeds": args.seeds, "epochs": args.epochs, "size": args.size, "images": args.images}
        args.out.write_text(json.dumps({"arguments": arguments, "results": results}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
