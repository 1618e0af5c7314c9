"""Compares this project's loaders with other libraries, on one folder of images.

    python benchmark.py --source IMAGENET --lmdb DIR

reads IMAGENET/train and IMAGENET/val, and DIR/jpeg and DIR/uint8 (the latter shrunk to 500 pixels at most), which it
dumps first where they are missing; copies in formats of other libraries are made beside them. Prints a table per split
and format, and writes benchmark.json, which holds every epoch, and benchmark.png.

Each contestant has a process of its own. They run one epoch each in turns, one at a time, while the others are stopped:
a warm-up round, then the counted ones. Batches are uint8 (B, 3, 224, 224): a random resized crop and a flip, shuffled,
for train; resized to 256 and center-cropped for any other split. An epoch should have 2,000 images or more: some
contestants have hundreds ready when it starts. The table shows medians over the counted epochs:

    images/s       with the range; x BASELINE is the median of the ratios within each round
    CPU ms/image   processor time of the process and all of its workers
    x limit        that time / what decoding the crop's share of an image and resizing it take at least, which is
                   measured in each round as well (see benchmarks/limit.py); for this project's loaders
    peak MB        their anonymous and shared memory together; mapped files are page cache and not counted
    growth MB      by how much anonymous memory grew from the end of the first counted epoch to that of the last
    first batch s  from asking for an epoch to its first batch
    cold start s   the same for the first epoch of a new process, opening the file included, and making the copy of
                   the source that some contestants need, if this run is the first to need it

With --cold it measures storage instead: readers that bring an epoch's bytes off the disk, each epoch in a fresh process
after the page cache was dropped, which takes root's rights, or is done for the files that are read (see
benchmarks/cold.py). Medians of:

    MB/s           of the bytes that are needed; x BASELINE as above, of this figure
    read/needed    bytes that the process read from the disk / bytes needed
    first batch s  from before the file is opened

With --scaling it measures the number of workers: LMDBLoader over tiled JPEGs, over JPEGs as the files have them (dumped
into DIR/jpeg-no-tiles) and over pixels, and torch's DataLoader over the folder, each with 1, 2, 4 ... up to
--num-workers, all in turns within one run. Prints the median images/s, and PATH.png shows them.

A contestant whose library is not installed, cannot be imported or does not start is skipped, with the reason.

Exit code 0: all others ran; 1: some failed, or the run was interrupted; 2: the arguments were refused, or the page
cache cannot be dropped.
"""
import argparse
import importlib.metadata
import importlib.util
import json
import math
import os
import platform
import shutil
import statistics
import sys
from typing import Any, Callable, Sequence

from benchmarks import cold, scaling
from benchmarks.contestants import CONTESTANTS, LIMIT, Contestant, Job
from benchmarks.report import plot, table
from benchmarks.runner import run_group
from dataflows.arguments import ArgumentParser, did_you_mean, whole_number

# What imports torch, OpenCV or tensorpack is imported where it is used: every contestant's process imports this file.

POINTERS = "pointers"  # a measurement of its own, not a contestant
MAX_SIDE = 500  # pixels, of the uint8 dump
IMAGENET = 1_281_167  # images of its train split
_PACKAGES = ("imagenet-lmdb", "torch", "tensorpack", "lmdb", "numpy", "opencv-python", "opencv-python-headless",
             "Pillow", "msgpack", "simplejpeg", "torchvision", "webdataset", "datasets", "pyarrow", "litdata", "grain",
             "array_record", "spdl-core", "ffcv", "nvidia-dali-cuda120", "nvidia-dali-cuda130")


def choose(names: Sequence[str], known: dict[str, Contestant] = CONTESTANTS) -> tuple[list[Contestant], dict[str, str]]:
    """The contestants of these names that can run, and why each other one cannot."""
    chosen = [known[name] for name in names if name != POINTERS]
    skipped = {c.name: f"not installed: {', '.join(c.missing())}" for c in chosen if c.missing()}
    return [contestant for contestant in chosen if contestant.name not in skipped], skipped


def subset(source: str, split: str, count: int, target: str) -> None:
    """Makes target/split a folder of links to `count` files of the source, spread evenly over its classes."""
    from dataflows.sources.imagenet import ImageNetFiles

    files = ImageNetFiles(source, split)
    shutil.rmtree(os.path.join(target, split), ignore_errors=True)
    for i in range(min(count, len(files))):
        name = files.pointers[i * len(files) // min(count, len(files))][0]
        link = os.path.join(target, split, name)
        os.makedirs(os.path.dirname(link), exist_ok=True)
        os.symlink(os.path.abspath(os.path.join(files.root, name)), link)


def prepare(source: str, folder: str, split: str, format: str, tiles: bool = True) -> tuple[str, int]:
    """(path of the split's LMDB in this format, number of its images), after dumping it if it is missing.

    Raises ValueError if an LMDB that exists was not made of the source's files.
    """
    from dataflows.sources.imagenet import ImageNetFiles
    from dataflows.storage.store import Store
    from dataflows.terminal import say
    from dump_imagenet import dump_split

    files = ImageNetFiles(source, split)
    folder = os.path.join(folder, format if tiles else scaling.NO_TILES)
    path = os.path.join(folder, f"{split}.lmdb")
    if not os.path.exists(path):
        say(str(dump_split(source, folder, split, format=format, tiles=tiles,
                           max_side=MAX_SIDE if format == "uint8" else None, progress=sys.stderr.isatty())))
    store = Store(path)
    names = None if store.index is None else sorted(os.fsdecode(name) for name in store.index.name.tolist())
    if len(store) != len(files) or names not in (None, sorted(name for name, _ in files)):
        raise ValueError(f"{path} holds {len(store):,} images and {files.root} {len(files):,}, or others. Give the "
                         f"folder that it was made of, or another --lmdb to dump this one into")
    store.close()
    return path, len(files)


def measure(arguments: argparse.Namespace, run: dict[str, Any]) -> None:
    """Runs all groups, prints their tables and appends their figures to run["groups"]."""
    contestants, run["skipped"] = choose(arguments.what, _known(arguments))
    for name, reason in run["skipped"].items():
        print(f"{name} is skipped: {reason}")
    source, folder = arguments.source, arguments.lmdb
    if arguments.images:
        folder = os.path.join(folder, f"images-{arguments.images}")
        source = os.path.join(folder, "files")
        for split in arguments.splits:
            subset(arguments.source, split, arguments.images, source)
    if POINTERS in arguments.what:
        _measure_pointers(arguments, run)
    if arguments.scaling:
        for split in arguments.splits:
            _measure_scaling(contestants, source, folder, split, arguments, run)
        return
    prepared = {}
    for split in arguments.splits if contestants else ():
        for format in arguments.formats:
            prepared[split, format] = prepare(source, folder, split, format)
    for (split, format), (path, images) in prepared.items():
        participants = [contestant for contestant in contestants if contestant.takes_part(split, format)]
        if not participants:
            continue
        job = Job(source, split, path, folder, images, arguments.batch_size, arguments.num_workers)
        group = {"split": split, "format": format, "images": images, "lmdb_bytes": os.path.getsize(path)}
        limits = [LIMIT] if any(contestant.limit for contestant in participants) else []
        if arguments.cold:
            _measure_cold(participants, job, group, arguments, run)
            continue
        results = run_group([*participants, *limits], job, arguments.epochs, arguments.timeout or 120 + images / 10,
                            _progress(split, format))
        group["results"], group["limit"] = results[:len(participants)], results[len(participants):]
        run["groups"].append(group)
        print(f"\n{table(group)}\n", flush=True)


def _measure_cold(readers: Sequence[Contestant], job: Job, group: dict[str, Any], arguments: argparse.Namespace,
                  run: dict[str, Any]) -> None:
    from dataflows.sources.imagenet import ImageNetFiles

    files = ImageNetFiles(job.source, job.split)
    paths = [job.lmdb, *(os.path.join(files.root, name) for name, _ in files)]
    cold.check_droppable(job.lmdb)
    group |= {"dropped": cold.drop_page_cache(paths), "limit": []}
    group["results"] = cold.run_cold(readers, job, arguments.epochs, arguments.timeout or 120 + job.images / 10,
                                     _progress(group["split"], group["format"]), lambda: cold.drop_page_cache(paths))
    run["groups"].append(group)
    print(f"\n{cold.table(group)}\n", flush=True)


def _measure_scaling(series: Sequence[Contestant], source: str, folder: str, split: str,
                     arguments: argparse.Namespace, run: dict[str, Any]) -> None:
    from dataflows.sources.imagenet import ImageNetFiles

    series = [one for one in series if any(one.takes_part(split, format) for format in arguments.formats)]
    for one in series:
        if "dump" in one.options:
            prepare(source, folder, split, one.formats[0], tiles=one.name != scaling.NO_TILES)
    images, workers = len(ImageNetFiles(source, split)), scaling.worker_counts(arguments.num_workers)
    # Each point reads its own file in DIR, so the job names none.
    job = Job(source, split, "", folder, images, arguments.batch_size, arguments.num_workers)
    results = run_group(scaling.points(series, workers), job, arguments.epochs, arguments.timeout or 120 + images / 10,
                        _progress(split, "scaling"))
    group = {"split": split, "images": images, "workers": workers, "cpu_count": run["cpu_count"],
             "series": [one.name for one in series], "results": results, "limit": []}
    run["groups"].append(group)
    print(f"\n{scaling.table(group)}\n", flush=True)


def _progress(split: str, format: str) -> Callable[[str], None]:
    return lambda text: print(f"{split}, {format}: {text}", file=sys.stderr)


def _measure_pointers(arguments: argparse.Namespace, run: dict[str, Any]) -> None:
    from benchmarks.pointers import pointer_costs

    run["pointers_us_per_image"] = pointer_costs(arguments.batch_size, arguments.epochs, IMAGENET)
    for name, costs in run["pointers_us_per_image"].items():
        print(f"pointer chain of the {name}, {IMAGENET:,} records: {statistics.median(costs):.2f} µs per image of its "
              f"thread")


def describe(arguments: argparse.Namespace) -> dict[str, Any]:
    """What a reader of the figures has to know of the machine and of the run."""
    from dataflows.processors import usable_cpus

    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"arguments": vars(arguments), "versions": versions, "system": platform.platform(),
            "processor": _processor(), "cpu_count": usable_cpus()}


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def _write(run: dict[str, Any], out: str) -> None:
    with open(f"{out}.json", "w") as file:
        json.dump(run, file, indent=1)
    print(f"Wrote {out}.json", end="")
    if run["arguments"]["cold"]:  # a table says it all
        print()
    elif importlib.util.find_spec("matplotlib") is None:
        print(f". Install matplotlib for {out}.png")
    elif any(not result["error"] for group in run["groups"] for result in group["results"]):
        (scaling.plot if run["arguments"]["scaling"] else plot)(run["groups"], f"{out}.png")
        print(f" and {out}.png")
    else:
        print()


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add, positive = parser.add_argument, whole_number(1)
    add("--source", required=True, metavar="FOLDER", help="folder with one sub-folder per split, with one per class")
    add("--lmdb", required=True, metavar="DIR", help="folder of jpeg/SPLIT.lmdb and uint8/SPLIT.lmdb; made if missing")
    add("--what", nargs="+", metavar="NAME",
        help="what to measure (default: all): " + _names(CONTESTANTS)
             + f"; {POINTERS}: what the chain of keys costs its thread. With --cold: " + _names(cold.READERS)
             + ". With --scaling: " + _names(scaling.SERIES))
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--cold", action="store_true", help="measure reading from a disk, with nothing in memory")
    kind.add_argument("--scaling", action="store_true", help="measure 1, 2, 4 ... up to --num-workers workers")
    add("--splits", nargs="+", default=["train", "val"], metavar="NAME", help="default: train val")
    add("--formats", nargs="+", choices=("jpeg", "uint8"), default=["jpeg", "uint8"], help="default: both")
    add("--epochs", type=positive, default=3, metavar="N", help="counted epochs, after one to warm up (default 3)")
    add("--batch-size", type=positive, default=256, metavar="B", help="images per batch (default 256)")
    add("--num-workers", type=positive, default=2, metavar="N", help="processes or threads of each (default 2)")
    add("--images", type=positive, metavar="N", help="use this many images of each split, spread over its classes")
    add("--timeout", type=_seconds, metavar="S", help="seconds that starting, and each epoch, may take "
                                                   "(default: 120, and 0.1 per image)")
    add("--out", type=_path, default="benchmark", metavar="PATH",
        help="writes PATH.json and PATH.png (default: benchmark)")
    return parser


def _known(arguments: argparse.Namespace) -> dict[str, Contestant]:
    """What this kind of run can measure, by name."""
    return cold.READERS if arguments.cold else scaling.SERIES if arguments.scaling else CONTESTANTS


def _names(contestants: dict[str, Contestant]) -> str:
    return "; ".join(f"{contestant.name}: {contestant.about}" for contestant in contestants.values())


def _seconds(text: str) -> float:
    try:
        if 0 < (number := float(text)) < math.inf:
            return number
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, not {text}")


def _path(text: str) -> str:
    """The beginning of the names of files that can be made: they are written when everything was measured."""
    folder, name = os.path.split(text)
    if not name:
        raise argparse.ArgumentTypeError(f"must end in the beginning of the files' names, and {text!r} does not")
    if not os.path.isdir(folder or "."):
        raise argparse.ArgumentTypeError(f"there is no folder {folder} to write into; make it first")
    return text


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; see the module's text for exit codes."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    known = [*_known(arguments), *([] if arguments.cold or arguments.scaling else [POINTERS])]
    arguments.what = arguments.what or known
    if unknown := sorted(set(arguments.what) - set(known)):
        parser.error(f"argument --what: {', '.join(unknown)} is none of {', '.join(known)}"
                     + "".join(did_you_mean(name, known) for name in unknown))
    run: dict[str, Any] = {**describe(arguments), "groups": []}
    failed = False
    try:
        measure(arguments, run)
    except KeyboardInterrupt:
        print("benchmark: interrupted; what was finished is kept", file=sys.stderr)
        failed = True
    except (OSError, ValueError) as error:
        from dataflows.terminal import warn

        warn(f"benchmark: {error}")
        return 2
    if run["groups"] or not failed:
        _write(run, arguments.out)
    return int(failed or any(result["error"] and not result.get("skipped") for group in run["groups"]
                             for result in [*group["results"], *group["limit"]]))


if __name__ == "__main__":
    sys.exit(main())
