"""Labels that are vectors, from each source through the dump to batches; and what is wrong with some."""
import hashlib
import io
import json
import os
import pickle
import signal
import subprocess
import sys
import tarfile
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dataflows import RandomResizedCrop, shuffle_quality
from dataflows.__main__ import main
from dataflows.dump import write
from dataflows.dump.verify import verify
from dataflows.errors import RecordError, Refused
from dataflows.storage import record
from dataflows.storage.index import load_index
from dataflows.tools.advise.sources import Records
from dataflows.tools.info.facts import as_text, describe
from dataflows.tools.sheet.views import Views
from dump_imagenet import check_split, dump_split
from helpers.lmdb_files import pack_msgpack, write_lmdb
from helpers.paths import ROOT
from helpers.photos import encode_jpeg, make_photo
from uint_lmdb_iterloader import LMDBIterDataset, LMDBIterLoader
from uint_lmdb_loader import LMDBDataset, LMDBLoader

COUNT, SIZE = 40, 3
LABELS = np.random.default_rng(0).normal(size=(COUNT, SIZE)).astype(np.float32)
LABELS[:, 1] = np.arange(COUNT) % 2
PHOTOS = [encode_jpeg(make_photo(40 + number, 60, number)) for number in range(COUNT)]
SAMPLES = [(photo, label.tolist()) for photo, label in zip(PHOTOS, LABELS)]
NAMES = ["height", "red", "weight"]


def dump(source, target, split="val", **options):
    return dump_split(source, target, split, progress=False, **options)


def state(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return dump(SAMPLES, tmp_path_factory.mktemp("vectors"), classes=NAMES).path


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """tensorpack's pickles, without an index, in double precision."""
    return str(write_lmdb(tmp_path_factory.mktemp("foreign") / "f.lmdb",
                          [[np.frombuffer(photo, np.uint8), label.astype(float)]
                           for photo, label in zip(PHOTOS, LABELS)]))


# Records.

VECTORS = hnp.arrays(np.float32, st.integers(1, 300), elements=st.floats(width=32, allow_nan=False,
                                                                         allow_infinity=False))
PIXELS = hnp.arrays(np.uint8, st.tuples(st.integers(1, 5), st.integers(1, 5), st.just(3)))


@given(st.one_of(st.binary(min_size=1, max_size=99), PIXELS), VECTORS)
def test_records_survive_the_round_trip(image, vector):
    value = np.frombuffer(record.pack([image, vector]), np.uint8)
    assert record.label_size(value) == len(vector)
    for size in (None, len(vector)):
        read, label = record.view(value, label_size=size)
        assert label.dtype == np.float32 and label.tobytes() == vector.tobytes() and label.flags.writeable
        assert bytes(read) == image if isinstance(image, bytes) else np.array_equal(read, image)
    for size, words in ((0, "must be an integer"), (len(vector) + 1, f"a vector of {len(vector)}, and those")):
        with pytest.raises(RecordError, match=words):
            record.view(value, label_size=size)


def test_the_bytes_of_a_record_are_fixed():
    assert record.pack([b"\xff", np.array([1, -2], np.float32)]) == bytes.fromhex(
        "92 c401ff 85 c4026e64 c3 c40474797065 a33c6634 c4046b696e64 c400 c4057368617065 9102 c40464617461 c408"
        "0000803f 000000c0")


@pytest.mark.parametrize("label", [np.array([np.nan], np.float32), np.array([1, np.inf], np.float32),
                                   np.zeros((2, 2), np.float32), np.zeros(0, np.float32), np.zeros(2), 0.5, [0.5]])
def test_other_labels_are_not_written(label):
    with pytest.raises(RecordError, match="label"):
        record.pack([b"a JPEG", label])


def test_a_record_without_the_vector_of_the_others_is_an_error():
    with pytest.raises(RecordError, match="its label is no vector, and those of the other records have 3"):
        record.view(np.frombuffer(record.pack([b"a", 3]), np.uint8), label_size=3)


# Loading.

@pytest.mark.parametrize("workers", [{"num_workers": 0}, {"num_workers": 2},
                                     {"num_workers": 2, "worker_type": "process"}], ids=str)
@pytest.mark.parametrize("transform", [None, RandomResizedCrop(32), lambda image: np.zeros(2)],
                         ids=["whole", "crop", "callable"])
@pytest.mark.parametrize("make", [LMDBLoader, LMDBIterLoader])
def test_batches(path, foreign, make, transform, workers):
    if transform is not None and not isinstance(transform, RandomResizedCrop) and "worker_type" in workers:
        pytest.skip("a lambda does not travel")
    for file in (path, foreign):
        with make(file, 16, transform=transform, return_index=True, **workers) as loader:
            seen = []
            for _, labels, numbers in loader:
                assert labels.dtype == torch.float32 and labels.shape == (len(numbers), SIZE)
                assert np.array_equal(labels.numpy(), LABELS[numbers])
                seen += numbers.tolist()
            assert sorted(seen) == list(range(COUNT))
            assert loader.labels.dtype == np.float32 and np.array_equal(loader.labels, LABELS)
            assert loader.classes == (NAMES if file == path else ["0", "1", "2"])


def second(vector):
    assert isinstance(vector, np.ndarray) and vector.dtype == np.float32 and vector.shape == (SIZE,)
    return int(vector[1])


def test_target_transform_gets_the_array(path):
    with LMDBLoader(path, COUNT, shuffle=False, transform=RandomResizedCrop(32), target_transform=second) as loader:
        [(_, labels)] = loader
    assert labels.dtype == torch.int64 and labels.tolist() == LABELS[:, 1].tolist()
    assert LMDBDataset(path, target_transform=second)[3][1] == 1


@pytest.mark.parametrize("num_workers", [0, 2])
def test_datasets(path, foreign, num_workers):
    for file in (path, foreign):
        dataset = LMDBDataset(file, RandomResizedCrop(32))
        assert np.array_equal(dataset.targets, LABELS) and np.array_equal(pickle.loads(pickle.dumps(dataset))[5][1],
                                                                          LABELS[5])
        label = dataset[7][1]
        assert isinstance(label, torch.Tensor) and label.dtype == torch.float32 and label.shape == (SIZE,)
        for one in (dataset,
                    LMDBIterDataset(file, transform=RandomResizedCrop(32), order="sequential")):
            batches = [labels for _, labels in torch.utils.data.DataLoader(one, 8, num_workers=num_workers)]
            rows = {row.tobytes() for labels in batches for row in labels.numpy()}
            assert batches[0].shape == (8, SIZE) and rows == {row.tobytes() for row in LABELS}


def test_a_foreign_record_of_another_length_is_named(tmp_path):
    file = write_lmdb(tmp_path / "f.lmdb", [[PHOTOS[0], np.zeros(2)], [PHOTOS[1], np.zeros(3)]], pack_msgpack)
    with LMDBLoader(file, 2, transform=RandomResizedCrop(32)) as loader, \
            pytest.raises(RecordError, match="f.lmdb, key 00000001: its label is a vector of 3, and those"):
        list(loader)


STOCK = """
import sys
from tensorpack.dataflow import LMDBSerializer
flow = LMDBSerializer.load(sys.argv[1], shuffle=False)
flow.reset_state()
for image, label in flow:
    print(label.dtype, label.tobytes().hex())
"""


def test_stock_tensorpack_reads_the_file(path):
    told = subprocess.run([sys.executable, "-c", STOCK, path], cwd=ROOT, timeout=100, capture_output=True, text=True,
                          env={**os.environ, "TENSORPACK_SERIALIZE": "msgpack"}, check=True).stdout
    lines = told.splitlines()[-COUNT:]  # tensorpack may have said something before
    assert lines == [f"float32 {row.tobytes().hex()}" for row in LABELS]


# The dump.

def test_index_summary_check_and_verify(path, tmp_path, capsys):
    index = load_index(path, path)
    assert index.label.dtype == "<f4" and np.array_equal(index.label, LABELS) and index.label_size == SIZE
    assert index.written_meta()["version"] == 3 and index.classes == NAMES and index.checked_meta(path) is index.meta
    assert verify(path, progress=False).bad == []
    summary = dump(SAMPLES[:1] * 2, tmp_path, "train")
    assert "2 images with labels of 3 numbers as jpeg" in str(summary) and summary.vectors
    assert [*summary.findings] == ["same content as another file"] and summary.class_counts == []
    other = [SAMPLES[0], (SAMPLES[0][0], SAMPLES[1][1])]
    assert "same content as a file of another class" in dump(other, tmp_path, "other").findings
    checked = check_split(SAMPLES, "val", classes=NAMES, progress=False)
    assert checked.ok and checked.num_classes == SIZE and "40 images with labels of 3 numbers" in str(checked)


def test_what_people_look_at(path, foreign, tmp_path, capsys):
    facts = describe(path)
    assert json.loads(json.dumps(facts)) == facts and facts["classes"] is None
    red = facts["vectors"][1]
    assert red == {"name": "red", "least": 0, "mean": 0.5, "most": 1, "nonzero": 0.5}
    text = " ".join(as_text(facts).split())
    assert "40 records with labels of 3 numbers" in text and "red mean 0.5, 0 to 1, not 0 in 50.0%" in text
    assert "vectors of 3 numbers: 40" in as_text(describe(foreign))
    for file in (path, foreign):
        assert main(["sheet", file, "--report", str(tmp_path / "report")]) == 0
        assert main(["sheet", file, "-o", str(tmp_path / "sheet.png")]) == 0
    capsys.readouterr()
    assert main(["sheet", path, "--report", str(tmp_path / "report")]) == 0
    assert "numbers of a label" in (tmp_path / "report" / "index.html").read_text()
    for file, names in ((path, NAMES), (foreign, "012")):
        with Views(file) as views:
            [view] = views([3], None)
        assert view.class_name == ", ".join(f"{name} {number:.3g}" for name, number in zip(names, LABELS[3]))
    assert [Records(file).read(3).label for file in (path, foreign)] == [0, 0]  # advise's, which sorts by label
    with LMDBLoader(path, 8) as loader:
        assert shuffle_quality(loader).mixing == pytest.approx(1)


@pytest.mark.parametrize("label, words", [
    ([1, float("nan")], r"number 1 of its label \(from 0\) is nan, and float32 must hold each as a finite number"),
    ([1e39], "number 0 of its label .* is 1e\\+39"), ([], "1 to 65,536 numbers"), (["a"], "1 to 65,536 numbers"),
    ([[1.0]], "in one dimension"), ([[1.0], [2, 3]], "list or an array"), ([None], "numbers"),
    (0.5, "must be a class number, .*, or a list of numbers"),
    ([1.0, 2.0], "its label is a vector of 2, and that of the first one, 00000000, is a vector of 3"),
    (7, "its label is a class number, and that of the first one, 00000000, is a vector of 3")], ids=str)
@pytest.mark.parametrize("make", [list, iter])
def test_bad_labels_stop_a_dump_or_are_left_out_and_listed(tmp_path, label, words, make):
    samples = [*SAMPLES[:3], (PHOTOS[3], label), SAMPLES[4]]
    with pytest.raises(ValueError, match=f"sample (0000000)?3: .*{words}.*on_error='skip'"):
        dump(make(samples), tmp_path / "stopped")
    summary = dump(make(samples), tmp_path / "skipped", on_error="skip")
    assert summary.count == 4 and [entry["name"] for entry in summary.skipped] == ["00000003"]
    assert not check_split(make(samples), "val", progress=False).ok


def test_names_of_other_numbers_are_refused(tmp_path):
    with pytest.raises(ValueError, match="sample 0: its label has 3 numbers, and there are names of 2"):
        dump(SAMPLES, tmp_path, classes=["a", "b"])


def test_lists_tuples_arrays_and_tensors_are_one(tmp_path):
    forms = {"list": list, "tuple": tuple, "double": lambda label: np.array(label, np.float64), "tensor": torch.tensor}
    for name, form in forms.items():
        dump([(photo, form(label)) for photo, label in SAMPLES], tmp_path / name)
    files = {name: {file: digest for file, digest in state(tmp_path / name).items()} for name in forms}
    assert all(found == files["list"] for found in files.values())


class Stream:
    def __init__(self, samples, after=COUNT):
        self.samples, self.after = samples, after

    def __iter__(self):
        for number, sample in enumerate(self.samples):
            if number == self.after:
                time.sleep(3)  # the first of them are written meanwhile: the dump reads at most 32 ahead
                os.kill(os.getpid(), signal.SIGKILL)
            yield sample


KILLED = """
import runpy, sys
sys.path.insert(0, sys.argv[2])
here = runpy.run_path(sys.argv[3])
from dataflows.dump import write
from dump_imagenet import dump_split
write._TRANSACTION_BYTES = 1
dump_split(here["Stream"](here["SAMPLES"], 39), sys.argv[1], "val", progress=False)
"""


def test_a_dump_that_is_killed_goes_on(tmp_path, monkeypatch):
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "killed"), str(ROOT / "tests"), __file__],
                            cwd=ROOT, timeout=100, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    monkeypatch.setattr(write, "_TRANSACTION_BYTES", 1)
    dump(Stream(SAMPLES), tmp_path / "once")
    other = [(SAMPLES[0][0], [0.0, 0.0, 0.0]), *SAMPLES[1:]]
    with pytest.raises(ValueError, match="sample 0 is another one than it was"):
        dump(Stream(other), tmp_path / "killed", resume=True)
    with pytest.raises(ValueError, match="00000039: its label is a class number, and that of the first one, 00000000"):
        dump(Stream([*SAMPLES[:-1], (PHOTOS[0], 1)]), tmp_path / "killed", resume=True)
    assert dump(Stream(SAMPLES), tmp_path / "killed", resume=True).resumed > 0
    assert state(tmp_path / "killed") == state(tmp_path / "once")


# CSV files and shards.

def write_csv(folder, header=("file", *NAMES), labels=LABELS):
    folder.mkdir(exist_ok=True)
    for number, photo in enumerate(PHOTOS):
        (folder / f"{number:02d}.jpg").write_bytes(photo)
    rows = [f"{number:02d}.jpg," + ",".join(map(str, label)) for number, label in enumerate(labels.tolist())]
    (folder / "labels.csv").write_text("\n".join([",".join(header), *rows]))
    return folder / "labels.csv"


def test_a_file_with_several_columns_of_labels(tmp_path, path):
    labels = write_csv(tmp_path / "photos")
    summary = dump(tmp_path / "photos", tmp_path / "csv", labels=labels)
    index = load_index(summary.path, summary.path)
    assert np.array_equal(index.label, LABELS) and index.classes == index.class_names == NAMES
    with open(summary.path, "rb") as one, open(path, "rb") as other:
        assert one.read() == other.read()
    dump(tmp_path / "photos", tmp_path / "permuted", "train", labels=labels)
    with LMDBLoader(tmp_path / "permuted" / "train.lmdb", 8, return_index=True) as loader:
        for _, found, numbers in loader:
            names = [int(name[:2]) for name in loader.source_names(numbers)]
            assert np.array_equal(found, LABELS[names])


@pytest.mark.parametrize("text, words", [
    ("file,a,a\nx,1,2\n", "must have names, and each its own"), ("file,a,\nx,1,2\n", "must have names"),
    ("file,a,b\n00.jpg,1,\n", "line 2: b is '', and must be a number"),
    ("file,a,b\n00.jpg,1,nan\n", "line 2: b is 'nan', and must be a number that float32 holds"),
    ("file,a,b\n00.jpg,1e39,0\n", "line 2: a is '1e39'"), ("file,a,b\n00.jpg,cat,0\n", "line 2: a is 'cat'"),
    ("file,a,b\n00.jpg,1\n", "line 2: it has 2 columns, and the header has 3")])
def test_wrong_files_are_refused(tmp_path, text, words):
    labels = write_csv(tmp_path / "photos")
    labels.write_text(text)
    with pytest.raises(Refused, match=words):
        dump(tmp_path / "photos", tmp_path / "target", labels=labels)


def write_shard(path, samples):
    with tarfile.open(path, "w") as tar:
        for number, (photo, fields) in enumerate(samples):
            for name, content in ((f"{number:03d}.jpg", photo), (f"{number:03d}.json", json.dumps(fields).encode())):
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    return path


def test_lists_in_shards(tmp_path, path):
    shard = write_shard(tmp_path / "val-0.tar", [(photo, {"label": label}) for photo, label in SAMPLES])
    summary = dump(shard, tmp_path / "target")
    with open(summary.path, "rb") as one, open(path, "rb") as other:
        assert one.read() == other.read()
    index = load_index(summary.path, summary.path)
    assert np.array_equal(index.label, LABELS) and index.classes == ["0", "1", "2"]
    bad = [(PHOTOS[0], {"label": [1, 2]}), (PHOTOS[1], {"label": [1]}), (PHOTOS[2], {"label": 1}),
           (PHOTOS[3], {"label": [1, None]}), (PHOTOS[4], {"cls": [3, 4]})]
    shard = write_shard(tmp_path / "val-1.tar", bad)
    with pytest.raises(Refused, match="001: its label is a vector of 1, and that of the first sample is a vector of 2"):
        dump(shard, tmp_path / "bad")
    assert dump(shard, tmp_path / "bad", on_error="skip").count == 2
