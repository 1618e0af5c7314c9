"""The files that a path means: one LMDB, those of a manifest, those that a pattern matches, or a list of them."""
import glob
import os
import re
from typing import Sequence

from dataflows.storage.remote.opening import remote_text
from dataflows.storage.remote.options import PLAIN, RemoteOptions
from dataflows.storage.remote.urls import is_url
from dataflows.storage.shards.manifest import SUFFIX, Manifest, load_manifest, manifest_path, parse_manifest

PathLike = str | os.PathLike[str]
_NUMBERED = re.compile(r"(.*)-(\d{5,})-of-(\d{5,})\.lmdb")
_NAMED = 3


def shard_name(split: str, number: int, count: int) -> str:
    """The name of a shard; it says how many there are, so that a missing one is seen.

    >>> shard_name("train", 17, 140)
    'train-00017-of-00140.lmdb'
    """
    return f"{split}-{number:05d}-of-{count:05d}.lmdb"


def find_split(folder: PathLike, split: str) -> str | None:
    """The LMDB of a split that a dump into `folder` has made, or the manifest of its shards; None if it has neither."""
    paths = (os.path.join(folder, split + ".lmdb"), manifest_path(os.fspath(folder), split))
    return next(filter(os.path.exists, paths), None)


def read_manifest(path: str, remote: RemoteOptions) -> Manifest:
    """The manifest at a path or URL. Raises as `load_manifest`."""
    return parse_manifest(path, remote_text(path, remote)) if is_url(path) else load_manifest(path)


def shard_files(path: PathLike | Sequence[PathLike], remote: RemoteOptions = PLAIN) -> list[str] | None:
    """The files that `path` means, in their order; None if it means one LMDB.

    path: a manifest; a pattern of glob that matches LMDBs, all of them if their names say how many there are, as
        "train-00017-of-00140.lmdb" does; or a list of LMDBs. Each may be a URL, but for a pattern. remote: how to read
        those.

    Raises FileNotFoundError where one is missing, and ValueError where one comes twice or none is named.
    """
    if not isinstance(path, (str, os.PathLike)):
        files = [os.fspath(file) for file in path]
        if not files:
            raise ValueError("a list of LMDBs must name one at least")
    else:
        path = os.fspath(path)
        if path.endswith(SUFFIX):
            folder = os.path.dirname(path)
            return [os.path.join(folder, shard.name) for shard in read_manifest(path, remote).shards]
        if is_url(path) and "*" in path:
            raise ValueError(f"{path} is a pattern, and files at URLs are not listed. Give the manifest, or a list of "
                             f"URLs")
        if is_url(path) or os.path.exists(path) or not glob.has_magic(path):
            return None
        files = sorted(file for file in glob.glob(path) if file.endswith((".lmdb", ".mdb")))
        if not files:
            raise FileNotFoundError(f"no LMDB matches {path}. Check it, and the folder")
        _refuse_missing(files)
    twice = sorted({file for file in files if files.count(file) > 1})
    if twice:
        raise ValueError(f"{twice[0]} is named twice, so its records would be read twice")
    return files


def _refuse_missing(files: list[str]) -> None:
    numbered = [match for match in map(_NUMBERED.fullmatch, files) if match]
    for stem, count in {(match[1], match[3]) for match in numbered}:
        there = {int(match[2]) for match in numbered if (match[1], match[3]) == (stem, count)}
        missing = [f"{stem}-{number:05d}-of-{count}.lmdb" for number in range(int(count)) if number not in there]
        if missing:
            more = f" and {len(missing) - _NAMED:,} more" * (len(missing) > _NAMED)
            raise FileNotFoundError(f"of {int(count):,} shards {len(missing):,} are missing: "
                                    f"{', '.join(missing[:_NAMED])}{more}. Dump or copy them, or give a list of those "
                                    f"that are there")
