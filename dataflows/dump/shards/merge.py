"""The last step: what is known of all shards as of one file, and the manifest, which says that all are complete."""
import contextlib
import dataclasses
import functools
import os
from collections import Counter
from typing import Any, Callable, NamedTuple, Sequence
from zlib import crc32

import numpy as np

from dataflows.dump import findings
from dataflows.dump.recovery.upload import Upload
from dataflows.dump.shards import workplace
from dataflows.dump.shards.facts import Done, read_done
from dataflows.dump.shards.plan import Plan
from dataflows.dump.summary import Content, pixel_bytes
from dataflows.storage.index import Index, index_path, load_index
from dataflows.storage.shards.manifest import Manifest, Shard, manifest_path


class Joined(NamedTuple):
    """What is known of several shards together."""

    content: Content
    crc32: int  # of their crc32 columns, one after the other
    shards: tuple[Shard, ...]


def merge(plan: Plan, upload: Upload | None = None) -> Content:
    """Writes the manifest of a plan whose shards are complete, and removes the folder of the unfinished dump.

    upload: where the shards are, and the manifest goes, if not into their folder.

    Raises FileNotFoundError, with the numbers of all that are missing, and FileExistsError where another process was
    faster.
    """
    path = manifest_path(plan.target, plan.split)
    try:
        joined = join(plan, range(plan.shards), whole=True, is_there=os.path.isfile if upload is None else upload.has)
    except FileNotFoundError:
        if os.path.isdir(workplace.plan_folder(plan.work)):
            raise
        raise FileExistsError(f"{path}: another process merges at the moment, or has merged. Nothing is left to do, if "
                              f"it exists") from None
    workplace.put(path, functools.partial(_write, Manifest(joined.content.meta, joined.crc32, joined.shards).to_json()))
    if upload is not None:
        upload.put(path)
    workplace.clear(plan.work)
    if upload is not None:
        _remove([path, *(index_path(plan.path(number)) for number in range(plan.shards))])
    return joined.content


def _remove(paths: list[str]) -> None:
    """What is not needed here when it is at a URL; another process may be faster."""
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _write(text: str, path: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def join(plan: Plan, numbers: Sequence[int], *, whole: bool, is_there: Callable[[str], bool] = os.path.isfile
         ) -> Joined:
    """What is known of these shards. whole: they are all, whose numbers by class are to be those of ImageNet's.

    Raises FileNotFoundError, with the numbers of all that are missing.
    """
    joining = _Joining()
    missing = [number for number in numbers
               if not joining.add(plan.path(number), read_done(plan, number, is_there=is_there))]
    if missing:
        raise FileNotFoundError(
            f"of {plan.shards:,} shards {len(missing):,} {'is' if len(missing) == 1 else 'are'} missing, or not "
            f"complete: {ranges(missing)}. Run the parts that dump them again: with part='I/N', shard K is in part "
            f"K % N")
    return joining.joined(plan, whole)


def ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers in words.

    >>> ranges([0, 3, 4, 5, 9])
    '0, 3 to 5, 9'
    """
    starts = [n for n in numbers if n - 1 not in set(numbers)]
    ends = [n for n in numbers if n + 1 not in set(numbers)]
    return ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in zip(starts, ends))


class _Joining:
    """Collects of each shard what is needed, some 20 bytes a record, and not its index."""

    def __init__(self) -> None:
        self.starts = [0]
        self.labels: list[np.ndarray] = []
        self.digests: list[np.ndarray] = []
        self.findings: dict[str, list[int]] = {}
        self.untiled: Counter[str] = Counter()
        self.skipped: list[tuple[str, str]] = []
        self.rests: list[int] = []
        self.file_size = self.source_bytes = self.pixel_bytes = self.crc32 = 0
        self.shards: list[Shard] = []
        self._paths: list[str] = []

    def add(self, path: str, done: Done | None) -> bool:
        """Adds the next shard; False if it is not there."""
        if done is None:
            return False
        self._paths.append(path)
        self.labels.append(done.index.label)
        self.digests.append(done.digests)
        self.source_bytes += done.source_bytes
        self.pixel_bytes += pixel_bytes(done.index)
        self.crc32 = crc32(done.index.crc32.tobytes(), self.crc32)
        self.shards.append(Shard.of(path, done.index))
        self._add_meta(done.index)
        self.starts.append(self.starts[-1] + done.index.count)
        return True

    def _add_meta(self, index: Index) -> None:
        for name, numbers in index.meta.findings.items():
            if name not in (findings.DUPLICATE, findings.ACROSS):  # which only the whole has
                self.findings.setdefault(name, []).extend(self.starts[-1] + number for number in numbers)
        self.untiled.update(index.meta.untiled)
        self.skipped += [(entry["name"], entry["reason"]) for entry in index.meta.skipped]
        self.rests.append(index.meta.rest_crc32)
        self.file_size += index.meta.file_size

    def joined(self, plan: Plan, whole: bool) -> Joined:
        """What is known of all that were added."""
        labels = _concatenated(self.labels)
        digests = b"".join(digest.tobytes() for digest in self.digests)
        found = findings.collected(self.findings, digests, labels, plan.meta.classes, plan.split if whole else "")
        unreadable = [tuple(each) for each in plan.unreadable] if whole else []
        meta = dataclasses.replace(
            plan.meta, file_size=self.file_size, rest_crc32=crc32(np.array(self.rests, np.uint32).tobytes()),
            untiled=dict(self.untiled), skipped=[*map(_skipped, [*unreadable, *sorted(self.skipped)])],
            **found._asdict())
        content = Content(meta, self.starts[-1], labels.ndim > 1, self.source_bytes, self.pixel_bytes,
                          findings.examples(found.findings, _Names(self._paths, self.starts)))
        return Joined(content, self.crc32, tuple(self.shards))


class _Names(Sequence[bytes]):
    """The names of all records, of which few are asked for."""

    def __init__(self, paths: list[str], starts: list[int]) -> None:
        self._paths, self._starts = paths, starts
        self._names = functools.lru_cache(4)(self._read)

    def _read(self, path: str) -> np.ndarray:
        index = load_index(path, path, copied=True)
        assert index is not None
        return index.name

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, number: Any) -> Any:
        shard = int(np.searchsorted(self._starts, number, side="right")) - 1
        return bytes(self._names(self._paths[shard])[number - self._starts[shard]])


def _skipped(entry: tuple[str, ...]) -> dict[str, str]:
    return {"name": entry[0], "reason": entry[1]}


def _concatenated(labels: list[np.ndarray]) -> np.ndarray:
    """The labels of all shards. Raises ValueError where they are not alike, as those of samples may be."""
    if len({label.shape[1:] for label in labels}) > 1:
        raise ValueError("some shards have class numbers as labels, and others vectors, or vectors of another length. "
                         "Correct the samples, and dump them again")
    return np.concatenate(labels) if labels else np.zeros(0, np.int32)
