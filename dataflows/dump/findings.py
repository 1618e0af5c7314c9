"""What a dump found in its source: findings, duplicates and class counts, for the index and the summary."""
import os
import re
from itertools import chain
from typing import NamedTuple, Sequence

import numpy as np

from dataflows.terminal import plural

DUPLICATE, ACROSS = "same content as another file", "same content as a file of another class"
_WNID = re.compile(r"n\d{8}")
# ILSVRC2012: images, and the least and the most of one class.
_IMAGENET = {"train": (1_281_167, 732, 1300), "val": (50_000, 50, 50)}
_NAMED = 3  # examples of a finding in the summary


class Findings(NamedTuple):
    """What was found in the files that were stored. JSON holds all of it."""

    findings: dict[str, list[int]]  # record numbers by finding, ascending
    duplicates: list[list[int]]  # record numbers of equal contents
    class_counts: list[str]  # how they differ from ImageNet's


class FindingsCollector:
    """Collects what is found of each record, in the order of the records."""

    def __init__(self) -> None:
        self._records: dict[str, list[int]] = {}
        self._digests = bytearray()

    def add(self, findings: Sequence[str], digest: bytes) -> None:
        """Adds the next record: its findings, and examine.digest of its source file."""
        number = len(self._digests) // 16
        self._digests += digest
        for finding in findings:
            self._records.setdefault(finding, []).append(number)

    @property
    def digests(self) -> bytes:
        """The digests of all records, one after the other: 16 bytes each."""
        return bytes(self._digests)

    def collected(self, labels: np.ndarray | Sequence[int], classes: Sequence[str], split: str) -> Findings:
        """All that was found, given the label of every record: integers (n,), or vectors, float32 (n, k)."""
        return collected(self._records, self._digests, np.asarray(labels), classes, split)


def collected(records: dict[str, list[int]], digests: bytes | bytearray, labels: np.ndarray, classes: Sequence[str],
              split: str) -> Findings:
    """All that was found, given what was found of each record alone, and the digests and labels of all."""
    groups = duplicates(digests)
    across = [group for group in groups if len({labels[number].tobytes() for number in group}) > 1]
    found = records | {DUPLICATE: sorted(chain(*groups)), ACROSS: sorted(chain(*across))}
    remarks = [] if labels.ndim > 1 else class_counts(
        split, classes, np.bincount(labels.astype(np.int64), minlength=len(classes)).tolist())
    return Findings({finding: numbers for finding, numbers in sorted(found.items()) if numbers}, groups, remarks)


def duplicates(digests: bytes | bytearray) -> list[list[int]]:
    """The numbers of those digests, of 16 bytes each, that occur more than once, in groups of equal ones."""
    words = np.frombuffer(bytes(digests), "<u8").reshape(-1, 2)
    order = np.lexsort(words.T)  # stable: equal ones stay in the order of their numbers
    same = np.concatenate(([False], (words[order[1:]] == words[order[:-1]]).all(axis=1), [False]))
    starts, ends = np.flatnonzero(~same[:-1] & same[1:]), np.flatnonzero(same[:-1] & ~same[1:])
    return sorted(order[start:end + 1].tolist() for start, end in zip(starts, ends))


def class_counts(split: str, classes: Sequence[str], counts: Sequence[int]) -> list[str]:
    """How `counts`, of images by class, differ from ImageNet's; empty unless `classes` are its 1,000 wnids."""
    if split not in _IMAGENET or len(classes) != 1000 or not all(map(_WNID.fullmatch, classes)):
        return []
    total, least, most = _IMAGENET[split]
    wanted = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    texts = [f"{count:,} of class {name}, of which ImageNet's {split} has {wanted}"
             for name, count in zip(classes, counts) if not least <= count <= most]
    if sum(counts) != total:
        texts.insert(0, f"{sum(counts):,} images, and ImageNet's {split} has {total:,}")
    return texts


def examples(findings: dict[str, list[int]], names: Sequence[bytes] | np.ndarray) -> dict[str, list[str]]:
    """The first few file names of each finding, given that of every record, bytes (n,)."""
    return {finding: [os.fsdecode(names[number]) for number in numbers[:_NAMED]]
            for finding, numbers in findings.items()}


def by_reason(skipped: Sequence[dict[str, str]]) -> dict[str, list[str]]:
    """The names of skipped files by the reason why, in the order in which each comes first."""
    reasons: dict[str, list[str]] = {}
    for entry in skipped:
        reasons.setdefault(entry["reason"], []).append(entry["name"])
    return reasons


def left_out(kinds: dict[str, int]) -> list[str]:
    """The line on files that were not looked at, given how many there are of each kind."""
    return [f"left out by name or place: {', '.join(f'{count:,} {kind}' for kind, count in kinds.items())}"
            ] if kinds else []


def lines(counts: dict[str, int], named: dict[str, list[str]], remarks: Sequence[str],
          index_path: str | None) -> list[str]:
    """The summary's lines: how many files each finding has, with some names, and the first remarks on classes.

    index_path: of the index that numbers the records of each finding, if there is one.
    """
    told = [f"found, with the numbers of the records in {index_path}:" if index_path else "found:"] if counts else []
    told += [f"  {count:,} {finding}: {', '.join(named[finding])}{', ...' if count > len(named[finding]) else ''}"
             for finding, count in counts.items()]
    told += remarks[:10]
    return told + ([f"and {plural(len(remarks) - 10, 'other class', 'other classes')}"] if len(remarks) > 10 else [])

