"""Runs `benchmark.py --cold`: how fast records come off a disk when none of them is in memory.

Every reader runs each epoch in a fresh process, in turns, after the page cache has been dropped. Libraries are loaded
and one batch is read before that; the files are opened again after it. Ratios are of the bytes needed per second,
within each round.
"""
import contextlib
import mmap
import os
import statistics
from typing import Any, Callable, Sequence

from benchmarks.contestants import Contestant, Job
from benchmarks.report import failure, number
from benchmarks.runner import Child, medians
from dataflows.system import disk_bytes
from dataflows.tools.text import aligned

_DROP = "/proc/sys/vm/drop_caches"
_LOOKS = 64  # at pages of a file that should be gone


def _reader(name: str, about: str, **options: Any) -> Contestant:
    return Contestant(name, "benchmarks.readers:reading", about, own_figures=True, options={"how": name}, **options)


READERS = {reader.name: reader for reader in (
    _reader("file", "the LMDB from start to end by read(): what the disk gives", one_file=True),
    _reader("files", "the source's files, shuffled: open and read each", formats=("jpeg",), by_format=False),
    _reader("lmdb-readahead", "LMDB as it is by default, shuffled keys", one_file=True),
    _reader("lmdb-random", "LMDB with readahead=False, shuffled keys, nothing asked for ahead", one_file=True),
    _reader("ours-shuffled", "bytes alone, by the chain of LMDBLoader"),
    _reader("ours-sequential", "bytes alone, by the chain of LMDBIterLoader, with a shuffle buffer of 50,000"),
    _reader("loader", "LMDBLoader, to batches"),
    _reader("iterloader", "LMDBIterLoader, to batches"),
)}
BASELINES = ("file", "lmdb-readahead")


def drop_page_cache(paths: Sequence[str]) -> str:
    """Takes these files out of the page cache, and all others where that is permitted; says how."""
    os.sync()  # what is not on the disk yet cannot be dropped
    try:
        with open(_DROP, "w") as file:
            file.write("3")
        return f"all, by {_DROP}"
    except OSError as error:
        for path in paths:
            with open(path, "rb") as content:
                os.posix_fadvise(content.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return (f"the files that are read, by posix_fadvise: {_DROP} cannot be written ({error.strerror}), so inodes "
                f"stay")


def check_droppable(path: str) -> None:
    """Raises OSError if reading the file after dropping it does not read a disk."""
    drop_page_cache([path])
    size, before = os.path.getsize(path), disk_bytes()
    pages = {i * size // _LOOKS // mmap.PAGESIZE for i in range(_LOOKS)}
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)  # nothing but what is looked at
        for page in pages:
            os.pread(file.fileno(), 1, page * mmap.PAGESIZE)
    after = disk_bytes()
    if before is not None and after is not None and after - before < len(pages) * mmap.PAGESIZE // 2:
        raise OSError(f"the page cache cannot be dropped: reading {path} reads no disk. It may be on a file system in "
                      f"memory (tmpfs) or one that Linux does not count (FUSE), or be mapped by another process. Give "
                      f"a --lmdb on a disk")


def run_cold(readers: Sequence[Contestant], job: Job, epochs: int, timeout_s: float, report: Callable[[str], None],
             drop: Callable[[], Any]) -> list[dict[str, Any]]:
    """One result per reader: {"contestant", "error", "epochs", "median"}; after an error "median" is None.

    `drop` is called before each epoch.
    """
    results: list[dict[str, Any]] = [{"contestant": reader.name, "error": None, "epochs": []} for reader in readers]
    for round_ in range(epochs):
        with contextlib.ExitStack() as stack:
            # All start before the first cache is dropped: the libraries that they have mapped stay.
            turns = [(result, stack.enter_context(Child(reader, job, timeout_s)))
                     for result, reader in zip(results, readers) if not result["error"]]
            for _, child in turns:
                child.open()
            for result, child in turns[::-1] if round_ % 2 else turns:
                report(f"cold epoch {round_ + 1} of {epochs}: {result['contestant']}")
                drop()
                child.run_epoch(round_)
                child.close()
                result["error"] = child.error
                result["epochs"] += child.epochs
    return [result | {"median": None if result["error"] else medians(result["epochs"])} for result in results]


def ratio(result: dict[str, Any], baseline: dict[str, Any]) -> float | None:
    """How many times the baseline's bytes per second: the median over the rounds, each compared within itself."""
    if baseline["error"] or result["error"]:
        return None
    pairs = zip(result["epochs"], baseline["epochs"])
    return statistics.median(float(ours["mb_per_s"] / theirs["mb_per_s"]) for ours, theirs in pairs)


def table(group: dict[str, Any]) -> str:
    """One group's results, as text in columns."""
    results = {result["contestant"]: result for result in group["results"]}
    baselines = [name for name in BASELINES if name in results]
    rows = [["reader", "images/s", "MB/s", *(f"x {name}" for name in baselines), "read/needed", "first batch s"]]
    for name, result in results.items():
        if result["error"]:
            rows.append([name, failure(result)])
            continue
        median = result["median"]
        rows.append([name, f"{median['images_per_s']:,.0f}", f"{median['mb_per_s']:,.0f}",
                     *(number(ratio(result, results[other]), ".2f") for other in baselines),
                     number(median["read_per_needed"], ".2f"), f"{median['first_batch_s']:.3f}"])
    title = (f"{group['split']}, {group['format']}, cold: {group['images']:,} images, "
             f"{group['lmdb_bytes'] / 1e6:,.1f} MB LMDB; dropped: {group['dropped']}")
    return "\n".join([title, *aligned(rows)])
