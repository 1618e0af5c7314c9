"""Parses ImageNet's own files: the class of each val image, and the names of classes.

Pure parsers, of a file's bytes and the name that errors give it. Text is UTF-8, with or without a byte order mark, its
lines end in LF or CRLF, and blank lines at the end do not count. A class is its WordNet ID (wnid): n and eight digits.
All raise ValueError, with file, line and rule.
"""
import csv
import io
import re
from typing import Any, Iterator, NamedTuple

import numpy as np

_WNID = re.compile(r"n\d{8}", re.ASCII)
_ID = re.compile(r"[1-9]\d{0,8}", re.ASCII)
_BOX = 5  # words: a wnid and four coordinates


class Synset(NamedTuple):
    """A class of the devkit's meta.mat."""

    number: int  # its ILSVRC2012_ID
    wnid: str
    words: str


def is_wnid(text: str) -> bool:
    """Whether `text` is a WordNet ID and nothing else."""
    return _WNID.fullmatch(text) is not None


def synset_list(content: bytes, where: str) -> list[str]:
    """The wnids of a file that has one on each line."""
    return [_matched(_WNID, line, f"{where}, line {number}", "a wnid such as n01440764 and nothing else")
            for number, line in _lines(content, where)]


def id_list(content: bytes, where: str) -> list[int]:
    """The ILSVRC2012_IDs of a file that has one on each line: ILSVRC2012_validation_ground_truth.txt."""
    return [int(_matched(_ID, line, f"{where}, line {number}", "an ILSVRC2012_ID, a positive whole number"))
            for number, line in _lines(content, where)]


def synset_names(content: bytes, where: str) -> dict[str, str]:
    """Class names by wnid, of lines such as "n01440764 tench, Tinca tinca": Kaggle's LOC_synset_mapping.txt."""
    names: dict[str, str] = {}
    for number, line in _lines(content, where):
        wnid, _, words = line.partition(" ")
        at = f"{where}, line {number}"
        _matched(_WNID, wnid, at, "a wnid, a space and the class's name")
        if not words.strip() or wnid in names:
            raise ValueError(f"{at}: {line[:60]!r} {'comes twice' if wnid in names else 'lacks the name'}; it must be "
                             f"a wnid that no other line has, a space and the class's name")
        names[wnid] = words.strip()
    return names


def solution(content: bytes, where: str) -> dict[str, str]:
    """Wnids by image name, without its extension, of Kaggle's LOC_val_solution.csv.

    Its lines are "ImageId,PredictionString" and then such as "ILSVRC2012_val_00048981,n03995372 85 1 499 272": a wnid
    and a box, or several of the same class.
    """
    rows = csv.reader(io.StringIO(utf8(content, where), newline=""), strict=True)
    wnids: dict[str, str] = {}
    try:
        if next(rows, None) != ["ImageId", "PredictionString"]:
            raise ValueError(f"{where}, line 1: it must be the header ImageId,PredictionString")
        for row in rows:
            if not row:
                continue
            at = f"{where}, line {rows.line_num}"
            name, wnid = _solution_row(row, at)
            if name in wnids:
                raise ValueError(f"{at}: image {name} comes twice; each image must have one line")
            wnids[name] = wnid
    except csv.Error as error:
        raise ValueError(f"{where}, line {rows.line_num}: it is not CSV ({error})") from error
    return wnids


def devkit_synsets(content: bytes, where: str) -> list[Synset]:
    """The classes in the devkit's meta.mat: its synsets without children. Needs scipy, the extra `devkit`."""
    loadmat = _loadmat(where)
    try:
        table = np.atleast_1d(loadmat(io.BytesIO(content), squeeze_me=True)["synsets"])
        rows = [Synset(int(row["ILSVRC2012_ID"]), str(row["WNID"]).strip(), str(row["words"]).strip())
                for row in table if int(row["num_children"]) == 0]
    except Exception as error:  # a damaged file can make scipy, zlib and numpy raise nearly anything
        raise ValueError(f"{where} is not the devkit's meta.mat, with a structure `synsets` of ILSVRC2012_ID, WNID, "
                         f"words and num_children ({type(error).__name__}: {error}). Take it from the devkit's "
                         f"archive again") from error
    for column in ("number", "wnid"):
        if len({getattr(row, column) for row in rows}) != len(rows):
            raise ValueError(f"{where} has two classes with one {column}; take it from the devkit's archive again")
    for row in rows:
        _matched(_WNID, row.wnid, f"{where}, ILSVRC2012_ID {row.number}", "a wnid")
    return rows


def _loadmat(where: str) -> Any:
    try:
        from scipy.io import loadmat  # optional: only the devkit needs it
    except ImportError as error:
        raise ValueError(f"{where} is a Matlab file, which needs scipy: pip install 'imagenet-lmdb[devkit]', or give "
                         f"the classes of val images in another form") from error
    return loadmat


def _solution_row(row: list[str], at: str) -> tuple[str, str]:
    words = row[1].split() if len(row) == 2 else []
    if not row[0] or not words or (len(words) > 1 and len(words) % _BOX) or not is_wnid(words[0]):
        raise ValueError(f"{at}: {','.join(row)[:60]!r} must be an image's name, a comma and boxes, each a wnid and "
                         f"four numbers")
    if set(words[::_BOX]) != {words[0]}:
        raise ValueError(f"{at}: {row[0]} has boxes of several classes, {' and '.join(sorted(set(words[::_BOX])))}; "
                         f"an image must have one")
    return row[0], words[0]


def _matched(pattern: re.Pattern[str], text: str, at: str, rule: str) -> str:
    if not pattern.fullmatch(text):
        raise ValueError(f"{at}: {text[:60]!r} must be {rule}")
    return text


def _lines(content: bytes, where: str) -> Iterator[tuple[int, str]]:
    """Numbered lines, from 1, without what surrounds them."""
    return enumerate((line.strip() for line in utf8(content, where).rstrip().split("\n")), 1)


def utf8(content: bytes, where: str) -> str:
    """A file's text, without a byte order mark. Raises ValueError."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is not text in UTF-8 ({error})") from error
