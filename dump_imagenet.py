"""Writes one split of ImageNet, or of any folder of classes, into one LMDB file with its index.

    python dump_imagenet.py --source IMAGENET --target DIR --split train --format jpeg

reads the train split of IMAGENET, in any form it comes in (dataflows/layouts.py), and writes DIR/train.lmdb and
DIR/train.lmdb.index.npz. Exit code 0: the files are complete and verified; 1: the dump failed or was interrupted, and
left nothing under the final names; 2: the arguments were refused before anything was written.
"""
import argparse
import contextlib
import dataclasses
import errno
import os
import shutil
import sys
import time
from collections import Counter
from importlib.metadata import version
from typing import Any, Iterator, Sequence

import numpy as np
import tqdm

from dataflows import record, report
from dataflows.audit import digest
from dataflows.imagenet import ImageNetFiles
from dataflows.index import Index, index_path, write_index
from dataflows.options import integer
from dataflows.parallel import OrderedThreadMapData, usable_cpus
from dataflows.prepare import MAX_PIXELS, Preparation
from dataflows.quiet import DataFlow, ProxyDataFlow
from dataflows.record import RecordError
from dataflows.write import Packed, PackedLMDBSerializer, read_back

__all__ = ["Summary", "dump_split", "main"]

_SAMPLE = 128  # images prepared ahead of the dump to estimate its size, to within about 5 % on ImageNet
_PAGE = 4096  # of LMDB: each record takes whole pages, the first of which starts with a header


class Refused(ValueError):
    """The arguments cannot be carried out, and nothing was written. `main` turns it into exit code 2."""


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a dump did."""

    path: str  # of the LMDB
    index_path: str
    format: str  # "jpeg" or "uint8"
    count: int  # records written
    num_classes: int
    source_bytes: int  # sum of the sizes of the source files that were written
    stored_bytes: int  # size of the LMDB file
    pixel_bytes: int  # sum of height * width * 3 of the stored images
    seconds: float
    skipped: list[dict[str, str]]  # "name" and "reason" of each file that was left out
    untiled: dict[str, int]  # how many JPEGs were stored without tiles, by reason
    findings: dict[str, int]  # how many of the files that were stored have each finding (see docs/design.md)
    examples: dict[str, list[str]]  # some names of each
    class_counts: list[str]  # how they differ from ImageNet's
    layout: str  # what was found in the source

    def __str__(self) -> str:
        lines = [f"{self.path}: {self.count:,} images of {self.num_classes:,} classes as {self.format}, "
                 f"{self.stored_bytes / 1e6:,.1f} MB (files {self.source_bytes / 1e6:,.1f} MB, pixels "
                 f"{self.pixel_bytes / 1e6:,.1f} MB) in {self.seconds:.1f} s: {self.count / self.seconds:,.0f} "
                 f"images/s; every record read back. Source: {self.layout}"]
        if self.untiled:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(self.untiled.items()))
            lines.append(f"{sum(self.untiled.values()):,} stored without tiles, to be decoded whole: {reasons}")
        if self.skipped:
            lines.append(f"{len(self.skipped):,} files skipped, listed in {self.index_path}:")
            lines += [f"  {entry['name']}: {entry['reason']}" for entry in self.skipped[:10]]
        lines += report.lines(self.findings, self.examples, self.class_counts, self.index_path)
        return "\n".join(lines)


@dataclasses.dataclass(frozen=True)
class _Prepared:
    """One image on its way to the file: the record, and what the index says of it."""

    packed: Packed
    name: str
    label: int
    height: int
    width: int
    source_bytes: int
    untiled: str | None
    findings: tuple[str, ...]
    digest: bytes  # of the source file's content


class _Preparer:
    """Reads and prepares one file of a source: the work of the dump's threads."""

    def __init__(self, files: ImageNetFiles, preparation: Preparation, on_error: str) -> None:
        self._files, self._preparation, self._on_error = files, preparation, on_error
        self.skipped: list[dict[str, str]] = []

    def __call__(self, pointer: list[Any]) -> _Prepared | None:
        name, label = pointer
        try:
            content = self._files.read(name)
            prepared = self._preparation(content, name)
        except (OSError, RecordError) as error:
            path = os.path.join(self._files.root, name)
            if self._on_error != "skip":
                raise ValueError(f"{path}: {error}. Repair or remove the file, or leave such files out with "
                                 f"--on-error skip") from error
            self.skipped.append({"name": name, "reason": str(error)})
            return None
        return _Prepared(Packed(record.pack([prepared.image, label])), name, label, prepared.height, prepared.width,
                         len(content), prepared.untiled, prepared.findings, digest(content))


class _Recorded(ProxyDataFlow):
    """Yields the Packed records of prepared images, keeps what the index needs of them, and shows progress."""

    def __init__(self, ds: DataFlow, bar: tqdm.tqdm) -> None:
        super().__init__(ds)
        self.rows: list[tuple[int, int, int, int, bytes]] = []
        self.source_bytes = 0
        self.untiled: Counter[str] = Counter()
        self.findings = report.Findings()
        self._bar = bar

    def __iter__(self) -> Iterator[Packed]:
        started = time.perf_counter()
        written = 0
        for image in self.ds:
            self.rows.append((image.label, image.height, image.width, image.packed.crc32, os.fsencode(image.name)))
            self.source_bytes += image.source_bytes
            if image.untiled is not None:
                self.untiled[image.untiled] += 1
            self.findings.add(image.findings, image.digest)
            written += len(image.packed.value)
            yield image.packed
            self._bar.update()
            self._bar.set_postfix_str(f"{written / 1e6 / (time.perf_counter() - started):.1f} MB/s", refresh=False)


def dump_split(source: str | os.PathLike[str], target: str | os.PathLike[str], split: str, *, format: str = "jpeg",
               max_side: int | None = None, shorter_side: int | None = None, quality: int = 90, tiles: bool = True,
               trust: bool = False, shuffle: bool | None = None, seed: int = 0, num_workers: int | None = None,
               on_error: str = "raise", max_pixels: int = MAX_PIXELS, overwrite: bool = False,
               progress: bool = True) -> Summary:
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
    progress: show what was found in the source, and a progress bar, on stderr.

    The LMDB is written under a temporary name, read back record by record, and renamed; the index comes last, so its
    presence means that the dump is complete. An error or Ctrl-C leaves the target as it was. Raises Refused (a
    ValueError) for arguments and sources that are refused before anything is written, ValueError for a bad image,
    OSError when the disk fails.
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
        _refuse_existing(path, overwrite)
        record_bytes = _estimate_record_bytes(files, preparation, num_workers)
        os.makedirs(target, exist_ok=True)
        _refuse_full_disk(target, record_bytes * len(files))

    partial = path + ".partial"
    preparer = _Preparer(files, preparation, on_error)
    prepared = OrderedThreadMapData(files, preparer, num_threads=num_workers, buffer_size=4 * num_workers)
    try:
        with _bar(len(files), f"writing {split}", progress) as bar:
            recorded = _Recorded(prepared, bar)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(partial)  # of a dump that was killed
            PackedLMDBSerializer.save(recorded, partial)
        if not recorded.rows:
            raise ValueError(f"none of the {len(files):,} files in {files.root} could be read; the first is "
                             f"{preparer.skipped[0]['name']}: {preparer.skipped[0]['reason']}")
        labels, heights, widths, checksums, names = zip(*recorded.rows)
        with _bar(len(labels), f"reading {split} back", progress) as bar:
            nbytes, offsets = read_back(partial, list(checksums), bar.update)
        found = recorded.findings.report(labels, files.classes, split)
        stored_bytes = os.path.getsize(partial)
        meta = {"format": format, "split": split, "classes": files.classes, "file_size": stored_bytes,
                "seed": seed if shuffle else None, "skipped": sorted(preparer.skipped, key=lambda entry: entry["name"]),
                "layout": files.layout, "class_names": files.class_names,
                "options": {"max_side": max_side, "shorter_side": shorter_side, "quality": quality,
                            "tiles": tiles and format == "jpeg"},
                "untiled": dict(recorded.untiled), **found._asdict(),
                "tools": {name: version(name) for name in ("lmdb", "msgpack", "numpy", "tensorpack")}}
        index = Index(*(np.array(column) for column in (labels, heights, widths, nbytes, offsets, checksums, names)),
                      meta=meta)
        _publish(partial, path, index)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial)
    return Summary(path, index_path(path), format, len(labels), len(files.classes), recorded.source_bytes, stored_bytes,
                   3 * int(np.dot(index.height.astype(np.int64), index.width)), time.perf_counter() - started,
                   meta["skipped"], meta["untiled"],
                   {finding: len(numbers) for finding, numbers in found.findings.items()},
                   report.examples(found.findings, names), found.class_counts, files.layout)


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise Refused(str(error)) from error


def _refuse_existing(path: str, overwrite: bool) -> None:
    existing = [name for name in (path, index_path(path)) if os.path.lexists(name)]
    if existing and not overwrite:
        raise FileExistsError(f"{existing[0]} exists already. Give another target, or --overwrite to replace it")
    if os.path.isdir(path):
        raise IsADirectoryError(f"{path} is a folder, and a dump is a file. Remove it, or give another target")


def _estimate_record_bytes(files: ImageNetFiles, preparation: Preparation, num_workers: int) -> float:
    """Mean bytes that a record takes in the LMDB, from a sample spread evenly over the source."""
    sample = [files.pointers[i] for i in np.linspace(0, len(files) - 1, min(_SAMPLE, len(files))).astype(int)]
    preparer = _Preparer(files, preparation, "skip")
    with contextlib.closing(iter(OrderedThreadMapData(sample, preparer, num_threads=num_workers,
                                                      buffer_size=num_workers))) as prepared:
        sizes = [-(-(len(image.packed.value) + 16) // _PAGE) * _PAGE for image in prepared]
    return float(np.mean(sizes)) if sizes else float(_PAGE)


def _refuse_full_disk(target: str | os.PathLike[str], needed_bytes: float) -> None:
    needed, free = needed_bytes * 1.05, shutil.disk_usage(target).free
    if needed > free:
        raise OSError(errno.ENOSPC, f"the dump needs about {needed / 1e9:,.2f} GB and {os.fspath(target)} has "
                                    f"{free / 1e9:,.2f} GB free. Free some, give another --target, or store less with "
                                    f"--format jpeg, --max-side or --shorter-side")


def _bar(total: int, text: str, progress: bool) -> tqdm.tqdm:
    return tqdm.tqdm(total=total, desc=text, unit=" images", disable=not progress, dynamic_ncols=True)


def _publish(partial: str, path: str, index: Index) -> None:
    """Gives the verified file and its index their final names, once both are on the disk: all but two renames."""
    temporary = write_index(index, path)
    try:
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)  # should all end here, an older index would be refused as another file's
        os.replace(temporary, index_path(path))
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
    folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dump-imagenet", description=__doc__,
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
    add("--no-progress", dest="progress", action="store_false", help="show no progress bar")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; see the module's text for exit codes."""
    arguments = vars(_parser().parse_args(argv))
    try:
        print(dump_split(**arguments))
    except KeyboardInterrupt:
        print("dump-imagenet: interrupted; nothing was kept", file=sys.stderr)
        return 1
    except (OSError, ValueError) as error:
        print(f"dump-imagenet: {error}", file=sys.stderr)
        return 2 if isinstance(error, Refused) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
