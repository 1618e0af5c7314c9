"""Puts the facts of a file (the table in `facts.py`) into words and charts, for a terminal and for a page."""
from typing import Any, NamedTuple, Sequence

from dataflows.dump.findings import by_reason
from dataflows.terminal import plural, printable
from dataflows.tools.text import size_text

_MANY = 24  # classes, each of which has a bar of its own
FOUND = "What the dump found in its source"  # title of that part
_FEW = 5  # of many: examples, the largest classes, the smallest


class Chart(NamedTuple):
    """Bars: each a label, and a number of records as its length."""

    title: str
    bars: list[tuple[str, int]]


class Part(NamedTuple):
    """Facts that belong together, as (label, text); and their charts. All texts are printable."""

    title: str
    facts: list[tuple[str, str]]
    charts: Sequence[Chart] = ()


def statements(facts: dict[str, Any]) -> list[Part]:
    """All that the facts say."""
    if facts["index"] is None:
        return [_unindexed(facts), _sampled(facts["sample"])]
    labels = _classes(facts["classes"]) if facts["vectors"] is None else _vectors(facts["vectors"])
    return [_made(facts), _stored(facts), _sizes(facts["sizes"]), labels, _found(facts["found"])]


def _unindexed(facts: dict[str, Any]) -> Part:
    return Part("What it is", [
        ("records", f"{facts['records']:,} in {size_text(facts['file_bytes'])}"),
        ("index", "none: it was written by another program, or its index was left behind"),
        ("not known", "how it was made, the names of classes and of files, how many images each class has, all sizes, "
                      "and whether the file is as it was written. dump_imagenet.py writes an index that tells")])


def _sampled(sample: dict[str, Any]) -> Part:
    labels, sizes = sample["labels"], sample["shorter_side"]
    told = [f"{labels[0]} to {labels[-1]}, {len(labels):,} distinct"] if labels else []
    told += [f"vectors of {size} numbers: {count:,}" for size, count in sample["label_sizes"].items()]
    return Part(f"A look at {plural(len(sample['numbers']), 'record')}, spread evenly",
                [*_kinds(sample), ("labels", "; ".join(told) or "none")],
                [Chart("shorter side of these images, pixels", _bars(sizes))] if sizes else [])


def _kinds(sample: dict[str, Any]) -> list[tuple[str, str]]:
    told = [("written as", _counted(sample["serializers"])), ("images", _counted(sample["kinds"]))]
    widths = [f"{width} in {count:,}" for width, count in sample["tile_widths"].items()]
    if widths:
        told.append(("tile width", f"pixels: {', '.join(widths)}"))
    if "CHW" in sample["array_layouts"]:
        told.append(("arrays", f"{sample['array_layouts']['CHW']:,} of shape (3, H, W), which loaders read with "
                               f"array_layout='CHW'; whether they are RGB or BGR, look at a sheet"))
    errors = [("unreadable", printable(found["error"])) for found in sample["unreadable"]]
    return told + errors[:_FEW] + _more(len(errors) - _FEW, "more")


def _made(facts: dict[str, Any]) -> Part:
    dump, classes, vectors = facts["dump"], facts["classes"], facts["vectors"]
    options = [f"{name}={value}" for name, value in dump["options"].items() if value is not None]
    tools = [f"{name} {version}" for name, version in dump["tools"].items()]
    labels = (f"of {plural(classes['number'], 'class', 'classes')}" if vectors is None else
              f"with labels of {plural(len(vectors), 'number')}")
    source_order = "that of the source" + ": sorted by class" * (classes is not None and classes["sorted"])
    return Part("How it was made", [(label, printable(text)) for label, text in (
        ("split", f"{dump['split']}, as {dump['format']}: {plural(facts['records'], 'record')} {labels}"),
        ("source", dump["layout"]),
        ("order", source_order if dump["seed"] is None else f"a permutation, of seed {dump['seed']}"),
        ("options", ", ".join(options) or "none"),
        ("tools", ", ".join(tools) or "not stated"),
        ("index", f"{facts['index']}: the dump is complete"))])


def _stored(facts: dict[str, Any]) -> Part:
    stored, tiles, sample = facts["bytes"], facts["tiles"], facts["sample"]
    told = [("file", f"{size_text(facts['file_bytes'])}, of which records {size_text(stored['total'])}; as pixels they "
                     f"would be {size_text(stored['pixels'])}"),
            ("a record", f"{size_text(stored['total'] / facts['records'])} on average, {size_text(stored['least'])} to "
                         f"{size_text(stored['most'])}, median {size_text(stored['median'])}")]
    if tiles is not None:
        told.append(("tiled", f"{tiles['tiled']:,} of {facts['records']:,} JPEGs; decoded whole: "
                              f"{_counted(tiles['stored_whole'])}"))
    told += [("a sample", f"a look at {plural(len(sample['numbers']), 'record')}, spread evenly"), *_kinds(sample)]
    return Part("What is stored", told, [_record_bytes(stored["histogram"])])


def _sizes(sizes: dict[str, Any]) -> Part:
    common = [(f"{size['width']:,} x {size['height']:,}", size["images"]) for size in sizes["most_common"]]
    return Part("Sizes of images", [("distinct", f"{sizes['distinct']:,}")],
                [Chart("most frequent, width x height in pixels", common),
                 Chart("shorter side, pixels", _bars(sizes["shorter_side"])),
                 Chart("longer side, pixels", _bars(sizes["longer_side"]))])


def _classes(classes: dict[str, Any]) -> Part:
    empty = f", of which {classes['empty']:,} have no image" if classes["empty"] else ""
    told = [("number", f"{classes['number']:,}{empty}"),
            ("images", f"{classes['least']:,} to {classes['most']:,} of each, median {classes['median']:,}")]
    counts = [(printable(entry["name"]), entry["images"]) for entry in classes["counts"]]
    if len(counts) <= _MANY:
        return Part("Classes", told, [Chart("images of each class", counts)])
    ranked = sorted(counts, key=lambda bar: -bar[1])
    return Part("Classes", told, [Chart("classes, by how many images they have", _bars(classes["histogram"])),
                                  Chart("most images", ranked[:_FEW]), Chart("fewest images", ranked[-_FEW:])])


def _vectors(vectors: list[dict[str, Any]]) -> Part:
    told = [(printable(entry["name"]), f"mean {entry['mean']:.4g}, {entry['least']:.4g} to {entry['most']:.4g}, "
                                       f"not 0 in {entry['nonzero']:.1%}") for entry in vectors[:_MANY]]
    return Part("Labels", [("vectors", f"of {plural(len(vectors), 'number')}"), *told,
                           *_more(len(vectors) - _MANY, "more; --json lists them")])


def _found(found: dict[str, Any]) -> Part:
    told = [(f"{entry['images']:,}", f"{finding}: {_some(entry['examples'], entry['images'])}")
            for finding, entry in found["findings"].items()]
    reasons = [("left out", f"{plural(len(names), 'file')}: {reason}: {_some(names[:_FEW], len(names))}")
               for reason, names in by_reason(found["skipped"]).items()]
    told += reasons[:2 * _FEW]
    told += _more(len(reasons) - 2 * _FEW, "other reasons; --json lists them", "and files for")
    if found["left_out"]:
        told.append(("left out", f"by name or place: {_counted(found['left_out'])}"))
    told += [("classes", text) for text in found["class_counts"][:_FEW]]
    return Part(FOUND, [(label, printable(text)) for label, text in told] or [("", "nothing unusual")])


def _bars(histogram: list[dict[str, int]]) -> list[tuple[str, int]]:
    return [(f"{least:,}" if least == most else f"{least:,}-{most:,}", number)
            for least, most, number in (entry.values() for entry in histogram)]


def _record_bytes(histogram: list[dict[str, int]]) -> Chart:
    if histogram and histogram[-1]["most"] < 10_000:  # small images, whose bounds in KB would be equal
        return Chart("bytes of a record", _bars(histogram))
    return Chart("size of a record, KB", [(f"{entry['least'] / 1e3:,.0f}-{(entry['most'] + 1) / 1e3:,.0f}",
                                           entry["number"]) for entry in histogram])


def _some(names: list[str], count: int) -> str:
    """Some names of so many."""
    return ", ".join(names) + ", ..." * (count > len(names))


def _more(count: int, what: str, before: str = "and") -> list[tuple[str, str]]:
    """The line on what is left out, if there is anything."""
    return [("", f"{before} {count:,} {what}")] if count > 0 else []


def _counted(counts: dict[str, int]) -> str:
    return printable(", ".join(f"{count:,} {name}" for name, count in counts.items()) or "none")
