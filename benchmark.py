"""Compares this project's loaders with other libraries, on one folder of images.

    python benchmark.py --source IMAGENET --lmdb DIR

reads IMAGENET/train and IMAGENET/val, and DIR/jpeg and DIR/uint8 (the latter shrunk to 500 pixels at most), which it
dumps first where they are missing; copies in formats of other libraries are made beside them. Prints a table per split
and format, and writes benchmark.json, which holds every epoch, and benchmark.png.

Each contestant has a process of its own. In each round, every contestant runs one epoch while the others are stopped.
The first round warms up, and the others count. Batches are uint8 (B, 3, 224, 224). For train they are shuffled,
randomly cropped and flipped; for any other split, images are resized to 256 and center-cropped. Contestants named
-erasing and -trivial go on as torchvision's reference training does, to normalized float32: with RandomErasing, or with
TrivialAugmentWide; ratios are taken among those that do the same. An epoch should have
2,000 images or more, because some contestants have hundreds ready when it starts. The table shows medians over the
counted epochs:

    images/s       with the range; x BASELINE is the median of the ratios within each round
    CPU ms/image   processor time of the process and all of its workers
    x limit        that time / what the crops alone take, by this project's kernels, which each round measures, too (see
                   benchmarks/limit.py); for this project's loaders
    peak MB        their anonymous and shared memory together; mapped files are page cache, and do not count
    growth MB      by how much anonymous memory grew from the end of the first counted epoch to that of the last
    first batch s  from asking for an epoch to its first batch
    cold start s   the same for the first epoch of a new process. It includes opening the file. Some contestants need
                   a copy of the source: the first run makes it, and this time is included, too

With --cold it measures storage instead: readers read the bytes of an epoch from the disk. Before each epoch a new
process starts and the page cache is dropped: all of it where root runs this, else the files that are read (see
benchmarks/cold.py). The table shows medians of:

    MB/s           of the bytes that are needed; x BASELINE as above, of this figure
    read/needed    bytes that the process read from the disk / bytes needed
    first batch s  from before the file is opened

With --remote it measures data sets at URLs instead: a server on this machine, nginx where it is installed, serves DIR's
files. The table shows medians, and the ratios to the same loader over the file here.

With --scaling it measures how images/s grow with the number of workers: 1, 2, 4 ... up to --num-workers, all in turns.
The series are LMDBLoader over tiled JPEGs, over the files' own JPEGs (dumped into DIR/jpeg-no-tiles) and over pixels,
and torch's DataLoader over the folder. Prints the median images/s, and PATH.png shows them.

A contestant is skipped, and the reason is printed, if its library is not installed, cannot be imported or does not
start.

Exit code 0: all others ran; 1: some failed, or the run was interrupted; 2: the arguments were refused, or the page
cache cannot be dropped.
"""
import argparse
import importlib.util
import json
import math
import os
import signal
import sys
from typing import Any, Sequence

from benchmarks import cold, remote, scaling
from benchmarks.contestants import CONTESTANTS, Contestant
from benchmarks.machine import describe
from benchmarks.measure import POINTERS, known, measure
from benchmarks.report import plot
from dataflows.arguments import ArgumentParser, did_you_mean, whole_number


def _write(run: dict[str, Any], out: str) -> None:
    with open(f"{out}.json", "w") as file:
        json.dump(run, file, indent=1)
    print(f"Wrote {out}.json", end="")
    if run["arguments"]["cold"] or run["arguments"]["remote"]:  # a table says it all
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
             + ". With --remote: " + _names(remote.SERIES) + ". With --scaling: " + _names(scaling.SERIES))
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--cold", action="store_true", help="measure reading from a disk, with nothing in memory")
    kind.add_argument("--remote", action="store_true", help="measure data sets at URLs, of a server on this machine")
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
    names = [*known(arguments), *([] if arguments.cold or arguments.scaling or arguments.remote else [POINTERS])]
    arguments.what = arguments.what or names
    if unknown := sorted(set(arguments.what) - set(names)):
        parser.error(f"argument --what: {', '.join(unknown)} is none of {', '.join(names)}"
                     + "".join(did_you_mean(name, names) for name in unknown))
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
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends a run as Ctrl-C does
    sys.exit(main())
