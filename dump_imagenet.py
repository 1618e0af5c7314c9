"""Writes one split of ImageNet, or of any folder of classes, into one LMDB file with its index.

    python dump_imagenet.py --source IMAGENET --target DIR --split train --format jpeg

writes DIR/train.lmdb and DIR/train.lmdb.index.npz from the forms of ImageNet that dataflows/layouts.py lists. Exit code
0: the files are complete and verified; 1: the dump failed or was interrupted, changed nothing that has a final name,
and said whether --resume can go on with it; 2: it was refused before anything was written.
"""
import argparse
import contextlib
import hashlib
import os
import sys
import time
from importlib.metadata import version
from typing import Any, Iterator, NamedTuple, Sequence

import numpy as np
import tqdm

from dataflows import report
from dataflows.arguments import ArgumentParser
from dataflows.columns import Columns
from dataflows.imagenet import ImageNetFiles
from dataflows.index import Index, index_path, load_index
from dataflows.journal import Journal, journal_path
from dataflows.options import integer
from dataflows.packing import FilePacker, Rest, shown
from dataflows.pages import locate, read_header
from dataflows.parallel import OrderedThreadMapData, usable_cpus
from dataflows.prepare import MAX_PIXELS, Preparation
from dataflows.publish import discard, partial_path, prepare, rename
from dataflows.space import refuse_full_disk
from dataflows.summary import Summary, stages
from dataflows.unfinished import Start, refuse_existing, take_up
from dataflows.verify import checksums
from dataflows.write import PackedLMDBSerializer

__all__ = ["Summary", "dump_split", "main"]

_AHEAD = 32  # images that may wait for one before them that takes long


class Refused(ValueError):
    """The arguments cannot be carried out, and nothing was written. `main` turns it into exit code 2."""


class Damaged(OSError):
    """What was read back is not what was written. Nothing of it is kept."""


def dump_split(source: str | os.PathLike[str], target: str | os.PathLike[str], split: str, *, format: str = "jpeg",
               max_side: int | None = None, shorter_side: int | None = None, quality: int = 90, tiles: bool = True,
               trust: bool = False, shuffle: bool | None = None, seed: int = 0, num_workers: int | None = None,
               on_error: str = "raise", max_pixels: int = MAX_PIXELS, overwrite: bool = False,
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
    on_error: "raise" stops at the first file that cannot be read or decoded, or is not 8-bit RGB or gray; "skip" leaves
        such files out, and lists them in the index and in the summary; "fix" stores PIL's RGB pixels of what is CMYK,
        YCCK, transparent or deeper than 8 bits, and stops at all else.
    max_pixels: an image whose header states more is an error, before anything of it is decoded.
    overwrite: replace existing files of that name; without it they are an error.
    resume: go on with a dump that was interrupted, if there is one; the file is the same, byte for byte, as without
        the interruption. Refused when source, options or versions differ. Without it, what is left is removed.
    progress: show what was found in the source, and a progress bar, on stderr.

    The LMDB is written under a temporary name, read back from the disk, and renamed; the index comes last, so its
    presence means that the dump is complete. An error, Ctrl-C or a kill leaves earlier files as they were; what was
    written so far is kept for `resume`, in whole transactions of 64 MB. Raises Refused (a ValueError) for arguments,
    sources and targets that are refused before anything is written, ValueError for a bad image, OSError when the disk
    fails.

    >>> summary = dump_split("IMAGENET", "DIR", "val", progress=False)
    >>> summary.path, summary.format, summary.count
    ('DIR/val.lmdb', 'jpeg', 10)
    """
    path = os.path.join(os.fspath(target), f"{split}.lmdb")
    shuffle = split not in ("val", "test") if shuffle is None else shuffle
    started = time.perf_counter()
    with _refusing():
        if on_error not in ("raise", "skip", "fix"):
            raise ValueError(f"on_error must be 'raise', 'skip' or 'fix', not {on_error!r}")
        if split in ("", ".", "..") or os.path.basename(split) != split:
            raise ValueError(f"split must be the name of a folder in the source, such as train, not {split!r}")
        preparation = Preparation(format, max_side, shorter_side, quality, tiles, trust, on_error == "fix", max_pixels)
        num_workers = usable_cpus() if num_workers is None else integer("num_workers", num_workers, 1)
        seed = integer("seed", seed, 0)
        files = ImageNetFiles(source, split, seed=seed if shuffle else None)
        if progress:
            tqdm.tqdm.write(f"reading {files.layout}", file=sys.stderr)
        options = {"max_side": max_side, "shorter_side": shorter_side, "quality": quality,
                   "tiles": tiles and format == "jpeg"}
        meta = {"format": format, "split": split, "seed": seed if shuffle else None, "classes": files.classes,
                "class_names": files.class_names, "layout": files.layout, "options": options, "tools": _tools()}
        header = {"format": format, **options, "trust": trust, "seed": meta["seed"], "on_error": on_error,
                  "max_pixels": max_pixels, "files": len(files), "source": _digest(files), "tools": meta["tools"]}
        os.makedirs(target, exist_ok=True)
        journal = Journal(path)

    with contextlib.closing(journal):
        with _refusing():
            start = take_up(path, journal, header, resume=resume, overwrite=overwrite)
            if not start.written:
                refuse_full_disk(target, files.pointers, FilePacker(files, preparation, "skip"),
                                 len(files) - start.files, num_workers)
        with _keeping_what_is_written(path, journal):
            if not start.files and not start.written:
                journal.begin(header)
            busy = _Busy() if start.written else _write(files, FilePacker(files, preparation, on_error), start, path,
                                                        journal, num_workers, progress)
            columns = Columns(journal.rows())
            if not columns:
                raise ValueError(f"none of the {len(files):,} files in {files.root} could be read; the first is "
                                 f"{columns.skipped[0].name}: {columns.skipped[0].reason}")
            if not start.published:
                prepare(path, _read_back(path, columns, num_workers, progress, meta), journal)
                refuse_existing(path, overwrite)  # somebody else may have made one meanwhile
                rename(path)
            summary = _summary(path, columns, start, num_workers, busy, time.perf_counter() - started)
        journal.remove()
    return summary


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
    except (OSError, ValueError) as error:
        raise Refused(str(error)) from error


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
        return read_header(partial).entries > 1
    except (OSError, ValueError):
        return False


def _write(files: ImageNetFiles, pack: FilePacker, start: Start, path: str, journal: Journal, num_workers: int,
           progress: bool) -> _Busy:
    """Adds what is missing to the unfinished LMDB and its journal."""
    began = time.perf_counter()
    with tqdm.tqdm(total=len(files), initial=start.files, desc=f"writing {os.path.basename(path)}", unit=" images",
                   disable=not progress, dynamic_ncols=True) as bar:
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
        with tqdm.tqdm(total=size, desc=f"reading {os.path.basename(path)} back", unit="B", unit_scale=True,
                       disable=not progress, dynamic_ncols=True) as bar:
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
    meta, findings = index.meta, index.meta["findings"]
    resumed = index.count if start.published else start.records
    return Summary(path, index_path(path), meta["format"], index.count, len(index.classes), columns.source_bytes,
                   meta["file_size"], 3 * int(np.dot(index.height.astype(np.int64), index.width)), seconds,
                   meta["skipped"], meta["untiled"], {finding: len(numbers) for finding, numbers in findings.items()},
                   report.examples(findings, columns.names), meta["class_counts"], meta["layout"], resumed,
                   stages(num_workers, index.count - resumed, seconds, **busy._asdict()))


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(prog="dump-imagenet", description=__doc__,
                            formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--source", required=True, help="folder of ImageNet in any of its forms (class folders, official tars, "
        "Kaggle's), or of class folders per split; or the one tar or folder to read")
    add("--target", required=True, help="folder to write SPLIT.lmdb and its index into")
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
    add("--on-error", choices=("raise", "skip", "fix"), default="raise",
        help="stop at a file that cannot be stored faithfully, leave it out, or convert what has an RGB form")
    add("--max-pixels", type=int, default=MAX_PIXELS, metavar="N",
        help=f"refuse images whose header states more (default {MAX_PIXELS})")
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
