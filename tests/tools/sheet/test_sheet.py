"""`python -m dataflows sheet`: what is shown is what a loader gives, with its own label; the box is what it took."""
import itertools
import pickle
import shutil

import cv2
import lmdb
import numpy as np
import pytest
from PIL import Image

from dataflows import CenterCrop, RandomResizedCrop
from dataflows.__main__ import main
from dataflows.errors import RecordError
from dataflows.load.decode.reader import RecordReader
from dataflows.storage.index import load_index
from dataflows.storage.store import Store
from dataflows.tools.sheet.picture import contact_sheet
from dataflows.tools.sheet.views import SIDE, TRANSFORMS, WIDTH, Views, scaled, window, with_box
from helpers.lmdb_files import change_meta, pack_msgpack, write_lmdb
from helpers.photos import CLASSES, make_photo
from uint_lmdb_loader import LMDBLoader

FOLDERS = ("tiled_lmdb", "jpeg_lmdb", "uint8_lmdb")
LOADERS = {"train": RandomResizedCrop(224), "val": CenterCrop(224)}


def views(path, transform="train", numbers=None, seed=0):
    with Views(path) as looks:
        return list(looks(range(len(looks)) if numbers is None else numbers, transform, seed))


def distance(a, b):
    return np.abs(np.asarray(a, np.int16) - np.asarray(b, np.int16)).mean()


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("transform", ["train", "val"])
@pytest.mark.parametrize("seed", [0, 5])
def test_after_the_transform_is_what_a_loader_gives(folder, transform, seed, request):
    path = request.getfixturevalue(folder) / "train.lmdb"
    # In the file's order, a record's number is its position in the epoch, which is what its crop depends on.
    with LMDBLoader(path, 23, transform=LOADERS[transform], shuffle=False, seed=seed) as loader:
        [(images, labels)] = list(loader)
    found = views(path, transform, seed=seed)
    assert [CLASSES.index(view.class_id) for view in found] == labels.tolist()
    for view, image in zip(found, images.permute(0, 2, 3, 1).numpy()):
        assert np.array_equal(view.after, image)


def test_names_keys_and_sizes_are_those_of_the_record(tiled_lmdb):
    path = tiled_lmdb / "train.lmdb"
    index = load_index(str(path), str(path))
    for number, view in enumerate(views(path)):
        assert view.key == f"{number:08d}" and view.source == index.name[number].decode()
        assert view.source.startswith(view.class_id) and view.class_id == CLASSES[index.label[number]]
        assert (view.height, view.width) == (index.height[number], index.width[number])


@pytest.mark.parametrize("transform", ["train", "val"])
def test_the_window_is_the_part_of_the_image_that_is_shown(transform, jpeg_lmdb):
    """Cut out of the whole image and resized by another library, it is the crop."""
    store = Store(jpeg_lmdb / "train.lmdb")
    reader, mirrored = RecordReader(store), set()
    for number, view in enumerate(views(store.path, transform)):
        pixels, _ = reader.pixels(number)
        plan = TRANSFORMS[transform].plan(np.array([view.height]), np.array([view.width]), np.array([number]), 0, 0)
        top, left, height, width = window(plan[0], SIDE).tolist()
        assert 0 <= top <= top + height <= view.height + 1e-9 and 0 <= left <= left + width <= view.width + 1e-9
        part = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BILINEAR,
                                              box=(left, top, min(left + width, view.width),
                                                   min(top + height, view.height)))
        if view.mirrored:
            part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        assert distance(part, view.after) < 0.3  # mirrored, or with another box, it is 12 and more
        mirrored.add(view.mirrored)
    assert mirrored == ({True, False} if transform == "train" else {False})


def test_the_box_is_left_as_it_is_with_a_frame_around_it_and_all_else_dimmed():
    image = Image.fromarray(np.full((200, 300, 3), 200, np.uint8))
    shown = np.asarray(with_box(image, np.array([0.25, 0.5, 0.5, 0.25])))
    assert shown.shape == (200, 300, 3)
    inside, frame = shown[53:147, 153:222], shown[51, 151:224]
    assert (inside == 200).all() and (frame == 255).all()
    outside = shown.copy()
    outside[50:150, 150:225] = 90
    assert (outside == 90).all()


@pytest.mark.parametrize("box", [(0, 0, 1, 1), (0.999, 0.999, 0.001, 0.001), (0, 0.2, 1e-6, 0.6), (0.5, 0, 0.01, 1)])
@pytest.mark.parametrize("height, width", [(1, 1), (1, 5000), (5000, 1), (3, 400), (60, 90)])
def test_images_and_boxes_of_all_proportions(height, width, box):
    image = scaled(np.full((height, width, 3), 7, np.uint8))
    assert 1 <= image.width <= WIDTH and 1 <= image.height <= SIDE
    assert image.width == WIDTH or image.height == SIDE
    assert with_box(image, np.array(box)).size == image.size


# The sheet.

@pytest.mark.parametrize("count, columns, rows", [(1, 1, 1), (2, 2, 1), (3, 3, 1), (4, 3, 2), (24, 3, 8)])
def test_the_sheet_has_a_card_for_each_sample(count, columns, rows, tiled_lmdb):
    sheet = contact_sheet(tiled_lmdb / "train.lmdb", count=count)
    one, two = (contact_sheet(tiled_lmdb / "train.lmdb", count=n) for n in (1, 4))
    card_width = (two.width - one.width) // 2
    card_height = two.height - one.height
    assert sheet.mode == "RGB"
    assert sheet.size == (one.width + (columns - 1) * card_width, one.height + (rows - 1) * card_height)


@pytest.mark.parametrize("transform", ["train", "val"])
def test_the_sheet_shows_the_pixels_before_and_after(transform, tiled_lmdb):
    path = tiled_lmdb / "train.lmdb"
    sheet = np.asarray(contact_sheet(path, transform=transform, count=5, seed=3))
    with Views(path) as looks:
        numbers = looks.draw(5, 3)
    places = []
    for view in views(path, transform, numbers, seed=3):
        for shown in (np.asarray(view.before), np.asarray(view.after)):
            error = cv2.matchTemplate(sheet, shown[:20, :20], cv2.TM_SQDIFF)
            y, x = np.unravel_index(error.argmin(), error.shape)
            assert np.array_equal(sheet[y:y + shown.shape[0], x:x + shown.shape[1]], shown)
            places.append((x, y))
    before, after = places[::2], places[1::2]
    assert all(x + SIDE < right for (x, _), (right, _) in zip(before, after) if x)
    assert after == sorted(after, key=lambda at: (at[1], at[0])) and len(set(after)) == 5


def test_the_sheet_is_a_function_of_its_arguments(tiled_lmdb):
    path = tiled_lmdb / "train.lmdb"
    sheets = [contact_sheet(path, count=3, seed=seed).tobytes() for seed in (0, 0, 1)]
    assert sheets[0] == sheets[1] != sheets[2]


def test_a_sample_does_not_depend_on_which_others_are_shown(tiled_lmdb):
    path = tiled_lmdb / "train.lmdb"
    [alone], among = views(path, numbers=[7]), views(path)[7]
    assert alone._replace(before=None, after=None) == among._replace(before=None, after=None)
    assert np.array_equal(alone.after, among.after) and np.array_equal(alone.before, among.before)


def test_samples_are_drawn_from_the_whole_file_without_repetition(tiled_lmdb):
    with Views(tiled_lmdb / "train.lmdb") as looks:
        drawn = [looks.draw(5, seed) for seed in range(60)]
        assert looks.draw(23, 1) == looks.draw(300, 2) == list(range(23))
    assert all(numbers == sorted(set(numbers)) and len(numbers) == 5 for numbers in drawn)
    assert set(itertools.chain(*drawn)) == set(range(23))


@pytest.mark.parametrize("name", ["\u732b\u5934\u9e70", "\U0001f989 owl", "a\udcffb", "\x1b[31m\n\0", "", "w" * 5000,
                                  "\u05ea\u05d5\u05db\u05d9", "\u0915\u094d\u0937", "e\u0301" * 40])
def test_any_name_can_be_written(name, tiled_lmdb, tmp_path):
    for file in ("val.lmdb", "val.lmdb.index.npz"):
        shutil.copy(tiled_lmdb / file, tmp_path)
    change_meta(tmp_path / "val.lmdb", class_names=[name] * 3)
    sheet = contact_sheet(tmp_path / "val.lmdb", count=2)
    assert sheet.size == contact_sheet(tiled_lmdb / "val.lmdb", count=2).size


# Files without an index, and errors.

@pytest.mark.parametrize("pack", [pickle.dumps, pack_msgpack])
def test_files_without_an_index_show_labels_and_colors(pack, tmp_path):
    pixels = [make_photo(50, 70 + n, seed=n) for n in range(3)]
    rows = write_lmdb(tmp_path / "rows.lmdb", [[image, n] for n, image in enumerate(pixels)], pack)
    planes = write_lmdb(tmp_path / "planes.lmdb", [[image.transpose(2, 0, 1).copy(), n]
                                                   for n, image in enumerate(pixels)], pack)
    for view, same, image in zip(views(rows), views(planes), pixels):
        assert np.array_equal(view.after, same.after) and np.array_equal(view.before, same.before)
        assert (view.height, view.width) == image.shape[:2]
    assert [(view.class_name, view.class_id, view.source) for view in views(rows)] == [
        (f"label {n}", f"label {n}", "") for n in range(3)]
    assert contact_sheet(rows, count=3).tobytes() != contact_sheet(planes, count=2).tobytes()


@pytest.mark.parametrize("options, message", [
    ({"transform": "test"}, "transform must be 'train' or 'val', not 'test'"),
    ({"count": 0}, "count must be an integer of at least 1"), ({"count": 301}, "count must be at most 300"),
    ({"seed": -1}, "seed must be a non-negative integer")])
def test_options_out_of_range(options, message, tiled_lmdb):
    with pytest.raises(ValueError, match=message):
        contact_sheet(tiled_lmdb / "val.lmdb", **options)


def test_a_damaged_record_is_an_error_with_file_and_key(jpeg_lmdb, tmp_path):
    for file in ("val.lmdb", "val.lmdb.index.npz"):
        shutil.copy(jpeg_lmdb / file, tmp_path)
    path = tmp_path / "val.lmdb"
    index = load_index(str(path), str(path))
    with open(path, "rb+") as file:
        file.seek(index.offset[4] + 4)
        file.write(bytes(200))
    with pytest.raises(RecordError, match="val.lmdb, key 00000004: "):
        contact_sheet(path)


def test_the_command(tiled_lmdb, tmp_path, capsys):
    path, out = tiled_lmdb / "val.lmdb", tmp_path / "out.png"
    assert main(["sheet", str(path), "--transform", "val", "--count", "4", "--seed", "2", "-o", str(out)]) == 0
    assert capsys.readouterr() == (f"Wrote {out}\n", "")
    with Image.open(out) as image:
        assert image.format == "PNG"
        assert image.tobytes() == contact_sheet(path, transform="val", count=4, seed=2).tobytes()
    assert main(["sheet", str(tmp_path / "none.lmdb"), "-o", str(out)]) == 2
    assert "none.lmdb" in capsys.readouterr().err
    lmdb.open(str(tmp_path / "nothing.lmdb"), subdir=False, lock=False).close()
    assert main(["sheet", str(tmp_path / "nothing.lmdb"), "-o", str(out)]) == 1
    assert "holds no records" in capsys.readouterr().err


@pytest.mark.parametrize("name, why", [
    ("sheet", "'sheet' must end in the suffix of a format that Pillow writes, such as .png"),
    ("sheet.pgn", "'sheet.pgn' must end in"), ("sheet.psd", "'sheet.psd' must end in"),  # read only
    ("sheet.xbm", "'sheet.xbm' must end in"),  # in black and white only
    ("no/sheet.png", "there is no folder no to write sheet.png into; make it first"), ("", "'' must end in")])
def test_a_picture_that_cannot_be_written_is_refused_before_it_is_drawn(name, why, tiled_lmdb, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["sheet", str(tiled_lmdb / "val.lmdb"), "-o", name])
    assert ended.value.code == 2
    assert f"error: argument -o/--out: {why}" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a.PNG", "a.jpg", "a.webp", "a.gif", "a.pdf"])
def test_all_suffixes_that_are_accepted_can_be_written(name, tiled_lmdb, tmp_path):
    assert main(["sheet", str(tiled_lmdb / "val.lmdb"), "--count", "1", "-o", str(tmp_path / name)]) == 0
    assert (tmp_path / name).stat().st_size > 1000
