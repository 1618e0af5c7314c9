"""Finds the tar shards that a source names by a pattern, such as `train-{000..012}.tar`.

Braces are the shell's: `{000..012}` counts, with as many digits as its first end has, and `{a,b}` lists. Then `*`, `?`
and `[...]` match names, in sorted order.
"""
import glob
import os
import re

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d{1,9})\.\.(\d{1,9})", re.ASCII)
_MOST = 1_000_000
_SHOWN = 3


def is_pattern(source: str) -> bool:
    """Whether a source is a pattern of files, and no file or folder itself."""
    return any(mark in source for mark in "*?[{") and not os.path.lexists(source)


def matching(pattern: str) -> list[str]:
    """The files that a pattern names. Raises FileNotFoundError, naming those that are missing, and ValueError."""
    paths: list[str] = []
    missing: list[str] = []
    for word in expand(pattern):
        found = sorted(glob.glob(word)) if any(mark in word for mark in "*?[") else [word] * os.path.isfile(word)
        paths += found
        missing += [] if found else [word]
    if missing:
        shown = ", ".join(missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
        raise FileNotFoundError(f"{pattern}: {len(missing):,} of the names that it stands for are missing: {shown}. "
                                f"Complete them, or correct the pattern")
    return list(dict.fromkeys(paths))


def expand(pattern: str) -> list[str]:
    """The words that braces stand for, in their order. Raises ValueError for braces that are neither range nor list.

    >>> expand("train-{008..010}.tar"), expand("{a,b{1,2}}")
    (['train-008.tar', 'train-009.tar', 'train-010.tar'], ['a', 'b1', 'b2'])
    """
    braces = _BRACES.search(pattern)
    if braces is None:
        return [pattern]
    before, after = pattern[:braces.start()], pattern[braces.end():]
    return list(dict.fromkeys(each for word in _words(braces[1], pattern) for each in expand(before + word + after)))


def _words(inner: str, pattern: str) -> list[str]:
    ends = _RANGE.fullmatch(inner)
    if ends is None and "," in inner:
        return inner.split(",")
    if ends is None or not 0 <= int(ends[2]) - int(ends[1]) < _MOST:
        raise ValueError(f"{pattern}: {{{inner}}} is neither a range such as {{000..012}} nor a list such as {{a,b}}. "
                         f"Correct it")
    return [f"{number:0{len(ends[1])}d}" for number in range(int(ends[1]), int(ends[2]) + 1)]
