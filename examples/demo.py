#!/usr/bin/env python3
"""The whole way on synthetic photos: folder -> LMDB, as JPEG and as raw uint8 -> epochs of both loaders over each.

Prints a table of images/s and file sizes, and writes OUT/throughput.png. `make demo` runs it; OUT/photos, OUT/jpeg and
OUT/uint8 are made anew each time.

    python examples/demo.py --images 400 --out demo
"""
import argparse
import contextlib
import pathlib
import shutil
import statistics
import sys
import time

from dataflows import CenterCrop, RandomResizedCrop
from dump_imagenet import dump_split
from synthetic_photos import write_photos
from uint_lmdb_iterloader import LMDBIterLoader
from uint_lmdb_loader import LMDBLoader

FORMATS = ("jpeg", "uint8")
BATCH_SIZE = 16        # small, so that even a small val split fills every worker
EPOCHS = 7             # the median of these is shown; one more comes first, to warm up
LOADERS = ("LMDBLoader", "LMDBIterLoader")


def make_loader(name: str, split: str, path: pathlib.Path):
    """What a user would write: train in random order with random crops, val in the file's order with center crops."""
    if split == "train":
        cls = {"LMDBLoader": LMDBLoader, "LMDBIterLoader": LMDBIterLoader}[name]
        return cls(path, BATCH_SIZE, transform=RandomResizedCrop(224))
    if name == "LMDBLoader":
        return LMDBLoader(path, BATCH_SIZE, transform=CenterCrop(224, resize=256), shuffle=False)
    return LMDBIterLoader(path, BATCH_SIZE, transform=CenterCrop(224, resize=256), shuffle_buffer=0)


def time_epoch(loader, expected: int) -> float:
    """Seconds that one epoch takes; RuntimeError when it does not yield `expected` images."""
    start = time.perf_counter()
    count = sum(len(labels) for _, labels in loader)
    if count != expected:
        raise RuntimeError(f"an epoch of {loader!r} yields {count} images, the file holds {expected}")
    return time.perf_counter() - start


def images_per_second(path: pathlib.Path, split: str, count: int) -> dict[str, float]:
    """By name of the loader. The loaders take turns, so that what else the machine does slows both alike."""
    with contextlib.ExitStack() as stack:
        loaders = {name: stack.enter_context(make_loader(name, split, path)) for name in LOADERS}
        turns = [{name: time_epoch(loader, count) for name, loader in loaders.items()} for _ in range(1 + EPOCHS)]
    return {name: count / statistics.median(turn[name] for turn in turns[1:]) for name in LOADERS}


def measure(summaries: dict) -> list[dict]:
    """One row per split, format and loader, from the dump summaries by (split, format)."""
    rows = []
    for (split, fmt), summary in summaries.items():
        for name, rate in images_per_second(summary.path, split, summary.count).items():
            rows.append({"split": split, "format": fmt, "loader": name, "images": summary.count, "images/s": rate,
                         "MB": summary.stored_bytes / 1e6, "size/JPEG": summary.stored_bytes / summary.source_bytes})
    return rows


def print_table(rows: list[dict]) -> None:
    print(f"\n{'split':6} {'format':7} {'loader':15} {'images':>7} {'images/s':>9} {'MB':>8} {'size/JPEG':>10}")
    for row in rows:
        print("{split:6} {format:7} {loader:15} {images:7} {images/s:9,.0f} {MB:8.1f} {size/JPEG:9.2f}x".format(**row))


def plot(rows: list[dict], path: pathlib.Path) -> None:
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot

    colors = dict(zip(LOADERS, ("#1f5f8b", "#e0913a"), strict=True))
    titles = {"train": "train: RandomResizedCrop(224)", "val": "val: CenterCrop(224)"}
    figure, axes = pyplot.subplots(1, len(titles), figsize=(9, 4), sharey=True, layout="constrained")
    for axis, (split, title) in zip(axes, titles.items(), strict=True):
        for i, (name, color) in enumerate(colors.items()):
            chosen = [row for row in rows if (row["split"], row["loader"]) == (split, name)]
            places = [FORMATS.index(row["format"]) + .4 * i - .2 for row in chosen]
            bars = axis.bar(places, [row["images/s"] for row in chosen], width=.38, color=color, label=name)
            axis.bar_label(bars, fmt="{:,.0f}", padding=2, fontsize=9)
        sizes = {row["format"]: row["MB"] for row in rows if row["split"] == split}
        axis.set_xticks(range(len(FORMATS)), [f"{fmt}\n{sizes[fmt]:,.1f} MB" for fmt in FORMATS])
        axis.set_title(title, fontsize=11)
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(y=.12)
    axes[0].set_ylabel("images/s")
    axes[0].yaxis.set_major_formatter("{x:,.0f}")
    axes[0].legend(frameon=False, loc="upper left")
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Dump synthetic photos to LMDB and time one epoch of every loader.")
    parser.add_argument("--images", type=int, default=400,
                        help="photos to make, one in four of them for val (default: %(default)s)")
    parser.add_argument("--out", type=pathlib.Path, default="demo", help="folder to work in (default: %(default)s)")
    args = parser.parse_args(argv)
    if args.images < 16:
        parser.error(f"--images must be at least 16, not {args.images}: one in four goes to val, which has 4 classes")

    photos, val = args.out / "photos", args.images // 4
    print(f"Making {args.images} synthetic photos in {photos}")
    shutil.rmtree(photos, ignore_errors=True)
    write_photos(photos, train=args.images - val, val=val)

    summaries = {}
    for split in ("train", "val"):
        for fmt in FORMATS:
            print(f"Dumping {split} as {fmt} to {args.out / fmt}")
            summaries[split, fmt] = dump_split(photos, args.out / fmt, split, format=fmt, overwrite=True)

    rows = measure(summaries)
    print_table(rows)
    train = summaries["train", "uint8"]
    print(f"\nRaw pixels are {train.pixel_bytes / train.source_bytes:.1f} times the size of their JPEG files.")
    plot(rows, args.out / "throughput.png")
    print(f"Wrote {args.out / 'throughput.png'}")
    print("Next: dump your own:  .venv/bin/dump-imagenet --source IMAGENET --target DIR --split train --format jpeg")
    print("      then train on:  LMDBLoader('DIR/train.lmdb', 256, transform=RandomResizedCrop(224))")
    return 0


if __name__ == "__main__":
    sys.exit(main())
