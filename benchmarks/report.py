"""Prints figures as a table and draws them as a plot."""
import statistics
from typing import Any, Sequence

from benchmarks.contestants import BASELINES, CONTESTANTS
from dataflows.tools.text import aligned

_SERIES = {"files": "#9a9a9a", "jpeg": "#1f5f8b", "uint8": "#e0913a"}  # what a contestant reads, and its color


def ratio(result: dict[str, Any], baseline: dict[str, Any] | None) -> float | None:
    """How many times the baseline's images/s: the median over the rounds of the run, each compared within itself. None
    if one of them failed, or if they do other work: that of another recipe.
    """
    if baseline is None or baseline["error"] or result["error"] or _recipe(result) != _recipe(baseline):
        return None
    pairs = zip(result["epochs"][1:], baseline["epochs"][1:])
    return statistics.median(ours["images_per_s"] / theirs["images_per_s"] for ours, theirs in pairs)


def _recipe(result: dict[str, Any]) -> str:
    contestant = CONTESTANTS.get(result["contestant"])  # readers of cold storage are none, and have no recipe
    return contestant.recipe if contestant else ""


def limit_ratio(result: dict[str, Any], limits: Sequence[dict[str, Any]]) -> float | None:
    """How many times the limit's processor time an image took: the median over the rounds. None if it has no limit."""
    figure = CONTESTANTS[result["contestant"]].limit
    if not figure or not limits or limits[0]["error"] or result["error"]:
        return None
    rounds = list(zip(result["epochs"][1:], limits[0]["epochs"][1:]))
    if any(ours["cpu_ms_per_image"] is None for ours, _ in rounds):
        return None
    return statistics.median(ours["cpu_ms_per_image"] / least[figure] for ours, least in rounds)


def table(group: dict[str, Any]) -> str:
    """One group's results, as text in columns."""
    results = {result["contestant"]: result for result in group["results"]}
    baselines = [name for name in BASELINES if name in results]
    rows = [["contestant", "images/s", "min-max", *(f"x {name}" for name in baselines), "CPU ms/image", "x limit",
             "peak MB", "growth MB", "first batch s", "cold start s"]]
    for name, result in results.items():
        if result["error"]:
            rows.append([name, failure(result)])
            continue
        median, rates = result["median"], [epoch["images_per_s"] for epoch in result["epochs"][1:]]
        rows.append([name, f"{median['images_per_s']:,.0f}", f"{min(rates):,.0f}-{max(rates):,.0f}",
                     *(number(ratio(result, results[other]), ".2f") for other in baselines),
                     number(median["cpu_ms_per_image"], ".2f"), number(limit_ratio(result, group["limit"]), ".2f"),
                     number(median["peak_mb"], ",.0f"), number(result["growth_mb"], "+,.1f"),
                     f"{median['first_batch_s']:.3f}",
                     f"{result['open_s'] + result['epochs'][0]['first_batch_s']:.2f}"])
    title = f"{group['split']}, {group['format']}: {group['images']:,} images, {group['lmdb_bytes'] / 1e6:,.1f} MB LMDB"
    return "\n".join([title, *aligned(rows), *map(_limit, group["limit"])])


def _limit(result: dict[str, Any]) -> str:
    if result["error"]:
        return f"CPU limit: {failure(result)}"
    terms = result["median"]
    return (f"CPU limit: {terms['limit_ms']:.2f} ms/image for the crops alone; {terms['limit_linear_ms']:.2f} with "
            f"INTER_LINEAR; {terms['limit_fast_ms']:.2f} and {terms['limit_linear_fast_ms']:.2f} with fast decoding; "
            f"{terms['libraries_ms']:.2f} by OpenCV and torch, of {terms['share']:.2f} of each image")


def failure(result: dict[str, Any]) -> str:
    """What became of a contestant that has an error, in one line; the whole of it is in the JSON file."""
    return f"{'skipped' if result.get('skipped') else 'failed'}: {_gist(result['error'])}"


def _gist(error: str) -> str:
    """The line that names the exception, if there is a traceback; else what happened, and the last line of output."""
    lines = error.splitlines()
    if "Traceback" in error:
        last_call = max((i for i, line in enumerate(lines) if line.startswith("  File ")), default=0)
        return next((line for line in lines[last_call + 1:] if not line.startswith(" ")), lines[-1])
    return lines[0] if len(lines) == 1 else f"{lines[0]} {lines[-1]}"


def number(value: float | None, form: str) -> str:
    """A figure in this form, or n/a."""
    return "n/a" if value is None else format(value, form)


def plot(groups: Sequence[dict[str, Any]], path: str) -> None:
    """Writes a PNG: a panel per split, bars of median images/s with the range over the counted epochs."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    splits = list(dict.fromkeys(group["split"] for group in groups))
    bars = {split: _bars([group for group in groups if group["split"] == split]) for split in splits}
    names = [name for name in CONTESTANTS if any(name in bar for bar in bars.values())]
    figure, axes = pyplot.subplots(1, len(splits), figsize=(5.2 * len(splits), 1.4 + 0.5 * len(names)), sharey=True,
                                   squeeze=False, layout="constrained")
    for axis, split in zip(axes[0], splits):
        for place, name in enumerate(names):
            series = bars[split].get(name, {})
            height = 0.8 / max(1, len(series))
            for i, (kind, (low, median, high)) in enumerate(series.items()):
                y = place + (i - (len(series) - 1) / 2) * height
                axis.barh(y, median, height * 0.92, color=_SERIES[kind], xerr=[[median - low], [high - median]],
                          error_kw={"elinewidth": 0.8, "ecolor": "#404040"})
                axis.annotate(f"{median:,.0f}", (high, y), xytext=(4, 0), textcoords="offset points", va="center",
                              fontsize=8)
        axis.set_title(split)
        axis.set_xlabel("images/s")
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(x=0.15)
    axes[0][0].set_yticks(range(len(names)), names)
    axes[0][0].invert_yaxis()
    shown = [kind for kind in _SERIES if any(kind in series for bar in bars.values() for series in bar.values())]
    if shown:
        labels = {"files": "the source's files or copies", "jpeg": "JPEG of the dump", "uint8": "uint8 pixels"}
        figure.legend([pyplot.Rectangle((0, 0), 1, 1, color=_SERIES[kind]) for kind in shown],
                      [labels[kind] for kind in shown], loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def _bars(groups: Sequence[dict[str, Any]]) -> dict[str, dict[str, tuple[float, float, float]]]:
    """(least, median, greatest) images/s by contestant and by what it reads. Failed contestants have no bar."""
    bars: dict[str, dict[str, tuple[float, float, float]]] = {}
    for group in groups:
        for result in group["results"]:
            if result["error"]:
                continue
            name, rates = result["contestant"], [epoch["images_per_s"] for epoch in result["epochs"][1:]]
            kind = group["format"] if CONTESTANTS[name].by_format else "files"
            # Readers of the source run in every group for the ratios; one bar is enough.
            bars.setdefault(name, {}).setdefault(kind, (min(rates), statistics.median(rates), max(rates)))
    return bars
