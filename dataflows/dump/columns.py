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


class Columns:
    """What the journal says of all source files, by column: a million StoredFiles would take 400 MB."""

    def __init__(self, rows: Iterable[StoredFile | SkippedFile]) -> None:
        self.labels, self.heights, self.widths, self.checksums = array("i"), array("i"), array("i"), array("I")
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
        """The name of each class number: as it is known, or the numbers themselves up to the greatest label."""
        return [str(n) for n in range(max(self.labels, default=-1) + 1)] if known is None else list(known)

    def _add(self, row: StoredFile) -> None:
        self.labels.append(row.label)
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
        found = self.findings.collected(self.labels, meta.classes, meta.split if whole else "")
        skipped = [skip._asdict() for skip in (*self.unreadable, *sorted(self.skipped))]
        meta = dataclasses.replace(meta, untiled=dict(self.untiled), skipped=skipped, **found._asdict())
        return Index(label=np.array(self.labels), height=np.array(self.heights), width=np.array(self.widths),
                     nbytes=nbytes, offset=offsets, crc32=np.array(self.checksums), name=np.array(self.names),
                     meta=meta)
