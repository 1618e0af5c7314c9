"""Finds the LMDB file that a path means. If there is none, the error says what is there and what to give instead."""
import difflib
import itertools
import os
import re
import stat

from dataflows.storage.environment import data_file

_WRITE = "Write one with dump_imagenet.py, or check the path"
_RESUME = "Resume the dump"
# What lies beside an LMDB file and is named after it.
_BESIDE = {".index.npz": "the index of an LMDB file. Give {}",
           ".index.npz.partial": f"the index of an unfinished dump. {_RESUME}",
           ".journal": f"the journal of an unfinished dump. {_RESUME}", ".partial": f"an unfinished dump. {_RESUME}",
           "-lock": "a lock of LMDB's. Give {}", "/lock.mdb": "a lock of LMDB's. Give {}"}
_ONE_SLASH = re.compile(r"[a-z][a-z0-9+.-]+:/[^/]")
_MOST = 10_000  # entries of a folder that are looked at
_NAMED = 5
_ALIKE = 0.6  # of difflib: "trian" and "train" are, "train" and "val" are not


def existing_file(path: str) -> str:
    """The file that holds the data of the LMDB at a path, a file or a folder with data.mdb.

    Raises FileNotFoundError that says what is there instead, and OSError where nobody may look.
    """
    refused = f"there is no LMDB file {path}"
    for suffix, what in _BESIDE.items():
        if path.endswith(suffix) and os.path.isfile(path):
            raise FileNotFoundError(f"{refused}: it is {what.format(path[:-len(suffix)])}")
    file = data_file(path)
    try:
        mode = os.stat(file).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"{refused}{_instead(path)}") from None
    if not stat.S_ISREG(mode):
        raise FileNotFoundError(f"{refused}: {file} is a folder, a pipe or a device, not a file. {_WRITE}")
    return file


def _instead(path: str) -> str:
    """What is to be said of a path at which there is no LMDB."""
    if _ONE_SLASH.match(path):
        return ": a URL has two slashes behind its colon, of which pathlib leaves one. Give it as a text"
    if os.path.isdir(path):
        return f": it is a folder, {holdings(path) or f'in which there is none. {_WRITE}'}"
    if os.path.islink(path):
        return f": it is a link to {_shown(os.readlink(path))}, which is not there. Mend the link, or check the path"
    if os.path.isfile(path.rstrip(os.sep)):
        return f": it is a file, and no folder. Give {path.rstrip(os.sep)}"
    folder, name = os.path.split(path)
    if any(os.path.exists(path + suffix) for suffix in (".partial", ".journal")):
        return f": its dump is not finished. {_RESUME}"
    found = lmdbs(folder or os.curdir)
    stems = {_stem(other): other for other in reversed(found)}
    for near in difflib.get_close_matches(_stem(name), stems, 1, _ALIKE):
        return f". Did you mean {os.path.join(folder, _shown(stems[near]))}?"
    if folder and not os.path.isdir(folder):
        return f", and no folder {folder}. {_WRITE}"
    return f". {_WRITE}" + f": its folder holds {_listed(found)}" * bool(found)


def holdings(folder: str) -> str:
    """"which holds train.lmdb and val.lmdb. Give one of them"; empty where a folder holds no LMDB."""
    found = lmdbs(folder)
    return f"which holds {_listed(found)}. Give {'one of them' if len(found) > 1 else 'that'}" if found else ""


def lmdbs(folder: str) -> list[str]:
    """The names in a folder that look like those of LMDBs, sorted; none where nobody may look."""
    try:
        with os.scandir(folder) as entries:
            found = list(itertools.islice(entries, _MOST))
    except OSError:
        return []
    names = {entry.name for entry in found}
    return sorted(entry.name for entry in found
                  if (entry.is_dir() or entry.name.lower().endswith((".lmdb", ".mdb")) and entry.name != "lock.mdb"
                      or f"{entry.name}.index.npz" in names) and os.path.isfile(data_file(entry.path)))


def _stem(name: str) -> str:
    return name.lower().removesuffix(".lmdb").removesuffix(".mdb")


def _listed(names: list[str]) -> str:
    shown = [*map(_shown, names[:_NAMED])]
    if len(names) > _NAMED:
        shown.append(f"{len(names) - _NAMED:,} more")
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def _shown(name: str) -> str:
    return name if name.isprintable() else ascii(name)
