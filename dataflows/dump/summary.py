"""The summary of a finished dump: counts, findings, sizes and speed, in words."""
import dataclasses
from typing import Any, NamedTuple

import numpy as np

from dataflows.dump import findings
from dataflows.dump.columns import Columns, labels_text
from dataflows.storage.index import Index
from dataflows.storage.index_meta import IndexMeta
from dataflows.terminal import plural, printable


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stages:
    """How fast the stages of a dump would go alone, from the time that each was busy; 0 where one had nothing to do."""

    workers: int
    prepare_per_second: float  # images that all workers together read and prepare
    write_per_second: float  # images that go to the disk, journal and flushes included
    reached: float  # images per second while both ran, to those of the slower stage
    reached_in_all: float  # the same of the whole dump: listing, sampling and reading back included

    def __str__(self) -> str:
        slower = min(self.prepare_per_second, self.write_per_second)
        workers = f"{plural(self.workers, 'worker')} can read and prepare {self.prepare_per_second:,.0f} images/s"
        pace = "reading and preparing" if slower == self.prepare_per_second else "writing"
        return (f"{self.reached * slower:,.0f} images/s while it was written: {workers}, and the disk can take "
                f"{self.write_per_second:,.0f}, so {pace} set the pace. The dump kept {self.reached:.0%} of that pace, "
                f"and {self.reached_in_all:.0%} with listing the source and reading the file back").replace("%", " %")


class Busy(NamedTuple):
    """How many seconds the stages of writing were at work."""

    preparing: float = 0.0  # of all workers
    writing: float = 0.0
    together: float = 0.0  # from the first to the last moment


def stages(workers: int, count: int, seconds: float, *, preparing: float, writing: float,
           together: float) -> Stages | None:
    """What `count` images took: seconds in all, of all workers, of the writer, and from its first to its last moment.

    None when nothing was written.
    """
    if not (count and preparing and writing and together):
        return None
    rates = count / preparing * workers, count / writing
    return Stages(workers=workers, prepare_per_second=rates[0], write_per_second=rates[1],
                  reached=count / together / min(rates), reached_in_all=count / seconds / min(rates))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """What a dump did."""

    path: str  # of the LMDB, or of the manifest of several
    index_path: str
    format: str  # "jpeg" or "uint8"
    count: int  # records written
    num_classes: int  # or numbers of each label
    vectors: bool  # whether labels are vectors
    source_bytes: int  # sum of the sizes of the source files that were written
    stored_bytes: int  # size of the LMDB file
    pixel_bytes: int  # sum of height * width * 3 of the stored images
    seconds: float
    skipped: list[dict[str, str]]  # "name" and "reason" of each file that was left out
    untiled: dict[str, int]  # how many JPEGs were stored without tiles, by reason
    findings: dict[str, int]  # how many of the files that were stored have each finding (see docs/dump.md)
    examples: dict[str, list[str]]  # some names of each
    class_counts: list[str]  # how they differ from ImageNet's
    left_out: dict[str, int]  # files that are no images by their names, by kind (see dataflows/sources/names.py)
    layout: str  # what was found in the source
    resumed: int  # records that an interrupted dump had left
    stages: Stages | None  # None when nothing was left to write

    def _what(self) -> str:
        """What the first line is about."""
        return self.path

    def __str__(self) -> str:
        rate = (self.count - self.resumed) / self.seconds
        labels = labels_text(self.num_classes, self.vectors)
        lines = [f"{self._what()}: {plural(self.count, 'image')} {labels} as {self.format}, "
                 f"{self.stored_bytes / 1e6:,.1f} MB (files {self.source_bytes / 1e6:,.1f} MB, pixels "
                 f"{self.pixel_bytes / 1e6:,.1f} MB) in {self.seconds:.1f} s: {rate:,.0f} "
                 f"images/s; every record read back" + (f"; {self.resumed:,} were there already" * bool(self.resumed))
                 + f". Source: {self.layout}"]
        if self.stages is not None:
            lines.append(str(self.stages))
        if self.untiled:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(self.untiled.items()))
            lines.append(f"{sum(self.untiled.values()):,} stored without tiles, to be decoded whole: {reasons}")
        if self.skipped:
            lines.append(f"{plural(len(self.skipped), 'file')} skipped, listed in {self.index_path}:")
            lines += [f"  {entry['name']}: {entry['reason']}" for entry in self.skipped[:10]]
        lines += findings.left_out(self.left_out)
        lines += findings.lines(self.findings, self.examples, self.class_counts, self.index_path)
        return "\n".join(map(printable, lines))


@dataclasses.dataclass(frozen=True)
class Content:
    """What is known of the records of a dump."""

    meta: IndexMeta
    count: int
    vectors: bool  # whether labels are vectors
    source_bytes: int
    pixel_bytes: int
    examples: dict[str, list[str]]


def content_of(index: Index, columns: Columns) -> Content:
    """The same of one file."""
    return Content(index.meta, index.count, bool(index.label_size), columns.source_bytes, pixel_bytes(index),
                   findings.examples(index.meta.findings, columns.names))


def pixel_bytes(index: Index) -> int:
    """What the images would take as pixels."""
    return 3 * int(np.dot(index.height.astype(np.int64), index.width))


def summarize(path: str, index_path: str, content: Content, *, resumed: int, num_workers: int, busy: Busy,
              seconds: float) -> Summary:
    """The summary of a complete dump to `path`, a file or a manifest, or the URL of one.

    resumed: how many of its records were there already.
    """
    return Summary(**fields(path, index_path, content), resumed=resumed, seconds=seconds,
                   stages=stages(num_workers, content.count - resumed, seconds, **busy._asdict()))


def fields(path: str, index_path: str, content: Content) -> dict[str, Any]:
    """What a Summary says of records, whatever wrote them."""
    meta = content.meta
    return {"path": path, "index_path": index_path, "format": meta.format, "count": content.count,
            "num_classes": len(meta.classes), "vectors": content.vectors, "source_bytes": content.source_bytes,
            "stored_bytes": meta.file_size, "pixel_bytes": content.pixel_bytes, "skipped": meta.skipped,
            "untiled": meta.untiled, "findings": {name: len(numbers) for name, numbers in meta.findings.items()},
            "examples": content.examples, "class_counts": meta.class_counts, "left_out": meta.left_out,
            "layout": meta.layout}
