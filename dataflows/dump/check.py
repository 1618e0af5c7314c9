"""A check of a source without a dump: what a dump would find, and what would stop it."""
import dataclasses
import os
from typing import Callable, Iterable, NamedTuple

from dataflows.dump import findings
from dataflows.dump.columns import Columns, labels_text
from dataflows.dump.recovery.journal import SkippedFile, StoredFile
from dataflows.dump.recovery.resume import refuse_existing
from dataflows.dump.space import existing_folder, in_pages, refuse_too_small
from dataflows.dump.write import Packed
from dataflows.sources.source import ImageSource


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checked:
    """All that was found. Names are paths below the folder or tar of the split."""

    ok: bool  # whether a dump with these options would succeed
    layout: str  # what was found in the source
    format: str  # "jpeg" or "uint8"
    count: int  # files that would be stored
    num_classes: int  # or numbers of each label
    vectors: bool  # whether labels are vectors
    source_bytes: int  # sum of their sizes
    stored_bytes: int  # that their records would take
    seconds: float
    stops: bool  # whether failures stop a dump; with on_error="skip" they are left out
    failures: list[dict[str, str]]  # "name" and "reason" of each file, folder or link that cannot be stored or read
    refusals: list[str]  # why a dump would not begin: classes without images, no image at all, its target
    left_out: dict[str, int]  # files that are no images by their names, by kind (see dataflows/sources/names.py)
    findings: dict[str, list[str]]  # names of the files with each finding (see docs/dump.md)
    duplicates: list[list[str]]  # names of files with equal contents, a list per content
    untiled: dict[str, int]  # how many JPEGs would be stored without tiles, by reason
    class_counts: list[str]  # how they differ from ImageNet's

    def __str__(self) -> str:
        verdict = "a dump with these options would succeed" if self.ok else "a dump with these options would fail"
        labels = labels_text(self.num_classes, self.vectors)
        lines = [f"{verdict}: {self.count:,} images {labels} as {self.format}, about "
                 f"{self.stored_bytes / 1e6:,.1f} MB (files {self.source_bytes / 1e6:,.1f} MB); checked in "
                 f"{self.seconds:.1f} s, nothing was written. Source: {self.layout}"]
        lines += self.refusals
        if self.failures:
            lines.append(f"{len(self.failures):,} {'would stop it' if self.stops else 'would be left out'}:")
            lines += [f"  {entry['name']}: {entry['reason']}" for entry in self.failures]
        if self.untiled:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(self.untiled.items()))
            lines.append(f"{sum(self.untiled.values()):,} would be stored without tiles: {reasons}")
        lines += findings.left_out(self.left_out)
        counts = {finding: len(names) for finding, names in self.findings.items()}
        lines += findings.lines(counts, {finding: names[:3] for finding, names in self.findings.items()},
                              self.class_counts, None)
        return "\n".join(lines)


class Collected(NamedTuple):
    """What was found of each file, and what the records would take."""

    columns: Columns
    nbytes: int


def collect(packed: Iterable[Packed]) -> Collected:
    """What was found in all files. The bytes of each record are let go of at once."""
    nbytes = 0

    def notes() -> Iterable[StoredFile | SkippedFile]:
        nonlocal nbytes
        for record in packed:
            nbytes += 0 if record.value is None else in_pages(len(record.value))
            yield record.note

    columns = Columns(notes())
    return Collected(columns, nbytes)


def result(files: ImageSource, found: Collected, path: str | None, *, split: str, format: str, on_error: str,
           overwrite: bool, seconds: float) -> Checked:
    """The verdict on all files of a split, whose dump would make the LMDB file `path`."""
    columns = found.columns
    failures = [*(SkippedFile(*unreadable) for unreadable in files.unreadable), *sorted(columns.skipped)]
    refusals = [*_refusal(lambda: files.refuse(unreadable=False)),
                *([] if path is None else _target(path, found.nbytes, overwrite)),
                *_refusal(lambda: columns.refuse_empty(files.root or "the source", files.unit))]
    names = [os.fsdecode(name) for name in columns.names]
    classes = columns.classes(files.classes)
    told = columns.found(classes, split)
    return Checked(
        ok=not refusals and (on_error == "skip" or not failures),
        layout=files.layout,
        format=format,
        count=len(columns),
        num_classes=len(classes),
        vectors=bool(columns.label_size),
        source_bytes=columns.source_bytes,
        stored_bytes=found.nbytes,
        seconds=seconds,
        stops=on_error != "skip",
        failures=[failure._asdict() for failure in failures],
        refusals=refusals,
        left_out=files.left_out,
        findings={finding: [names[number] for number in numbers] for finding, numbers in told.findings.items()},
        duplicates=[[names[number] for number in group] for group in told.duplicates],
        untiled=dict(columns.untiled),
        class_counts=told.class_counts,
    )


def _refusal(check: Callable[[], object]) -> list[str]:
    """The message of the error that a check raises; nothing if it raises none."""
    try:
        check()
    except (OSError, ValueError) as error:
        return [str(error)]
    return []


def _target(path: str, nbytes: int, overwrite: bool) -> list[str]:
    """Why the file could not be made."""
    told = []
    folder = existing_folder(os.path.dirname(path))
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK | os.X_OK):
        told.append(f"{folder} is not a folder that this user may write into. Give another target")
    return [*told, *_refusal(lambda: refuse_existing(path, overwrite)),
            *_refusal(lambda: refuse_too_small(folder, nbytes))]
