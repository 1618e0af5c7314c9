"""Text for a terminal: how wide it is, tables, and bars of block characters. No colors, no libraries."""
import itertools
import textwrap
import unicodedata
from typing import Collection, Sequence

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_LABEL = 12  # columns of a label that has a text beside it
_UNITS = ("bytes", "KB", "MB", "GB", "TB")


def columns(text: str) -> int:
    """How many columns a terminal gives a printable text: two for each wide character, none for combining ones."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def fit(text: str, width: int) -> str:
    """The text in exactly `width` columns: padded at its end, or cut off with an ellipsis.

    >>> fit("tench, Tinca tinca", 8), fit("hen", 8)
    ('tench, …', 'hen     ')
    """
    room = columns(text)
    if room > width:
        ends = itertools.accumulate(map(columns, text))
        text = text[:sum(1 for _ in itertools.takewhile(lambda end: end < width, ends))] + "…"
        room = columns(text)
    return text + " " * (width - room)


def bar(share: float, width: int) -> str:
    """A bar of this share, 0 to 1, of `width` columns, exact to an eighth of one; what is more than nothing is seen."""
    eighths = max(round(share * width * 8), 1 if share > 0 else 0)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def wrapped(label: str, text: str, width: int) -> list[str]:
    """Lines of `width` columns: the label, and the text beside it, in as many lines as it takes."""
    lines = textwrap.wrap(text, width - _LABEL - 4, break_long_words=False, break_on_hyphens=False) or [""]
    beside = itertools.zip_longest([label], lines, fillvalue="")
    return [f"  {fit(name, _LABEL)}  {line}".rstrip() for name, line in beside]


def size_text(nbytes: float) -> str:
    """A number of bytes in decimal units, as the dump's summary has them."""
    for unit in _UNITS:
        if nbytes < 1000 or unit == _UNITS[-1]:
            break
        nbytes /= 1000
    return f"{nbytes:,.0f} {unit}" if unit == _UNITS[0] else f"{nbytes:,.1f} {unit}"


def aligned(rows: Sequence[Sequence[str]], left: Collection[int] = (0,)) -> list[str]:
    """Lines of a table whose cells end below each other; those of the columns in `left` begin so.

    Rows that are shorter than the first one are a name and free text.
    """
    full = [row for row in rows if len(row) == len(rows[0])]
    widths = [max(map(len, column)) for column in zip(*full)]
    widths[0] = max(len(row[0]) for row in rows)

    def cell(row: Sequence[str], i: int) -> str:
        is_free = i > 0 and len(row) < len(rows[0])
        return row[i] if is_free else row[i].ljust(widths[i]) if i in left else row[i].rjust(widths[i])

    return ["  ".join(cell(row, i) for i in range(len(row))).rstrip() for row in rows]
