"""Makes what a run reads: LMDBs of the source, or of a part of it."""
import os
import shutil
import sys

from benchmarks.scaling import NO_TILES

# What imports torch, OpenCV or tensorpack is imported where it is used: every contestant's process imports this file.

MAX_SIDE = 500  # pixels, of the uint8 dump


def subset(source: str, split: str, count: int, target: str) -> None:
    """Makes target/split a folder of links to `count` files of the source, spread evenly over its classes."""
    from dataflows.sources.imagenet import ImageNetFiles

    files = ImageNetFiles(source, split)
    shutil.rmtree(os.path.join(target, split), ignore_errors=True)
    for i in range(min(count, len(files))):
        name = files.pointers[i * len(files) // min(count, len(files))][0]
        link = os.path.join(target, split, name)
        os.makedirs(os.path.dirname(link), exist_ok=True)
        os.symlink(os.path.abspath(os.path.join(files.root, name)), link)


def max_side(format: str) -> int | None:
    """The dump's option of that name."""
    return MAX_SIDE if format == "uint8" else None


def prepare(source: str, folder: str, split: str, format: str, tiles: bool = True) -> tuple[str, int]:
    """(path of the split's LMDB in this format, or of its manifest, number of its images), after dumping it if it is
    missing.

    Raises ValueError if an LMDB that exists was not made of the source's files.
    """
    from dataflows.sources.imagenet import ImageNetFiles
    from dataflows.storage.shards.files import find_split
    from dataflows.storage.store import Store
    from dataflows.terminal import say
    from dump_imagenet import dump_split

    files = ImageNetFiles(source, split)
    folder = os.path.join(folder, format if tiles else NO_TILES)
    path = find_split(folder, split)
    if path is None:
        path = os.path.join(folder, f"{split}.lmdb")
        say(str(dump_split(source, folder, split, format=format, tiles=tiles, max_side=max_side(format),
                           progress=sys.stderr.isatty())))
    store = Store(path)
    names = None if store.index is None else sorted(os.fsdecode(name) for name in store.index.name.tolist())
    if len(store) != len(files) or names not in (None, sorted(name for name, _ in files)):
        raise ValueError(f"{path} was made of other files: it holds {len(store):,} images, and {files.root} has "
                         f"{len(files):,}. Give the folder that it was made of, or another --lmdb to dump this one "
                         f"into")
    store.close()
    return path, len(files)
