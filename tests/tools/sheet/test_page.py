"""The page of `--report`: one file with everything in it, as a real browser shows it; and nothing in it is obeyed."""
import base64
import html.parser
import io
import json
import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from dataflows.__main__ import main
from dataflows.dump.findings import ACROSS, DUPLICATE
from dataflows.errors import RecordError
from dataflows.storage.index import load_index
from dataflows.tools.sheet.benchmark_bars import measured
from dataflows.tools.sheet.html import Bar, Markup, bars, element
from dataflows.tools.sheet.page import write_page
from dataflows.tools.sheet.views import SIDE, Views
from dump_imagenet import dump_split
from helpers import chromium, odd_files
from helpers.lmdb_files import change_meta, pack_msgpack, save_index, write_lmdb
from helpers.photos import CLASSES

HOSTILE = '"><script>hacked = 1</script><img src=x onerror="hacked = 1">&amp;\x1b\udcff'
SHOWN_HOSTILE = HOSTILE.replace("\x1b", r"\x1b").replace("\udcff", r"\udcff")
WIDTHS = (1280, 400)


class Reader(html.parser.HTMLParser):
    """What a page has: its elements as (tag, attributes), and its text."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.words, self._style = [], [], False
        with open(path, encoding="utf-8") as file:
            self.feed(file.read())
        self.text = " ".join(self.words)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._style = tag == "style"

    def handle_data(self, data):
        if not self._style and data.strip():
            self.words.append(data)

    def pictures(self):
        for tag, attributes in self.elements:
            if tag == "img":
                kind, _, content = attributes["src"].partition("base64,")
                assert kind == "data:image/jpeg;"
                yield Image.open(io.BytesIO(base64.b64decode(content)))


def benchmark(path, *, cold=False):
    """A file as benchmark.py writes it."""
    def result(name, *rates):
        epochs = [{"images_per_s": rate, "mb_per_s": rate / 10, "cpu_ms_per_image": None} for rate in rates]
        return {"contestant": name, "error": None, "epochs": epochs, "open_s": 1.0, "growth_mb": None}

    failed = {"contestant": "grain", "error": "Traceback\nImportError: none", "epochs": [], "median": None}
    skipped = failed | {"contestant": "dali", "error": "no GPU", "skipped": True}
    group = {"split": "train", "format": "jpeg", "images": 3000, "lmdb_bytes": 345_600_000, "limit": [],
             "results": [result("pool", 5000.0, 800.0, 900.0, 850.0),
                         result("loader-linear", 1.0, 1200.0, 1000.0, 1300.0), failed, skipped,
                         result("datasets", 700.0, 700.0, 600.0, 650.0)]}
    path.write_text(json.dumps({
        "arguments": {"cold": cold, "num_workers": 2, "batch_size": 256}, "versions": {"torch": "2.13.0"},
        "processor": "A <processor>", "cpu_count": 2, "skipped": {"ffcv": "not installed: ffcv"},
        "groups": [group]}))
    return path


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A dump of all the odd files there are, with what cannot be stored left out, and its page."""
    folder = tmp_path_factory.mktemp("odd")
    for place, files in enumerate((odd_files.PLAIN, {"of another class.jpg": (odd_files.JPEG, ())},
                                   odd_files.LOSSY, odd_files.BAD)):
        (folder / "train" / f"class {place}").mkdir(parents=True)
        for name, (content, _) in files.items():
            (folder / "train" / f"class {place}" / name).write_bytes(content)
    dump_split(folder, folder, "train", on_error="skip", progress=False)
    write_page(folder / "train.lmdb", folder / "page", count=12,
               benchmarks=[benchmark(folder / "warm.json"), benchmark(folder / "cold.json", cold=True)])
    return folder


def copy_of(dump, folder):
    for name in ("val.lmdb", "val.lmdb.index.npz"):
        shutil.copy(dump / name, folder)
    return folder / "val.lmdb"


@pytest.fixture(scope="module")
def hostile(tiled_lmdb, tmp_path_factory):
    """A dump all of whose names would like to be elements, and its page."""
    folder = tmp_path_factory.mktemp("hostile")
    path = copy_of(tiled_lmdb, folder)
    index = load_index(str(path), str(path))
    index = index.__class__(**{**index.__dict__, "name": np.array([os.fsencode(HOSTILE)] * index.count)})
    save_index(index, path)
    change_meta(
        path, classes=[HOSTILE] * 3, class_names=[HOSTILE] * 3, layout=HOSTILE, split=HOSTILE, format=HOSTILE,
        findings={HOSTILE: [0, 1], DUPLICATE: [2, 3], ACROSS: [2, 3]}, duplicates=[[2, 3]], class_counts=[HOSTILE],
        skipped=[{"name": HOSTILE, "reason": HOSTILE}], left_out={HOSTILE: 1}, untiled={HOSTILE: 1},
        tools={HOSTILE: HOSTILE}, options={"tiles": True, HOSTILE: HOSTILE})
    run = json.loads(benchmark(folder / "run.json").read_text().replace("loader-linear", "LOADER"))
    run["groups"][0]["results"][1]["contestant"] = run["processor"] = run["groups"][0]["split"] = HOSTILE
    run["groups"][0]["results"][2]["error"] = HOSTILE
    (folder / "run.json").write_text(json.dumps(run))
    write_page(path, folder / "page", benchmarks=[folder / "run.json"])
    return folder / "page" / "index.html"


# What is on the page.

def test_the_page_is_one_file_that_asks_for_no_other(odd):
    page = Reader(odd / "page" / "index.html")
    assert os.listdir(odd / "page") == ["index.html"]
    for tag, attributes in page.elements:
        assert tag not in ("script", "iframe", "object", "embed", "base", "form")
        for name, value in attributes.items():
            if name in ("src", "href", "data", "action", "srcset", "background"):
                assert value.startswith("data:"), (tag, name, value[:50])
            assert not name.startswith("on") and name != "style"
    text = (odd / "page" / "index.html").read_text()
    assert "url(" not in text and "@import" not in text and not re.search("https?:", text)  # a picture may have http


def test_the_page_has_the_facts(odd):
    page = Reader(odd / "page" / "index.html")
    assert page.words[0] == "train.lmdb"
    for part in ("How it was made", "class folders in train", "a permutation, of seed 0", "52 x 36", "36 x 52",
                 "shorter side, pixels", "images of each class", "class 0", "class 1", "2 progressive"):
        assert part in page.text


def test_the_samples_are_those_of_the_sheet(odd):
    with Views(odd / "train.lmdb") as looks:
        expected = list(looks(looks.draw(12, 0), "train", 0))
    shown = list(Reader(odd / "page" / "index.html").pictures())[:24]
    for view, before, after in zip(expected, shown[::2], shown[1::2]):
        assert before.size == view.before.size and after.size == (SIDE, SIDE)
        for picture, pixels in ((before, view.before), (after, view.after)):
            assert np.abs(np.asarray(picture, np.int16) - np.asarray(pixels, np.int16)).mean() < 4  # it is a JPEG


def test_all_that_the_dump_found_is_shown(odd):
    page = Reader(odd / "page" / "index.html")
    meta = load_index(str(odd / "train.lmdb"), str(odd / "train.lmdb")).meta
    assert len(meta.findings) > 8 and len(meta.skipped) == len(odd_files.BAD)
    for finding, numbers in meta.findings.items():
        if finding not in (DUPLICATE, ACROSS):
            assert f"{finding}: {len(numbers)} file" in page.text
    reasons = list(dict.fromkeys(entry["reason"] for entry in meta.skipped))
    assert len(reasons) > 12 and f"and {len(reasons) - 12} more reasons in the index" in page.text
    assert [f"{reason}: " in page.text for reason in reasons] == [True] * 12 + [False] * (len(reasons) - 12)
    assert "class 2/ cmyk.jpg" in page.text and "class 3/empty.jpg" in page.text
    assert f"Left out: {len(meta.skipped)} files" in page.text
    groups = meta.duplicates
    assert len(groups) > 1 and f"Equal files: {len(groups)} groups, 1 of them across classes" in page.text
    assert page.text.index("of another class.jpg", page.text.index("Equal files")) < page.text.index("Left out")
    thumbs = sum(min(6, len(numbers)) for finding, numbers in meta.findings.items()
                 if finding not in (DUPLICATE, ACROSS)) + len(groups)
    assert len(list(page.pictures())) == 2 * 12 + thumbs


def test_a_dump_without_findings_says_so(tiled_lmdb, tmp_path):
    path = copy_of(tiled_lmdb, tmp_path)
    change_meta(path, findings={}, duplicates=[], skipped=[], class_counts=[])
    page = Reader(write_page(path, tmp_path / "page", count=1))
    assert "Nothing unusual" in page.text and len(list(page.pictures())) == 2


def test_a_file_without_an_index_has_a_page_too(tmp_path):
    path = write_lmdb(tmp_path / "a.lmdb", [[odd_files.JPEG, 5], [odd_files.PNG, 7]], pack_msgpack)
    page = Reader(write_page(path, tmp_path / "new" / "page", transform="val"))
    for part in ("none: it was written by another program", "label 5", "label 7", "1 PNG", "val transform"):
        assert part in page.text
    assert "What the dump found" not in page.text and len(list(page.pictures())) == 4


def test_the_page_is_a_function_of_its_arguments(tiled_lmdb, tmp_path):
    pages = []
    for seed in (0, 0, 1):
        write_page(tiled_lmdb / "val.lmdb", tmp_path, seed=seed)
        pages.append((tmp_path / "index.html").read_bytes())
    assert pages[0] == pages[1] != pages[2]


def test_nothing_that_a_file_says_becomes_an_element(hostile):
    page = Reader(hostile)
    assert not {"script", "iframe"} & {tag for tag, _ in page.elements}
    assert all(attributes["src"].startswith("data:") and set(attributes) == {"src", "alt", "width", "height"}
               for tag, attributes in page.elements if tag == "img")
    assert page.text.count(SHOWN_HOSTILE) > 30


# Benchmarks.

def test_what_a_benchmark_measured(tmp_path):
    machine, [group] = measured(benchmark(tmp_path / "run.json"))
    assert machine == ("A <processor>, 2 processors; 2 workers, batches of 256; torch 2.13.0. Skipped: ffcv, not "
                       "installed: ffcv.")
    assert group.title == "train, jpeg: 3,000 images, 345.6 MB" and group.unit == "images/s"
    assert group.bars == [Bar("loader-linear", 1200, "1,200", 1000, 1300, True),
                          Bar("pool", 850, "850", 800, 900, False), Bar("datasets", 650, "650", 600, 700, False)]
    assert (group.failed, group.skipped) == (["grain: ImportError: none"], ["dali: no GPU"])


def test_no_epoch_of_a_cold_benchmark_is_a_warm_up(tmp_path):
    _, [group] = measured(benchmark(tmp_path / "run.json", cold=True))
    assert group.title.startswith("train, jpeg, cold") and group.unit == "MB/s"
    assert group.bars[0] == Bar("loader-linear", 110, "110", 0.1, 130, True)


def test_the_bars_of_a_benchmark_are_on_the_page(odd):
    page = Reader(odd / "page" / "index.html")
    assert "Benchmark: warm.json" in page.text and "Benchmark: cold.json" in page.text
    assert "A <processor>" in page.text and "Skipped: ffcv, not installed" in page.text
    at = page.words.index("failed")
    assert page.words[at:at + 4] == ["failed", "grain: ImportError: none", "skipped", "dali: no GPU"]
    at = page.words.index("loader-linear")
    assert page.words[at:at + 6] == ["loader-linear", "1,200", "pool", "850", "datasets", "650"]


@pytest.mark.parametrize("content", ["", "{}", "[]", "null", '{"arguments": {"cold": false}, "groups": [1]}', "\xff",
                                     "NaN", '{"arguments": 5}'])
def test_what_benchmark_py_did_not_write_is_refused_and_nothing_is_written(content, tiled_lmdb, tmp_path):
    (tmp_path / "run.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match="run.json is not what benchmark.py writes"):
        write_page(tiled_lmdb / "val.lmdb", tmp_path / "page", benchmarks=[tmp_path / "run.json"])
    assert not (tmp_path / "page").exists()


@pytest.mark.parametrize("rate", ["NaN", "Infinity", "-5", '"fast"', "null"])
def test_rates_that_are_none_are_refused(rate, tmp_path):
    path = benchmark(tmp_path / "run.json")
    path.write_text(path.read_text().replace("1200.0", rate))
    with pytest.raises(ValueError, match="run.json is not what benchmark.py writes"):
        measured(path)


# Errors, and the command.

def test_a_damaged_record_is_an_error_and_nothing_is_written(jpeg_lmdb, tmp_path):
    path = copy_of(jpeg_lmdb, tmp_path)
    index = load_index(str(path), str(path))
    with open(path, "rb+") as file:
        file.seek(index.offset[4] + 4)
        file.write(bytes(200))
    with pytest.raises(RecordError, match="val.lmdb, key 00000004: "):
        write_page(path, tmp_path / "page")
    assert not (tmp_path / "page").exists()


def test_the_command(tiled_lmdb, tmp_path, capsys):
    run = benchmark(tmp_path / "run.json")
    arguments = ["sheet", str(tiled_lmdb / "val.lmdb"), "--report", str(tmp_path / "page"), "--count", "3"]
    assert main([*arguments, "--benchmark", str(run)]) == 0
    assert capsys.readouterr() == (f"Wrote {tmp_path / 'page' / 'index.html'}\n", "")
    assert "Benchmark: run.json" in Reader(tmp_path / "page" / "index.html").text
    assert main([*arguments, "--benchmark", str(tmp_path / "none.json")]) == 2
    assert "none.json" in capsys.readouterr().err


# Pieces.

def test_text_is_escaped_once_and_markup_is_not():
    assert element("p", '<&">', element("b", "<"), title='"<') == (
        '<p title="&quot;&lt;">&lt;&amp;&quot;&gt;<b>&lt;</b></p>')
    assert element("rect", class_="a", aria_hidden="true") == '<rect class="a" aria-hidden="true"/>'
    assert isinstance(element("p"), Markup)


def test_bars_are_shares_of_the_longest_with_its_whisker():
    drawn = bars([Bar("a", 50, "50", 40, 100), Bar("b", 0, "0"), Bar("c", 25, "25", ours=False)])
    assert 'width="50.00%"' in drawn and 'width="0.00%"' in drawn and 'width="25.00%"' in drawn
    assert 'x1="40.00%" x2="100.00%"' in drawn and drawn.count("<line") == 3 and drawn.count('class="other"') == 1
    assert bars([]) == '<ul class="bars"></ul>' and 'width="0.00%"' in bars([Bar("a", 0, "0")])


# In a browser.

@pytest.fixture
def tab(tmp_path):
    with chromium.Browser(tmp_path) as browser:
        yield browser


PICTURES = "[...document.images].map(i => [i.complete && i.naturalWidth > 0, i.width, i.height, i.naturalWidth])"
# What is drawn beyond the window's edges, or beyond the card that it is in: [tag, text, by how much].
OVERFLOWING = """[...document.querySelectorAll("main *")].flatMap(e => {
    const card = e.closest(".card") ?? document.querySelector("main"), inner = card.getBoundingClientRect();
    const box = e.getBoundingClientRect(), by = Math.max(box.right - inner.right, inner.left - box.left);
    const over = box.width && by > 1 && !["line", "rect"].includes(e.tagName);
    return over ? [[e.tagName, e.textContent.slice(0, 40), by]] : [];
})"""


@chromium.needed
@pytest.mark.parametrize("width", WIDTHS)
def test_a_browser_shows_all_pictures_and_asks_for_nothing(odd, tab, width):
    path = odd / "page" / "index.html"
    tab.open(path, width=width)
    pictures = tab.evaluate(PICTURES)
    assert len(pictures) == len(list(Reader(path).pictures())) > 40
    assert all(loaded and shown_width > 40 and shown_height > 20 for loaded, shown_width, shown_height, _ in pictures)
    assert tab.requests == [path.as_uri()] and tab.violations == []
    assert tab.evaluate("document.title") == "train.lmdb"


@chromium.needed
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("page", ["odd", "hostile"])
def test_nothing_is_wider_than_the_window_or_its_card(page, width, odd, hostile, tab):
    tab.open({"odd": odd / "page" / "index.html", "hostile": hostile}[page], width=width)
    assert tab.evaluate("[document.documentElement.scrollWidth, window.innerWidth]") == [width, width]
    assert tab.evaluate("document.querySelectorAll('.card').length") > 10
    assert tab.evaluate(OVERFLOWING) == []


@chromium.needed
@pytest.mark.parametrize("width", WIDTHS)
def test_bars_are_as_long_as_their_values(odd, tab, width):
    tab.open(odd / "page" / "index.html", width=width)
    rows = tab.evaluate("""[...document.querySelectorAll(".bars")].map(chart => [...chart.children].map(row => [
        row.querySelector(".value").textContent, row.querySelector("rect").getBoundingClientRect().width,
        row.querySelector("svg").getBoundingClientRect().width, row.querySelectorAll("line").length]))""")
    assert len(rows) > 6
    for chart in rows:
        values = [float(text.replace(",", "")) for text, *_ in chart]
        most = max(values) if not chart[0][3] else None  # with whiskers the longest of them fills the room
        for value, (_, length, room, _) in zip(values, chart):
            assert 60 <= room and length <= room + 1
            if most:
                assert length == pytest.approx(value / most * room, abs=1)
    whiskers = [chart for chart in rows if chart[0][3]]
    assert [len(chart) for chart in whiskers] == [3, 3] and all(row[3] == 3 for chart in whiskers for row in chart)


@chromium.needed
@pytest.mark.parametrize("width", WIDTHS)
def test_the_picture_before_and_the_one_after_stand_side_by_side(odd, tab, width):
    tab.open(odd / "page" / "index.html", width=width)
    pairs = tab.evaluate("""[...document.querySelectorAll(".pair")].map(pair => [...pair.children].map(e => {
        const box = e.getBoundingClientRect(); return [box.left, box.right, box.top, box.height]; }))""")
    assert len(pairs) == 12
    for before, after in pairs:
        assert before[1] < after[0] and before[2] == after[2] and abs(before[3] - after[3]) < 1


@chromium.needed
def test_hostile_names_run_nothing_and_are_shown_as_they_are(hostile, tab):
    tab.open(hostile, width=1280)
    assert tab.evaluate("typeof hacked") == "undefined" and tab.requests == [hostile.as_uri()]
    assert tab.evaluate("document.querySelectorAll('script, [onerror]').length") == 0
    assert SHOWN_HOSTILE in tab.evaluate("document.querySelector('figcaption b').innerText")


@chromium.needed
def test_the_policy_of_the_page_stops_scripts_and_requests(odd, tab):
    """What would become of an element that got in nevertheless; and that the tests above would notice a request."""
    path = odd / "page" / "index.html"
    tab.open(path, width=1280)
    tab.evaluate("""new Promise(done => {
        const script = document.createElement("script"); script.textContent = "hacked = 1";
        document.body.append(script);
        const image = new Image(); image.onerror = image.onload = done; image.src = "http://127.0.0.1:9/x.png"; })""")
    assert tab.evaluate("typeof hacked") == "undefined"
    tab.evaluate("new Promise(done => setTimeout(done, 100))")
    assert len(tab.violations) >= 2
    bare = path.with_name("bare.html")
    bare.write_text(path.read_text().replace("Content-Security-Policy", "X-Nothing").replace(
        "</main>", '<img src="next.png"><script>hacked = 1</script></main>'))
    tab.open(bare, width=1280)
    assert tab.evaluate("hacked") == 1 and bare.with_name("next.png").as_uri() in tab.requests
    bare.unlink()


def test_classes_of_the_fixture_are_named(tiled_lmdb, tmp_path):
    assert all(name in Reader(write_page(tiled_lmdb / "val.lmdb", tmp_path, count=10)).text for name in CLASSES)
