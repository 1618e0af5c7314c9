"""The dump of one split into several files, and the manifest that makes one data set of them.

A shard is done when it has its final names. Its journal stays, so that the same command finds it done, and so that the
manifest is made of what is known of all images; then all journals are removed.
"""
import contextlib
import dataclasses
import glob
import os
import time
from typing import Iterator
from zlib import crc32

import numpy as np

from dataflows.dump.columns import Columns
from dataflows.dump.one_file import Options, dump_file, refusing, remove
from dataflows.dump.recovery.journal import Journal, SkippedFile, StoredFile
from dataflows.dump.summary import Busy, Summary, summarize
from dataflows.sources.source import ImageSource
from dataflows.storage.flush import flush
from dataflows.storage.index import Index, load_index
from dataflows.storage.index_meta import IndexMeta
from dataflows.storage.shards.files import shard_name
from dataflows.storage.shards.joined import joined_meta
from dataflows.storage.shards.manifest import Manifest, Shard, manifest_path


def shard_paths(target: str, split: str, count: int) -> list[str]:
    """Where the shards of a split are."""
    return [os.path.join(target, shard_name(split, number, count)) for number in range(count)]


def dump_shards(files: ImageSource, target: str, split: str, count: int, meta: IndexMeta, options: Options,
                started: float) -> Summary:
    """Writes the images of a source to `count` files, and their manifest; the rest as dump_split says."""
    paths, manifest = shard_paths(target, split, count), manifest_path(target, split)
    with refusing():
        _refuse(files, split, count, target, paths, options)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(manifest)  # its shards are replaced one by one
        if options.upload is not None:
            options.upload.withdraw(manifest)
    done = [dump_file(part, path, meta, options, shard=True) for part, path in zip(_parts(files, count), paths)]
    columns = Columns(_rows(paths))
    columns.unreadable += [SkippedFile(*unreadable) for unreadable in files.unreadable]
    _write(manifest, _manifest(paths, columns, meta))
    if options.upload is not None:
        options.upload.put(manifest)
    for path in paths:
        remove(Journal(path), path)
    busy = Busy(*map(sum, zip(*(one.busy for one in done))))
    resumed = sum(len(one.columns) if one.resumed is None else one.resumed for one in done)
    return summarize(options.placed(manifest), columns, options.storage_options, resumed=resumed,
                     num_workers=options.num_workers, busy=busy, seconds=time.perf_counter() - started)


def _refuse(files: ImageSource, split: str, count: int, target: str, paths: list[str], options: Options) -> None:
    if files.count is None:
        raise ValueError("shards need to know how many images there are, and this source gives them one by one. Give "
                         "a list, or one file")
    if count > files.count:
        raise ValueError(f"shards must be at most the number of images, {files.count:,}, not {count:,}")
    if files.classes is None:
        raise ValueError("shards need the names of all classes, and of samples nobody knows them before the last: give "
                         "classes")
    manifest = manifest_path(target, split)
    if os.path.lexists(manifest) and not options.overwrite and options.upload is None:  # or the one there counts
        raise FileExistsError(f"{manifest} exists already: nothing is left to do. Give another target, or "
                              f"overwrite=True to replace the data set")
    done = next(filter(os.path.lexists, paths), None)
    if done is not None and not (options.resume or options.overwrite):
        raise FileExistsError(f"{done} exists already, and no manifest: a dump into shards was interrupted. "
                              f"resume=True goes on with it, and overwrite=True replaces it")
    others = sorted({*glob.glob(os.path.join(glob.escape(target), f"{glob.escape(split)}-*-of-*.lmdb"))} - {*paths})
    if others:
        raise FileExistsError(f"{others[0]} is a shard of a dump into another number of files. Remove those, or give "
                              f"another target")


def _parts(files: ImageSource, count: int) -> list[ImageSource]:
    """The stretches of a source that go to the files, in its order."""
    assert files.count is not None
    bounds = [files.count * number // count for number in range(count + 1)]
    return [files.part(start, stop) for start, stop in zip(bounds, bounds[1:])]


def _rows(paths: list[str]) -> Iterator[StoredFile | SkippedFile]:
    """What the journals of all shards say of each image."""
    for path in paths:
        with contextlib.closing(Journal(path)) as journal:
            yield from journal.rows()


def _manifest(paths: list[str], columns: Columns, meta: IndexMeta) -> Manifest:
    indices: list[Index] = []
    for path in paths:
        index = load_index(path, path)  # the LMDB need not be here any more
        assert index is not None
        indices.append(index)
    files = joined_meta(indices)
    meta = columns.index(np.zeros(0), np.zeros(0), meta).meta
    meta = dataclasses.replace(meta, file_size=files.file_size, rest_crc32=files.rest_crc32)
    checksum = 0
    for index in indices:
        checksum = crc32(index.crc32.tobytes(), checksum)
    return Manifest(meta, checksum, tuple(map(Shard.of, paths, indices)))


def _write(path: str, manifest: Manifest) -> None:
    """The manifest, on the disk before it has its name: it says that all is complete."""
    temporary = path + ".partial"
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(manifest.to_json())
    flush(temporary)
    os.replace(temporary, path)
    flush(os.path.dirname(path) or ".")
