"""Formats text for a terminal: widths, bars of block characters, sizes. No colors, no libraries."""
import itertools
import textwrap
import unicodedata

_EIGHTHS = " ▏▎▍▌▋▊▉█"
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


def wrapped(label: str, text: str, width: int, *, indent: int = 2, label_width: int = 12) -> list[str]:
    """Lines of `width` columns: the label, and the text beside it, in as many lines as it takes."""
    margin = " " * indent
    lines = textwrap.wrap(text, width - indent - label_width - 2, break_long_words=False,
                          break_on_hyphens=False) or [""]
    labels = [label] + [""] * (len(lines) - 1)
    return [f"{margin}{fit(name, label_width)}  {line}".rstrip() for name, line in zip(labels, lines)]


def size_text(nbytes: float) -> str:
    """A number of bytes in decimal units, as the dump's summary has them."""
    for unit in _UNITS:
        if nbytes < 1000 or unit == _UNITS[-1]:
            break
        nbytes /= 1000
    return f"{nbytes:,.0f} {unit}" if unit == _UNITS[0] else f"{nbytes:,.1f} {unit}"
