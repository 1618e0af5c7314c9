"""LMDB files that tensorpack wrote without us, files of older tools, and our files in tensorpack's own reader."""
import logging
import os
import pickle
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from dataflows import RandomResizedCrop
from dataflows.errors import RecordError
from dataflows.images.codecs import decode
from dataflows.load.decode.reader import RecordReader
from dataflows.storage.store import Store
from helpers.lmdb_files import write_raw
from helpers.photos import encode_jpeg, make_photo
from uint_lmdb_iterloader import LMDBIterDataset, LMDBIterLoader
from uint_lmdb_loader import LMDBDataset, LMDBLoader

TIMEOUT_SECONDS = 120
COUNT = 6

# Runs without a line of ours: what stock tensorpack writes and reads.
SAVE = """
import pickle, sys
from tensorpack.dataflow import DataFromList, LMDBSerializer
for path, datapoints in pickle.load(open(sys.argv[1], "rb")):
    LMDBSerializer.save(DataFromList(datapoints, shuffle=False), path)
"""
LOAD = """
import pickle, sys
from tensorpack.dataflow import LMDBSerializer
result = []
for path in sys.argv[2:]:
    for shuffle in (False, True):
        df = LMDBSerializer.load(path, shuffle=shuffle)
        df.reset_state()
        result.append((len(df), [list(datapoint) for datapoint in df]))
        del df  # a process may have a file open once
pickle.dump(result, open(sys.argv[1], "wb"))
"""


def stock(code, *arguments, serializer=None):
    environment = {name: value for name, value in os.environ.items() if name != "TENSORPACK_SERIALIZE"}
    if serializer:
        environment["TENSORPACK_SERIALIZE"] = serializer
    subprocess.run([sys.executable, "-c", code, *map(str, arguments)], check=True, env=environment,
                   timeout=TIMEOUT_SECONDS, capture_output=True)


PIXELS = [make_photo(40 + number, 60 - number, seed=number) for number in range(COUNT)]
JPEGS = [encode_jpeg(pixels) for pixels in PIXELS]
LABELS = [0, 1, 127, 128, 999, 70_000]  # each length that msgpack has for them


def jpeg_array(number):
    return np.frombuffer(JPEGS[number], np.uint8)


# How other writers store datapoint `number`, and the options that reading it takes.
WRITERS = {
    "bytes": (lambda n: [JPEGS[n], LABELS[n]], {}),
    "tuples": (lambda n: (JPEGS[n], LABELS[n]), {}),
    "arrays of JPEG bytes": (lambda n: [jpeg_array(n), LABELS[n]], {}),
    "HWC": (lambda n: [PIXELS[n], LABELS[n]], {}),
    "HWC, mirrored view": (lambda n: [PIXELS[n][:, ::-1], LABELS[n]], {}),
    "HWC, Fortran order": (lambda n: [np.asfortranarray(PIXELS[n]), LABELS[n]], {}),
    "CHW": (lambda n: [np.ascontiguousarray(PIXELS[n].transpose(2, 0, 1)), LABELS[n]], {"array_layout": "CHW"}),
    "BGR": (lambda n: [np.ascontiguousarray(PIXELS[n][:, :, ::-1]), LABELS[n]], {"array_channels": "BGR"}),
    "CHW, BGR": (lambda n: [np.ascontiguousarray(PIXELS[n].transpose(2, 0, 1)[::-1]), LABELS[n]],
                 {"array_layout": "CHW", "array_channels": "BGR"}),
    "JPEG bytes with array options": (lambda n: [JPEGS[n], LABELS[n]],
                                      {"array_layout": "CHW", "array_channels": "BGR"}),
    "gray": (lambda n: [PIXELS[n][:, :, 0], LABELS[n]], {}),
    "numpy labels": (lambda n: [JPEGS[n], np.int64(LABELS[n])], {}),
    "numpy labels of 32 bits": (lambda n: (JPEGS[n], np.int32(LABELS[n])), {}),
    "label arrays": (lambda n: [JPEGS[n], np.array([LABELS[n]])], {}),
    "label arrays without a dimension": (lambda n: [PIXELS[n], np.array(LABELS[n])], {}),
}


def pixels_of(writer, number):
    if writer == "gray":
        return np.repeat(PIXELS[number][:, :, :1], 3, axis=2)
    if writer == "HWC, mirrored view":
        return PIXELS[number][:, ::-1]
    stored, _ = WRITERS[writer]
    image = stored(number)[0]
    return decode(JPEGS[number]) if isinstance(image, bytes) or image.ndim == 1 else PIXELS[number]


@pytest.fixture(scope="module", params=[None, "msgpack"], ids=["pickle", "msgpack"])
def files(request, tmp_path_factory):
    """A folder of files by every writer, with stock tensorpack's serializer: pickle is its default."""
    folder = tmp_path_factory.mktemp("foreign")
    (folder / "folder").mkdir()
    jobs = [(str(folder / f"{name}.lmdb"), [stored(number) for number in range(COUNT)])
            for name, (stored, _) in WRITERS.items()]
    jobs.append((str(folder / "folder"), [[JPEGS[number], LABELS[number]] for number in range(COUNT)]))
    jobs += [(str(folder / f"wrong, {name}.lmdb"), [[JPEGS[0], 0], datapoint])
             for name, (datapoint, _) in WRONG.items()]
    (folder / "jobs").write_bytes(pickle.dumps(jobs))
    stock(SAVE, folder / "jobs", serializer=request.param)
    return folder


WRONG = {
    "dict": ({"image": JPEGS[0], "label": 1},
             "a map must be a numpy array|a map in a record|a record must be a list or tuple"),
    "three components": ([JPEGS[0], 1, "n01440764"], r"a record must be a list or tuple of \[image, label\]"),
    "float image": ([PIXELS[0].astype(np.float32), 1], "an image must be bytes or a uint8 array, not .*float32"),
    "CHW without its option": ([PIXELS[0].transpose(2, 0, 1).copy(), 1], "need array_layout='CHW'"),
    "text label": ([JPEGS[0], "n01440764"], "a label must be an integer"),
    "float label": ([JPEGS[0], 1.5], "a label must be an integer"),
    "several labels": ([JPEGS[0], np.array([1, 2])], "a label must be an integer"),
    "empty image": ([b"", 1], "an image must not be empty"),
    "four channels": ([np.zeros((5, 6, 4), np.uint8), 1], "pixels must have shape"),
    "no list": (7, "a record must be a list or tuple"),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_files_of_stock_tensorpack_are_read(files, writer):
    path, options = files / f"{writer}.lmdb", WRITERS[writer][1]
    dataset = LMDBDataset(path, image_type="numpy", **options)
    assert len(dataset) == COUNT
    for number in range(COUNT):
        image, label = dataset[number]
        assert label == LABELS[number] and type(label) is int
        assert np.array_equal(image, pixels_of(writer, number))
    assert dataset.targets == LABELS


@pytest.mark.parametrize("writer", ["bytes", "arrays of JPEG bytes", "HWC", "CHW, BGR", "gray", "HWC, Fortran order"])
def test_loaders_and_datasets_read_them_alike(files, writer):
    path, options = files / f"{writer}.lmdb", WRITERS[writer][1]
    for loader in (LMDBLoader(path, 4, shuffle=False, **options), LMDBIterLoader(path, 4, shuffle_buffer=0, **options)):
        images = [image.numpy() for batch, _ in loader for image in batch]
        assert all(np.array_equal(image, pixels_of(writer, n).transpose(2, 0, 1)) for n, image in enumerate(images))
    for image, _ in LMDBIterDataset(path, transform=RandomResizedCrop(9), **options):
        assert image.shape == (3, 9, 9)


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("writer", ["HWC", "CHW", "BGR", "CHW, BGR", "HWC, Fortran order"])
def test_crops_do_not_depend_on_the_layout(files, writer, antialias):
    def crops(name):
        transform = RandomResizedCrop(16, antialias=antialias)
        [(images, _)] = LMDBLoader(files / f"{name}.lmdb", COUNT, transform=transform, **WRITERS[name][1])
        return images

    assert (crops(writer) == crops("HWC")).all()


def test_a_folder_style_lmdb_is_read(files):
    assert (files / "folder" / "data.mdb").exists()
    assert sorted(label for _, labels in LMDBLoader(files / "folder", 4) for label in labels.tolist()) == LABELS
    assert LMDBDataset(str(files / "folder") + os.sep).targets == LABELS


def test_two_names_of_one_file_are_read_at_once(files, tmp_path):
    (tmp_path / "link.lmdb").symlink_to(files / "bytes.lmdb")
    one, other = LMDBDataset(files / "bytes.lmdb"), LMDBDataset(tmp_path / "link.lmdb")
    assert one[3][1] == other[3][1]


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_records_are_named_by_file_and_key_with_the_rule(files, kind):
    path = files / f"wrong, {kind}.lmdb"
    rule = f"{re.escape(str(path))}, key 00000001: .*({WRONG[kind][1]})"
    with pytest.raises(RecordError, match=rule):
        LMDBDataset(path)[1]
    for transform in (RandomResizedCrop(9), None):
        batches = iter(LMDBLoader(path, 1, shuffle=False, transform=transform, num_workers=2))
        next(batches)  # the first record is right
        with pytest.raises(RecordError, match=rule):
            next(batches)


def test_a_pickle_that_wants_more_than_arrays_is_refused(tmp_path):
    class Malice:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    write_raw(tmp_path / "bad.lmdb", {b"00000000": pickle.dumps([JPEGS[0], Malice()]),
                                      b"__keys__": pickle.dumps([b"00000000"])})
    with pytest.raises(RecordError, match="bad.lmdb, key 00000000: .*only plain numpy arrays are read"):
        LMDBDataset(tmp_path / "bad.lmdb")[0]
    assert not (tmp_path / "ran").exists()



@pytest.fixture
def without_keys(tmp_path):
    write_raw(tmp_path / "old.lmdb", {f"n{number:03}".encode(): pickle.dumps([JPEGS[number], LABELS[number]])
                                      for number in range(COUNT)})
    return tmp_path / "old.lmdb"


@pytest.mark.parametrize("cls", [LMDBDataset, LMDBIterDataset, lambda path: LMDBLoader(path, 4, num_workers=2),
                                 lambda path: LMDBIterLoader(path, 4, num_workers=2)],
                         ids=["LMDBDataset", "LMDBIterDataset", "LMDBLoader", "LMDBIterLoader"])
def test_a_file_without_keys_is_read_with_one_warning(cls, without_keys, caplog):
    reader = cls(without_keys)
    for _ in range(2):
        found = [batch for batch in reader]
    assert len(found) in (COUNT, len(reader))
    [warning] = caplog.records
    assert warning.levelno == logging.WARNING
    assert str(without_keys) in warning.getMessage() and "__keys__" in warning.getMessage()


def test_records_of_a_file_without_keys_are_in_the_order_of_their_keys(without_keys):
    assert LMDBDataset(without_keys).targets == LABELS


def test_stock_tensorpack_reads_our_files(jpeg_lmdb, uint8_lmdb, tmp_path):
    paths = [tmp_path / "jpeg.lmdb", tmp_path / "uint8.lmdb"]
    for folder, path in zip((jpeg_lmdb, uint8_lmdb), paths):
        shutil.copy(folder / "train.lmdb", path)
    stock(LOAD, tmp_path / "out", *paths, serializer="msgpack")
    readers = [RecordReader(Store(path)) for path in paths]
    results = pickle.loads((tmp_path / "out").read_bytes())
    for reader, (size, datapoints) in zip((readers[0], readers[0], readers[1], readers[1]), results, strict=True):
        expected = [reader.view(number) for number in range(23)]
        found = [(np.frombuffer(image, np.uint8) if isinstance(image, bytes) else image, label)
                 for image, label in datapoints]
        assert size == 23

        def order(sample):
            return sample[1], sample[0].tobytes()

        for (image, label), (stored, number) in zip(sorted(found, key=order), sorted(expected, key=order), strict=True):
            assert label == number and image.dtype == np.uint8 and np.array_equal(image, stored)
    assert [label for _, label in results[0][1]] == [readers[0].view(number)[1] for number in range(23)]
