"""Hostile files: whatever the bytes are, readers give what is within them or an error. `make fuzz` runs it for longer.

Each test changes sound bytes at a few places, or cuts them off, and reads them. liblmdb and libjpeg are C, so whole
files are read in a forked child: its death by a signal, or its silence, is the failure.
"""
import contextlib
import dataclasses
import os
import signal
import struct

import numpy as np
import pytest
import torch  # noqa: F401  (which a resize imports: once here, and not in each fork)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataflows import CenterCrop, RandomResizedCrop
from dataflows.errors import RecordError, UnsupportedJPEG
from dataflows.images.codecs import decode
from dataflows.jpeg.tile import cut, read_tiles, tile
from dataflows.load.decode.reader import RecordReader
from dataflows.storage import record
from dataflows.storage.index import index_path, load_index, write_index
from dataflows.storage.store import Store
from helpers.photos import encode_jpeg, make_photo

SECONDS = 10  # that a child may take, a hundred times what it needs
PAGE = 4096
many_fixtures = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
                         deadline=None)
EXAMPLES = settings.default.max_examples
# An example costs a fork here, so that there are fewer; but `make fuzz` has all that it asks for.
forks = settings(many_fixtures, max_examples=50 if EXAMPLES == 100 else EXAMPLES)


@st.composite
def changed(draw, sound, places=None):
    """`sound` with one to four bytes changed, at any or at the given places, or its end cut off."""
    data, places = bytearray(sound), range(len(sound)) if places is None else places
    if draw(st.integers(0, 9)) == 0:
        return bytes(data[:draw(st.integers(0, len(data) - 1))])
    for _ in range(draw(st.integers(1, 4))):
        data[draw(st.sampled_from(places))] = draw(st.sampled_from([0, 1, 127, 128, 255]) | st.integers(0, 255))
    return bytes(data)


# --- readers of bytes


RECORDS = [record.pack([encode_jpeg(make_photo(9, 12, 0)), 3]), record.pack([make_photo(3, 4, 0), 7])]


@given(st.sampled_from(RECORDS).flatmap(changed))
def test_records(value):
    with contextlib.suppress(RecordError):
        image, label = record.view(np.frombuffer(value, np.uint8))
        assert image.dtype == np.uint8 and image.nbytes <= 3 * len(value) and -2**63 <= label < 2**63


JPEG = encode_jpeg(make_photo(40, 150, 1))
TILED = tile(JPEG, interval_px=24)


@settings(deadline=None)
@given(changed(TILED, range(700)), st.integers(0, 39), st.integers(0, 149))
def test_tiled_jpegs(data, top, left):
    with contextlib.suppress(ValueError):
        tiles = read_tiles(data)
        if tiles is not None:
            small, _ = cut(data, tiles, top, left, 40 - top, 150 - left)
            assert len(small) < 3 * len(data)
            decode(small)


@settings(deadline=None)
@given(changed(JPEG))
def test_tiling(data):
    with contextlib.suppress(UnsupportedJPEG):
        tiled = tile(data)
        with contextlib.suppress(RecordError):
            np.testing.assert_array_equal(decode(tiled).shape, decode(data).shape)


# --- files


@pytest.fixture(scope="module")
def folder(tiled_lmdb, tmp_path_factory):
    """A folder to write changed files into."""
    return tmp_path_factory.mktemp("fuzz")


def survives(read):
    """Whether a forked child that reads ends by itself: with a result, or with an error that names what is wrong."""
    pid = os.fork()
    if pid == 0:
        code = 1
        with contextlib.suppress(BaseException):
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(SECONDS)
            with contextlib.suppress(ValueError, OSError):
                read()
            code = 0
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def read_all(path):
    store = Store(path)
    reader = RecordReader(store)
    for number in range(len(store)):
        with contextlib.suppress(RecordError):
            reader.pixels(number)
    for transform in (RandomResizedCrop(16), CenterCrop(16, resize=16)):
        for number in range(len(store)):
            with contextlib.suppress(RecordError):
                reader.read_crops([number], transform, np.zeros(1, np.int64), 0, 0, np.empty((1, 3, 16, 16), np.uint8))


def tree_bytes(data):
    """The places of bytes in pages that are not of values: headers, and the tree."""
    places, page = [], 0
    while page < len(data) // PAGE:
        flags, = struct.unpack_from("<H", data, page * PAGE + 10)
        if flags & 4:
            page += struct.unpack_from("<I", data, page * PAGE + 12)[0]
        else:
            places += range(page * PAGE, page * PAGE + 200)
            places += range(page * PAGE + PAGE - 200, (page + 1) * PAGE)
            page += 1
    return places


@forks
@given(data=st.data())
@pytest.mark.parametrize("indexed", [True, False])
def test_files(tiled_lmdb, folder, indexed, data):
    path = folder / "train.lmdb"
    sound = (tiled_lmdb / "train.lmdb").read_bytes()
    in_tree = data.draw(st.booleans())
    path.write_bytes(data.draw(changed(sound, tree_bytes(sound) if in_tree else None)))
    if indexed:
        (folder / "train.lmdb.index.npz").write_bytes((tiled_lmdb / "train.lmdb.index.npz").read_bytes())
    else:
        (folder / "train.lmdb.index.npz").unlink(missing_ok=True)
    assert survives(lambda: read_all(path))


@forks
@given(data=st.data())
def test_indexes(tiled_lmdb, folder, data):
    path = folder / "train.lmdb"
    path.write_bytes((tiled_lmdb / "train.lmdb").read_bytes())
    sound = (tiled_lmdb / "train.lmdb.index.npz").read_bytes()
    (folder / "train.lmdb.index.npz").write_bytes(data.draw(changed(sound)))
    assert survives(lambda: read_all(path))


@forks
@given(data=st.data())
def test_indexes_whose_archive_is_sound(tiled_lmdb, folder, data):
    """Wrong numbers in an index that is otherwise as it should be."""
    path = str(folder / "train.lmdb")
    (folder / "train.lmdb").write_bytes((tiled_lmdb / "train.lmdb").read_bytes())
    index = load_index(str(tiled_lmdb / "train.lmdb"), str(tiled_lmdb / "train.lmdb"))
    column = data.draw(st.sampled_from(["height", "width", "nbytes", "offset", "label"]))
    number = data.draw(st.integers(1, index.count - 2))  # the first and the last are compared with their checksums
    values = getattr(index, column).copy()
    limits = np.iinfo(values.dtype)
    values[number] = data.draw(st.sampled_from([limits.min, -1, 0, 1, limits.max])
                               | st.integers(limits.min, limits.max))
    os.replace(write_index(dataclasses.replace(index, **{column: values}), path), index_path(path))
    assert survives(lambda: read_all(path))
