"""docs/format.md: a reader that is written from its words alone reads what the project itself reads."""
import json
import mmap
import pathlib
import re
import struct
import subprocess
import sys

import cv2
import numpy as np
import pytest

from dataflows.dump.verify import verify
from dataflows.jpeg import cut
from dataflows.storage import index, record
from dataflows.storage.store import Store
from dump_imagenet import dump_split
from helpers import independent_reader
from helpers.paths import ROOT

DOCUMENT = (ROOT / "docs" / "format.md").read_text()
READER = ROOT / "tests" / "helpers" / "independent_reader.py"
NOT_ITS_OWN = {"dataflows", "numpy", "msgpack", "msgpack_numpy", "tensorpack", "cv2", "torch"}
TIMEOUT_SECONDS = 60


def boxes_of(height, width):
    """Corners, edges, the whole, a pixel and some of the middle: (top, left, height, width)."""
    h, w = height // 3, width // 3
    return [(0, 0, height, width), (0, 0, 1, 1), (height - 1, width - 1, 1, 1), (0, width - w, h, w),
            (height - h, 0, h, w), (h, w, h, w), (h, w, 1, 1), (0, w, height, 2), (h, 0, 2, width)]


@pytest.fixture(params=["tiled_lmdb", "jpeg_lmdb", "uint8_lmdb"])
def dump(request):
    """The path of a dump's train split."""
    return str(request.getfixturevalue(request.param) / "train.lmdb")


def read_by_itself(path, out, boxes=None):
    """What the independent reader reports, run without this project and its packages."""
    done = subprocess.run([sys.executable, "-I", "-W", "error", str(READER), path, str(out), json.dumps(boxes or {})],
                          text=True, capture_output=True, timeout=TIMEOUT_SECONDS)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    report = json.loads((out / "report.json").read_text())
    assert not NOT_ITS_OWN & {name.partition(".")[0] for name in report["modules"]}
    return report


def test_every_record_column_and_checksum_is_read_alike(dump, tmp_path):
    report = read_by_itself(dump, tmp_path)
    ours = index.load_index(dump, dump)
    assert report["meta"] == ours.written_meta() and report["meta"]["count"] == 23
    assert set(report["columns"]) == {"label", "height", "width", "nbytes", "offset", "crc32", "name"}
    for name, column in report["columns"].items():
        expected = getattr(ours, name).tolist()
        assert column == ([text.decode("latin1") for text in expected] if name == "name" else expected)
    assert report["rest_crc32"] == ours.meta.rest_crc32 and not verify(dump, progress=False).bad

    store = Store(dump)
    for number, found in enumerate(report["records"]):
        image, label = record.view(store.value(number))
        assert found["key"].encode() == store.key(number)
        assert found["label"] == label == ours.label[number]
        assert found["shape"] == (list(image.shape) if image.ndim == 3 else None)
        assert (tmp_path / found["key"]).read_bytes() == image.tobytes()
    store.close()


@pytest.mark.parametrize("format", ["jpeg", "uint8"])
def test_vectors_are_read_alike(tmp_path, format):
    labels = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    samples = [(np.full((8, 9, 3), number, np.uint8), label) for number, label in enumerate(labels)]
    path = dump_split(samples, tmp_path, "val", format=format, progress=False).path
    report = read_by_itself(path, tmp_path)
    assert report["meta"]["version"] == 3 and report["meta"]["classes"] == ["0", "1", "2"]
    assert report["columns"]["label"] == [found["label"] for found in report["records"]] == labels.tolist()


def test_tiled_jpegs_are_cut_to_equal_pixels(tiled_lmdb, tmp_path):
    path = str(tiled_lmdb / "train.lmdb")
    ours = index.load_index(path, path)
    boxes = {f"{number:08d}": boxes_of(ours.height.item(number), ours.width.item(number))
             for number in range(ours.count)}
    report = read_by_itself(path, tmp_path, boxes)

    kinds, smaller = set(), 0
    for found in report["records"]:
        assert found["tiled"]
        data = (tmp_path / found["key"]).read_bytes()
        whole, tiles = decode(data), cut.read_tiles(data)
        kinds.add((tiles.columns % tiles.interval > 0, bool(tiles.margin_x), tiles.mcu_width))
        for i, (box, (y, x)) in enumerate(zip(boxes[found["key"]], found["places"], strict=True)):
            small = (tmp_path / f"{found['key']}.{i}").read_bytes()
            top, left, height, width = box
            shown = decode(small)[top - y:top - y + height, left - x:left - x + width]
            assert np.array_equal(shown, whole[top:top + height, left:left + width])
            smaller += len(small) < len(data) // 2
            if tiles.columns % tiles.interval == 0:  # elsewhere ours is narrower than the whole rows of the document
                assert small == cut.cut(data, tiles, *box)[0].tobytes()
    # Intervals that divide their row and some that do not; subsampled chroma, full chroma and gray.
    assert {wrapped for wrapped, _, _ in kinds} == {True, False}
    assert {subsampled for _, subsampled, _ in kinds} == {True, False}
    assert smaller > 23


def decode(jpeg):
    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)


def test_whole_jpegs_have_no_list(jpeg_lmdb, tmp_path):
    report = read_by_itself(str(jpeg_lmdb / "val.lmdb"), tmp_path)
    assert len(report["records"]) == 10 and not any(found["tiled"] for found in report["records"])


@pytest.mark.parametrize("label", [0, 127, 128, 255, 256, 65_535, 65_536, 2**31 - 1])
@pytest.mark.parametrize("size", [1, 255, 256, 65_535, 65_536])
def test_lengths_and_labels_of_all_forms_are_read(label, size):
    encoded = bytes(range(256)) * (size // 256) + bytes(size % 256)
    assert independent_reader.read_record(record.pack([encoded, label])) == (None, encoded, label)
    pixels = np.arange(3 * size, dtype=np.uint32).astype(np.uint8).reshape(1, size, 3)
    assert independent_reader.read_record(record.pack([pixels, label])) == ([1, size, 3], pixels.tobytes(), label)


@pytest.mark.parametrize("place", [0.1, 0.5, 0.95])
def test_a_changed_byte_is_found(place, tiled_lmdb, tmp_path):
    """The checksums are as the document says, so they tell."""
    for name in ("val.lmdb", "val.lmdb.index.npz"):
        (tmp_path / name).write_bytes((tiled_lmdb / name).read_bytes())
    columns, meta = independent_reader.read_index(str(tmp_path / "val.lmdb.index.npz"))
    flip(tmp_path / "val.lmdb", place)
    content = (tmp_path / "val.lmdb").read_bytes()
    records = zip(columns["offset"], columns["nbytes"], columns["crc32"])
    differs = [independent_reader.zlib.crc32(content[at:at + nbytes]) != crc for at, nbytes, crc in records]
    differs.append(independent_reader.rest_crc32(tmp_path / "val.lmdb", columns) != meta["rest_crc32"])
    assert sum(differs) == 1
    flip(tmp_path / "val.lmdb.index.npz", place)
    with pytest.raises(ValueError, match="the index is damaged"):
        independent_reader.read_index(str(tmp_path / "val.lmdb.index.npz"))


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1
    path.write_bytes(content)


def test_the_document_names_every_column_and_fact(tiled_lmdb):
    path = str(tiled_lmdb / "train.lmdb")
    found = index.load_index(path, path)
    for name in [*found.written_meta(), *(field for field in vars(found) if field != "meta")]:
        assert re.search(rf"^\| `{name}` \|", DOCUMENT, re.M), f"docs/format.md has no row on {name}"
    assert f"version {index.VERSION}" in DOCUMENT
    assert cut.MAGIC.decode().rstrip("\0") in DOCUMENT


def test_the_lmdb_file_is_as_the_document_states(dump):
    content = pathlib.Path(dump).read_bytes()
    magic, version, page_bytes = struct.unpack_from("<II16xI", content, 16)
    assert f"{magic:08X}" == "BEEFC0DE" and "BEEFC0DE" in DOCUMENT and version == 1
    assert page_bytes == mmap.PAGESIZE and len(content) % page_bytes == 0
    columns, _ = independent_reader.read_index(dump + ".index.npz")
    large = [offset for offset, nbytes in zip(columns["offset"], columns["nbytes"]) if nbytes > page_bytes / 2]
    assert large and {offset % page_bytes for offset in large} == {16}
    assert not pathlib.Path(dump + "-lock").exists()
