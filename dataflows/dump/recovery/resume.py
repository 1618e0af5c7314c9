"""What an interrupted dump left behind, and where the next dump can go on."""
import logging
import os
from typing import Any, Iterator, NamedTuple

from dataflows.dump.pack import image_digest
from dataflows.dump.prepare import CONVERTED
from dataflows.dump.recovery.journal import Journal, SkippedFile, StoredFile, noted
from dataflows.dump.recovery.publish import clear, leftovers, partial_path, rename
from dataflows.errors import RecordError
from dataflows.order.parts import Slice
from dataflows.sources.source import ImageSource
from dataflows.storage.btree import read_header
from dataflows.storage.index import index_path
from dataflows.tensorpack import DataFlow, ProxyDataFlow
from dataflows.terminal import printable

logger = logging.getLogger(__name__)


class ResumePoint(NamedTuple):
    """Where a dump starts."""

    files: int = 0  # source files that are dealt with
    records: int = 0  # of them, that LMDB holds
    written: bool = False  # whether LMDB holds all, and has at most to be read back
    published: bool = False  # whether there is nothing left to do


def find_resume_point(path: str, journal: Journal, header: dict[str, Any], on_error: str, *, resume: bool,
                      overwrite: bool) -> ResumePoint:
    """Where the dump into `path` that `header` describes starts, after what is left of an earlier one is dealt with.

    `on_error` is no part of the header: another one may go on, if it had dealt alike with all files so far.

    Logs what it found, as a warning. A verified dump is given its final names; another is kept if `resume`, and
    removed if not. Raises ValueError for one that this dump cannot go on from, and FileExistsError if `path` exists
    and may not be replaced; then nothing was changed.
    """
    if journal.verified:
        return _finish(path, journal, header, on_error, resume, overwrite)
    refuse_existing(path, overwrite)
    found = _find(path, journal)
    if resume and found.files:
        _refuse_differences(path, _differences(journal, header, on_error, None if found.written else found.records))
        files = journal.cut(None if found.written else found.records)
        logger.warning("%s: an interrupted dump left %s images; going on from there", printable(path),
                       f"{found.records:,}")
        return found._replace(files=files)
    if journal.header is not None or leftovers(path):
        logger.warning("%s: an interrupted dump left %s images; they were removed, and the dump starts anew%s",
                       printable(path), f"{found.records:,}", "" if resume else " (to resume would keep them)")
    clear(path)
    journal.clear()
    return ResumePoint()


def is_done(path: str, journal: Journal, header: dict[str, Any], on_error: str) -> bool:
    """Whether an earlier dump like this one has finished a shard, whose journal stays for its manifest."""
    return (journal.verified and not leftovers(path) and os.path.exists(path) and os.path.exists(index_path(path))
            and not _differences(journal, header, on_error))


def _finish(path: str, journal: Journal, header: dict[str, Any], on_error: str, resume: bool,
            overwrite: bool) -> ResumePoint:
    if os.path.lexists(partial_path(path)):  # no rename was made yet, so what has the final name is another file
        refuse_existing(path, overwrite)
    rename(path)
    logger.warning("%s: a dump was interrupted when it was complete and verified; it now has its final name",
                   printable(path))
    if resume and not _differences(journal, header, on_error):
        return ResumePoint(written=True, published=True)
    journal.clear()
    refuse_existing(path, overwrite)
    return ResumePoint()


def _find(path: str, journal: Journal) -> ResumePoint:
    """What LMDB holds and the journal has lines of; anything else cannot be used."""
    partial = partial_path(path)
    if journal.header is None or not os.path.exists(partial):
        return ResumePoint()
    try:
        entries = read_header(partial).entries
    except ValueError:  # LMDB had not even begun, or the machine stopped and the disk lost what it had promised to keep
        return ResumePoint()
    rows = records = 0
    for row in journal.rows():
        rows, records = rows + 1, records + isinstance(row, StoredFile)
    written = entries == records + 1  # the list of keys comes with the last records
    if not entries or entries > records + 1:
        return ResumePoint()
    return ResumePoint(rows, entries - written, written)


def _differences(journal: Journal, header: dict[str, Any], on_error: str, records: int | None = None) -> list[str]:
    """How the interrupted dump differs from this one; only its first `records` records count, unless None."""
    found = journal.header or {}
    told = [f"{name} was {found.get(name)!r} and is {header.get(name)!r}" for name in {**header, **found}
            if found.get(name) != header.get(name)]
    for row in journal.rows():
        if records == 0:  # what comes behind is read again
            break
        if isinstance(row, SkippedFile):
            done = "left out" if on_error != "skip" else ""
        else:
            done = "converted" if on_error == "raise" and CONVERTED in row.findings else ""
            records = None if records is None else records - 1
        if done:
            return [*told, f"{row.name} was {done}, which on_error={on_error!r} does not do"]
    return told


def _refuse_differences(path: str, differences: list[str]) -> None:
    if differences:
        raise ValueError(f"the interrupted dump of {path} cannot be resumed: {'; '.join(differences)}. Use the same "
                         f"source, options and versions, or leave resume=True out to start anew")


def refuse_existing(path: str, overwrite: bool) -> None:
    """Raises FileExistsError unless a dump may take these names, IsADirectoryError if it cannot."""
    existing = [name for name in (path, index_path(path)) if os.path.lexists(name)]
    if existing and not overwrite:
        complete = ", and its index says that it is complete: nothing is left to do" * (len(existing) == 2)
        raise FileExistsError(f"{existing[0]} exists already{complete}. Give another target, or overwrite=True to "
                              f"replace it")
    if os.path.isdir(path):
        raise IsADirectoryError(f"{path} is a folder, and a dump is a file. Remove it, or give another target")


def rest(files: ImageSource, journal: Journal, count: int, path: str) -> DataFlow:
    """What is left of a source when its first `count` images, of which the journal tells, are dealt with.

    A list of files was compared already, by its digest. Of samples that come one by one, those are read and compared.
    """
    return Slice(files, count) if files.listed or not count else _Compared(files, journal, path)


def refuse_other_samples(files: ImageSource, journal: Journal, start: ResumePoint, path: str) -> None:
    """Raises ValueError unless a source that comes one by one still has the samples that are written: all of a dump's.
    """
    if files.listed or start.published:
        return
    for _ in rest(files, journal, start.files, path):
        _refuse_differences(path, [f"its source has more than {start.files:,} samples now"])


class _Compared(ProxyDataFlow):
    """The datapoints behind those that a journal tells of. Raises ValueError where one of these is another one now."""

    def __init__(self, files: ImageSource, journal: Journal, path: str) -> None:
        super().__init__(files)
        self._journal, self._path = journal, path

    def __iter__(self) -> Iterator[list[Any]]:
        pointers = iter(self.ds)
        for number, row in enumerate(self._journal.rows()):
            pointer = next(pointers, None)
            what = f"its source ended after {number:,} samples" if pointer is None else self._difference(pointer, row)
            if what:
                _refuse_differences(self._path, [what])
        yield from pointers

    def _difference(self, pointer: list[Any], row: StoredFile | SkippedFile) -> str:
        """What is another than it was; "" if nothing is."""
        same = pointer[0] == row.name
        if same and isinstance(row, StoredFile):
            try:
                image, label = self.ds.load(pointer)
                same = noted(label) == row.label and image_digest(image) == row.digest
            except (OSError, RecordError):
                same = False
        return "" if same else f"{self.ds.place(pointer)} is another one than it was"
