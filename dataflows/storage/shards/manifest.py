"""The manifest `train.manifest.json` of a dump in shards: which files it has, and what is known of them all.

A JSON object:

    version    of this table
    meta       as that of an index (index_meta.py), of all records: record numbers run through the shards in order, and
               file_size and rest_crc32 are of the files together
    count      records in all
    crc32      of the crc32 columns of all shards, one after the other: the fingerprint of a single file of all records
    shards     for each: name (of its LMDB, beside the manifest), count, file_size, crc32 (of its crc32 column)
    checksum   crc32 of the object without this part, as `json.dumps(..., sort_keys=True)` writes it

It is written last: its presence means that all shards are complete and verified.
"""
import dataclasses
import json
import os
from typing import Any
from zlib import crc32

from dataflows.storage.index import Index
from dataflows.storage.index_meta import IndexMeta
from dataflows.system import naming

VERSION = 1
SUFFIX = ".manifest.json"
_UNFINISHED = ".shards.partial"
_REMEDY = "Copy it again, or dump the split again"


def manifest_path(target: str, split: str) -> str:
    """Where the manifest of a split is."""
    return os.path.join(target, split + SUFFIX)


def unfinished_path(target: str, split: str) -> str:
    """The folder of what is unfinished, before there is a manifest."""
    return os.path.join(target, split + _UNFINISHED)


@dataclasses.dataclass(frozen=True)
class Shard:
    """One file of a dump."""

    name: str
    count: int
    file_size: int
    crc32: int

    @classmethod
    def of(cls, path: str, index: Index) -> "Shard":
        """What the manifest says of a file with this index."""
        return cls(os.path.basename(path), index.count, index.meta.file_size, index.fingerprint())


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What the table says."""

    meta: IndexMeta
    crc32: int
    shards: tuple[Shard, ...]

    @property
    def count(self) -> int:
        """How many records the shards hold together."""
        return sum(shard.count for shard in self.shards)

    def to_json(self) -> str:
        """As it is written."""
        content = {"version": VERSION, "meta": self.meta.to_dict(VERSION, self.count), "count": self.count,
                   "crc32": self.crc32, "shards": [dataclasses.asdict(shard) for shard in self.shards]}
        return json.dumps(content | {"checksum": _checksum(content)}, indent=1, sort_keys=True) + "\n"


def load_manifest(path: str) -> Manifest:
    """Reads a manifest. Raises OSError where it cannot be read, and ValueError, with its name, where it is damaged."""
    try:
        with naming(path), open(path, encoding="utf-8") as file:
            return parse_manifest(path, file.read())
    except FileNotFoundError as error:
        if os.path.isdir(path.removesuffix(SUFFIX) + _UNFINISHED):
            raise FileNotFoundError(f"there is no {path} yet: its dump is not finished. Resume the dump, or merge its "
                                    f"parts when all are done") from error
        raise


def parse_manifest(path: str, text: str) -> Manifest:
    """The same of a manifest's text."""
    try:
        content = json.loads(text)
        if content["version"] != VERSION:
            raise ValueError(f"it is of version {content['version']!r}, and this package reads version {VERSION}")
        if content.pop("checksum") != _checksum(content):
            raise ValueError("it is not what was written: its checksum is another")
        shards = tuple(Shard(**shard) for shard in content["shards"])
        return Manifest(IndexMeta.from_dict(content["meta"]), content["crc32"], shards)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no readable manifest ({type(error).__name__}: {error}). {_REMEDY}") from error


def _checksum(content: dict[str, Any]) -> int:
    return crc32(json.dumps(content, sort_keys=True).encode())
