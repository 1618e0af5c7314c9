"""Measures what the command line asks for: all contestants of each split and format, cold readers, or scaling."""
import argparse
import os
import statistics
import sys
from typing import Any, Callable, Sequence

from benchmarks import cold, remote, scaling
from benchmarks.contestants import CONTESTANTS, LIMIT, Contestant, Job
from benchmarks.inputs import prepare, subset
from benchmarks.report import table
from benchmarks.runner import run_group
from dataflows.storage.shards.files import shard_files
from dataflows.storage.shards.manifest import SUFFIX
from dataflows.tools.advise.predict import worker_counts

# What imports torch, OpenCV or tensorpack is imported where it is used: every contestant's process imports this file.

POINTERS = "pointers"  # a measurement of its own, not a contestant
IMAGENET = 1_281_167  # images of its train split


def known(arguments: argparse.Namespace) -> dict[str, Contestant]:
    """What this kind of run can measure, by name."""
    kinds = ((arguments.cold, cold.READERS), (arguments.scaling, scaling.SERIES), (arguments.remote, remote.SERIES))
    return next((found for chosen, found in kinds if chosen), CONTESTANTS)


def choose(names: Sequence[str], known: dict[str, Contestant] = CONTESTANTS) -> tuple[list[Contestant], dict[str, str]]:
    """The contestants of these names that can run, and why each other one cannot."""
    chosen = [known[name] for name in names if name != POINTERS]
    skipped = {c.name: f"not installed: {', '.join(c.missing())}" for c in chosen if c.missing()}
    return [contestant for contestant in chosen if contestant.name not in skipped], skipped


def measure(arguments: argparse.Namespace, run: dict[str, Any]) -> None:
    """Runs all groups, prints their tables and appends their figures to run["groups"]."""
    contestants, run["skipped"] = choose(arguments.what, known(arguments))
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
        if path.endswith(SUFFIX):
            participants = _of_many_files(participants, path, run)
        if not participants:
            continue
        job = Job(source, split, path, folder, images, arguments.batch_size, arguments.num_workers)
        nbytes = sum(map(os.path.getsize, shard_files(path) or [path]))
        group = {"split": split, "format": format, "images": images, "lmdb_bytes": nbytes}
        limits = [LIMIT] if any(contestant.limit for contestant in participants) else []
        if arguments.cold:
            _measure_cold(participants, job, group, arguments, run)
            continue
        results = run_group([*participants, *limits], job, arguments.epochs, arguments.timeout or 120 + images / 10,
                            _progress(split, format))
        group["results"], group["limit"] = results[:len(participants)], results[len(participants):]
        run["groups"].append(group)
        print(f"\n{(remote.table if arguments.remote else table)(group)}\n", flush=True)


def _of_many_files(contestants: list[Contestant], manifest: str, run: dict[str, Any]) -> list[Contestant]:
    for contestant in contestants:
        if contestant.one_file and contestant.name not in run["skipped"]:
            run["skipped"][contestant.name] = f"it reads one LMDB file, and {manifest} has several"
            print(f"{contestant.name} is skipped: {run['skipped'][contestant.name]}")
    return [contestant for contestant in contestants if not contestant.one_file]


def _measure_cold(readers: Sequence[Contestant], job: Job, group: dict[str, Any], arguments: argparse.Namespace,
                  run: dict[str, Any]) -> None:
    from dataflows.sources.imagenet import ImageNetFiles

    files = ImageNetFiles(job.source, job.split)
    paths = [*(shard_files(job.lmdb) or [job.lmdb]), *(os.path.join(files.root, name) for name, _ in files)]
    cold.check_droppable(paths[0])
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
    images, workers = len(ImageNetFiles(source, split)), worker_counts(arguments.num_workers)
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
        print(f"The pointer chain of the {name} takes {statistics.median(costs):.2f} µs per image of its thread's "
              f"time, with {IMAGENET:,} records")
