"""What the merge needs of a shard that is done, besides the shard and its index: `00017.facts`.

A numpy archive (mapped_arrays.py) of `digests`, uint8 (count, 16), of the files that are stored, to find equal ones in
all shards, and of `meta`, a JSON object: plan (its digest), source_bytes, and content, the checksum of the index that
the shard has then.
"""
import dataclasses
import json
import os
from typing import Callable
from zlib import crc32

import numpy as np

from dataflows.dump.columns import Columns
from dataflows.dump.prepare import CONVERTED
from dataflows.dump.shards import workplace
from dataflows.dump.shards.plan import Plan
from dataflows.mapped_arrays import Archive, write_arrays
from dataflows.storage.index import Index, load_index

_COLUMNS = ("label", "height", "width", "nbytes", "offset", "crc32", "name")


@dataclasses.dataclass(frozen=True, eq=False)
class Done:
    """A shard that is complete."""

    index: Index
    digests: np.ndarray  # uint8 (count, 16)
    source_bytes: int


def write_facts(plan: Plan, number: int, columns: Columns, index: Index) -> None:
    """Says that a shard is complete when it has this index; what is known of its files is in `columns`."""
    meta = json.dumps({"plan": plan.digest, "source_bytes": columns.source_bytes, "content": _checksum(index)})
    digests = np.frombuffer(columns.findings.digests, np.uint8).reshape(-1, 16)

    def write(path: str) -> None:
        with open(path, "w+b") as file:
            write_arrays(file, {"digests": digests, "meta": np.frombuffer(meta.encode(), np.uint8)})

    workplace.put(_path(plan, number), write)


def read_done(plan: Plan, number: int, on_error: str = "skip", is_there: Callable[[str], bool] = os.path.isfile
              ) -> Done | None:
    """What there is of a shard, if it is complete and what this plan wants; else None: it has to be dumped.

    is_there: whether its LMDB is where it belongs.
    on_error: a dump with "fix" or "raise" does not leave out what one with "skip" has left out, and so on.
    """
    path = plan.path(number)
    try:
        with open(_path(plan, number), "rb") as file:
            archive = Archive(file, copied=True)
            digests, meta = archive["digests"], json.loads(archive["meta"].tobytes())
        index = load_index(path, path, copied=True)  # not mapped: another attempt may replace it
        if index is None or not is_there(path) or not _is_wanted(index, on_error):
            return None
        if archive.is_sealed() and meta["plan"] == plan.digest and meta["content"] == _checksum(index):
            return Done(index, digests, meta["source_bytes"])
    except Exception:  # nothing there, or it was cut off: numpy, zipfile and json raise nearly anything then
        pass
    return None


def _is_wanted(index: Index, on_error: str) -> bool:
    """Whether a dump with this on_error would have gone through, too."""
    return not (on_error != "skip" and index.meta.skipped or on_error == "raise" and CONVERTED in index.meta.findings)


def _path(plan: Plan, number: int) -> str:
    return os.path.join(plan.work, f"{number:05d}.facts")


def _checksum(index: Index) -> int:
    """Of all that an index holds."""
    checksum = crc32(json.dumps(index.written_meta(), sort_keys=True).encode())
    for name in _COLUMNS:
        checksum = crc32(np.ascontiguousarray(getattr(index, name)), checksum)
    return checksum
