"""Builds an HTML page that needs no other file: elements whose texts are escaped, pictures, bars.

Text becomes HTML in `element` alone, which escapes all that is not Markup already: what a file says of itself cannot
become an element, an attribute or a script. The page's policy forbids scripts and all that would be loaded.
"""
import base64
import html
import io
import pathlib
from typing import NamedTuple, Sequence

from PIL import Image

_EMPTY = ("img", "line", "link", "meta", "rect", "wbr")  # elements without an end
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_QUALITY = 90  # of pictures, as JPEGs in 4:4:4
_STYLE = pathlib.Path(__file__).parent / "page.css"


class Markup(str):
    """Text that is HTML already."""


class Bar(NamedTuple):
    """One bar: its label, how long it is, how that is written, and the range that a whisker shows, if there is one."""

    label: str
    value: float
    text: str
    least: float | None = None
    most: float | None = None
    ours: bool = True  # else it is gray


def element(tag: str, /, *children: str, **attributes: str) -> Markup:
    """<tag attributes>children</tag>. Children that are not Markup are escaped, and so are attributes. A trailing
    underscore of an attribute's name is left out (class_), others are hyphens."""
    told = "".join(f' {key.rstrip("_").replace("_", "-")}="{html.escape(value)}"' for key, value in attributes.items())
    if tag in _EMPTY:
        return Markup(f"<{tag}{told}/>")
    return Markup(f"<{tag}{told}>{joined(*children)}</{tag}>")


def joined(*children: str) -> Markup:
    """One after the other; those that are not Markup are escaped."""
    return Markup("".join(child if isinstance(child, Markup) else html.escape(child) for child in children))


def picture(image: Image.Image, about: str) -> Markup:
    """An image element that holds its picture."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=_QUALITY, subsampling=0)
    uri = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
    return element("img", src=uri, alt=about, width=str(image.width), height=str(image.height))


def bars(rows: Sequence[Bar]) -> Markup:
    """Horizontal bars with labels and values, in SVG whose lengths are shares of the room that there is."""
    end = max((max(row.value, row.most or 0) for row in rows), default=0) or 1

    def at(value: float) -> str:
        return f"{100 * value / end:.2f}%"

    def drawn(row: Bar) -> Markup:
        shapes = [element("rect", width=at(row.value), height="100%", rx="2")]
        if row.least is not None and row.most is not None:
            shapes.append(element("line", x1=at(row.least), x2=at(row.most), y1="50%", y2="50%"))
            shapes += [element("line", x1=at(x), x2=at(x), y1="20%", y2="80%") for x in (row.least, row.most)]
        return element("li", element("span", row.label), element("svg", *shapes, aria_hidden="true"),
                       element("span", row.text, class_="value"), class_="ours" if row.ours else "other")

    return element("ul", *map(drawn, rows), class_="bars")


def document(title: str, *children: str) -> str:
    """A whole page, to be written as UTF-8."""
    head = element("head", element("meta", charset="utf-8"),
                   element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
                   element("meta", name="viewport", content="width=device-width, initial-scale=1"),
                   element("link", rel="icon", href="data:,"),  # else a browser asks the server for one
                   element("title", title), element("style", Markup(_STYLE.read_text(encoding="utf-8"))))
    return "<!DOCTYPE html>\n" + element("html", head, element("body", element("main", *children)), lang="en") + "\n"
