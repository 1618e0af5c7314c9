"""What the indices of several files say, as that of one file: record numbers run through them in their order."""
import dataclasses
import functools
from collections import Counter
from zlib import crc32

import numpy as np

from dataflows.storage.index import Index
from dataflows.storage.index_meta import IndexMeta

_COLUMNS = [field.name for field in dataclasses.fields(Index) if field.name != "meta"]


class JoinedIndex(Index):
    """One index of the records of all. A column is put together, in memory, when it is first used: most never are.

    Offsets are within files.
    """

    _parts: list[Index]

    def __init__(self, parts: list[Index], meta: IndexMeta) -> None:
        for name, value in (("_parts", parts), ("meta", meta)):
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> np.ndarray:
        if name not in _COLUMNS:
            raise AttributeError(name)
        column = np.concatenate([getattr(part, name) for part in self._parts])
        object.__setattr__(self, name, column)
        return column

    @property
    def count(self) -> int:
        """How many records the files hold together."""
        return sum(part.count for part in self._parts)

    def fingerprint(self) -> int:
        """That of one file with all records."""
        return functools.reduce(lambda checksum, part: crc32(part.crc32, checksum), self._parts, 0)

    @property
    def label_size(self) -> int:
        """That of each."""
        return self._parts[0].label_size


def joined_meta(indices: list[Index]) -> IndexMeta:
    """What the indices of several files say, as that of one file: record numbers run through them in their order."""
    metas = [index.meta for index in indices]
    starts = np.cumsum([0, *(index.count for index in indices)]).tolist()
    findings: dict[str, list[int]] = {}
    for start, meta in zip(starts, metas):
        for name, numbers in meta.findings.items():
            findings.setdefault(name, []).extend(start + number for number in numbers)
    untiled: Counter[str] = sum((Counter(meta.untiled) for meta in metas), Counter())
    return dataclasses.replace(
        metas[0], findings=findings, untiled=dict(untiled), file_size=sum(meta.file_size for meta in metas),
        rest_crc32=crc32(np.array([meta.rest_crc32 for meta in metas], np.uint32).tobytes()),
        skipped=[entry for meta in metas for entry in meta.skipped],
        duplicates=[[start + number for number in group] for start, meta in zip(starts, metas)
                    for group in meta.duplicates])
