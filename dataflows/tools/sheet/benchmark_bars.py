"""Draws a JSON file of benchmark.py as bars: images/s of each contestant, with the range over its epochs."""
import json
import math
import statistics
from typing import Any, NamedTuple

from dataflows.terminal import printable
from dataflows.tools.sheet.html import Bar

_TOLD = ("python", "torch", "opencv-python", "simplejpeg")  # whose versions are shown
_OURS = ("loader", "iterloader", "dataset", "ours")  # how our contestants' names start


class Measured(NamedTuple):
    """One group of contestants that ran in turns. All texts are printable."""

    title: str
    unit: str
    bars: list[Bar]  # the fastest first: median, least and greatest of the counted epochs
    failed: list[str]  # who did not finish, and why
    skipped: list[str]  # other libraries that did not start, and why: no fault of the run


def measured(path: str) -> tuple[str, list[Measured]]:
    """(what machine and versions, the groups) of a benchmark.json, cold or warm.

    Raises FileNotFoundError, or ValueError, naming the file, if it is anything else.
    """
    with open(path, encoding="utf-8") as file:
        try:
            run = json.load(file)
            cold = bool(run["arguments"]["cold"])
            return _machine(run), [_group(group, cold) for group in run["groups"]]
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is not what benchmark.py writes ({type(error).__name__}: {error}). Give the JSON "
                             f"file of a run of it") from error


def _machine(run: dict[str, Any]) -> str:
    arguments, versions = run["arguments"], run["versions"]
    told = [f"{name} {versions[name]}" for name in _TOLD if name in versions]
    missing = "".join(f" Skipped: {name}, {reason}." for name, reason in run.get("skipped", {}).items())
    return printable(f"{run['processor']}, {run['cpu_count']} processors; {arguments['num_workers']} workers, batches "
                     f"of {arguments['batch_size']}; {', '.join(told)}.{missing}")


def _group(group: dict[str, Any], cold: bool) -> Measured:
    figure, unit = ("mb_per_s", "MB/s") if cold else ("images_per_s", "images/s")
    title = (f"{group['split']}, {group['format']}{', cold' * cold}: {group['images']:,} images, "
             f"{group['lmdb_bytes'] / 1e6:,.1f} MB")
    found = Measured(printable(title), unit, [], [], [])
    for result in group["results"]:
        name = printable(result["contestant"])
        if result["error"]:
            others = found.skipped if result.get("skipped") else found.failed
            others.append(f"{name}: {printable(result['error'].splitlines()[-1])}")
            continue
        rates = [_rate(epoch[figure]) for epoch in result["epochs"][0 if cold else 1:]]  # the first one warms up
        median = statistics.median(rates)
        found.bars.append(Bar(name, median, f"{median:,.0f}", min(rates), max(rates), name.split("-")[0] in _OURS))
    found.bars.sort(key=lambda bar: -bar.value)
    return found


def _rate(value: Any) -> float:
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{value} is no rate")
    return float(value)
