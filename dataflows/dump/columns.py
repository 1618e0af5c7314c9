"""The columns of the index, made from the lines of the journal."""
import dataclasses
import os
from array import array
from collections import Counter
from typing import Iterable, Sequence

import numpy as np

from dataflows.dump import findings
from dataflows.dump.recovery.journal import SkippedFile, StoredFile
from dataflows.storage.index import Index
from dataflows.storage.index_meta import IndexMeta
from dataflows.terminal import plural


def labels_text(count: int, vectors: bool) -> str:
    """What labels are, for a summary: "of 3 classes", or "with labels of 3 numbers" where they are vectors."""
    return f"with labels of {plural(count, 'number')}" if vectors else f"of {plural(count, 'class', 'classes')}"


class Columns:
    """What the journal says of all source files, by column: a million StoredFiles would take 400 MB."""

    def __init__(self, rows: Iterable[StoredFile | SkippedFile]) -> None:
        self.label_size = 0  # numbers of each label; 0 where labels are class numbers
        self._class_numbers, self._vectors = array("i"), bytearray()
        self.heights, self.widths, self.checksums = array("i"), array("i"), array("I")
        self.names: list[bytes] = []
        self.source_bytes = 0
        self.untiled: Counter[str] = Counter()
        self.findings = findings.FindingsCollector()
        self.skipped: list[SkippedFile] = []
        self.unreadable: list[SkippedFile] = []  # folders and links, of which the journal knows nothing
        for row in rows:
            if isinstance(row, SkippedFile):
                self.skipped.append(row)
            else:
                self._add(row)

    def __len__(self) -> int:
        return len(self.names)

    def refuse_empty(self, where: str, unit: str = "file") -> None:
        """Raises ValueError if nothing of the source, which is `where` and counts in `unit`s, was stored."""
        if self.names:
            return
        if not self.skipped:
            raise ValueError(f"{where} gave no image. An iterator can be used once only: make a new one, or check the "
                             f"source")
        raise ValueError(f"none of the {len(self.skipped):,} {unit}s in {where} could be read; the first is "
                         f"{self.skipped[0].name}: {self.skipped[0].reason}")

    def classes(self, known: Sequence[str] | None) -> list[str]:
        """The name of each class number: as it is known, or the numbers themselves up to the greatest label.

        Where labels are vectors, the name of each of their numbers.
        """
        count = self.label_size or max(self._class_numbers, default=-1) + 1
        return [str(n) for n in range(count)] if known is None else list(known)

    @property
    def labels(self) -> np.ndarray:
        """Of each record: int32 (count,), or float32 (count, label_size)."""
        if self.label_size:
            return np.frombuffer(bytes(self._vectors), "<f4").reshape(-1, self.label_size)
        return np.array(self._class_numbers, np.int32)

    def found(self, classes: Sequence[str], split: str) -> findings.Findings:
        """What was found in all of them."""
        return self.findings.collected(self.labels, classes, split)

    def _add(self, row: StoredFile) -> None:
        if isinstance(row.label, str):
            self.label_size = row.label_size
            self._vectors += bytes.fromhex(row.label)
        else:
            self._class_numbers.append(row.label)
        self.heights.append(row.height)
        self.widths.append(row.width)
        self.checksums.append(row.crc32)
        self.names.append(os.fsencode(row.name))
        self.source_bytes += row.source_bytes
        if row.untiled is not None:
            self.untiled[row.untiled] += 1
        self.findings.add(row.findings, bytes.fromhex(row.digest))

    def with_classes(self, meta: IndexMeta, known: Sequence[str] | None) -> IndexMeta:
        """`meta` with the classes that are known, or those of `classes`."""
        return meta if known is not None else dataclasses.replace(meta, classes=self.classes(None),
                                                                  class_names=self.classes(None))

    def index(self, nbytes: np.ndarray, offsets: np.ndarray, meta: IndexMeta, *, whole: bool = True) -> Index:
        """The index of the records, given where they are, int64 (count,), and what is known without them.

        whole: whether these are all images of the split, whose numbers by class are to be those of ImageNet's.
        """
        found = self.found(meta.classes, meta.split if whole else "")
        skipped = [skip._asdict() for skip in (*self.unreadable, *sorted(self.skipped))]
        meta = dataclasses.replace(meta, untiled=dict(self.untiled), skipped=skipped, **found._asdict())
        return Index(label=self.labels, height=np.array(self.heights), width=np.array(self.widths),
                     nbytes=nbytes, offset=offsets, crc32=np.array(self.checksums), name=np.array(self.names),
                     meta=meta)
