"""Writes one split of ImageNet, or of any folder of classes, into one LMDB file with its index.

    python dump_imagenet.py --source IMAGENET --target DIR --split train --format jpeg

writes DIR/train.lmdb and DIR/train.lmdb.index.npz from any of the sources that docs/sources.md lists.

Exit code 0: the files are complete and verified, whatever came after that; 1: the dump failed or was interrupted,
changed nothing that has a final name, and said whether --resume can go on with it; 2: it was refused before it wrote
anything; what an earlier dump had left may have been renamed or removed before, which a warning says. With --check,
which writes nothing, 0: a dump would succeed; 1: it would not. With --part, 0: the shards of this part are complete
and verified; --merge, which is refused as long as any is missing, makes them a data set.
"""
import argparse
import os
import sys
import traceback
from typing import Any, Callable, Sequence

from dataflows.arguments import ArgumentParser
from dataflows.dump.check import Checked
from dataflows.dump.recovery.journal import is_verified, journal_path
from dataflows.dump.recovery.publish import leftovers
from dataflows.dump.shards.told import PartSummary
from dataflows.dump.split import check_split, dump_split, lmdb_path, merge_shards
from dataflows.dump.summary import Summary
from dataflows.errors import NotStarted
from dataflows.images.codecs import MAX_PIXELS
from dataflows.storage.index import index_path, temporary_index_path
from dataflows.storage.remote.urls import is_url
from dataflows.storage.shards.manifest import manifest_path, unfinished_path
from dataflows.terminal import fill_standard_streams, say, warn

__all__ = ["Checked", "PartSummary", "Summary", "check_split", "dump_split", "main", "merge_shards"]

_SHARDS = ("shards", "shard_bytes", "part", "engine", "plan")
_WRITING = ("shuffle", "seed", "resume", "scratch", *_SHARDS)  # options of which a check knows nothing


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="dump-imagenet", description=__doc__,
                            formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--source", help="folder of ImageNet in any of its forms (class folders, official tars, "
        "Kaggle's), or of class folders per split; the one tar or folder to read; or webdataset's tar shards, as a "
        "folder or a pattern such as 'train-{000..146}.tar'")
    add("--target", help="folder to write SPLIT.lmdb and its index into, or a URL such as s3://bucket/folder, with "
        "credentials in the environment; may be left out with --check")
    add("--scratch", metavar="DIR", help="for a --target that is a URL: the folder in which each file is written "
        "first, and from which --resume goes on (default: a temporary one, which is gone at the end); parts and Ray "
        "need one that all machines share")
    add("--split", required=True, help="train, val, or any other split of the source")
    add("--labels", metavar="FILE.csv", help="labels of the images in the folder --source: the header file,label, then "
        "on each line a path below the folder and a class, by number or name; or several columns of numbers, which are "
        "a vector")
    add("--format", choices=("jpeg", "uint8"), default="jpeg", help="store JPEGs, or decoded pixels")
    add("--max-side", type=int, metavar="N", help="shrink images whose longer side exceeds N pixels")
    add("--shorter-side", type=int, metavar="N", help="shrink images whose shorter side exceeds N pixels")
    add("--quality", type=int, default=90, metavar="Q", help="of JPEGs that were shrunk, 1 to 100 (default 90)")
    add("--no-tiles", dest="tiles", action="store_false", help="keep the bytes of JPEG files as they are")
    add("--trust", action="store_true", help="do not compare tiled JPEGs with their originals")
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
    add("--shards", type=int, metavar="N", help="write N files, SPLIT-00000-of-0000N.lmdb and so on, and a manifest of "
        "them, SPLIT.manifest.json, which loaders take for one file")
    add("--shard-bytes", metavar="B", help="in place of --shards: as many files as are of about B bytes each, such as "
        "1GB or 512MiB")
    add("--plan", action="store_true", help="only list the source for --shards, and write down what all parts go by; "
        "the first part does so, too. With --overwrite, an existing data set is replaced")
    add("--part", metavar="I/N", help="write only each N-th shard from I on, I from 0 to N-1, and no manifest: the N "
        "parts may run on any machines that share --target, or --scratch, at once, in any order, and again; e.g. "
        "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT with --array=0-(N-1)")
    add("--merge", action="store_true", help="write the manifest when all parts are done; needs --target, --scratch if "
        "that is a URL, and --split only, for the plan has the rest")
    add("--engine", choices=("ray",), help="write each shard as a task of Ray, on the cluster of RAY_ADDRESS or on "
        "this machine, with --num-workers processors (default 1)")
    add("--overwrite", action="store_true", help="replace files that exist")
    add("--resume", action="store_true", help="go on with a dump that was interrupted, if there is one")
    add("--no-progress", dest="progress", action="store_false", help="show no progress bar")
    return parser


class _Ending:
    """What an unfinished dump has left, told from the disk, for it may have ended anywhere."""

    def __init__(self, target: str, split: str) -> None:
        self._path = lmdb_path(target, split)
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


class _ShardsEnding:
    """The same of a dump into shards, which is complete when its manifest is there."""

    def __init__(self, target: str, split: str) -> None:
        self._manifest, self._work = manifest_path(target, split), unfinished_path(target, split)
        self._before = _identity(self._manifest)

    def tell(self, what: str) -> int:
        """Says on stderr what happened and what is kept; returns the exit code."""
        complete = _identity(self._manifest) not in (None, self._before)
        kept = "nothing was kept"
        if complete:
            kept = "the dump is complete and verified all the same"
        elif os.path.isdir(self._work):
            kept = ("what was written is kept: go on from there with --resume (a part, or Ray, with the same command), "
                    "or start anew with --overwrite, or in another folder")
        code = _failed(f"{what}; {kept}")
        return 0 if complete else code


class _FarEnding:
    """The same of a dump to a URL, of which only the scratch folder is looked at."""

    def __init__(self, scratch: str | None, split: str) -> None:
        self._left = None if scratch is None else (journal_path(lmdb_path(scratch, split)),
                                                   unfinished_path(scratch, split))

    def tell(self, what: str) -> int:
        """Says on stderr what happened and what is kept; returns the exit code."""
        kept = "nothing was kept: with --scratch DIR, --resume can go on"
        if self._left is not None:
            kept = "nothing was kept"
            if any(map(os.path.exists, self._left)):
                kept = ("what was written is kept: go on from there with --resume and the same --scratch (a part, or "
                        "Ray, with the same command)")
        return _failed(f"{what}; {kept}")


def _ending_of(arguments: dict[str, Any], sharded: bool) -> Any:
    if is_url(arguments["target"]):
        return _FarEnding(arguments["scratch"], arguments["split"])
    return (_ShardsEnding if sharded else _Ending)(arguments["target"], arguments["split"])


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
    check, merge = arguments.pop("check"), arguments.pop("merge")
    for name, needed in (("source", not merge), ("target", not check)):
        if needed and arguments[name] is None:
            parser.error(f"the following arguments are required: --{name}")
    if check:
        return _ending_well(lambda: _check(arguments), lambda what: _failed(f"{what}; nothing was written"))
    ending = _ending_of(arguments, merge or any(arguments[name] for name in _SHARDS))
    return _ending_well(lambda: _merge(arguments) if merge else _dump(arguments), ending.tell)


def _check(arguments: dict[str, Any]) -> int:
    checked = check_split(**{name: value for name, value in arguments.items() if name not in _WRITING})
    say(_parser().in_flags(str(checked)))
    return 0 if checked.ok else 1


def _dump(arguments: dict[str, Any]) -> int:
    say(_parser().in_flags(str(dump_split(**arguments))))
    return 0


def _merge(arguments: dict[str, Any]) -> int:
    say(_parser().in_flags(str(merge_shards(arguments["target"], arguments["split"], scratch=arguments["scratch"]))))
    return 0


def _failed(what: str, code: int = 1) -> int:
    """Says why on stderr, with options as flags; returns the exit code."""
    warn(f"dump-imagenet: {_parser().in_flags(what)}")
    return code


def _ending_well(run: Callable[[], int], tell: Callable[[str], int]) -> int:
    """The exit code of `run`, or that of `tell`, which is given what ended it."""
    try:
        return run()
    except NotStarted as error:
        return _failed(str(error), 2)
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
