"""Writes one page on an LMDB file: what it is, samples, what the dump found odd, and benchmarks. Needs no network."""
import os
from typing import Any, Mapping, Sequence

from dataflows.dump.findings import ACROSS, DUPLICATE, by_reason
from dataflows.storage.index_meta import IndexMeta
from dataflows.terminal import plural, printable
from dataflows.tools.info.facts import describe
from dataflows.tools.info.statements import FOUND, Part, statements
from dataflows.tools.sheet.benchmark_bars import Measured, measured
from dataflows.tools.sheet.html import Bar, Markup, bars, document, element, joined, picture
from dataflows.tools.sheet.views import View, Views
from dataflows.tools.text import size_text

_SHOWN = 6  # pictures of one finding, groups of equal files
_NAMED = 12  # files of one reason, remarks


def write_page(path: str | os.PathLike[str], folder: str | os.PathLike[str], *, transform: str = "train",
               count: int = 24, seed: int = 0, benchmarks: Sequence[str | os.PathLike[str]] = (),
               storage_options: Mapping[str, Any] | None = None) -> str:
    """Writes folder/index.html on an LMDB file, and returns its path. The folder is made if it is missing.

    The page is one file: pictures and style are in it, there is no script, and its policy lets a browser load nothing
    else. All that the file says of itself (names of classes and files, reasons, versions) is escaped.

    transform, count, seed: of the samples, as of contact_sheet. benchmarks: JSON files that benchmark.py wrote.
    storage_options: how to reach a URL, as LMDBLoader has them.

    Raises what Store and RecordReader raise for a file or record that cannot be read, and ValueError for options out of
    range and for files that benchmark.py did not write; then nothing is written.

    >>> write_page("val.lmdb", "report", transform="val")
    'report/index.html'
    """
    facts = describe(path, storage_options=storage_options)
    read = [measured(os.fspath(name)) for name in benchmarks]
    with Views(path, storage_options) as views:
        numbers = views.draw(count, seed)
        cards = [_sample(sample) for sample in views(numbers, transform, seed)]
        sections = [_head(facts), _facts(facts),
                    element("h2", "Samples"),
                    element("p", f"{len(cards):,} of {facts['records']:,} records, drawn by seed {seed}. Left: the "
                                 f"image as it is stored, with the part that the {transform} transform takes; right: "
                                 f"what a loader gives.", class_="faint"),
                    element("div", *cards, class_="samples"),
                    *([] if views.meta is None else _odd(views, views.meta)),
                    *(_benchmark(os.fspath(name), *figures) for name, figures in zip(benchmarks, read))]
    page = document(printable(os.path.basename(facts["path"])), *sections)
    os.makedirs(folder, exist_ok=True)
    target = os.path.join(os.fspath(folder), "index.html")
    with open(target, "w", encoding="utf-8") as file:
        file.write(page)
    return target


def _head(facts: dict[str, Any]) -> Markup:
    figures = [(f"{facts['records']:,}", "records"), (size_text(facts["file_bytes"]), "LMDB")]
    if facts["index"] is not None:
        number, what = ((facts["classes"]["number"], "classes") if facts["vectors"] is None else
                        (len(facts["vectors"]), "numbers of a label"))
        figures.insert(1, (f"{number:,}", what))
        figures += [(printable(facts["dump"]["format"]), "format"), (f"{facts['sizes']['distinct']:,}", "sizes")]
    if facts["tiles"] is not None:
        figures.append((f"{facts['tiles']['tiled'] / facts['records']:.1%}", "of the JPEGs tiled"))
    return joined(element("h1", printable(os.path.basename(facts["path"]))),
                  element("p", printable(os.path.abspath(facts["path"])), class_="faint"),
                  element("ul", *(element("li", element("b", value), element("small", label))
                                  for value, label in figures), class_="figures"))


def _facts(facts: dict[str, Any]) -> Markup:
    columns: list[list[Part]] = [[], []]
    for part in statements(facts):
        if part.title != FOUND:  # which has a section of its own
            min(columns, key=_lines).append(part)
    return element("div", *(element("div", *map(_part, column), class_="stack") for column in columns if column),
                   class_="parts")


def _lines(parts: list[Part]) -> int:
    """About how high they are, in lines of text."""
    return sum(2 + len(part.facts) + sum(2 + len(chart.bars) for chart in part.charts) for part in parts)


def _part(part: Part) -> Markup:
    listed = [joined(element("dt", label), element("dd", text)) for label, text in part.facts]
    charts = [joined(element("h4", chart.title), bars([Bar(label, count, f"{count:,}") for label, count in chart.bars]))
              for chart in part.charts]
    return _card(part.title, element("dl", *listed), *charts)


def _card(title: str, *content: Markup) -> Markup:
    return element("section", element("h3", title), *content, class_="card")


def _sample(sample: View) -> Markup:
    assert sample.after is not None
    mark = [" · ", element("span", "mirrored", class_="mark")] if sample.mirrored else []
    return element("figure",
                   element("div", element("span", picture(sample.before, f"{sample.class_name}, as stored")),
                           element("span", picture(sample.after, f"{sample.class_name}, after the transform")),
                           class_="pair"),
                   element("figcaption", element("b", sample.class_name),
                           element("small", " · ".join(sample.details), *mark),
                           element("small", _breakable(sample.source))), class_="card")


def _odd(views: Views, made: IndexMeta) -> list[Markup]:
    """The section on what the dump found in its source."""
    blocks = [_finding(views, finding, numbers) for finding, numbers in made.findings.items()
              if finding not in (DUPLICATE, ACROSS)]
    if made.duplicates:
        blocks.append(_equal_files(views, made.duplicates, set(made.findings.get(ACROSS, ()))))
    if made.skipped:
        blocks.append(_skipped(made.skipped))
    if made.left_out:
        kinds = [f"{count:,} {kind}" for kind, count in made.left_out.items()]
        blocks.append(_card("Left out, by name or place", _listed(kinds)))
    if made.class_counts:
        blocks.append(_card("Classes that differ from ImageNet's", _listed(made.class_counts)))
    about = ("Files that are stored all the same, as they are shown here; then those that are left out." if blocks
             else "Nothing unusual: no file was left out, and none is equal to another.")
    return [element("h2", FOUND), element("p", about, class_="faint"), element("div", *blocks, class_="odd")]


def _finding(views: Views, finding: str, numbers: list[int]) -> Markup:
    return _card(f"{printable(finding)}: {plural(len(numbers), 'file')}",
                 element("div", *map(_thumb, views(numbers[:_SHOWN], None)), class_="thumbs"),
                 _more(len(numbers) - _SHOWN, "in the index, under findings"))


def _thumb(first: View, *equal: View) -> Markup:
    """A record's picture above its names, and those of others with the same picture."""
    names = [joined(element("small", _breakable(sample.source), class_="name"), element("small", sample.class_name),
                    element("small", f"key {sample.key} · {sample.width}\u00a0x\u00a0{sample.height}"))
             for sample in (first, *equal)]
    return element("figure", element("span", picture(first.before, first.class_name), class_="picture"),
                   element("figcaption", *names))


def _equal_files(views: Views, groups: list[list[int]], across: set[int]) -> Markup:
    """Groups of equal contents, those that have several classes first."""
    groups = sorted((group for group in groups if group), key=lambda group: not across & set(group))
    thumbs = [_thumb(*views(group[:_SHOWN], None)) for group in groups[:_SHOWN]]
    title = f"Equal files: {plural(len(groups), 'group')}"
    labels = sum(1 for group in groups if across & set(group))
    return _card(title + (f", {labels:,} of them across classes" if labels else ""),
                 element("div", *thumbs, class_="thumbs"),
                 _more(len(groups) - _SHOWN, "in the index, under duplicates"))


def _skipped(skipped: list[dict[str, str]]) -> Markup:
    reasons = by_reason(skipped)
    blocks = [joined(element("h4", f"{printable(reason)}: {plural(len(names), 'file')}"), _listed(names))
              for reason, names in list(reasons.items())[:_NAMED]]
    return _card(f"Left out: {plural(len(skipped), 'file')}", *blocks,
                 _more(len(reasons) - _NAMED, "reasons in the index"))


def _breakable(name: str) -> Markup:
    """A file's name, which may go on in a new line behind its folder."""
    folder, slash, file = name.rpartition("/")
    return joined(folder + slash, element("wbr"), file) if slash else joined(file)


def _listed(texts: Sequence[str]) -> Markup:
    return joined(element("ul", *(element("li", printable(text)) for text in texts[:_NAMED]), class_="plain"),
                  _more(len(texts) - _NAMED, "in the index"))


def _more(count: int, where: str) -> Markup:
    return element("p", f"and {count:,} more {where}", class_="more") if count > 0 else Markup("")


def _benchmark(path: str, machine: str, groups: list[Measured]) -> Markup:
    return joined(element("h2", f"Benchmark: {printable(os.path.basename(path))}"),
                  element("p", f"Medians of the counted epochs, with their range; this project's in blue. {machine}",
                          class_="faint"),
                  element("div", *map(_group, groups), class_="parts"))


def _group(group: Measured) -> Markup:
    without = [joined(element("h4", title), _listed(names))
               for title, names in (("failed", group.failed), ("skipped", group.skipped)) if names]
    return _card(group.title, element("h4", group.unit), bars(group.bars), *without)
