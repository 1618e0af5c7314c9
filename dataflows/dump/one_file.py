"""The dump of a list of images into one LMDB file with its index: the steps, in order; any may be the last."""
import contextlib
import dataclasses
import hashlib
import logging
import os
import time
from typing import Any, Iterator

from dataflows.dump.columns import Columns
from dataflows.dump.pack import Counter, FilePacker, counted, counting, packed_files
from dataflows.dump.prepare import Preparation
from dataflows.dump.recovery import publish
from dataflows.dump.recovery.journal import Journal, SkippedFile, StoredFile
from dataflows.dump.recovery.resume import (
    ResumePoint,
    find_resume_point,
    is_done,
    refuse_existing,
    refuse_other_samples,
    rest,
)
from dataflows.dump.recovery.upload import Upload, placed
from dataflows.dump.space import refuse_full_disk
from dataflows.dump.summary import Busy
from dataflows.dump.verify import read_back
from dataflows.dump.write import PackedLMDBSerializer
from dataflows.errors import Damaged, NoTiling, NotStarted, Refused
from dataflows.sources.source import ImageSource
from dataflows.storage.btree import read_header
from dataflows.storage.index import Index
from dataflows.storage.index_meta import IndexMeta
from dataflows.terminal import printable, progress_bar

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """How images become files; dump_split says more about each."""

    preparation: Preparation
    on_error: str
    num_workers: int
    overwrite: bool
    resume: bool
    progress: bool
    upload: Upload | None = None  # where complete files go, if not into the folder in which they are written

    def placed(self, path: str) -> str:
        """Where a file is when all is done."""
        return placed(path, self.upload)

    def is_there(self, path: str) -> bool:
        """Whether a file is where it belongs."""
        return os.path.isfile(path) if self.upload is None else self.upload.has(path)


@dataclasses.dataclass(frozen=True)
class Dumped:
    """What was done for one file. resumed: records that were there before; None for all."""

    columns: Columns
    busy: Busy
    resumed: int | None


def dump_file(files: ImageSource, path: str, meta: IndexMeta, options: Options, *,
              count: Counter | None = None) -> Dumped:
    """Writes the images of a source to `path` and its index, verified.

    count: is told of each record in place of a progress bar, for the file is a shard: its journal stays when it is
        complete, and of what only the whole can have, such as counts of classes, its index has nothing.

    Raises what dump_split does.
    """
    shard = count is not None
    header = _header(files, options.preparation, meta)
    with refusing():
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        journal = Journal(path, lock=not shard)  # the folder of a shard is its attempt's own
    with contextlib.closing(journal):
        with refusing(path):
            done = shard and options.resume and is_done(path, journal, header, options.on_error)
            start = ResumePoint(written=True, published=True) if done else find_resume_point(
                path, journal, header, options.on_error, resume=options.resume, overwrite=options.overwrite)
            if not start.written and files.pointers is not None:
                refuse_full_disk(os.path.dirname(path) or ".", files.pointers,
                                 FilePacker(files, options.preparation, "skip"), len(files.pointers) - start.files,
                                 options.num_workers)

        with _keeping_what_is_written(path, journal):
            if not start.files and not start.written:
                journal.begin(header)
            busy = Busy()
            if start.written:
                refuse_other_samples(files, journal, start, path)
            else:
                busy = _write(files, start, path, journal, options, count)
            columns = Columns(journal.rows())
            columns.unreadable += [SkippedFile(*unreadable) for unreadable in files.unreadable]
            columns.refuse_empty(files.root or "the source")
            if not start.published:
                index = _verified_index(path, columns, columns.with_classes(meta, files.classes), options, not shard)
                publish.prepare(path, index, journal)
                refuse_existing(path, options.overwrite)  # somebody else may have made one meanwhile
                publish.rename(path)
            if options.upload is not None and os.path.exists(path):  # else it is there
                options.upload.publish(path, progress=options.progress)
                os.unlink(path)
        if not shard:
            remove(journal, path)
    return Dumped(columns, busy, None if start.published else start.records)


def _header(files: ImageSource, preparation: Preparation, meta: IndexMeta) -> dict[str, Any]:
    """What the journal says of the dump: all that decides about its bytes."""
    return {"format": preparation.format, **meta.options, "trust": not preparation.compare_pixels,
            "seed": meta.seed, "max_pixels": preparation.max_pixels, "files": files.count,
            "source": _digest(files), "tools": meta.tools}


def _digest(files: ImageSource) -> str:
    """Tells one list of source files, in their order, from another; not their content. Of samples, only their kind."""
    digest = hashlib.sha256(repr(files.classes).encode(errors="surrogateescape"))
    if not files.listed:
        digest.update(files.layout.encode())
    for name, label, *_ in files if files.listed else ():
        digest.update(os.fsencode(name) + (b"\0%d\n" % label if isinstance(label, int) else b"\0" + label.tobytes()))
    return digest.hexdigest()


@contextlib.contextmanager
def refusing(path: str | None = None) -> Iterator[None]:
    """Raises errors of the body as Refused, or as NotStarted if it changed what an earlier dump to `path` had left."""
    before = _temporary(path)
    try:
        yield
    except (OSError, ValueError, NoTiling) as error:
        raise (Refused if _temporary(path) == before else NotStarted)(str(error)) from error


def _temporary(path: str | None) -> list[str]:
    return [] if path is None else publish.leftovers(path)


def remove(journal: Journal, path: str) -> None:
    """Removes the journal of a complete file; a warning says so where that fails."""
    try:
        journal.remove()
    except OSError as error:
        logger.warning("%s is complete and verified, but its journal cannot be removed: %s. Remove it",
                       printable(path), printable(str(error)))


@contextlib.contextmanager
def _keeping_what_is_written(path: str, journal: Journal) -> Iterator[None]:
    """If the body fails, keeps the unfinished dump if there is a record in it that is worth it."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, Damaged) or not _has_records(publish.partial_path(path)) and not journal.verified:
            with contextlib.suppress(OSError):  # what went wrong before is the news
                publish.discard(path, journal)
        raise


def _has_records(partial: str) -> bool:
    try:
        return read_header(partial).entries > 1
    except (OSError, ValueError):
        return False


def _write(files: ImageSource, start: ResumePoint, path: str, journal: Journal, options: Options,
           count: Counter | None) -> Busy:
    """Adds what is missing to the unfinished LMDB and its journal."""
    began = time.perf_counter()
    packer = FilePacker(files, options.preparation, options.on_error)
    with progress_bar(f"writing {os.path.basename(path)}", files.count, shown=options.progress and count is None,
                      initial=start.files, unit=" images") as bar:
        first = next((row for row in journal.rows() if isinstance(row, StoredFile)), None)
        packed = packed_files(rest(files, journal, start.files, path), packer, options.num_workers, first)
        writing = PackedLMDBSerializer.save(counted(packed, count or counting(bar)), publish.partial_path(path),
                                            first=start.records, log=journal.add)
    return Busy(packer.seconds, writing, time.perf_counter() - began)


def _verified_index(path: str, columns: Columns, meta: IndexMeta, options: Options, whole: bool) -> Index:
    """The index of the written file, once the disk has been found to hold each of its records."""
    partial = publish.partial_path(path)
    nbytes, offsets, rest_crc32 = read_back(partial, columns.checksums, name=os.path.basename(path),
                                            num_threads=options.num_workers, progress=options.progress and whole)
    meta = dataclasses.replace(meta, file_size=os.path.getsize(partial), rest_crc32=rest_crc32)
    return columns.index(nbytes, offsets, meta, whole=whole)
