"""Runs `benchmark.py --scaling`: images/s by the number of workers, for each stored format.

Every series with every number of workers is a contestant of one group, so all of them take turns within each round, and
what else the machine does slows all points of the plot alike.
"""
import contextlib
import dataclasses
import os
import statistics
from typing import Any, Sequence

from benchmarks.contestants import Contestant, Epoch, Job
from benchmarks.report import failure
from dataflows.terminal import plural
from dataflows.tools.text import aligned

# Imported where they are used: what needs torch, OpenCV or matplotlib. Every contestant's process imports this file.


def folder(job: Job, num_workers: int) -> contextlib.AbstractContextManager[Epoch]:
    """torch's DataLoader over the folder of files, in processes."""
    from benchmarks.contestants.torch_folder import folder_pil

    return folder_pil(dataclasses.replace(job, num_workers=num_workers))


def loader(job: Job, num_workers: int, dump: str) -> contextlib.AbstractContextManager[Epoch]:
    """LMDBLoader over the split of this dump, in threads."""
    from benchmarks.contestants import ours

    lmdb = os.path.join(job.scratch, dump, f"{job.split}.lmdb")
    return ours.loader(dataclasses.replace(job, lmdb=lmdb), num_workers=num_workers)


def _loader(dump: str, format: str, about: str) -> Contestant:
    return Contestant(dump, "benchmarks.scaling:loader", f"LMDBLoader, {about}", formats=(format,),
                      options={"dump": dump})


NO_TILES = "jpeg-no-tiles"  # a dump beside those that are named by their format
SERIES = {series.name: series for series in (
    Contestant("folder", "benchmarks.scaling:folder", "torch DataLoader over a folder of files, PIL", needs=("PIL",)),
    _loader(NO_TILES, "jpeg", "the files' own JPEGs"),
    _loader("jpeg", "jpeg", "tiled JPEGs"),
    _loader("uint8", "uint8", "pixels, at most 500 a side"),
)}
_COLORS = {"folder": "#9a9a9a", NO_TILES: "#7fb2d1", "jpeg": "#1f5f8b", "uint8": "#e0913a"}


def points(series: Sequence[Contestant], counts: Sequence[int]) -> list[Contestant]:
    """A contestant for each series and number of workers."""
    return [dataclasses.replace(one, name=point_name(one.name, count), options=one.options | {"num_workers": count})
            for one in series for count in counts]


def point_name(series: str, workers: int) -> str:
    """The contestant's name."""
    return f"{series}, {plural(workers, 'worker')}"


def _rates(group: dict[str, Any], series: str, workers: int) -> list[float]:
    """images/s of the counted epochs; none if it failed."""
    [result] = [one for one in group["results"] if one["contestant"] == point_name(series, workers)]
    return [] if result["error"] else [epoch["images_per_s"] for epoch in result["epochs"][1:]]


def table(group: dict[str, Any]) -> str:
    """Median images/s: a row for each series, a column for each number of workers."""
    rows = [["images/s", *(plural(count, "worker") for count in group["workers"])]]
    for series in group["series"]:
        rates = [_rates(group, series, count) for count in group["workers"]]
        rows.append([series, *(f"{statistics.median(found):,.0f}" if found else "failed" for found in rates)])
    failed = [f"{result['contestant']} {failure(result)}" for result in group["results"] if result["error"]]
    return "\n".join([f"{group['split']}: {group['images']:,} images, {group['cpu_count']} processors", *aligned(rows),
                      *failed])


def plot(groups: Sequence[dict[str, Any]], path: str) -> None:
    """Writes a PNG: a panel per split, a line per series; bars are the range over the counted epochs."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(groups), figsize=(5.2 * len(groups), 4.6), squeeze=False,
                                   layout="constrained")
    for axis, group in zip(axes[0], groups):
        for series in group["series"]:
            found = {count: rates for count in group["workers"] if (rates := _rates(group, series, count))}
            middle = [statistics.median(rates) for rates in found.values()]
            below = [m - min(rates) for m, rates in zip(middle, found.values())]
            above = [max(rates) - m for m, rates in zip(middle, found.values())]
            axis.errorbar(list(found), middle, [below, above], color=_COLORS[series], marker="o", markersize=4,
                          elinewidth=0.8, capsize=2, label=SERIES[series].about)
        axis.set_xscale("log", base=2)  # both: where the work is shared out well, a line rises by one for each doubling
        axis.set_yscale("log", base=2)
        axis.set_xticks(group["workers"], [str(count) for count in group["workers"]], minor=False)
        axis.yaxis.set_major_formatter("{x:,.0f}")
        axis.set_title(f"{group['split']}, {group['cpu_count']} processors")
        axis.set_xlabel("workers (threads; of the folder, processes)")
        axis.set_ylabel("images/s")
        axis.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", frameon=False,
                  reverse=True)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
