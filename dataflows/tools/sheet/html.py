"""Builds a self-contained HTML page: elements with escaped texts, pictures, bars.

Text becomes HTML in `element` alone, which escapes all that is not Markup already: what a file says of itself cannot
become an element, an attribute or a script. The page's policy forbids scripts and all that would be loaded.
"""
import base64
import html
import io
from typing import NamedTuple, Sequence

from PIL import Image

_EMPTY = ("img", "line", "link", "meta", "rect", "wbr")  # elements without an end
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_QUALITY = 90  # of pictures, as JPEGs in 4:4:4
_STYLE = """
:root { color-scheme: light; --ink: #1b2430; --faint: #5d6875; --edge: #d9dde3; --page: #eef0f3; --empty: #f3f4f6;
        --accent: #1f5f8b; --other: #9aa5b1; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Noto Sans",
       "DejaVu Sans", sans-serif; overflow-wrap: anywhere; }
main { max-width: 1240px; margin: 0 auto; padding: 32px 24px 48px; }
h1 { font-size: 28px; line-height: 1.2; margin: 0 0 4px; }
h2 { font-size: 20px; margin: 40px 0 4px; }
h3 { font-size: 16px; margin: 0 0 10px; }
h4 { font-size: 13px; font-weight: 600; color: var(--faint); margin: 18px 0 6px; }
p { margin: 0 0 12px; }
.more { margin: 10px 0 0; }
.faint, .more, small { color: var(--faint); font-size: 13px; }
.figures { display: flex; flex-wrap: wrap; gap: 12px; margin: 20px 0 24px; padding: 0; list-style: none; }
.figures li { flex: 1 1 120px; padding: 12px 16px; background: #fff; border: 1px solid var(--edge);
              border-radius: 8px; }
.figures b { display: block; font-size: 22px; line-height: 1.3; }
.parts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); gap: 20px;
         align-items: start; }
.card { background: #fff; border: 1px solid var(--edge); border-radius: 8px; padding: 16px 18px; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 4px 16px; margin: 0; }
dt { color: var(--faint); }
dd { margin: 0; }
.bars { display: grid; grid-template-columns: fit-content(45%) minmax(60px, 1fr) max-content; gap: 3px 10px;
        margin: 0; padding: 0; list-style: none; font-size: 13px; align-items: center; }
.bars li { display: contents; }
.bars svg { width: 100%; height: 14px; display: block; overflow: visible; }
.bars .value { text-align: right; font-variant-numeric: tabular-nums; }
.bars rect { fill: var(--accent); }
.bars .other rect { fill: var(--other); }
.bars line { stroke: var(--ink); stroke-width: 1.5; }
.samples { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 340px), 1fr)); gap: 16px; }
.odd { display: flex; flex-wrap: wrap; gap: 16px; }
.odd > .card { flex: 1 1 auto; max-width: 100%; }
.thumbs { display: flex; flex-wrap: wrap; gap: 12px; }
.thumbs figure { width: 168px; max-width: 100%; }
figure { margin: 0; }
figure img { display: block; width: 100%; height: 100%; object-fit: contain; }
.pair { display: grid; grid-template-columns: 300fr 224fr; gap: 10px; }
.pair > span { background: var(--empty); aspect-ratio: 300 / 224; }
.pair > span + span { aspect-ratio: 1; }
.samples > .card { padding: 12px; }
.thumbs .picture { display: block; background: var(--empty); aspect-ratio: 300 / 224; }
figcaption { margin-top: 8px; line-height: 1.4; }
figcaption b, figcaption small { display: block; }
.mark { color: var(--accent); font-weight: 600; }
.stack { display: grid; gap: 20px; grid-template-columns: minmax(0, 1fr); }
figcaption .name { color: var(--ink); margin-top: 4px; }
ul.plain { columns: 4 240px; margin: 0; padding-left: 18px; font-size: 13px; }
@media (max-width: 560px) {
  main { padding: 20px 12px 32px; }
  dl { grid-template-columns: minmax(0, 1fr); gap: 0; }
  dd { margin-bottom: 8px; }
  .figures li { flex-basis: 40%; padding: 10px 12px; }
  .thumbs figure { width: calc(50% - 6px); }
}
"""


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
                   element("title", title), element("style", Markup(_STYLE)))
    return "<!DOCTYPE html>\n" + element("html", head, element("body", element("main", *children)), lang="en") + "\n"
