"""Several LMDB files as one: the records of the first, then those of the second, and so on."""
import copy
import itertools
from typing import Iterator
from zlib import crc32

import numpy as np

from dataflows.label_vectors import size_text
from dataflows.storage.index import Index
from dataflows.storage.records import Records
from dataflows.storage.shards.joined import JoinedIndex, joined_meta
from dataflows.storage.shards.manifest import Manifest, Shard


class ShardedRecords(Records):
    """The records of several files, by number. See `Records`; their order, and all that follows from it, is that of one
    file that holds them all.

    parts: of one file each. Its index is that of all records, if each file has one; offsets in it are within files.

    Raises ValueError where their classes differ.
    """

    def __init__(self, path: str, parts: list[Records], manifest: Manifest | None = None) -> None:
        super().__init__(path, None)  # nothing is read here but by the parts
        self._parts = parts
        *starts, self._count = itertools.accumulate(map(len, parts), initial=0)
        self.starts = np.array(starts, np.int64)
        self.listed = all(part.listed for part in parts)
        self.private = any(part.private for part in parts)
        indices = [part.index for part in parts if part.index is not None]
        if manifest is not None:
            self._refuse_others(manifest)
        if len(indices) == len(parts):
            self._refuse_other_classes(indices)
            self.index = JoinedIndex(indices, joined_meta(indices) if manifest is None else manifest.meta)
            self.index_path = parts[0].index_path if manifest is None else path
            self.mean_nbytes = float(np.average([part.mean_nbytes or 0 for part in parts], weights=[*map(len, parts)]))

    def _refuse_others(self, manifest: Manifest) -> None:
        for shard, part in zip(manifest.shards, self._parts):
            if part.index is None:
                raise ValueError(f"{part.path} has no index, which each shard of {self.path} has to have. Copy it "
                                 f"there, or dump the shard again")
            found = Shard.of(shard.name, part.index)
            if found != shard:
                raise ValueError(f"{part.path} is not the shard that {self.path} names: it has {found.count:,} records "
                                 f"in {found.file_size:,} bytes with checksum {found.crc32:08x}, and the shard "
                                 f"{shard.count:,} in {shard.file_size:,} with {shard.crc32:08x}. It is of another "
                                 f"dump, or was written anew: copy it again, or dump the split again")

    def _refuse_other_classes(self, indices: list[Index]) -> None:
        for part, index in zip(self._parts, indices):
            if index.label_size != indices[0].label_size:
                raise ValueError(f"{part.path} has labels that are {size_text(index.label_size)}, and those of "
                                 f"{self._parts[0].path} are {size_text(indices[0].label_size)}: they are not of one "
                                 f"data set")
            if index.meta.classes != indices[0].meta.classes:
                raise ValueError(f"{part.path} has other classes than {self._parts[0].path}: they are not of one "
                                 f"data set, or were dumped from sources that differ. Dump them together")

    def _of(self, number: int) -> tuple[Records, int]:
        """The part that has a record, and the number that it has there."""
        part = int(np.searchsorted(self.starts, number, side="right")) - 1
        return self._parts[part], number - int(self.starts[part])

    def _groups(self, numbers: list[int]) -> Iterator[tuple[Records, list[int], np.ndarray]]:
        """(part, numbers there, their places in `numbers`) of each part that has some of these records."""
        wanted = np.asarray(numbers, np.int64)
        of = np.searchsorted(self.starts, wanted, side="right") - 1
        for part in np.unique(of).tolist():
            places = np.flatnonzero(of == part)
            yield self._parts[part], (wanted[places] - self.starts[part]).tolist(), places

    def close(self) -> None:
        """Lets go of all files."""
        for part in self._parts:
            part.close()

    def closed_copy(self) -> "ShardedRecords":
        """Another one on the same files, which opens them for itself."""
        other = copy.copy(self)
        other._parts = [part.closed_copy() for part in self._parts]
        return other

    def __len__(self) -> int:
        return self._count

    def key(self, number: int) -> bytes:
        """That in the file which has the record."""
        part, own = self._of(number)
        return part.key(own)

    def place(self, number: int) -> str:
        """Where record `number` is, for errors: "PATH, key KEY" of its file."""
        part, own = self._of(number)
        return part.place(own)

    def value(self, number: int) -> np.ndarray:
        """As that of the file which has the record."""
        part, own = self._of(number)
        return part.value(own)

    def values(self, numbers: list[int]) -> Iterator[np.ndarray]:
        """What `value` gives for each, looked up at once in each file."""
        of = np.empty(len(numbers), np.int64)
        iterators: list[Iterator[np.ndarray]] = []
        for part, own, places in self._groups(numbers):
            of[places] = len(iterators)
            iterators.append(part.values(own))
        return map(next, map(iterators.__getitem__, of.tolist()))

    def places(self, numbers: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Those of all whose place is known, each in its file."""
        found = [part.places(own) for part, own, _ in self._groups(numbers)]
        return np.concatenate([offsets for offsets, _ in found]), np.concatenate([nbytes for _, nbytes in found])

    def sizes(self, numbers: list[int]) -> tuple[np.ndarray, np.ndarray] | None:
        """Those of all, if all files know them."""
        if self.index is None:
            return None
        heights, widths = np.empty((2, len(numbers)), np.int64)
        for part, own, places in self._groups(numbers):
            sizes = part.sizes(own)
            assert sizes is not None
            heights[places], widths[places] = sizes
        return heights, widths

    def names(self, numbers: np.ndarray) -> list[bytes] | None:
        """Those of all, if all files know them."""
        if self.index is None:
            return None
        names = [b""] * len(numbers)
        for part, own, places in self._groups(numbers.tolist()):
            for place, name in zip(places.tolist(), part.names(np.asarray(own)) or ()):
                names[place] = name
        return names

    def release(self, numbers: list[int]) -> None:
        """Says that these records are done with."""
        for part, own, _ in self._groups(numbers):
            part.release(own)

    def will_need(self, numbers: list[int], sample: int) -> tuple[int, bool]:
        """Asks for the pages of those records whose place is known: how many bytes, and whether it had to."""
        nbytes, asked = 0, False
        for part, own, _ in self._groups(numbers):
            more, had_to = part.will_need(own, sample)
            nbytes, asked = nbytes + more, asked or had_to
        return nbytes, asked

    def fingerprint(self) -> int:
        """With indices, that of one file with all records."""
        if self.index is not None:
            return self.index.fingerprint()
        return crc32(np.array([part.fingerprint() for part in self._parts], np.uint32).tobytes())

    def identity(self) -> int:
        """Of all that is known of each file."""
        return crc32(np.array([part.identity() for part in self._parts], np.uint32).tobytes())
