"""Writes one split of ImageNet, or of any folder of classes, into one LMDB file with its index.

    python dump_imagenet.py --source IMAGENET --target DIR --split train --format jpeg

writes DIR/train.lmdb and DIR/train.lmdb.index.npz from the forms of ImageNet that dataflows/sources/layouts.py lists.

Exit code 0: the files are complete and verified, whatever came after that; 1: the dump failed or was interrupted,
changed nothing that has a final name, and said whether --resume can go on with it; 2: it was refused before anything
was written. With --check, which writes nothing, 0: a dump would succeed; 1: it would not.
"""
import argparse
import contextlib
import hashlib
import logging
import os
import sys
import time
import traceback
from importlib.metadata import version
from typing import Any, Callable, Iterator, NamedTuple, Sequence

import numpy as np

from dataflows.arguments import ArgumentParser
from dataflows.dump import check, findings
from dataflows.dump.check import Checked
from dataflows.dump.columns import Columns
from dataflows.dump.journal import Journal, Skip, is_verified, journal_path
from dataflows.dump.pack import FilePacker, Rest, shown
from dataflows.dump.prepare import MAX_PIXELS, Preparation
from dataflows.dump.publish import discard, leftovers, partial_path, prepare, rename
from dataflows.dump.resume import Start, refuse_existing, take_up
from dataflows.dump.space import refuse_full_disk
from dataflows.dump.summary import Summary, stages
from dataflows.dump.verify import checksums
from dataflows.dump.write import PackedLMDBSerializer
from dataflows.errors import Damaged, NoTiling, Refused
from dataflows.jpeg.tile import make_ready
from dataflows.options import integer, suggests
from dataflows.processors import default_workers
from dataflows.sources.imagenet import ImageNetFiles
from dataflows.storage.btree import locate, read_header
from dataflows.storage.index import Index, index_path, load_index, temporary_index_path
from dataflows.terminal import fill_standard_streams, printable, progress_bar, say, warn
from dataflows.threads import OrderedThreadMapData

__all__ = ["Checked", "Summary", "check_split", "dump_split", "main"]

logger = logging.getLogger(__name__)
_WRITING = ("shuffle", "seed", "resume")  # options of which a check knows nothing
_AHEAD = 32  # images that may wait for one before them that takes long


@suggests
def dump_split(source: str | os.PathLike[str], target: str | os.PathLike[str], split: str, *, format: str = "jpeg",
               max_side: int | None = None, shorter_side: int | None = None, quality: int = 90, tiles: bool = True,
               trust: bool = False, shuffle: bool | None = None, seed: int = 0, num_workers: int | None = None,
               on_error: str = "fix", max_pixels: int = MAX_PIXELS, overwrite: bool = False,
               resume: bool = False, progress: bool = True) -> Summary:
    """Writes one split of a source into target/split.lmdb and its index, and returns a Summary.

    source: what ImageNetFiles reads: a folder with the split in one form, or the split's own folder or tar.
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
    on_error: "fix" stores what torchvision's ImageFolder shows, PIL's RGB pixels, of what is CMYK, YCCK, transparent or
        deeper than 8 bits, and stops at the first file that cannot be read or decoded, or has no faithful RGB form;
        "skip" leaves such files out, and lists them in the index and in the summary; "raise" stops also at what "fix"
        converts.
    max_pixels: an image whose header states more is an error, before anything of it is decoded.
    overwrite: replace existing files of that name; without it they are an error.
    resume: go on with a dump that was interrupted, if there is one; the file is the same, byte for byte, as without
        the interruption. Refused when source, options or versions differ. Without it, what is left is removed.
    progress: show what was found in the source, and a progress bar, on stderr.

    The LMDB is written under a temporary name, read back from the disk, and renamed; the index comes last, so its
    presence means that the dump is complete. An error, Ctrl-C or a kill leaves earlier files as they were; what was
    written so far is kept for `resume`, in whole transactions of 64 MB. Raises Refused (a ValueError) for arguments,
    sources and targets that are refused before anything is written, ValueError for a bad image, OSError when the disk
    or the system fails, MemoryError.

    >>> summary = dump_split("IMAGENET", "DIR", "val", progress=False)
    >>> summary.path, summary.format, summary.count
    ('DIR/val.lmdb', 'jpeg', 10)
    """
    path = _path(target, split)
    shuffle = split not in ("val", "test") if shuffle is None else shuffle
    started = time.perf_counter()
    with _refusing():
        preparation, num_workers = _checked_options(split, on_error, num_workers, format, max_side, shorter_side,
                                                    quality, tiles, trust, max_pixels)
        seed = integer("seed", seed, 0)
        _make_tiling_ready(preparation, progress)
        files = _listed(source, split, seed if shuffle else None, progress)
        files.refuse(unreadable=on_error != "skip")
        options = {"max_side": max_side, "shorter_side": shorter_side, "quality": quality,
                   "tiles": tiles and format == "jpeg"}
        meta = {"format": format, "split": split, "seed": seed if shuffle else None, "classes": files.classes,
                "class_names": files.class_names, "layout": files.layout, "left_out": files.left_out,
                "options": options, "tools": _tools()}
        header = {"format": format, **options, "trust": trust, "seed": meta["seed"], "max_pixels": max_pixels,
                  "files": len(files), "source": _digest(files), "tools": meta["tools"]}
        os.makedirs(target, exist_ok=True)
        journal = Journal(path)

    with contextlib.closing(journal):
        with _refusing():
            start = take_up(path, journal, header, on_error, resume=resume, overwrite=overwrite)
            if not start.written:
                refuse_full_disk(target, files.pointers, FilePacker(files, preparation, "skip"),
                                 len(files) - start.files, num_workers)
        with _keeping_what_is_written(path, journal):
            if not start.files and not start.written:
                journal.begin(header)
            busy = _Busy() if start.written else _write(files, FilePacker(files, preparation, on_error), start, path,
                                                        journal, num_workers, progress)
            columns = Columns(journal.rows())
            columns.unreadable += [Skip(*unreadable) for unreadable in files.unreadable]
            if not columns:
                raise ValueError(f"none of the {len(files):,} files in {files.root} could be read; the first is "
                                 f"{columns.skipped[0].name}: {columns.skipped[0].reason}")
            if not start.published:
                prepare(path, _read_back(path, columns, num_workers, progress, meta), journal)
                refuse_existing(path, overwrite)  # somebody else may have made one meanwhile
                rename(path)
            summary = _summary(path, columns, start, num_workers, busy, time.perf_counter() - started)
        try:
            journal.remove()
        except OSError as error:
            logger.warning("%s is complete and verified, but its journal cannot be removed: %s. Remove it",
                           printable(path), printable(str(error)))
    return summary


def check_split(source: str | os.PathLike[str], split: str, *, target: str | os.PathLike[str] | None = None,
                format: str = "jpeg", max_side: int | None = None, shorter_side: int | None = None, quality: int = 90,
                tiles: bool = True, trust: bool = False, num_workers: int | None = None, on_error: str = "fix",
                max_pixels: int = MAX_PIXELS, overwrite: bool = False, progress: bool = True) -> Checked:
    """Examines and prepares all files as dump_split would, writes nothing, and returns a Checked: all that was found.

    Options are those of dump_split. target: if given, whether its files may be made there, and fit, is checked, too.
    Of each file its findings are kept, and not its content. Raises Refused (a ValueError) for arguments and
    sources that cannot be examined at all; what else would stop a dump is in the result.

    >>> checked = check_split("IMAGENET", "val", progress=False)
    >>> checked.ok, checked.count, checked.failures, checked.findings
    (True, 10, [], {'grayscale': ['n01440764/n01440764_1.JPEG']})
    """
    started = time.perf_counter()
    with _refusing():
        preparation, num_workers = _checked_options(split, on_error, num_workers, format, max_side, shorter_side,
                                                    quality, tiles, trust, max_pixels)
        _make_tiling_ready(preparation, progress)
        files = _listed(source, split, None, progress)
    packer = FilePacker(files, preparation, "skip")  # which goes on behind a file that stops a dump
    with progress_bar(f"checking {split}", len(files), shown=progress, unit=" images") as bar:
        packed = shown(OrderedThreadMapData(files, packer, num_threads=num_workers,
                                            buffer_size=max(_AHEAD, 4 * num_workers)), bar)
        found = check.collect(packed)
    path = None if target is None else _path(target, split)
    return check.result(files, found, path, split, format, on_error, overwrite, time.perf_counter() - started)


def _path(target: str | os.PathLike[str], split: str) -> str:
    return os.path.join(os.fspath(target), f"{split}.lmdb")


def _checked_options(split: str, on_error: str, num_workers: int | None, format: str, max_side: int | None,
                     shorter_side: int | None, quality: int, tiles: bool, trust: bool,
                     max_pixels: int) -> tuple[Preparation, int]:
    """How images are prepared, and in how many threads. Raises ValueError for options out of range."""
    if on_error not in ("raise", "skip", "fix"):
        raise ValueError(f"on_error must be 'raise', 'fix' or 'skip', not {on_error!r}")
    if split in ("", ".", "..") or os.path.basename(split) != split:
        raise ValueError(f"split must be the name of a folder in the source, such as train, not {split!r}")
    preparation = Preparation(format, max_side, shorter_side, quality, tiles, trust, on_error != "raise", max_pixels)
    return preparation, default_workers() if num_workers is None else integer("num_workers", num_workers, 1)


def _listed(source: str | os.PathLike[str], split: str, seed: int | None, progress: bool) -> ImageNetFiles:
    """The files of a split, also where some folders cannot be looked into."""
    files = ImageNetFiles(source, split, seed=seed, tolerant=True)
    _note(f"reading {files.layout}", progress)
    return files


def _make_tiling_ready(preparation: Preparation, progress: bool) -> None:
    """Compiles what tiles JPEGs, if it is wanted: before anything is written, and in one thread."""
    if preparation.tiles and preparation.format == "jpeg":
        make_ready(lambda: _note("compiling what tiles JPEGs, which takes seconds, once on a machine", progress))


class _Busy(NamedTuple):
    """How many seconds the stages of writing were at work."""

    preparing: float = 0.0  # of all workers
    writing: float = 0.0
    together: float = 0.0  # from the first to the last moment


def _tools() -> dict[str, str]:
    return {name: version(name) for name in ("lmdb", "msgpack", "numpy", "simplejpeg", "tensorpack")}


def _digest(files: ImageNetFiles) -> str:
    """Tells one list of source files, in their order, from another; not their content."""
    digest = hashlib.sha256(repr(files.classes).encode(errors="surrogateescape"))
    for name, label in files:
        digest.update(os.fsencode(name) + b"\0%d\n" % label)
    return digest.hexdigest()


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, NoTiling) as error:
        raise Refused(str(error)) from error


def _note(text: str, shown: bool) -> None:
    """On stderr beside the progress bar; without it, in the log."""
    warn(text) if shown else logger.info(text)


@contextlib.contextmanager
def _keeping_what_is_written(path: str, journal: Journal) -> Iterator[None]:
    """If the body fails, keeps the unfinished dump if there is a record in it that is worth it."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, Damaged) or not _has_records(partial_path(path)) and not journal.verified:
            with contextlib.suppress(OSError):  # what went wrong before is the news
                discard(path, journal)
        raise


def _has_records(partial: str) -> bool:
    try:
        return read_header(partial).entries > 1
    except (OSError, ValueError):
        return False


def _write(files: ImageNetFiles, pack: FilePacker, start: Start, path: str, journal: Journal, num_workers: int,
           progress: bool) -> _Busy:
    """Adds what is missing to the unfinished LMDB and its journal."""
    began = time.perf_counter()
    with progress_bar(f"writing {os.path.basename(path)}", len(files), shown=progress, initial=start.files,
                      unit=" images") as bar:
        packed = OrderedThreadMapData(Rest(files, start.files), pack, num_threads=num_workers,
                                      buffer_size=max(_AHEAD, 4 * num_workers))
        writing = PackedLMDBSerializer.save(shown(packed, bar), partial_path(path), first=start.records,
                                            log=journal.add)
    return _Busy(pack.seconds, writing, time.perf_counter() - began)


def _read_back(path: str, columns: Columns, num_threads: int, progress: bool, meta: dict[str, Any]) -> Index:
    """The index of the written file, after comparing what the disk holds of each record with its checksum."""
    partial, size, count = partial_path(path), os.path.getsize(partial_path(path)), len(columns)
    try:
        nbytes, offsets = locate(partial)
        if len(nbytes) != count:
            raise ValueError(f"{partial}: {count:,} records were written and {len(nbytes):,} are there")
        with progress_bar(f"reading {os.path.basename(path)} back", size, shown=progress, unit="B",
                          unit_scale=True) as bar:
            bad, rest = checksums(partial, nbytes, offsets, np.array(columns.checksums, np.uint32),
                                  num_threads=num_threads, advance=bar.update)
        if bad or rest is None:
            raise ValueError(f"{partial}, key {min(bad, default=count):08d}: what was read back is not what was "
                             f"written, of {len(bad):,} records")
    except ValueError as error:
        raise Damaged(f"{error}. Check the disk, then dump again") from error
    return columns.index(nbytes, offsets, meta | {"file_size": size, "rest_crc32": rest})


def _summary(path: str, columns: Columns, start: Start, num_workers: int, busy: _Busy, seconds: float) -> Summary:
    index = load_index(path, path)
    assert index is not None
    meta, found = index.meta, index.meta["findings"]
    resumed = index.count if start.published else start.records
    return Summary(path, index_path(path), meta["format"], index.count, len(index.classes), columns.source_bytes,
                   meta["file_size"], 3 * int(np.dot(index.height.astype(np.int64), index.width)), seconds,
                   meta["skipped"], meta["untiled"], {finding: len(numbers) for finding, numbers in found.items()},
                   findings.examples(found, columns.names), meta["class_counts"], meta.get("left_out", {}),
                   meta["layout"], resumed,
                   stages(num_workers, index.count - resumed, seconds, **busy._asdict()))


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(prog="dump-imagenet", description=__doc__,
                            formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--source", required=True, help="folder of ImageNet in any of its forms (class folders, official tars, "
        "Kaggle's), or of class folders per split; or the one tar or folder to read")
    add("--target", help="folder to write SPLIT.lmdb and its index into; may be left out with --check")
    add("--split", required=True, help="train, val, or any other split of the source")
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
    add("--on-error", choices=("raise", "fix", "skip"), default="fix",
        help="raise: stop at the first file that is not 8-bit RGB or gray, or cannot be read; fix: convert the former "
        "as ImageFolder does, and stop at the latter; skip: leave the latter out (default fix)")
    add("--max-pixels", type=int, default=MAX_PIXELS, metavar="N",
        help=f"refuse images whose header states more (default {MAX_PIXELS})")
    add("--check", action="store_true", help="examine all files, list what would stop the dump and all that is found, "
        "and write nothing; --seed, --no-shuffle and --resume play no part in it")
    add("--overwrite", action="store_true", help="replace files that exist")
    add("--resume", action="store_true", help="go on with a dump that was interrupted, if there is one")
    add("--no-progress", dest="progress", action="store_false", help="show no progress bar")
    return parser


class _Ending:
    """What an unfinished dump has left, told from the disk, for it may have ended anywhere."""

    def __init__(self, target: str, split: str) -> None:
        self._path = _path(target, split)
        self._before = {_identity(name) for name in self._indexes()}

    def _indexes(self) -> tuple[str, str]:
        return index_path(self._path), temporary_index_path(self._path)

    def tell(self, what: str) -> int:
        """Says on stderr what happened and what is kept; returns the exit code."""
        complete, kept = False, "nothing was kept"
        if is_verified(self._path):
            complete = not leftovers(self._path)
            kept = "the dump is complete and verified, and lacks only its final name: --resume gives it that"
        elif os.path.exists(journal_path(self._path)):
            kept = "what was written is kept: go on from there with --resume, or start anew without it"
        else:  # the index comes last
            complete = _identity(self._indexes()[0]) not in {None, *self._before}
        code = _failed(f"{what}; {'the dump is complete and verified all the same' if complete else kept}")
        return 0 if complete else code


def _identity(path: str) -> tuple[int, int] | None:
    """Tells a file from another of the same name."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; see the module's text for exit codes."""
    fill_standard_streams()
    parser = _parser()
    arguments = vars(parser.parse_args(argv))
    if arguments.pop("check"):
        return _ending_well(lambda: _check(arguments), lambda what: _failed(f"{what}; nothing was written"))
    if arguments["target"] is None:
        parser.error("the following arguments are required: --target (but for --check)")
    return _ending_well(lambda: _dump(arguments), _Ending(arguments["target"], arguments["split"]).tell)


def _check(arguments: dict[str, Any]) -> int:
    checked = check_split(**{name: value for name, value in arguments.items() if name not in _WRITING})
    say(str(checked))
    return 0 if checked.ok else 1


def _dump(arguments: dict[str, Any]) -> int:
    say(str(dump_split(**arguments)))
    return 0


def _failed(what: str) -> int:
    warn(f"dump-imagenet: {what}")
    return 1


def _ending_well(run: Callable[[], int], tell: Callable[[str], int]) -> int:
    """The exit code of `run`, or that of `tell`, which is given what ended it."""
    try:
        return run()
    except Refused as error:
        warn(f"dump-imagenet: {error}")
        return 2
    except KeyboardInterrupt:
        return tell("interrupted")
    except MemoryError as error:
        return tell(f"out of memory ({error}): fewer --num-workers need less")
    except (OSError, ValueError) as error:
        return tell(str(error))
    except Exception as error:
        for line in traceback.format_exc().splitlines():
            warn(line)
        return tell(f"unexpected {type(error).__name__}: {error}")


if __name__ == "__main__":
    sys.exit(main())
