"""Tells what an LMDB file is, how it was made and what is in it, and reads no more than a few of its records.

Facts are a JSON object; what is not known is null.

    path, file_bytes   the LMDB
    index              path of its index; null when it has none, and then dump, tiles, bytes, sizes, classes, vectors,
                       found are
    records            how many
    dump               format, split, layout (what was found in the source), seed (null: not shuffled), options, tools
    tiles              tiled: how many JPEGs have tiles; stored_whole: how many have not, by reason; null if not wanted
    bytes              of records: total, least, median, most, histogram; pixels: height * width * 3 of all images
    sizes              distinct; most_common: width, height, images, of eight; shorter_side, longer_side: histograms
    classes            number, empty; sorted: whether records are in the order of their classes; least, median, most:
                       images of one class; histogram of these; counts: class, name,
                       images, by class number; null where labels are vectors
    vectors            the numbers of labels that are vectors, in their order: name, least, mean, most, nonzero (share
                       of records where it is not 0); null where labels are class numbers
    found              findings: images and examples (file names) by finding; skipped: name and reason of each file;
                       left_out: how many files were not looked at, by kind (names.py); equal_files: groups of equal
                       contents; class_counts: remarks
    sample             what a look at the headers of a few records told: numbers, of the records; serializers, kinds,
                       tile_widths (pixels), array_layouts, label_sizes (numbers of vectors): how many by each; labels:
                       the distinct class numbers, ascending; shorter_side: histogram; unreadable: key and error of each
                       record that is none

A histogram is a list of least, most (both included) and number.
"""
import contextlib
import os
from collections import Counter
from typing import Any, Iterable, Mapping

import numpy as np

from dataflows.dump.findings import examples
from dataflows.errors import RecordError
from dataflows.label_vectors import size_of
from dataflows.storage.index import Index
from dataflows.storage.index_meta import IndexMeta
from dataflows.storage.store import Store
from dataflows.terminal import printable
from dataflows.tools import text
from dataflows.tools.info.histogram import bins
from dataflows.tools.info.record_kind import record_kind
from dataflows.tools.info.statements import statements

SAMPLE = 100  # records that are looked at: 0.1 s, and some MB of a cold disk
WIDTH = 96  # columns of the text
_LABEL, _VALUE, _BAR = 32, 8, 48  # columns of a bar's label, of its value, and of itself at most


def describe(path: str | os.PathLike[str], *, storage_options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The facts of an LMDB file, by its index and a look at SAMPLE records, spread evenly.

    Takes seconds for a million records. A path may be a URL, reached by storage_options as LMDBLoader has them. Raises
    FileNotFoundError or ValueError, the Store's own, for a file that is missing, damaged or no LMDB, and for an index
    that is damaged or belongs to another file.

    >>> facts = describe("train.lmdb")
    >>> facts["records"], facts["classes"]["number"], facts["sample"]["kinds"]
    (23, 3, {'tiled JPEG': 23})
    """
    with contextlib.closing(Store(path, storage_options=storage_options)) as store:
        parts = dict.fromkeys(("dump", "tiles", "bytes", "sizes", "classes", "vectors", "found"))
        if store.index is not None and store.index_path is not None:
            parts = _indexed(store.index, store.index.checked_meta(store.index_path))
        return {"path": store.path, "file_bytes": store.nbytes, "index": store.index_path,
                "records": len(store), **parts, "sample": _sample(store)}


def _indexed(index: Index, made: IndexMeta) -> dict[str, Any]:
    """What only an index tells."""
    tiles = {"tiled": index.count - sum(made.untiled.values()), "stored_whole": made.untiled}
    pixels = 3 * int(np.dot(index.height.astype(np.int64), index.width))
    return {"dump": {name: getattr(made, name) for name in ("format", "split", "layout", "seed", "options", "tools")},
            "tiles": tiles if made.options.get("tiles") else None,
            "bytes": {"total": int(index.nbytes.sum()), **_spread(index.nbytes), "histogram": bins(index.nbytes),
                      "pixels": pixels},
            "sizes": _sizes(index.height, index.width),
            "classes": None if index.label_size else _classes(index.label, made),
            "vectors": _vectors(index) if index.label_size else None,
            "found": _found(index, made)}


def _spread(values: np.ndarray) -> dict[str, int]:
    least, median, most = np.quantile(values, [0, 0.5, 1], method="nearest").tolist() if len(values) else (0, 0, 0)
    return {"least": int(least), "median": int(median), "most": int(most)}


def _sizes(heights: np.ndarray, widths: np.ndarray) -> dict[str, Any]:
    sizes, counts = np.unique(widths.astype(np.int64) << 32 | heights, return_counts=True)
    most = np.argsort(-counts, kind="stable")[:8]
    common = [{"width": size >> 32, "height": size & 2**32 - 1, "images": count}
              for size, count in zip(sizes[most].tolist(), counts[most].tolist())]
    return {"distinct": len(sizes), "most_common": common,
            "shorter_side": bins(np.minimum(heights, widths)), "longer_side": bins(np.maximum(heights, widths))}


def _classes(labels: np.ndarray, made: IndexMeta) -> dict[str, Any]:
    present, counts = (array.tolist() for array in np.unique(labels, return_counts=True))
    images = dict.fromkeys(range(len(made.classes)), 0) | dict(zip(present, counts))
    named = [(*made.class_of(label), count) for label, count in sorted(images.items())]
    counted = np.array([*images.values()])
    return {"number": len(made.classes), "empty": int((counted == 0).sum()),
            "sorted": bool((np.diff(labels) >= 0).all()), **_spread(counted), "histogram": bins(counted),
            "counts": [{"class": folder, "name": name, "images": count} for folder, name, count in named]}


def _vectors(index: Index) -> list[dict[str, Any]]:
    labels = index.label
    figures = zip(index.classes, labels.min(0).tolist(), labels.mean(0, np.float64).tolist(), labels.max(0).tolist(),
                  (np.count_nonzero(labels, 0) / len(labels)).tolist())
    return [{"name": name, "least": least, "mean": mean, "most": most, "nonzero": nonzero}
            for name, least, mean, most, nonzero in figures]


def _found(index: Index, made: IndexMeta) -> dict[str, Any]:
    named = examples(made.findings, index.name)
    return {"findings": {finding: {"images": len(numbers), "examples": named[finding]}
                         for finding, numbers in made.findings.items()},
            "skipped": made.skipped, "left_out": made.left_out, "equal_files": len(made.duplicates),
            "class_counts": made.class_counts}


def _sample(store: Store) -> dict[str, Any]:
    count = min(SAMPLE, len(store))
    numbers, kinds, unreadable = [i * len(store) // count for i in range(count)], [], []
    for number in numbers:
        try:
            kinds.append(record_kind(store, number))
        except RecordError as error:
            unreadable.append({"key": store.key(number).decode(errors="replace"), "error": str(error)})
    return {"numbers": numbers,
            "serializers": _counts(found.serializer for found in kinds),
            "kinds": _counts(found.kind for found in kinds),
            "tile_widths": _counts(found.tile_width for found in kinds if found.tile_width),
            "label_sizes": _counts(size_of(found.label) for found in kinds if size_of(found.label)),
            "array_layouts": _counts(found.array_layout for found in kinds if found.kind == "pixels"),
            "labels": sorted({found.label for found in kinds if isinstance(found.label, int)}),
            "shorter_side": bins([min(found.height, found.width) for found in kinds if found.height]),
            "unreadable": unreadable}


def _counts(values: Iterable[Any]) -> dict[str, int]:
    return {str(value): number for value, number in Counter(values).most_common()}


def as_text(facts: dict[str, Any]) -> str:
    """What `describe` gave, for people: plain text of WIDTH columns but for long names; its bars are block characters.
    """
    lines = [printable(facts["path"])]
    for part in statements(facts):
        lines += ["", part.title]
        for label, fact in part.facts:
            lines += text.wrapped(label, fact, WIDTH)
        for chart in part.charts:
            lines += ["", f"  {chart.title}"]
            most = max(value for _, value in chart.bars) or 1
            width = min(_LABEL, max(text.columns(label) for label, _ in chart.bars))
            lines += [f"  {text.fit(label, width)} {value:>{_VALUE},} {text.bar(value / most, _BAR)}".rstrip()
                      for label, value in chart.bars]
    return "\n".join(lines)
