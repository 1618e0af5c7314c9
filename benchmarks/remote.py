"""Runs `benchmark.py --remote`: a data set at a URL against the same file here, in turns.

Each contestant that reads from a URL has a server of its own, in its process group: so it is stopped while others run.
It serves from the page cache of the same processors, over the loopback device.
"""
import contextlib
import os
import tempfile
import time
from typing import Any, Iterator

from benchmarks.contestants import SHUFFLE_BUFFER, Contestant, Epoch, Job
from benchmarks.range_server import kind, serving
from benchmarks.report import failure, number, ratio
from dataflows.tools.text import aligned

# Imported where they are used: what needs torch or OpenCV. Every contestant's process imports this file.

BASELINES = {"remote": "local", "cached": "local", "remote-iterloader": "local-iterloader"}


@contextlib.contextmanager
def loader(job: Job, cached: bool = False, iterates: bool = False) -> Iterator[Epoch]:
    """A loader of the split's LMDB at a URL; `cached`, whose first epoch ends when all of it is in a folder here."""
    from benchmarks.contestants.ours import transform
    from uint_lmdb_iterloader import LMDBIterLoader
    from uint_lmdb_loader import LMDBLoader

    folder, name = os.path.split(job.lmdb)
    with serving(folder) as url, tempfile.TemporaryDirectory() as cache:
        options: dict[str, Any] = {"transform": transform(job), "num_workers": job.num_workers}
        options |= {"cache_dir": cache} if cached else {}
        options |= ({"order": "local" if job.training else "sequential", "shuffle_buffer": SHUFFLE_BUFFER} if iterates
                    else {"shuffle": job.training})
        with (LMDBIterLoader if iterates else LMDBLoader)(f"{url}/{name}", job.batch_size, **options) as batches:

            def epoch(number: int) -> Iterator[Any]:
                batches.set_epoch(number)
                yield from batches
                while cached and not any(entry.endswith(".lmdb") for entry in os.listdir(cache)):
                    time.sleep(0.05)

            yield epoch


def _contestant(name: str, about: str, **options: bool) -> Contestant:
    return Contestant(name, "benchmarks.remote:loader", about, needs=("fsspec",), options=dict(options))


SERIES = {one.name: one for one in (
    Contestant("local", "benchmarks.contestants.ours:loader", "LMDBLoader over the file here"),
    _contestant("remote", "LMDBLoader over the file at a URL, by ranges"),
    _contestant("cached", "the same with cache_dir: its first epoch, which does not count, fills it", cached=True),
    Contestant("local-iterloader", "benchmarks.contestants.ours:iterloader", "LMDBIterLoader over the file here"),
    _contestant("remote-iterloader", "LMDBIterLoader over the file at a URL, by ranges", iterates=True),
)}


def table(group: dict[str, Any]) -> str:
    """One group's results, as text in columns; ratios are medians of those within each round."""
    results = {result["contestant"]: result for result in group["results"]}
    rows = [["loader", "images/s", "x local", "first batch s", "opening s"]]
    for name, result in results.items():
        if result["error"]:
            rows.append([name, failure(result)])
            continue
        median, baseline = result["median"], results.get(BASELINES.get(name, ""))
        rows.append([name, f"{median['images_per_s']:,.0f}",
                     number(None if baseline is None else ratio(result, baseline), ".2f"),
                     f"{median['first_batch_s']:.3f}", f"{result['open_s']:.2f}"])
    title = (f"{group['split']}, {group['format']}, remote: {group['images']:,} images, "
             f"{group['lmdb_bytes'] / 1e6:,.1f} MB LMDB, served by {kind()}")
    return "\n".join([title, *aligned(rows)])
