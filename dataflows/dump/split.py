"""The dump of one split: dump_split takes a source to its LMDB file and index, in steps, and check_split goes without.

The steps are those of the other modules of this folder, in order. write_lmdb is the short way of them: records and
index, for files that nobody else sees and that are not kept.
"""
import contextlib
import os
import time
from typing import Any, Iterable, Mapping, Sequence

from dataflows.dump import begin, check
from dataflows.dump.check import Checked
from dataflows.dump.columns import Columns
from dataflows.dump.one_file import Options, dump_file, refusing
from dataflows.dump.pack import FilePacker, counted, counting, packed_files
from dataflows.dump.prepare import Preparation
from dataflows.dump.recovery.upload import placing
from dataflows.dump.shards.chain import dump_shards, merge_shards
from dataflows.dump.shards.steps import steps_of
from dataflows.dump.shards.wanted import Wanted
from dataflows.dump.summary import Summary, content_of, summarize
from dataflows.dump.write import PackedLMDBSerializer
from dataflows.images.codecs import MAX_PIXELS
from dataflows.options import integer, suggests
from dataflows.sources.source import ImageSource
from dataflows.storage.btree import locate
from dataflows.storage.index import Index, index_path, load_index, write_index
from dataflows.storage.index_meta import IndexMeta
from dataflows.storage.remote.urls import is_url
from dataflows.storage.shards.manifest import manifest_path
from dataflows.terminal import progress_bar

__all__ = ["check_split", "dump_split", "lmdb_path", "merge_shards", "write_lmdb"]


@suggests
def dump_split(source: str | os.PathLike[str] | Iterable[Any], target: str | os.PathLike[str], split: str, *,
               labels: str | os.PathLike[str] | None = None, classes: Sequence[str] | None = None,
               format: str = "jpeg", max_side: int | None = None, shorter_side: int | None = None, quality: int = 90,
               tiles: bool = True, trust: bool = False, shuffle: bool | None = None, seed: int = 0,
               num_workers: int | None = None, on_error: str = "fix", max_pixels: int = MAX_PIXELS,
               overwrite: bool = False, resume: bool = False, shards: int | None = None,
               shard_bytes: int | str | None = None, part: tuple[int, int] | str | None = None,
               engine: str | None = None, plan: bool = False,
               scratch: str | os.PathLike[str] | None = None, storage_options: Mapping[str, Any] | None = None,
               progress: bool = True) -> Summary:
    """Writes one split of a source into target/split.lmdb and its index, and returns a Summary.

    source: a folder with the split in one of the forms of docs/sources.md, the split's own folder or tar, or a
        pattern of tar shards; or a DataFlow or any other iterable of [image, label] or [image, label, name]. Image:
        encoded bytes, or uint8 pixels of shape (H, W, 3) in RGB or (H, W); label: an integer from 0, or a list or
        array of numbers, as many for each image; name: a text.
    labels: a CSV file of file,label, with the labels of the images in the folder `source`. Several columns of labels
        are a vector of numbers.
    classes: of such an iterable, the name of each class number; by default the numbers themselves. Where labels are
        vectors, the name of each of their numbers.
    format: "jpeg" keeps the files' JPEG coefficients; "uint8" stores decoded RGB pixels of shape (H, W, 3): 5-6 times
        larger, no decoding when training.
    max_side, shorter_side: shrink larger images to this many pixels (antialiased, never enlarged), encoded anew at
        `quality`, 1 to 100, when format is "jpeg".
    tiles: turn JPEGs losslessly into tiled ones, whose crops cost about half to decode, for some per cent more bytes;
        False keeps the files' bytes. What cannot be tiled is stored as it is, and counted by reason in the summary.
    trust: leave out the comparison of each tiled JPEG with its original.
    shuffle: write in a permutation that is a function of `seed`, as sequential reading for training needs it; by
        default for every split but val and test, which keep the order of torchvision's ImageFolder. An iterable without
        `__len__` and `__getitem__`, such as a DataFlow, is stored in the order it gives, and True is refused.
    num_workers: threads that read and prepare, by default one per processor. Records do not depend on it.
    on_error: "fix" stores what torchvision's ImageFolder shows, PIL's RGB pixels, of what is CMYK, YCCK, transparent or
        deeper than 8 bits, and stops at the first file that cannot be read or decoded, or has no faithful RGB form;
        "skip" leaves such files out, and lists them in the index and in the summary; "raise" stops also at what "fix"
        converts.
    max_pixels: an image whose header states more is an error, before anything of it is decoded.
    overwrite: replace existing files of that name; without it they are an error.
    resume: go on with a dump that was interrupted, if there is one; the file is the same, byte for byte, as without
        the interruption. Refused when source, options or versions differ. Without it, what is left is removed. An
        iterable is read again from its start, and what is stored already is compared with it.
    shards: write so many files, split-00000-of-00008.lmdb and so on, each complete by itself, and a manifest of them,
        split.manifest.json, which loaders and datasets take for one file. Their records are those of one file, in its
        order. With `overwrite`, files are replaced one by one, and the manifest is removed before the first.
    shard_bytes: in place of `shards`: as many as make files of about so many bytes, by a sample of the images; a number
        or a text such as "1GB" or "512MiB".
    part: (i, n), or "i/n": write only each n-th shard from number i on, i from 0 to n - 1, and no manifest: the n parts
        may run anywhere, at once, in any order and again, over one folder, and need no `resume`. `merge_shards` writes
        the manifest when all are done. Returns a PartSummary. Refused where options or versions are not those of the
        plan, which the first part, or a call with `plan`, has written.
    engine: "ray": each shard is a task of Ray, on the cluster of RAY_ADDRESS or on this machine, with `num_workers`
        processors, by default one. The same call goes on after an interruption.
    plan: only list the source, and write what all parts go by. With `overwrite`, another plan and an existing data set
        are replaced.
    scratch: with a target that is a URL, the folder in which each file is written first; it holds one file at a time,
        and what `resume` needs. By default a temporary one, which is gone at the end, and with it what an interrupted
        dump has written. Of parts and tasks of Ray it is one that all of them share: the plan is in it.
    storage_options: how to reach a target that is a URL, as LMDBLoader has them.
    progress: show what was found in the source, and a progress bar, on stderr.

    A target may be a URL, such as s3://bucket/folder. Each file is then written in `scratch`, brought there, read back
    from there in full, and removed here. As here, the index comes last, and the manifest behind all.

    The LMDB is written under a temporary name, read back from the disk, and renamed; the index comes last, so its
    presence means that the dump is complete. An error, Ctrl-C or a kill leaves earlier files as they were; what was
    written so far is kept for `resume`, in whole transactions of 64 MB. Raises Refused for arguments, sources and
    targets with which no file was touched; NotStarted (its base, a ValueError) where what an interrupted dump had left
    was dealt with before; ValueError for a bad image, OSError when the disk or the system fails, MemoryError.

    >>> summary = dump_split("IMAGENET", "DIR", "val", progress=False)
    >>> summary.path, summary.format, summary.count
    ('DIR/val.lmdb', 'jpeg', 10)
    """
    started = time.perf_counter()
    with contextlib.ExitStack() as stack:
        with refusing():
            folder, upload = stack.enter_context(placing(target, scratch, storage_options))
            preparation = begin.preparation(
                split, on_error, format=format, max_side=max_side, shorter_side=shorter_side, quality=quality,
                tiles=tiles, compare_pixels=not trust, max_pixels=max_pixels)
            num_workers = 1 if num_workers is None and engine == "ray" else begin.workers(num_workers)
            seed = integer("seed", seed, 0)
            steps = steps_of(shards, shard_bytes, part, engine, plan, overwrite=overwrite,
                             samples=not isinstance(source, (str, os.PathLike)),
                             shared=upload is None or scratch is not None)
            path = lmdb_path(folder, split)
            if upload is not None:
                if resume and scratch is None:
                    raise ValueError("resume=True goes on with what is in scratch, and none is given: a temporary one "
                                     "is gone. Give scratch=DIR, that of the dump which was interrupted")
                upload.refuse_existing(path if steps is None else manifest_path(folder, split), overwrite=overwrite,
                                       resume=resume)
            begin.make_tiling_ready(preparation, progress)
        options = Options(preparation=preparation, on_error=on_error, num_workers=num_workers, overwrite=overwrite,
                          resume=resume, progress=progress, upload=upload)

        def opened() -> ImageSource:
            files = begin.opened(source, split, progress, shuffle=shuffle, seed=seed, labels=labels, classes=classes)
            files.refuse(unreadable=on_error != "skip")
            return files

        if steps is not None:
            settings = {"source": begin.named(source), "labels": None if labels is None else begin.named(labels),
                        "classes": None if classes is None else list(classes), "shuffle": shuffle, "seed": seed,
                        "format": format, "max_side": max_side, "shorter_side": shorter_side, "quality": quality,
                        "tiles": tiles, "trust": trust, "max_pixels": max_pixels, "shards": steps.shards,
                        "shard_bytes": steps.shard_bytes}
            if upload is not None:
                settings["target"] = upload.target
            wanted = Wanted(target=folder, split=split, settings=settings, open_source=opened, options=options,
                            meta=lambda files: begin.meta(files, preparation, split), steps=steps)
            return dump_shards(wanted, started)
        with refusing():
            files = opened()
            meta = begin.meta(files, preparation, split)
        dumped = dump_file(files, path, meta, options)
        index = load_index(path, path)
        assert index is not None
        if upload is not None:
            os.unlink(index_path(path))
        return summarize(options.placed(path), options.placed(index_path(path)), content_of(index, dumped.columns),
                         resumed=index.count if dumped.resumed is None else dumped.resumed, num_workers=num_workers,
                         busy=dumped.busy, seconds=time.perf_counter() - started)


@suggests
def check_split(source: str | os.PathLike[str] | Iterable[Any], split: str, *,
                target: str | os.PathLike[str] | None = None, labels: str | os.PathLike[str] | None = None,
                classes: Sequence[str] | None = None, format: str = "jpeg", max_side: int | None = None,
                shorter_side: int | None = None, quality: int = 90, tiles: bool = True, trust: bool = False,
                num_workers: int | None = None, on_error: str = "fix", max_pixels: int = MAX_PIXELS,
                overwrite: bool = False, progress: bool = True) -> Checked:
    """Examines and prepares all files as dump_split would, writes nothing, and returns a Checked: all that was found.

    Options are those of dump_split. An iterator is used up. target: if given, and no URL, whether its files may be made
    there, and fit, is checked, too.
    Of each file its findings are kept, and not its content. Raises Refused (a ValueError) for arguments and
    sources that cannot be examined at all; what else would stop a dump is in the result.

    >>> checked = check_split("IMAGENET", "val", progress=False)
    >>> checked.ok, checked.count, checked.failures, checked.findings
    (True, 10, [], {'grayscale': ['n01440764/n01440764_1.JPEG']})
    """
    started = time.perf_counter()
    with refusing():
        preparation = begin.preparation(split, on_error, format=format, max_side=max_side, shorter_side=shorter_side,
                                         quality=quality, tiles=tiles, compare_pixels=not trust, max_pixels=max_pixels)
        num_workers = begin.workers(num_workers)
        begin.make_tiling_ready(preparation, progress)
        files = begin.opened(source, split, progress, labels=labels, classes=classes)
    packer = FilePacker(files, preparation, "skip")  # which goes on behind a file that stops a dump
    with progress_bar(f"checking {split}", files.count, shown=progress, unit=" images") as bar:
        found = check.collect(counted(packed_files(files, packer, num_workers), counting(bar)))
    path = None if target is None or is_url(target) else lmdb_path(target, split)
    return check.result(files, found, path, split=split, format=format, on_error=on_error, overwrite=overwrite,
                        seconds=time.perf_counter() - started)


def write_lmdb(files: ImageSource, preparation: Preparation, path: str, num_workers: int) -> Index:
    """Writes the records that the dump would make of these files, and their index, to `path`; returns the index.

    Nothing that exists is looked at, nothing is read back, and what is interrupted stays as it is. Files that cannot be
    stored are left out. Raises ValueError when none is left, OSError when the disk fails, and MemoryError.
    """
    rows: list[Any] = []
    packed = packed_files(files, FilePacker(files, preparation, "skip"), num_workers)
    PackedLMDBSerializer.save(packed, path, log=rows.extend)
    columns = Columns(rows)
    columns.refuse_empty(files.root or "the source")
    classes = columns.classes(files.classes)
    meta = IndexMeta(format=preparation.format, split=os.path.basename(path).removesuffix(".lmdb"), classes=classes,
                     class_names=classes, file_size=os.path.getsize(path), rest_crc32=0)  # of bytes never verified
    index = columns.index(*locate(path), meta)
    os.replace(write_index(index, path), index_path(path))
    return index


def lmdb_path(target: str | os.PathLike[str], split: str) -> str:
    """The path of the LMDB file that a dump of a split into a folder makes."""
    return os.path.join(os.fspath(target), f"{split}.lmdb")
