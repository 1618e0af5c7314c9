"""Pixels: those of PIL, hence of torchvision, exactly where they are decoded and to within a level where resized."""
import io
import zlib

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tensorpack.dataflow import DataFromList

from dataflows import CenterCrop, RandomResizedCrop
from dataflows.dump.write import Packed, PackedLMDBSerializer
from dataflows.errors import RecordError
from dataflows.images.codecs import decode
from dataflows.images.plan import regions
from dataflows.images.resize import resize_into, to_planes
from dataflows.load.decode.reader import RecordReader
from dataflows.storage import record
from dataflows.storage.store import Store
from dump_imagenet import dump_split
from helpers.limits import limited_memory
from helpers.photos import SIZES, encode_jpeg, make_photo
from uint_lmdb_iterloader import LMDBIterDataset, LMDBIterLoader
from uint_lmdb_loader import LMDBDataset, LMDBLoader


def pil_pixels(content):
    return np.array(Image.open(io.BytesIO(content)).convert("RGB"))


def pil_encode(pixels, image_format="JPEG", **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, image_format, **options)
    return file.getvalue()


def cropped(pixels, box, size, *, antialias=True, window=(0, 0), resized=None, flip=0):
    out = np.empty((3, *size), np.uint8)
    resize_into(pixels, [*box, *(resized or size), *window, flip], antialias, out)
    return out.transpose(1, 2, 0)


def difference(a, b):
    assert a.shape == b.shape
    return np.abs(a.astype(int) - b).max()


def pil_center_crop(pixels, size, resize):
    """torchvision's Resize(resize) and CenterCrop(size), by PIL, of an image that may be resized whole."""
    height, width = pixels.shape[:2]
    short = min(height, width)
    resized = resize * height // short, resize * width // short
    top, left = (round((side - size) / 2) for side in resized)
    image = Image.fromarray(pixels).resize(resized[::-1], Image.Resampling.BILINEAR)
    return np.array(image.crop((left, top, left + size, top + size)))


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def write_lmdb(path, datapoints):
    packed = [Packed(record.pack(datapoint)) for datapoint in datapoints]
    PackedLMDBSerializer.save(DataFromList(packed, shuffle=False), str(path))
    return path


# --- decoding


@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"subsampling": 1}, {"progressive": True}, {"quality": 30},
                                     {"optimize": True}, {"restart_marker_rows": 1}], ids=str)
@pytest.mark.parametrize("height, width", [*SIZES, (1, 1), (3, 5), (17, 1)])
def test_a_jpeg_decodes_to_the_pixels_that_pil_gives(height, width, options):
    content = pil_encode(make_photo(height, width, seed=1), **options)
    pixels = decode(content)
    assert pixels.dtype == np.uint8 and pixels.flags.c_contiguous and pixels.flags.writeable
    assert (pixels == pil_pixels(content)).all()


def test_a_gray_jpeg_decodes_to_three_equal_channels():
    content = encode_jpeg(make_photo(40, 60, seed=2)[:, :, 0])
    pixels = decode(content)
    assert pixels.shape == (40, 60, 3) and (pixels == pil_pixels(content)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_exif_orientation_is_not_applied(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = pil_encode(make_photo(40, 60, seed=3), exif=exif)
    assert decode(content).shape == (40, 60, 3)
    assert (decode(content) == pil_pixels(content)).all()


@pytest.mark.parametrize("image_format", ["PNG", "BMP", "TIFF", "PPM"])
def test_other_formats_decode_too(image_format):
    pixels = noise(20, 30)
    assert (decode(pil_encode(pixels, image_format)) == pixels).all()


def test_arrays_and_bytes_decode_alike():
    content = encode_jpeg(make_photo(40, 60, seed=4))
    array = np.frombuffer(content, np.uint8)
    assert not array.flags.writeable
    assert (decode(content) == decode(array)).all()


@pytest.mark.parametrize("content", [b"", b"\xff\xd8", b"not an image", b"\xff\xd8\xff\xe0" + bytes(100)])
def test_what_is_no_image_is_refused(content):
    with pytest.raises(RecordError):
        decode(content)


def test_decoding_prints_nothing(capfd):
    content = encode_jpeg(make_photo(40, 60, seed=4))
    for data in (content, content[:500], content[:-2], b"nonsense"):
        try:
            decode(data)
        except RecordError:
            pass
    assert capfd.readouterr() == ("", "")


# --- crops


@pytest.mark.parametrize("image, levels", [(make_photo(375, 500, seed=5), 1), (make_photo(120, 80, seed=6), 1),
                                           (noise(200, 150), 2)], ids=["photo", "small photo", "noise"])
def test_antialiased_crops_are_within_one_level_of_pil_and_white_noise_within_two(image, levels):
    generator = np.random.default_rng(0)
    height, width = image.shape[:2]
    for _ in range(60):
        h, w = (int(generator.integers(1, side + 1)) for side in (height, width))
        top, left = int(generator.integers(0, height - h + 1)), int(generator.integers(0, width - w + 1))
        expected = Image.fromarray(image).crop((left, top, left + w, top + h)).resize(
            (224, 224), Image.Resampling.BILINEAR)
        assert difference(cropped(image, (top, left, h, w), (224, 224)), np.array(expected)) <= levels


@pytest.mark.parametrize("h, w", [(1, 1), (1, 60), (60, 1), (2, 3), (60, 90), (224, 224), (224, 100), (300, 224)])
@pytest.mark.parametrize("size", [(224, 224), (31, 57), (1, 1), (5, 1), (1, 5)])
def test_boxes_and_outputs_of_any_size_are_within_one_level_of_pil(h, w, size):
    image = noise(310, 230)
    expected = Image.fromarray(image).crop((4, 3, 4 + w, 3 + h)).resize(size[::-1], Image.Resampling.BILINEAR)
    assert difference(cropped(image, (3, 4, h, w), size), np.array(expected)) <= 1


@pytest.mark.parametrize("height, width", [*SIZES, (375, 500), (500, 375), (256, 256), (257, 256), (255, 300), (30, 40),
                                           (1, 1), (3, 2), (20, 1500), (1500, 20), (224, 2000), (600, 256),
                                           # As high or wide as the window's end, where torch would ignore the scale:
                                           (240, 320), (320, 240), (240, 240), (242, 238), (264, 221)])
@pytest.mark.parametrize("make", [make_photo, noise], ids=["photo", "noise"])
def test_center_crops_are_within_two_levels_of_pil(height, width, make):
    image = make(height, width, seed=7)
    short = min(height, width)
    resized = (256, int(256 * width / height)) if short == height else (int(256 * height / width), 256)
    top, left = (round((side - 224) / 2) for side in resized)
    expected = Image.fromarray(image).resize(resized[::-1], Image.Resampling.BILINEAR).crop(
        (left, top, left + 224, top + 224))
    [row] = CenterCrop(224, resize=256).plan(np.array([height]), np.array([width]), np.array([0]), 0, 0).tolist()
    out = np.empty((3, 224, 224), np.uint8)
    resize_into(image, row, True, out)
    assert difference(out.transpose(1, 2, 0), np.array(expected)) <= 2


@given(st.integers(20, 600), st.integers(20, 600), st.integers(1, 64), st.integers(0, 64), st.data())
def test_center_crops_of_any_size_are_pils_also_from_their_region_alone(height, width, size, more, data):
    """A part of the image ends anywhere, so also where the output does."""
    image = noise(height, width)
    transform = CenterCrop(size, resize=size + more)
    plan = transform.plan(np.array([height]), np.array([width]), np.zeros(1), 0, 0)
    [row], [(top, left, h, w)] = plan.tolist(), regions(plan, transform.window).tolist()
    whole, part = np.empty((3, size, size), np.uint8), np.empty((3, size, size), np.uint8)
    resize_into(image, row, True, whole)
    assert difference(whole.transpose(1, 2, 0), pil_center_crop(image, size, size + more)) <= 2
    bottom, right = data.draw(st.integers(top + h, height)), data.draw(st.integers(left + w, width))
    top, left = data.draw(st.integers(0, top)), data.draw(st.integers(0, left))
    resize_into(image[top:bottom, left:right], row, True, part, origin=(top, left))
    assert (part == whole).all()


def test_a_box_of_the_outputs_size_is_copied_exactly():
    image = noise(50, 60)
    for antialias in (True, False):
        assert (cropped(image, (3, 4, 20, 30), (20, 30), antialias=antialias) == image[3:23, 4:34]).all()


@pytest.mark.parametrize("antialias", [True, False])
def test_mirroring_is_exact(antialias):
    image = noise(70, 90)
    plain, mirrored = (cropped(image, (5, 6, 40, 60), (33, 44), antialias=antialias, flip=flip) for flip in (0, 1))
    assert (mirrored == plain[:, ::-1]).all()


def test_a_window_is_cut_out_of_the_resized_box():
    image = noise(70, 90)
    whole = cropped(image, (0, 0, 70, 90), (50, 60))
    part = cropped(image, (0, 0, 70, 90), (20, 30), resized=(50, 60), window=(7, 11))
    assert difference(part, whole[7:27, 11:41]) <= 1


@pytest.mark.parametrize("height, width", [(375, 500), (500, 333), (256, 256), (40, 90)])
def test_a_center_crop_without_antialiasing_resizes_the_rounded_part(height, width):
    image, shorter = noise(height, width), min(height, width)
    plan = CenterCrop(224, antialias=False).plan(np.array([height]), np.array([width]), np.zeros(1), 0, 0)
    side = 224 * shorter / 256
    top, left, h, w = plan[0, :4].tolist()
    for found, wanted in ((h, side), (w, side), (top, (height - side) / 2), (left, (width - side) / 2)):
        assert abs(found - wanted) <= 1
    out = np.empty((3, 224, 224), np.uint8)
    resize_into(image, plan[0].tolist(), False, out)
    assert (out.transpose(1, 2, 0) == cv2.resize(image[top:top + h, left:left + w], (224, 224))).all()


def test_a_crop_without_antialiasing_is_opencvs_linear_one():
    image = noise(70, 90)
    expected = cv2.resize(image[5:45, 6:66], (44, 33), interpolation=cv2.INTER_LINEAR)
    assert (cropped(image, (5, 6, 40, 60), (33, 44), antialias=False) == expected).all()


@pytest.mark.parametrize("flip", [0, 1])
@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("layout", ["planar", "BGR", "read-only"])
def test_how_an_array_lies_in_memory_makes_no_difference(layout, antialias, flip):
    image = noise(70, 90)
    other = image.copy()
    if layout == "planar":
        other = np.ascontiguousarray(image.transpose(2, 0, 1)).transpose(1, 2, 0)
    if layout == "BGR":
        other = np.ascontiguousarray(image[:, :, ::-1])[:, :, ::-1]
    other.flags.writeable = layout != "read-only"
    for size in ((33, 44), (40, 60)):
        expected, found = (cropped(a, (5, 6, 40, 60), size, antialias=antialias, flip=flip) for a in (image, other))
        assert (found == expected).all()
    assert (image == noise(70, 90)).all()


@pytest.mark.parametrize("window, antialias", [(None, False), (None, True), ((60, 70, 8, 9), True),
                                               ((60, 70, 0, 0), True), ((60, 70, 0, 9), True)])
@pytest.mark.parametrize("flip", [0, 1])
@pytest.mark.parametrize("size", [(33, 44), (1, 1), (1, 9), (9, 1), (40, 60)])
def test_channels_last_memory_gets_the_same_pixels(size, flip, window, antialias):
    image = noise(70, 90)
    row = [5, 6, 40, 60, *(window or (*size, 0, 0)), flip]
    planes, last = np.empty((3, *size), np.uint8), np.empty((*size, 3), np.uint8)
    resize_into(image, row, antialias, planes)
    resize_into(image, row, antialias, last.transpose(2, 0, 1))
    assert (last.transpose(2, 0, 1) == planes).all()


@pytest.mark.parametrize("height, width", [(1, 1), (1, 9), (9, 1), (20, 30)])
def test_to_planes_takes_views_of_any_kind(height, width):
    image = noise(2 * height, 2 * width)
    part = image[:height, :width]
    for view in (part, image[::2, ::2], part[:, ::-1], part[::-1], part[:, :, ::-1]):
        planes = to_planes(view)
        assert planes.flags.c_contiguous and (planes == view.transpose(2, 0, 1)).all()


# --- red is channel 0, everywhere


RED = np.zeros((64, 48, 3), np.uint8)
RED[:, :, 0] = 254


@pytest.fixture(scope="module", params=["jpeg", "uint8"])
def red_lmdb(request, tmp_path_factory):
    image = pil_encode(RED, quality=100, subsampling=0) if request.param == "jpeg" else RED
    return write_lmdb(tmp_path_factory.mktemp("red") / "red.lmdb", [[image, 0]] * 3)


def assert_red(images):
    images = np.asarray(images).reshape(-1, *np.asarray(images).shape[-3:])
    assert images.shape[1] == 3
    assert (images[:, 0] > 250).all() and (images[:, 1:] < 5).all()


@pytest.mark.parametrize("transform", [RandomResizedCrop(20), RandomResizedCrop(20, antialias=False),
                                       CenterCrop(20, 32), lambda pixels: pixels, None],
                         ids=["random", "aliased", "center", "callable", "none"])
def test_a_red_image_is_red(red_lmdb, transform):
    for loader in (LMDBLoader(red_lmdb, 3, transform=transform), LMDBIterLoader(red_lmdb, 3, transform=transform)):
        for images, _ in loader:
            assert_red(images)


def test_a_red_image_is_red_in_datasets(red_lmdb):
    for cls in (LMDBDataset, LMDBIterDataset):
        for transform in (None, RandomResizedCrop(20), CenterCrop(20, 32)):
            image, _ = next(iter(cls(red_lmdb, transform=transform)))
            assert_red(image)
            for image_type in ("numpy", "pil"):
                image, _ = next(iter(cls(red_lmdb, transform=transform, image_type=image_type)))
                assert_red(np.asarray(image).transpose(2, 0, 1))


# --- records


def test_a_reader_gives_pixels_and_labels(jpeg_lmdb, uint8_lmdb):
    jpeg, raw = (RecordReader(Store(folder / "train.lmdb")) for folder in (jpeg_lmdb, uint8_lmdb))
    for number in range(23):
        encoded, label = jpeg.view(number)
        pixels, same_label = jpeg.pixels(number)
        assert encoded.ndim == 1 and label == same_label and type(label) is int
        assert (pixels == pil_pixels(encoded.tobytes())).all()
        stored, stored_label = raw.pixels(number)
        assert (stored == pixels).all() and stored_label == label
        assert stored.flags.writeable and stored.flags.owndata  # the caller's own, not the file's


def test_crops_of_both_formats_are_equal(jpeg_lmdb, uint8_lmdb):
    outs = []
    for folder in (jpeg_lmdb, uint8_lmdb):
        out = np.empty((23, 3, 32, 40), np.uint8)
        reader = RecordReader(Store(folder / "train.lmdb"))
        reader.read_crops(list(range(23)), RandomResizedCrop((32, 40)), np.arange(23), 0, 0, out)
        outs.append(out)
    assert (outs[0] == outs[1]).all()


def with_size(content, height, width):
    """A JPEG whose frame header states another size than it has."""
    start = content.index(b"\xff\xc0") + 5
    return content[:start] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + content[start + 4:]


GOOD = encode_jpeg(make_photo(40, 60, seed=8))
DAMAGED = {
    "no image": b"these bytes are no image",
    "a header only": GOOD[:GOOD.index(b"\xff\xda")],
    "no height": with_size(GOOD, 0, 60),
    "no width": with_size(GOOD, 40, 0),
}


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("transform", [RandomResizedCrop(20), CenterCrop(20, 32), None],
                         ids=["random", "center", "none"])
@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_record_is_named_by_file_and_key(damage, transform, num_workers, tmp_path):
    path = write_lmdb(tmp_path / "train.lmdb", [[GOOD, 0], [GOOD, 1], [DAMAGED[damage], 2]])
    loader = LMDBLoader(path, 1, shuffle=False, transform=transform, num_workers=num_workers)
    batches = iter(loader)
    assert [next(batches)[1].item() for _ in range(2)] == [0, 1]
    with pytest.raises(RecordError, match=f"{path}, key 00000002: .*"):
        next(batches)
    dataset = LMDBDataset(path, transform=transform)
    assert dataset[1][1] == 1
    with pytest.raises(RecordError, match=f"{path}, key 00000002: .*"):
        dataset[2]


@pytest.mark.parametrize("option, value", [("array_layout", "hwc"), ("array_channels", "GBR"), ("array_layout", None)])
def test_wrong_layouts_are_refused(jpeg_lmdb, option, value):
    for cls in (lambda path, **options: LMDBLoader(path, 4, **options), LMDBDataset, LMDBIterDataset):
        with pytest.raises(ValueError, match=f"{option} must be '.*' or '.*', not {value!r}"):
            cls(jpeg_lmdb / "val.lmdb", **{option: value})


def test_decoding_leaves_thread_counts_alone(jpeg_lmdb, several_threads):
    before = torch.get_num_threads(), cv2.getNumThreads()
    for _ in LMDBLoader(jpeg_lmdb / "val.lmdb", 4, transform=RandomResizedCrop(20), num_workers=2):
        pass
    assert (torch.get_num_threads(), cv2.getNumThreads()) == before and before[0] == 3


@pytest.mark.parametrize("cls", [LMDBLoader, LMDBIterLoader])
@pytest.mark.parametrize("image_format", ["PNG", "BMP"])
def test_records_that_are_no_jpegs_are_cropped_like_their_pixels(cls, image_format, tmp_path):
    pixels = make_photo(90, 120, seed=8)
    encoded = write_lmdb(tmp_path / "encoded.lmdb", [[pil_encode(pixels, image_format), 3]])
    decoded = write_lmdb(tmp_path / "decoded.lmdb", [[pixels, 3]])
    for transform in (RandomResizedCrop(32), RandomResizedCrop(16, scaled_decode=True), CenterCrop(32, resize=40)):
        (images, labels), = cls(encoded, 1, transform=transform)
        (expected, _), = cls(decoded, 1, transform=transform)
        assert torch.equal(images, expected) and labels.tolist() == [3]


# --- images that would take all memory


@pytest.mark.parametrize("image", [pil_encode(noise(30, 40)), cv2.imencode(".png", noise(30, 40))[1].tobytes()],
                         ids=["jpeg", "png"])
@pytest.mark.parametrize("transform", [None, RandomResizedCrop(8), CenterCrop(8, resize=8)], ids=str)
def test_an_image_of_too_many_pixels_is_refused(tmp_path, image, transform):
    path = write_lmdb(tmp_path / "bomb.lmdb", [[image, 0]])
    list(LMDBLoader(path, 1, transform=transform, max_pixels=1200))
    with pytest.raises(RecordError, match=r"bomb.lmdb, key 00000000: .*30 x 40 pixels, and max_pixels is 1,199"):
        list(LMDBLoader(path, 1, transform=transform, max_pixels=1199))


def test_headers_are_asked_before_memory_is_taken(tmp_path):
    jpeg = bytearray(pil_encode(noise(30, 40)))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at:at + 4] = b"\xff\xff\xff\xff"
    png = bytearray(cv2.imencode(".png", noise(30, 40))[1].tobytes())
    png[16:24] = (30_000).to_bytes(4, "big") * 2
    png[29:33] = zlib.crc32(png[12:29]).to_bytes(4, "big")
    for image in (bytes(jpeg), bytes(png)):
        path = write_lmdb(tmp_path / f"{len(image)}.lmdb", [[image, 0]])
        with limited_memory(), pytest.raises(RecordError, match="max_pixels is 178,956,970"):
            list(LMDBLoader(path, 1, num_workers=0))


# --- images so long that their resized form would take all memory


def by_definition(pixels, size, resize):
    """The same for images of any length, in float64: weights fall from a pixel's center to zero at the support."""
    short = min(pixels.shape[:2])
    for axis in (1, 0):
        side = pixels.shape[axis]
        resized = resize * side // short
        scale = side / resized
        support = max(scale, 1)
        centers = (round((resized - size) / 2) + np.arange(size) + 0.5) * scale
        first, end = max(int(centers[0] - support) - 1, 0), min(int(centers[-1] + support) + 2, side)
        weights = np.maximum(1 - np.abs(np.arange(first, end) + 0.5 - centers[:, None]) / support, 0)
        part = np.moveaxis(pixels, axis, 0)[first:end].astype(np.float64)
        pixels = np.moveaxis(np.tensordot(weights / weights.sum(axis=1, keepdims=True), part, 1), 0, axis)
    return pixels


def center_cropped(pixels, size, resize):
    height, width = pixels.shape[:2]
    [row] = CenterCrop(size, resize=resize).plan(np.array([height]), np.array([width]), np.zeros(1), 0, 0)
    out = np.empty((3, size, size), np.uint8)
    resize_into(pixels, row.tolist(), True, out)
    return out.transpose(1, 2, 0)


LONG = [(3, 9000), (9000, 3), (1, 2500), (17, 30_000), (300, 9000), (700, 30_000), (30_000, 700), (40, 65_000),
        (65_535, 130)]


@pytest.mark.parametrize("height, width", LONG)
@pytest.mark.parametrize("make", [make_photo, noise], ids=["photo", "noise"])
def test_center_crops_of_long_images_are_within_two_levels_of_pil(height, width, make):
    image = make(height, width, seed=1)
    for size, resize in [(224, 256), (64, 64), (24, 32), (1, 5)]:
        assert difference(center_cropped(image, size, resize), pil_center_crop(image, size, resize)) <= 2


@pytest.mark.parametrize("height, width", [*SIZES, (375, 500), (500, 375), (1, 1), (3, 2), (20, 1500), (1500, 20),
                                           (600, 256), (256, 300), (900, 1300)])
def test_a_window_from_its_region_alone_is_that_of_the_corner(monkeypatch, height, width):
    image = noise(height, width)
    for size, resize in [(224, 256), (30, 40), (24, 24)]:
        near = center_cropped(image, size, resize)
        with monkeypatch.context() as patch:
            patch.setattr("dataflows.images.resize.is_far", lambda row, height, width: True)
            assert difference(center_cropped(image, size, resize), near) <= 1


def test_ordinary_photos_are_resized_from_the_corner(monkeypatch):
    """Whose pixels the other way would change by a level."""
    monkeypatch.setattr("dataflows.images.resize._far_window", lambda *_: pytest.fail("taken for far"))
    for height, width in [*SIZES, (375, 500), (500, 333), (480, 2400), (3000, 4000), (4000, 2250)]:
        for size, resize in [(224, 256), (224, 224), (384, 438), (32, 256)]:
            center_cropped(np.zeros((height, width, 3), np.uint8), size, resize)


@pytest.mark.parametrize("tiles", [True, False])
@pytest.mark.parametrize("image_format", ["jpeg", "uint8"])
@pytest.mark.parametrize("height, width", [(65_000, 3), (3, 65_000), (1, 65_000), (600, 30_000)])
def test_center_crops_of_long_images_take_the_memory_of_their_window(tmp_path, height, width, image_format, tiles):
    """In 5,546,666 x 256 pixels a window of 224 x 224 is 0.004 %; a panorama has to be held, but not resized, whole."""
    middle = make_photo(min(height, 2000), min(width, 2000), seed=1)
    image = np.zeros((height, width, 3), np.uint8)
    top, left = (height - middle.shape[0]) // 2, (width - middle.shape[1]) // 2
    image[top:top + middle.shape[0], left:left + middle.shape[1]] = middle
    folder = tmp_path / "source" / "val" / "class"
    folder.mkdir(parents=True)
    (folder / "long.jpg").write_bytes(encode_jpeg(image, subsampled=False))
    pixels = decode((folder / "long.jpg").read_bytes())
    expected = by_definition(pixels, 224, 256)
    [row] = CenterCrop(224, antialias=False).plan(np.array([height]), np.array([width]), np.zeros(1), 0, 0)
    top, left, h, w = row[:4].tolist()
    linear = cv2.resize(pixels[top:top + h, left:left + w], (224, 224))
    path = dump_split(tmp_path / "source", tmp_path, "val", format=image_format, tiles=tiles, progress=False).path
    for scaled, antialias in [(False, True), (True, True), (False, False)]:
        transform = CenterCrop(224, scaled_decode=scaled, antialias=antialias)
        with limited_memory(2**29), LMDBLoader(path, 1, transform=transform, num_workers=0, shuffle=False) as loader:
            [(images, _)] = loader
        off = np.abs(images[0].permute(1, 2, 0).numpy() - (expected if antialias else linear))
        assert off.mean() < 3 if scaled else off.max() <= (1.5 if antialias else 0)  # each of two passes rounds


def test_what_no_plan_holds_is_refused(tmp_path):
    path = write_lmdb(tmp_path / "long.lmdb", [[np.zeros((1, 9_000_000, 3), np.uint8), 0]])
    with pytest.raises(RecordError, match="long.lmdb: an image of 1 x 9,000,000 pixels, .* longer than 2,147,483,647"):
        list(LMDBLoader(path, 1, transform=CenterCrop(224), num_workers=0))
    [(images, _)] = LMDBLoader(path, 1, transform=CenterCrop(200, resize=238), num_workers=0)
    assert images.shape == (1, 3, 200, 200)
