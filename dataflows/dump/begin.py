"""What a dump does with its options and its source before anything is written."""
import logging
import os
from importlib.metadata import version
from typing import Any, Iterable

from dataflows.dump.prepare import Preparation
from dataflows.jpeg.tile import make_ready
from dataflows.options import integer, one_of
from dataflows.processors import default_workers
from dataflows.sources.opening import open_source
from dataflows.sources.source import ImageSource
from dataflows.storage.index_meta import IndexMeta
from dataflows.terminal import warn

logger = logging.getLogger(__name__)


def named(source: str | os.PathLike[str] | Iterable[Any]) -> str:
    """A source as a plan names it, so that all tasks have the same one."""
    if not isinstance(source, (str, os.PathLike)):
        return f"samples of a {type(source).__name__}"
    path = os.fspath(source)
    return path if "://" in path else os.path.abspath(path)


def preparation(split: str, on_error: str, **options: Any) -> Preparation:
    """How images are prepared. Raises ValueError for options out of range."""
    one_of("on_error", on_error, ("raise", "fix", "skip"))
    if split in ("", ".", "..") or os.path.basename(split) != split:
        raise ValueError(f"split must be the name of a folder in the source, such as train, not {split!r}")
    return Preparation(fix=on_error != "raise", **options)


def workers(count: int | None) -> int:
    """How many threads read and prepare."""
    return default_workers() if count is None else integer("num_workers", count, 1)


def make_tiling_ready(preparation: Preparation, progress: bool) -> None:
    """Compiles what tiles JPEGs, if it is wanted: before anything is written, and in one thread."""
    if preparation.tiles and preparation.format == "jpeg":
        make_ready(lambda: note("compiling what tiles JPEGs, which takes some 15 seconds, once on a machine", progress),
                   comparing=preparation.compare_pixels)


def opened(source: str | os.PathLike[str] | Iterable[Any], split: str, progress: bool, **options: Any) -> ImageSource:
    """The images of a split, also where some folders cannot be looked into."""
    files = open_source(source, split, **options)
    note(f"reading {files.layout}", progress)
    return files


def note(text: str, shown: bool) -> None:
    """On stderr beside the progress bar; without it, in the log."""
    warn(text) if shown else logger.info(text)


def meta(files: ImageSource, preparation: Preparation, split: str) -> IndexMeta:
    """What the index says of the dump as a whole, before there are records: nothing yet of the file."""
    options = {name: getattr(preparation, name) for name in ("max_side", "shorter_side", "quality")}
    options["tiles"] = preparation.tiles and preparation.format == "jpeg"
    tools = {name: version(name) for name in ("lmdb", "msgpack", "numpy", "simplejpeg", "tensorpack")}
    return IndexMeta(format=preparation.format, split=split, seed=files.seed, classes=files.classes or [],
                     class_names=files.class_names or [], layout=files.layout, left_out=files.left_out,
                     options=options, tools=tools, file_size=0, rest_crc32=0)
