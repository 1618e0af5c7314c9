"""Crops of many records by one kernel: which it makes, and that it touches no memory but its own."""
import cv2
import numpy as np
import pytest

from dataflows import CenterCrop, RandomResizedCrop
from dataflows.images.compiled import kernels, ready
from dataflows.images.plan import regions
from dataflows.jpeg.tile import tile
from dataflows.load.decode.crops import Crops, Source, Wanted
from dataflows.storage.record import pack
from helpers.jpegs import encode, picture
from helpers.memory_checks import checked

SIZE = 96, 130
TILED = tile(encode(*SIZE))
PIXELS = np.ascontiguousarray(picture(*SIZE))
LABELS = [0, 127, 128, 255, 256, 70000, 2**40, 2**63 - 1, -1, -32, -33, -200, -70000, -2**63]


def crop(datapoints, transform, sizes=None, wanted=None, pixels_too=True, channels_last=False):
    """(what kernels.crop says, the crops)."""
    values = [np.frombuffer(data if isinstance(data, bytes) else pack(list(data)), np.uint8) for data in datapoints]
    sizes = np.array(sizes or [SIZE] * len(values))
    plan = transform.plan(*sizes.T, np.arange(len(values)), 1, 0)
    out = np.zeros((len(values), *transform.window, 3) if channels_last else (len(values), 3, *transform.window),
                   np.uint8)
    planes = out.transpose(0, 3, 1, 2) if channels_last else out
    made = kernels.crop(values, plan, regions(plan, transform.window), sizes,
                        np.ones(len(values), bool) if wanted is None else np.array(wanted), transform, pixels_too,
                        planes)
    return made, planes


def expected(image, transform, number):
    """The crop of one image by libjpeg, OpenCV and torch."""
    image = np.frombuffer(image, np.uint8) if isinstance(image, bytes) else image
    wanted = Wanted.by(transform, np.array([SIZE]), True, np.array([number]), 1, 0)
    out = np.zeros((3, *transform.window), np.uint8)
    with ready.without():
        crops = Crops(transform)
        part = crops.decode(Source(*SIZE, image, None, 0), wanted.needed[0].tolist(), 1)
        crops.resize(part, wanted.plan[0].tolist(), wanted.seen[0].tolist(), False, out)
    return out


@pytest.mark.parametrize("transform", [RandomResizedCrop((40, 50)), CenterCrop(64, resize=80),
                                       CenterCrop(96, resize=96), CenterCrop((60, 90), resize=96)], ids=str)
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("image", [TILED, PIXELS, tile(encode(*SIZE, "gray"))], ids=["jpeg", "uint8", "gray"])
def test_crops_are_those_of_libjpeg_and_torch(image, transform, channels_last):
    made, found = crop([[image, 7]] * 5, transform, channels_last=channels_last)
    assert made.done == [True] * 5 and made.labels == [7] * 5
    for number in range(5):
        np.testing.assert_array_equal(found[number], expected(image, transform, number))


def test_labels_are_read_by_it_or_left():
    made, _ = crop([[TILED, label] for label in LABELS] + [[TILED, np.ones(3, np.float32)]], RandomResizedCrop(20))
    assert made.labels == [*LABELS, None] and all(made.done)
    too_large = pack([TILED, 2**63 - 1])[:-9] + b"\xcf" + b"\xff" * 8
    assert crop([too_large], RandomResizedCrop(20))[0].labels == [None]
    assert crop([pack([TILED, 3]) + b"\0"], RandomResizedCrop(20))[0].labels == [None]


@pytest.mark.parametrize("antialias", [True, False])
def test_what_is_not_its_own_is_left(antialias):
    transform = RandomResizedCrop(20, antialias=antialias, fast_decode=True)
    untiled, small = encode(*SIZE), [b"no image", 1]
    progressive = cv2.imencode(".jpg", PIXELS, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    datapoints = [[TILED, 1], [untiled, 1], small, [progressive, 1], [TILED, 1], [PIXELS, 1], [TILED, 1],
                  b"\x80\4" + pack([TILED, 1]), b"", b"\x92", pack([TILED, 1])[:-1]]
    sizes = [SIZE] * 4 + [(SIZE[0], SIZE[1] - 1)] + [SIZE] * 6
    made, found = crop(datapoints, transform, sizes, [True] * 6 + [False] + [True] * 4, pixels_too=antialias)
    assert made.done == [True, False, False, False, False, antialias] + [False] * 5
    assert not found[1:5].any() and not found[6:].any()


def test_seconds_are_told_of_decoding_and_of_resizing():
    made, _ = crop([[TILED, 1]] * 20, RandomResizedCrop(224))
    assert 0 < made.decode_s < 20 and 0 < made.resize_s < 20
    made, _ = crop([[PIXELS, 1]] * 20, RandomResizedCrop(224))
    assert made.decode_s == 0 < made.resize_s


def test_crops_that_are_not_contiguous_are_refused():
    out = np.zeros((1, 3, 20, 40), np.uint8)[..., ::2]
    with pytest.raises(ValueError, match="contiguous"):
        kernels.crop([np.zeros(9, np.uint8)], np.zeros((1, 9), np.int32), np.zeros((1, 4), np.int64),
                     np.array([SIZE]), np.ones(1, bool), RandomResizedCrop(20), True, out)


# Decodes images of which bytes are changed anywhere. Each array of the kernels is a piece of memory of its own, with
# marks around it that are compared when it is freed.
HOSTILE = """
import sys
import numpy as np
from dataflows import RandomResizedCrop
from dataflows.images.compiled import kernels
from dataflows.jpeg.tile import tile
from dataflows.storage.record import pack
from helpers.jpegs import FACTORS, encode
decoded = made = 0
for seed in range(int(sys.argv[1]), int(sys.argv[2])):
    rng = np.random.default_rng(seed)
    image = np.frombuffer(tile(encode(40, 75, ["gray", *FACTORS][seed % 6], optimize=seed // 6 % 2),
                               interval_px=[8, 32, 48][seed // 12 % 3]), np.uint8)
    for n in range(40):
        changed = image.copy()
        for _ in range(rng.integers(1, 6)):
            at = int(rng.integers(0, len(image)))
            changed[at:at + rng.integers(1, 9)] = rng.integers(0, 256)
        top, left = int(rng.integers(0, 40)), int(rng.integers(0, 75))
        region = [top, left, int(rng.integers(1, 41 - top)), int(rng.integers(1, 76 - left))]
        decoded += kernels.decode_region(changed, region) is not None
        row = np.array([[*region, 20, 20, 0, 0, seed % 2]])
        value = np.frombuffer(pack([changed.tobytes(), 3]), np.uint8).copy()
        if n % 8 == 0:
            value[int(rng.integers(0, 9))] = rng.integers(0, 256)
        out = np.zeros((1, 3, 20, 20), np.uint8)
        crops = kernels.crop([value], row, np.array([region]), np.array([[40, 75]]), np.ones(1, bool),
                             RandomResizedCrop(20, fast_decode=n % 2 == 0), True, out)
        made += crops.done[0]
print(decoded, made)
"""
WRONG = """
import numpy as np
from dataflows.jpeg.compiled import compiled
from dataflows.jpeg.decode.intrinsics import store_u64
@compiled
def fill(array, size):
    for at in range(0, size, 8):
        store_u64(np.uint64(array.ctypes.data) + np.uint64(at), np.uint64(77))
@compiled
def write(size):
    array = np.zeros(64, np.uint8)
    fill(array, size)
    return array.sum()
print(write(64))
print(write(200))
"""


@pytest.mark.parametrize("first", range(0, 72, 24))
def test_hostile_data_touch_no_other_memory(first):
    done = checked(HOSTILE, str(first), str(first + 24))
    assert done.returncode == 0, done.stderr
    assert all(0 < int(number) < 24 * 40 for number in done.stdout.split())


def test_a_write_behind_an_array_would_be_seen():
    done = checked(WRONG)
    assert done.returncode < 0 and done.stdout in ("", "616\n"), done
