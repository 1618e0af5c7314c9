"""Writes one split of ImageNet, or of any folder of classes, into one LMDB file with its index.

    python dump_imagenet.py --source IMAGENET --target DIR --split train --format jpeg

reads IMAGENET/train/CLASS/*.JPEG and writes DIR/train.lmdb and DIR/train.lmdb.index.npz. Exit code 0: the files are
complete and verified; 1: the dump failed or was interrupted, changed nothing that has a final name, and said whether
--resume can go on with it; 2: it was refused before anything was written.
"""
import argparse
import contextlib
import dataclasses
import errno
import hashlib
import itertools
import os
import shutil
import sys
import threading
import time
from array import array
from collections import Counter
from importlib.metadata import version
from typing import Any, Iterator, Sequence

import numpy as np
import tqdm

from dataflows import record
from dataflows.imagenet import ImageNetFiles
from dataflows.index import Index, index_path, load_index
from dataflows.journal import Journal, Row, Skip, journal_path
from dataflows.options import integer
from dataflows.pages import locate, read_meta
from dataflows.parallel import OrderedThreadMapData, usable_cpus
from dataflows.prepare import Preparation
from dataflows.publish import discard, partial_path, prepare, rename
from dataflows.quiet import DataFlow, ProxyDataFlow
from dataflows.record import RecordError
from dataflows.summary import Summary, stages
from dataflows.unfinished import Start, refuse_existing, take_up
from dataflows.verify import checksums
from dataflows.write import Packed, PackedLMDBSerializer

__all__ = ["Summary", "dump_split", "main"]

_SAMPLE = 128  # images, or 1 %, prepared ahead of the dump to estimate its size: to within about 5 % on ImageNet
_AHEAD = 32  # images that may wait for one before them that takes long
_PAGE = 4096  # of LMDB: each record takes whole pages, the first of which starts with a header


class Refused(ValueError):
    """The arguments cannot be carried out, and nothing was written. `main` turns it into exit code 2."""


class Damaged(OSError):
    """What was read back is not what was written. Nothing of it is kept."""


class _Preparer:
    """Reads and prepares one file of a source: the work of the dump's threads. `seconds` is how long they did it."""

    def __init__(self, files: ImageNetFiles, preparation: Preparation, on_error: str) -> None:
        self._files, self._preparation, self._on_error = files, preparation, on_error
        self._lock = threading.Lock()
        self.seconds = 0.0

    def __call__(self, pointer: list[Any]) -> Packed:
        started = time.perf_counter()
        try:
            return self._prepare(*pointer)
        finally:
            with self._lock:
                self.seconds += time.perf_counter() - started

    def _prepare(self, name: str, label: int) -> Packed:
        try:
            content = self._files.read(name)
            prepared = self._preparation(content)
        except (OSError, RecordError) as error:
            path = os.path.join(self._files.root, name)
            if self._on_error == "raise":
                raise ValueError(f"{path}: {error}. Repair or remove the file, or leave such files out with "
                                 f"--on-error skip") from error
            return Packed(None, Skip(name, str(error)))
        packed = Packed(record.pack([prepared.image, label]))
        packed.note = Row(name, label, prepared.height, prepared.width, packed.crc32, len(content), prepared.untiled,
                          list(prepared.findings))
        return packed


class _Rest(ProxyDataFlow):
    """A DataFlow without its first datapoints."""

    def __init__(self, ds: DataFlow, first: int) -> None:
        super().__init__(ds)
        self._first = first

    def __len__(self) -> int:
        return len(self.ds) - self._first

    def __iter__(self) -> Iterator[Any]:
        return itertools.islice(self.ds, self._first, None)


class _Shown(ProxyDataFlow):
    """Shows the progress of Packed datapoints."""

    def __init__(self, ds: DataFlow, bar: tqdm.tqdm) -> None:
        super().__init__(ds)
        self._bar = bar

    def __iter__(self) -> Iterator[Packed]:
        started = time.perf_counter()
        written = 0
        for packed in self.ds:
            written += len(packed.value or b"")
            yield packed
            self._bar.update()
            self._bar.set_postfix_str(f"{written / 1e6 / (time.perf_counter() - started):.1f} MB/s", refresh=False)


class _Columns:
    """What the journal says of all source files, by column: a million Rows would take 400 MB."""

    def __init__(self, journal: Journal) -> None:
        self.labels, self.heights, self.widths, self.checksums = array("i"), array("i"), array("i"), array("I")
        self.names: list[bytes] = []
        self.source_bytes = 0
        self.untiled: Counter[str] = Counter()
        self.findings: dict[str, list[str]] = {}
        self.skipped: list[dict[str, str]] = []
        for row in journal.rows():
            self._add(row)

    def _add(self, row: Row | Skip) -> None:
        if isinstance(row, Skip):
            self.skipped.append(row._asdict())
            return
        for column, value in zip((self.labels, self.heights, self.widths, self.checksums), row[1:5]):
            column.append(value)
        self.names.append(os.fsencode(row.name))
        self.source_bytes += row.source_bytes
        if row.untiled is not None:
            self.untiled[row.untiled] += 1
        for finding in row.findings:
            self.findings.setdefault(finding, []).append(row.name)


def dump_split(source: str | os.PathLike[str], target: str | os.PathLike[str], split: str, *, format: str = "jpeg",
               max_side: int | None = None, shorter_side: int | None = None, quality: int = 90, tiles: bool = True,
               trust: bool = False, shuffle: bool | None = None, seed: int = 0, num_workers: int | None = None,
               on_error: str = "raise", overwrite: bool = False, resume: bool = False,
               progress: bool = True) -> Summary:
    """Writes source/split/CLASS/* into target/split.lmdb and its index, and returns a Summary.

    format: "jpeg" keeps the files' JPEG coefficients; "uint8" stores decoded RGB pixels of shape (H, W, 3): 5-6 times
        larger, no decoding when training.
    max_side, shorter_side: shrink larger images to this many pixels (antialiased, never enlarged), encoded anew at
        `quality`, 1 to 100, when format is "jpeg".
    tiles: turn JPEGs losslessly into tiled ones, whose crops cost about half to decode, for some per cent more bytes;
        False keeps the files' bytes. What cannot be tiled is stored as it is, and counted by reason in the summary.
    trust: leave out the comparison of each tiled JPEG's pixels with the original's.
    shuffle: write in a permutation that is a function of `seed`, as sequential reading for training needs it; by
        default for every split but val and test, which keep the order of torchvision's ImageFolder.
    num_workers: threads that read and prepare, by default one per processor. Records do not depend on it.
    on_error: "raise" stops at the first file that cannot be read or decoded; "skip" leaves such files out, and lists
        them in the index and in the summary.
    overwrite: replace existing files of that name; without it they are an error.
    resume: go on with a dump that was interrupted, if there is one; the file is the same, byte for byte, as without
        the interruption. Refused when source, options or versions differ. Without it, what is left is removed.
    progress: show a progress bar on stderr.

    The LMDB is written under a temporary name, read back from the disk, and renamed; the index comes last, so its
    presence means that the dump is complete. An error, Ctrl-C or a kill leaves earlier files as they were; what was
    written so far is kept for `resume`, in whole transactions of 64 MB. Raises Refused (a ValueError) for arguments,
    sources and targets that are refused before anything is written, ValueError for a bad image, OSError when the disk
    fails.
    """
    path = os.path.join(os.fspath(target), f"{split}.lmdb")
    shuffle = split not in ("val", "test") if shuffle is None else shuffle
    started = time.perf_counter()
    with _refusing():
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error must be 'raise' or 'skip', not {on_error!r}")
        if split in ("", ".", "..") or os.path.basename(split) != split:
            raise ValueError(f"split must be the name of a folder in the source, such as train, not {split!r}")
        preparation = Preparation(format, max_side, shorter_side, quality, tiles, trust)
        num_workers = usable_cpus() if num_workers is None else integer("num_workers", num_workers, 1)
        seed = integer("seed", seed, 0)
        files = ImageNetFiles(source, split, seed=seed if shuffle else None)
        header = {"format": format, "max_side": max_side, "shorter_side": shorter_side, "quality": quality,
                  "tiles": tiles, "trust": trust, "seed": seed if shuffle else None, "on_error": on_error,
                  "files": len(files), "source": _digest(files), "tools": _tools()}
        os.makedirs(target, exist_ok=True)
        journal = Journal(path)

    preparer = _Preparer(files, preparation, on_error)
    with contextlib.closing(journal):
        with _refusing():
            start = take_up(path, journal, header, resume=resume, overwrite=overwrite)
            if not start.written and not start.published:
                _refuse_full_disk(target, (len(files) - start.files) * _estimate_record_bytes(
                    files, preparation, num_workers))
        with _keeping_what_is_written(path, journal):
            writing = together = 0.0
            if not start.files and not start.published:
                journal.begin(header)
            if not start.written and not start.published:
                began = time.perf_counter()
                with _bar(len(files), f"writing {split}", progress, start.files) as bar:
                    prepared = OrderedThreadMapData(_Rest(files, start.files), preparer, num_threads=num_workers,
                                                    buffer_size=max(_AHEAD, 4 * num_workers))
                    writing = PackedLMDBSerializer.save(_Shown(prepared, bar), partial_path(path), first=start.records,
                                                        log=journal.add)
                together = time.perf_counter() - began
            columns = _Columns(journal)
            _refuse_nothing(columns, files)
            if not start.published:
                meta = {"format": format, "split": split, "classes": files.classes, "seed": header["seed"],
                        "layout": "folder of class folders", "tools": header["tools"],
                        "options": {"max_side": max_side, "shorter_side": shorter_side, "quality": quality,
                                    "tiles": tiles and format == "jpeg"}}
                prepare(path, _verified(path, columns, num_workers, progress, meta), journal)
                refuse_existing(path, overwrite)  # somebody else may have made one meanwhile
                rename(path)
            summary = _summary(path, columns, start, time.perf_counter() - started)
        journal.remove()
    return dataclasses.replace(summary, stages=stages(num_workers, summary.count - start.records, summary.seconds,
                                                      preparing=preparer.seconds, writing=writing, together=together))


def _refuse_nothing(columns: _Columns, files: ImageNetFiles) -> None:
    if not columns.names:
        raise ValueError(f"none of the {len(files):,} files in {files.root} could be read; the first is "
                         f"{columns.skipped[0]['name']}: {columns.skipped[0]['reason']}")


def _tools() -> dict[str, str]:
    return {name: version(name) for name in ("lmdb", "msgpack", "numpy", "simplejpeg", "tensorpack")}


def _digest(files: ImageNetFiles) -> str:
    """Tells one list of source files, in their order, from another; not their content."""
    digest = hashlib.sha256(repr(files.classes).encode(errors="surrogateescape"))
    for name, label in files:
        digest.update(os.fsencode(name) + b"\0%d\n" % label)
    return digest.hexdigest()


@contextlib.contextmanager
def _keeping_what_is_written(path: str, journal: Journal) -> Iterator[None]:
    """If the body fails, keeps the unfinished dump if there is a record in it that is worth it."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, Damaged) or not _has_records(partial_path(path)) and not journal.verified:
            discard(path, journal)
        raise


def _has_records(partial: str) -> bool:
    try:
        return read_meta(partial).entries > 1
    except (OSError, ValueError):
        return False


def _verified(path: str, columns: _Columns, num_threads: int, progress: bool, meta: dict[str, Any]) -> Index:
    """The index of the written file, after comparing what the disk holds of each record with its checksum."""
    partial, size, count = partial_path(path), os.path.getsize(partial_path(path)), len(columns.names)
    remedy = "Check the disk, then dump again"
    try:
        nbytes, offsets = locate(partial)
        if len(nbytes) != count:
            raise ValueError(f"{partial}: {count:,} records were written and {len(nbytes):,} are there")
        with tqdm.tqdm(total=size, desc=f"reading {meta['split']} back", unit="B", unit_scale=True,
                       disable=not progress, dynamic_ncols=True) as bar:
            expected = np.array(columns.checksums, np.uint32)
            bad, rest = checksums(partial, nbytes, offsets, expected, num_threads=num_threads, advance=bar.update)
        if bad or rest is None:
            number = min(bad, default=count)
            raise ValueError(f"{partial}, key {number:08d}: what was read back is not what was written, of "
                             f"{len(bad):,} records")
    except ValueError as error:
        raise Damaged(f"{error}. {remedy}") from error
    labels, heights, widths = (np.array(column) for column in (columns.labels, columns.heights, columns.widths))
    return Index(labels, heights, widths, nbytes, offsets, expected, np.array(columns.names),
                 meta=meta | {"file_size": size, "rest_crc32": rest, "untiled": dict(columns.untiled),
                              "findings": columns.findings,
                              "skipped": sorted(columns.skipped, key=lambda entry: entry["name"])})


def _summary(path: str, columns: _Columns, start: Start, seconds: float) -> Summary:
    index = load_index(path, path)
    assert index is not None
    meta = index.meta
    return Summary(path, index_path(path), meta["format"], index.count, len(index.classes), columns.source_bytes,
                   meta["file_size"], 3 * int(np.dot(index.height.astype(np.int64), index.width)), seconds,
                   meta["skipped"], meta["untiled"], {what: len(names) for what, names in meta["findings"].items()},
                   index.count if start.published else start.records)


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise Refused(str(error)) from error


def _estimate_record_bytes(files: ImageNetFiles, preparation: Preparation, num_workers: int) -> float:
    """Mean bytes that a record takes in the LMDB, from a sample spread evenly over the source."""
    size = min(_SAMPLE, max(16, len(files) // 100), len(files))
    sample = [files.pointers[i] for i in np.linspace(0, len(files) - 1, size).astype(int)]
    preparer = _Preparer(files, preparation, "skip")
    with contextlib.closing(iter(OrderedThreadMapData(sample, preparer, num_threads=num_workers,
                                                      buffer_size=num_workers))) as prepared:
        sizes = [-(-(len(image.value) + 16) // _PAGE) * _PAGE for image in prepared
                 if image.value is not None]
    return float(np.mean(sizes)) if sizes else float(_PAGE)


def _refuse_full_disk(target: str | os.PathLike[str], needed_bytes: float) -> None:
    needed, free = needed_bytes * 1.05, shutil.disk_usage(target).free
    if needed > free:
        raise OSError(errno.ENOSPC, f"the dump needs about {needed / 1e9:,.2f} GB and {os.fspath(target)} has "
                                    f"{free / 1e9:,.2f} GB free. Free some, give another --target, or store less with "
                                    f"--format jpeg, --max-side or --shorter-side")


def _bar(total: int, text: str, progress: bool, initial: int) -> tqdm.tqdm:
    return tqdm.tqdm(total=total, initial=initial, desc=text, unit=" images", disable=not progress, dynamic_ncols=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dump-imagenet", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--source", required=True, help="folder with one sub-folder per split, which has one per class")
    add("--target", required=True, help="folder to write SPLIT.lmdb and its index into")
    add("--split", required=True, help="train, val, or any other sub-folder of the source")
    add("--format", choices=("jpeg", "uint8"), default="jpeg", help="store JPEGs, or decoded pixels")
    add("--max-side", type=int, metavar="N", help="shrink images whose longer side exceeds N pixels")
    add("--shorter-side", type=int, metavar="N", help="shrink images whose shorter side exceeds N pixels")
    add("--quality", type=int, default=90, metavar="Q", help="of JPEGs that were shrunk, 1 to 100 (default 90)")
    add("--no-tiles", dest="tiles", action="store_false", help="keep the bytes of JPEG files as they are")
    add("--trust", action="store_true", help="do not compare the pixels of tiled JPEGs with the original's")
    add("--no-shuffle", dest="shuffle", action="store_false", default=None,
        help="keep the order of the folders; val and test always do")
    add("--seed", type=int, default=0, help="of the order in which other splits are written (default 0)")
    add("--num-workers", type=int, metavar="N", help="threads that read and prepare (default: one per processor)")
    add("--on-error", choices=("raise", "skip"), default="raise", help="what to do with a file that cannot be decoded")
    add("--overwrite", action="store_true", help="replace files that exist")
    add("--resume", action="store_true", help="go on with a dump that was interrupted, if there is one")
    add("--no-progress", dest="progress", action="store_false", help="show no progress bar")
    return parser


def _kept(arguments: dict[str, Any]) -> str:
    if os.path.exists(journal_path(os.path.join(arguments["target"], f"{arguments['split']}.lmdb"))):
        return "what was written is kept: go on from there with --resume, or start anew without it"
    return "nothing was kept"


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; see the module's text for exit codes."""
    arguments = vars(_parser().parse_args(argv))
    try:
        print(dump_split(**arguments))
    except KeyboardInterrupt:
        print(f"dump-imagenet: interrupted; {_kept(arguments)}", file=sys.stderr)
        return 1
    except Refused as error:
        print(f"dump-imagenet: {error}", file=sys.stderr)
        return 2
    except (OSError, ValueError) as error:
        print(f"dump-imagenet: {error}; {_kept(arguments)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
