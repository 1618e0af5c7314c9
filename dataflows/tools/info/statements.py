"""Puts the facts of a file (the table in `facts.py`) into words and charts, for a terminal and for a page."""
from typing import Any, NamedTuple

from dataflows.dump.findings import by_reason
from dataflows.terminal import plural, printable
from dataflows.tools.text import size_text

_MANY = 24  # classes, each of which has a bar of its own
FOUND = "What the dump found in its source"  # title of that part
_FEW = 5  # of many: examples, the largest classes, the smallest


class Chart(NamedTuple):
    """Bars: each a label, its length, and how that is written."""

    title: str
    bars: list[tuple[str, float, str]]


class Part(NamedTuple):
    """Facts that belong together, as (label, text); and their charts. All texts are printable."""

    title: str
    facts: list[tuple[str, str]]
    charts: list[Chart]


def statements(facts: dict[str, Any]) -> list[Part]:
    """All that the facts say."""
    if facts["index"] is None:
        return [_unindexed(facts), _sampled(facts["sample"])]
    return [_made(facts), _stored(facts), _sizes(facts["sizes"]), _labels(facts), _found(facts["found"])]


def _unindexed(facts: dict[str, Any]) -> Part:
    return Part("What it is", [
        ("records", f"{facts['records']:,} in {size_text(facts['file_bytes'])}"),
        ("index", "none: it was written by another program, or its index was left behind"),
        ("not known", "how it was made, the names of classes and of files, how many images each class has, all sizes, "
                      "and whether the file is as it was written. dump_imagenet.py writes an index that tells"),
    ], [])


def _sampled(sample: dict[str, Any]) -> Part:
    labels, sizes = sample["labels"], sample["label_sizes"]
    told = [f"{labels[0]} to {labels[-1]}, {len(labels):,} distinct"] if labels else []
    told += [f"vectors of {size} numbers: {count:,}" for size, count in sizes.items()]
    return Part(f"A look at {plural(len(sample['numbers']), 'record')}, spread evenly", [
        *_kinds(sample),
        ("labels", "; ".join(told) or "none"),
    ], [Chart("shorter side of these images, pixels", _bars(sample["shorter_side"]))] if sample["shorter_side"] else [])


def _kinds(sample: dict[str, Any]) -> list[tuple[str, str]]:
    told = [("written as", _counted(sample["serializers"])), ("images", _counted(sample["kinds"]))]
    if sample["tile_widths"]:
        told.append(("tile width", "pixels: " + ", ".join(f"{width} in {count:,}"
                                                          for width, count in sample["tile_widths"].items())))
    if "CHW" in sample["array_layouts"]:
        told.append(("arrays", f"{sample['array_layouts']['CHW']:,} of shape (3, H, W), which loaders read with "
                               f"array_layout='CHW'; whether they are RGB or BGR, look at a sheet"))
    told += [("unreadable", printable(f"{found['error']}")) for found in sample["unreadable"][:_FEW]]
    if len(sample["unreadable"]) > _FEW:
        told.append(("", f"and {len(sample['unreadable']) - _FEW:,} more"))
    return told


def _made(facts: dict[str, Any]) -> Part:
    dump = facts["dump"]
    classes, vectors = facts["classes"], facts["vectors"]
    options = [f"{name}={value}" for name, value in dump["options"].items() if value is not None]
    return Part("How it was made", [
        ("split", printable(f"{dump['split']}, as {dump['format']}: {plural(facts['records'], 'record')} of "
                            f"{plural(classes['number'], 'class', 'classes')}" if vectors is None else
                            f"{dump['split']}, as {dump['format']}: {plural(facts['records'], 'record')} with labels "
                            f"of {plural(len(vectors), 'number')}")),
        ("source", printable(dump["layout"])),
        ("order", f"a permutation, of seed {dump['seed']}" if dump["seed"] is not None
         else f"that of the source{': sorted by class' * (classes is not None and classes['sorted'])}"),
        ("options", printable(", ".join(options) or "none")),
        ("tools", printable(", ".join(f"{name} {version}" for name, version in dump["tools"].items()) or "not stated")),
        ("index", printable(f"{facts['index']}: the dump is complete")),
    ], [])


def _stored(facts: dict[str, Any]) -> Part:
    stored, tiles, sample = facts["bytes"], facts["tiles"], facts["sample"]
    told = [("file", f"{size_text(facts['file_bytes'])}, of which records {size_text(stored['total'])}; as pixels they "
                     f"would be {size_text(stored['pixels'])}"),
            ("a record", f"{size_text(stored['total'] / facts['records'])} on average, {size_text(stored['least'])} to "
                         f"{size_text(stored['most'])}, median {size_text(stored['median'])}")]
    if tiles is not None:
        told.append(("tiled", f"{tiles['tiled']:,} of {facts['records']:,} JPEGs; decoded whole: "
                              f"{printable(_counted(tiles['stored_whole']))}"))
    told += [("a sample", f"a look at {plural(len(sample['numbers']), 'record')}, spread evenly"), *_kinds(sample)]
    return Part("What is stored", told, [_record_bytes(stored["histogram"])])


def _sizes(sizes: dict[str, Any]) -> Part:
    common = [(f"{size['width']:,} x {size['height']:,}", size["images"], f"{size['images']:,}")
              for size in sizes["most_common"]]
    return Part("Sizes of images", [
        ("distinct", f"{sizes['distinct']:,}"),
    ], [Chart("most frequent, width x height in pixels", common),
        Chart("shorter side, pixels", _bars(sizes["shorter_side"])),
        Chart("longer side, pixels", _bars(sizes["longer_side"]))])


def _classes(classes: dict[str, Any]) -> Part:
    told = [("number", f"{classes['number']:,}" + (f", of which {classes['empty']:,} have no image"
                                                   if classes["empty"] else "")),
            ("images", f"{classes['least']:,} to {classes['most']:,} of each, median {classes['median']:,}")]
    counts = classes["counts"]
    if len(counts) <= _MANY:
        return Part("Classes", told, [Chart("images of each class", [_class_bar(entry) for entry in counts])])
    ranked = sorted(counts, key=lambda entry: -entry["images"])
    return Part("Classes", told, [Chart("classes, by how many images they have", _bars(classes["histogram"])),
                                  Chart("most images", [_class_bar(entry) for entry in ranked[:_FEW]]),
                                  Chart("fewest images", [_class_bar(entry) for entry in ranked[-_FEW:]])])


def _labels(facts: dict[str, Any]) -> Part:
    if facts["vectors"] is None:
        return _classes(facts["classes"])
    vectors = facts["vectors"]
    told = [(printable(entry["name"]), f"mean {entry['mean']:.4g}, {entry['least']:.4g} to {entry['most']:.4g}, "
                                       f"not 0 in {entry['nonzero']:.1%}") for entry in vectors[:_MANY]]
    if len(vectors) > _MANY:
        told.append(("", f"and {len(vectors) - _MANY:,} more; --json lists them"))
    return Part("Labels", [("vectors", f"of {plural(len(vectors), 'number')}"), *told], [])


def _class_bar(entry: dict[str, Any]) -> tuple[str, float, str]:
    return printable(entry["name"]), entry["images"], f"{entry['images']:,}"


def _found(found: dict[str, Any]) -> Part:
    told = [(f"{entry['images']:,}", printable(f"{finding}: {', '.join(entry['examples'])}"
                                               + ", ..." * (entry["images"] > len(entry["examples"]))))
            for finding, entry in found["findings"].items()]
    reasons = by_reason(found["skipped"])
    told += [("left out", printable(f"{plural(len(names), 'file')}: {reason}: {', '.join(names[:_FEW])}"
                                    + ", ..." * (len(names) > _FEW)))
             for reason, names in list(reasons.items())[:2 * _FEW]]
    if len(reasons) > 2 * _FEW:
        told.append(("", f"and files for {len(reasons) - 2 * _FEW:,} other reasons; --json lists them"))
    if found["left_out"]:
        told.append(("left out", printable(f"by name or place: {_counted(found['left_out'])}")))
    told += [("classes", printable(text)) for text in found["class_counts"][:_FEW]]
    return Part(FOUND, told or [("", "nothing unusual")], [])


def _bars(histogram: list[dict[str, int]]) -> list[tuple[str, float, str]]:
    return [(_range(entry["least"], entry["most"]), entry["number"], f"{entry['number']:,}") for entry in histogram]


def _record_bytes(histogram: list[dict[str, int]]) -> Chart:
    if histogram and histogram[-1]["most"] < 10_000:  # small images, whose bounds in KB would be equal
        return Chart("bytes of a record", _bars(histogram))
    return Chart("size of a record, KB", [
        (f"{entry['least'] / 1e3:,.0f}-{(entry['most'] + 1) / 1e3:,.0f}", entry["number"], f"{entry['number']:,}")
        for entry in histogram])


def _range(least: int, most: int) -> str:
    return f"{least:,}" if least == most else f"{least:,}-{most:,}"


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items()) or "none"
