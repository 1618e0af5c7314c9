"""A sample of an LMDB or of a folder: what is drawn, what its files were, and how it is dumped again."""
import contextlib
import functools
import os
import shutil
import time

import numpy as np
import pytest

from dataflows.dump.prepare import Preparation
from dataflows.images.codecs import decode
from dataflows.jpeg.cut import read_tiles
from dataflows.jpeg.header import jpeg_size
from dataflows.load.decode.reader import RecordReader
from dataflows.storage.store import Store
from dataflows.tools.advise.sample import PREPARATIONS, Image, Sample, dump
from dataflows.tools.advise.sources import Files, Records, draw, open_source
from dump_imagenet import dump_split
from helpers.photos import CLASSES, encode_jpeg, make_photo

LMDBS = ("jpeg_lmdb", "tiled_lmdb", "uint8_lmdb")
STORED = dict(zip(LMDBS, ("jpeg --no-tiles", "jpeg", "uint8")))


def soon():
    return time.monotonic() + 60


def drawn(source, most=300, nbytes=2**30, deadline=None):
    return draw(source, most, nbytes, deadline or soon())


def total(pieces):
    return sum(piece.nbytes for piece in pieces)


@pytest.fixture(params=[*LMDBS, "photos"])
def source(request):
    folder = request.getfixturevalue(request.param)
    opened = open_source(str(folder if request.param == "photos" else folder / "train.lmdb"), soon())
    yield opened
    opened.close()


# --- what both kinds of source promise


def test_a_sample_is_of_different_images_with_their_labels(source):
    sample = drawn(source)
    assert source.count == len(sample) == len({name for name, _ in sample}) == 23
    assert sorted(label for _, label in sample) == [0] * 9 + [1] * 8 + [2] * 6


def test_a_sample_holds_jpegs_that_are_decoded_whole(source):
    sample = drawn(source)
    for name, _ in sample:
        content = sample.read(name)
        assert jpeg_size(content) and read_tiles(content) is None
        assert decode(content).shape[:2] == jpeg_size(content)


def test_a_sample_is_as_large_as_it_may(source):
    assert len(drawn(source, most=5)) == 5
    assert len(drawn(source, nbytes=1)) == 1
    assert len(drawn(source, deadline=time.monotonic())) == 1


def test_a_sample_is_drawn_from_all_over(source):
    few = [name for name, _ in drawn(source, most=8)]
    assert few == [name for name, _ in drawn(source, most=8)]  # the same for each call
    assert len({label for _, label in drawn(source, most=8)}) > 1


def test_pieces_are_within_their_files_and_of_no_more_than_what_was_asked_for(source):
    for in_order in (False, True):
        pieces = functools.partial(source.pieces, np.random.default_rng(0), in_order=in_order)
        for piece in (found := pieces(2**30)):
            assert piece.offset >= 0 and piece.nbytes > 0
            assert piece.offset + piece.nbytes <= os.path.getsize(piece.path)
        assert len(set(found)) == len(found)
        assert 0 < total(pieces(30_000)) < total(found)


# --- LMDBs


@pytest.mark.parametrize("folder", LMDBS)
def test_an_lmdb_tells_its_format_and_size(folder, request):
    path = request.getfixturevalue(folder) / "train.lmdb"
    source = Records(str(path))
    assert source.stored(drawn(source)) == STORED[folder]
    assert source.permuted is True
    assert source.mean_bytes(soon()) * source.count == pytest.approx(path.stat().st_size)
    source.close()


def test_an_lmdb_of_smaller_images_tells_so(photos, tmp_path):
    for options, name in ((dict(shorter_side=256), "uint8 --shorter-side 256"), (dict(max_side=77), "uint8")):
        dump_split(photos, tmp_path, "val", format="uint8", overwrite=True, progress=False, **options)
        source = Records(str(tmp_path / "val.lmdb"))
        assert source.stored(drawn(source)) == name
        assert source.permuted is False  # val is sorted
        source.close()


def test_without_an_index_an_lmdb_is_sampled_all_the_same(tiled_lmdb, tmp_path):
    shutil.copy(tiled_lmdb / "val.lmdb", tmp_path)
    source = Records(str(tmp_path / "val.lmdb"))
    sample = drawn(source)
    assert (source.permuted, len(sample), source.stored(sample)) == (None, 10, "jpeg")
    source.close()


def test_pieces_of_an_lmdb_are_in_random_order_or_in_a_row(tiled_lmdb):
    source = Records(str(tiled_lmdb / "train.lmdb"))
    places = [piece.offset for piece in source.pieces(np.random.default_rng(0), 2**30, in_order=False)]
    assert places != sorted(places) and len(places) > 10
    row = source.pieces(np.random.default_rng(0), 2**30, in_order=True)
    assert all(a.offset + a.nbytes == b.offset for a, b in zip(row, row[1:]))
    source.close()


# --- folders


def test_a_folder_is_a_split_or_holds_train(photos):
    for path, count in ((photos, 23), (photos / "train", 23), (photos / "val", 10)):
        assert Files(str(path), soon()).count == count


def test_any_folder_of_class_folders_will_do(photos, tmp_path):
    shutil.copytree(photos / "val", tmp_path / "my pictures")
    source = Files(str(tmp_path / "my pictures"), soon())
    assert source.count == 10 and source.path == str(tmp_path / "my pictures")


def test_a_folder_that_takes_long_to_list_is_estimated_from_some_classes(photos):
    listed = {Files(str(photos), time.monotonic()).count}
    assert listed <= {3 * 9, 3 * 8, 3 * 6}


def test_the_mean_size_of_files_is_that_of_all(photos):
    sizes = [path.stat().st_size for path in (photos / "train").rglob("*.JPEG")]
    assert Files(str(photos), soon()).mean_bytes(soon()) == pytest.approx(np.mean(sizes))


def test_what_is_no_source_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no .*nothing. Give an LMDB, or a folder"):
        open_source(str(tmp_path / "nothing"), soon())
    with pytest.raises(FileNotFoundError, match="holds no class folders"):
        open_source(str(tmp_path), soon())
    (tmp_path / "train" / CLASSES[0]).mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="hold no image"):
        open_source(str(tmp_path), soon())
    (tmp_path / "file").write_bytes(b"no LMDB")
    with pytest.raises(ValueError, match="file"):
        open_source(str(tmp_path / "file"), soon())


def test_images_without_class_folders_are_refused(tmp_path):
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "a.jpg").write_bytes(encode_jpeg(make_photo(20, 20, 0)))
    with pytest.raises(ValueError, match="flat images, and advise takes class folders or an LMDB"):
        open_source(str(tmp_path / "val"), soon())


# --- dumping a sample


@pytest.mark.parametrize("name", PREPARATIONS)
def test_a_sample_is_dumped_as_the_dump_would(name, photos, tmp_path):
    sample = drawn(Files(str(photos / "train"), soon()))
    sizes = dump(sample, PREPARATIONS[name], str(tmp_path / "own.lmdb"), 2)
    options = {part.split()[0].replace("-", "_"): int(part.split()[1]) for part in name.split("--")[1:] if " " in part}
    dump_split(photos, tmp_path, "train", format=name.split()[0], tiles="no-tiles" not in name, shuffle=False,
               progress=False, **options)
    own, theirs = Store(tmp_path / "own.lmdb"), Store(tmp_path / "train.lmdb")
    by_name = {bytes(theirs.index.name[i]): bytes(theirs.value(i)) for i in range(23)}
    assert {bytes(own.index.name[i]): bytes(own.value(i)) for i in range(len(own))} == by_name
    assert sizes == {image.decode(): -(-(len(value) + 16) // 4096) * 4096 for image, value in by_name.items()}
    own.close(), theirs.close()


def test_a_folder_is_listed_as_the_dump_lists_it(tmp_path):
    for name, content in (("a/1.jpg", b"image"), ("a/._1.jpg", b"\0\x05\x16\x07"), ("b/deep/2.jpg", b"image")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    os.symlink("../../b", tmp_path / "b" / "deep" / "up")
    os.mkfifo(tmp_path / "a" / "3.jpg")
    source = Files(str(tmp_path), soon())
    assert sorted(source.names(np.random.default_rng(0), 9)) == [("a/1.jpg", 0), ("a/3.jpg", 0), ("b/deep/2.jpg", 1)]
    assert source.read(("a/1.jpg", 0)).content == b"image"
    with pytest.raises(OSError, match="named pipe, not a file: .*3.jpg"):
        source.read(("a/3.jpg", 0))


@pytest.mark.parametrize("labels", [(2**62, -5, 300_000_000, -5)])
def test_labels_of_any_size(labels, tmp_path):
    """They are another writer's, and need not be class numbers."""
    content = encode_jpeg(make_photo(30, 40, 0))
    sample = Sample("photos", [Image(str(i), content, label, 100) for i, label in enumerate(labels)])
    dump(sample, PREPARATIONS["jpeg --no-tiles"], str(tmp_path / "any.lmdb"), 1)
    with contextlib.closing(Store(tmp_path / "any.lmdb")) as store:
        assert store.index.label.tolist() == [2, 0, 1, 0] and store.index.classes == ["0", "1", "2"]


def test_images_that_cannot_be_stored_are_left_out(tmp_path):
    good = encode_jpeg(make_photo(30, 40, 0))
    folder = tmp_path / "train" / CLASSES[0]
    folder.mkdir(parents=True)
    for name, content in (("bad.jpg", good[:100]), ("good.jpg", good), ("no.jpg", b"text")):
        (folder / name).write_bytes(content)
    sample = drawn(Files(str(tmp_path), soon()))
    assert [*dump(sample, PREPARATIONS["uint8"], str(tmp_path / "one.lmdb"), 1)] == [f"{CLASSES[0]}/good.jpg"]
    store = Store(tmp_path / "one.lmdb")
    np.testing.assert_array_equal(RecordReader(store).pixels(0)[0], decode(good))
    store.close()
    nothing = Sample("photos", [image for image in sample.images if "good" not in image.name])
    with pytest.raises(ValueError, match="none of the 2 files in photos could be read; the first is .*jpg: "):
        dump(nothing, Preparation("uint8"), str(tmp_path / "none.lmdb"), 1)
