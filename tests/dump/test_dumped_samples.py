"""Dumps of what a program gives: the records of files with the same content, resumed after a kill, and checked."""
import hashlib
import io
import itertools
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from dataflows.dump import space, write
from dataflows.dump.verify import verify
from dataflows.errors import Refused
from dataflows.sources.imagenet import ImageNetFiles
from dataflows.storage.index import load_index
from dataflows.storage.store import Store
from dataflows.tensorpack import DataFlow, LMDBData, LMDBSerializer
from dataflows.tools.info.facts import as_text, describe
from dump_imagenet import check_split, dump_split
from helpers.paths import ROOT
from helpers.photos import make_photo
from helpers.samples import COUNT, SAMPLES, Stream
from uint_lmdb_loader import LMDBDataset, LMDBLoader


@pytest.fixture(autouse=True)
def _small_transactions(monkeypatch):
    monkeypatch.setattr(write, "_TRANSACTION_BYTES", 20_000)


class Flow(DataFlow):
    def __init__(self, samples):
        self.samples = samples

    def __iter__(self):
        return iter(self.samples)


def dump(source, target, split="train", **options):
    return dump_split(source, target, split, progress=False, **options)


def state(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def samples_of(folder, split):
    """The files of a folder of classes as samples, in its order."""
    files = ImageNetFiles(folder, split)
    return [(files.read(name), label, name) for name, label in files]


@pytest.mark.parametrize("options", [{}, {"format": "uint8"}, {"shuffle": False}, {"tiles": False, "seed": 3},
                                     {"max_side": 80}], ids=str)
def test_samples_with_the_content_of_files_give_the_same_file(photos, tmp_path, options):
    files = dump(photos, tmp_path / "files", **options)
    samples = dump(samples_of(photos, "train"), tmp_path / "samples", classes=ImageNetFiles(photos, "train").classes,
                   **options)
    one, other = load_index(files.path, files.path), load_index(samples.path, samples.path)
    assert (tmp_path / "files" / "train.lmdb").read_bytes() == (tmp_path / "samples" / "train.lmdb").read_bytes()
    differing = {name for name in vars(one.meta) if vars(one.meta)[name] != vars(other.meta)[name]}
    assert differing == {"layout"} and one.name.tolist() == other.name.tolist()
    assert verify(samples.path, progress=False).bad == []


def test_pixels_are_stored_as_those_of_a_png(tmp_path):
    pixels = [make_photo(50, 70, number) for number in range(4)]
    pixels.append(pixels[0][:, :, 1])

    def png(image):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        return file.getvalue()

    for options in ({"format": "uint8"}, {}, {"max_side": 40}, {"format": "uint8", "shorter_side": 30}):
        name = str(options)
        dump([(image, 0) for image in pixels], tmp_path / name / "arrays", **options)
        dump([(png(image), 0) for image in pixels], tmp_path / name / "files", **options)
        one, other = ((tmp_path / name / folder / "train.lmdb").read_bytes() for folder in ("arrays", "files"))
        assert one == other
        index = load_index(*[str(tmp_path / name / "arrays" / "train.lmdb")] * 2)
        assert len(index.meta.findings["grayscale"]) == 1
    dataset = LMDBDataset(tmp_path / "{'format': 'uint8'}" / "arrays" / "train.lmdb")
    stored = {dataset[i][0].permute(1, 2, 0).numpy().tobytes() for i in range(5)}
    assert stored == {np.broadcast_to(image.reshape(50, 70, -1), (50, 70, 3)).tobytes() for image in pixels}
    with pytest.raises(ValueError, match="sample 0: .*pixels.*max_pixels"):
        dump([(pixels[0], 0)], tmp_path / "bomb", max_pixels=99)


def test_a_stream_keeps_its_order_and_the_index_says_so(tmp_path):
    shuffled = [SAMPLES[number] for number in np.random.default_rng(1).permutation(COUNT)]
    summary = dump(Flow(shuffled), tmp_path)
    index = load_index(summary.path, summary.path)
    assert index.label.tolist() == [label for _, label in shuffled] and index.meta.seed is None
    assert summary.layout == index.meta.layout == "samples of a Flow, in the order it gave them"
    assert index.classes == ["0", "1", "2"] and summary.num_classes == 3
    assert [bytes(name) for name in index.name[:2]] == [b"00000000", b"00000001"]
    text = as_text(describe(summary.path))
    assert "that of the source" in text and "sorted by class" not in text
    dump(Flow(sorted(SAMPLES, key=lambda sample: sample[1])), tmp_path / "sorted")
    assert "that of the source: sorted by class" in as_text(describe(tmp_path / "sorted" / "train.lmdb"))
    with LMDBLoader(summary.path, 8, shuffle=False) as loader:
        assert [int(label) for _, labels in loader for label in labels] == index.label.tolist()
    with pytest.raises(Refused, match="cannot be permuted"):
        dump(Flow(shuffled), tmp_path / "other", shuffle=True)
    assert not (tmp_path / "other").exists()


def test_a_file_of_tensorpacks_own_is_dumped_with_an_index(tmp_path, monkeypatch):
    path = str(tmp_path / "stock.lmdb")

    class Listed(Flow):
        def __len__(self):
            return len(self.samples)

    LMDBSerializer.save(Listed([[np.frombuffer(image, np.uint8), label] for image, label in SAMPLES]), path)
    summary = dump(LMDBSerializer.load(path, shuffle=False), tmp_path / "new", tiles=False)
    store = Store(summary.path)
    assert summary.count == COUNT and [int(n) for n in store.index.label] == [label for _, label in SAMPLES]
    dataset = LMDBDataset(summary.path)
    assert np.array_equal(np.asarray(dataset[7][0]), np.asarray(LMDBDataset(path)[7][0]))
    assert issubclass(LMDBData, DataFlow)


class Stopping:
    """A stream of samples that is interrupted after some of them."""

    def __init__(self, samples, after):
        self.samples, self.after = samples, after

    def __iter__(self):
        yield from itertools.islice(self.samples, self.after)
        raise KeyError()


Stopping.__name__ = "Stream"


@pytest.mark.parametrize("options", [{}, {"format": "uint8"}], ids=str)
def test_a_stream_that_is_interrupted_goes_on(tmp_path, options):
    dump(Stream(SAMPLES), tmp_path / "once", **options)
    for after in (15, 25, 33):
        with pytest.raises(KeyError):
            dump(Stopping(SAMPLES, after), tmp_path / "often", resume=True, **options)
    summary = dump(Stream(SAMPLES), tmp_path / "often", resume=True, **options)
    assert summary.resumed > 10 and state(tmp_path / "often") == state(tmp_path / "once")


@pytest.mark.parametrize("change, words", [
    (lambda samples: [(samples[1][0], samples[0][1]), *samples[1:]], "sample 0 is another one than it was"),
    (lambda samples: [(samples[0][0], 2), *samples[1:]], "sample 0 is another one than it was"),
    (lambda samples: [*samples[:3], (samples[3][0], samples[3][1], "named"), *samples[4:]],
     r"sample 3 \(named\) is another one"),
    (lambda samples: samples[:2], "its source ended after 2 samples")])
def test_another_stream_does_not_go_on(tmp_path, change, words):
    with pytest.raises(KeyError):
        dump(Stopping(SAMPLES, 33), tmp_path)
    before = (tmp_path / "train.lmdb.partial").read_bytes()
    with pytest.raises(ValueError, match=f"cannot be resumed: {words}.*leave resume=True out"):
        dump(Stream(change(SAMPLES)), tmp_path, resume=True)
    assert (tmp_path / "train.lmdb.partial").read_bytes() == before
    assert dump(Stream(SAMPLES), tmp_path, resume=True).count == COUNT


def test_a_stream_that_is_written_and_not_read_back_is_compared_whole(tmp_path, monkeypatch):
    from dataflows.dump import one_file

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    dump(Stream(SAMPLES), tmp_path / "once")
    with monkeypatch.context() as patch:
        patch.setattr(one_file, "read_back", interrupted)
        with pytest.raises(KeyboardInterrupt):
            dump(Stream(SAMPLES), tmp_path / "often")
    for other, words in ((SAMPLES[:-1], "ended after 39 samples"), (SAMPLES + SAMPLES[:1], "more than 40 samples now")):
        with pytest.raises(ValueError, match=words):
            dump(Stream(other), tmp_path / "often", resume=True)
    dump(Stream(SAMPLES), tmp_path / "often", resume=True)
    assert state(tmp_path / "often") == state(tmp_path / "once")


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[2])
from dataflows.dump import write
from dump_imagenet import dump_split
from helpers.samples import SAMPLES, Stream
write._TRANSACTION_BYTES = 20_000
class Killing(Stream):
    def __iter__(self):
        for number, sample in enumerate(self.samples):
            if number == 30:
                os.kill(os.getpid(), signal.SIGKILL)
            yield sample
Killing.__name__ = "Stream"
dump_split(Killing(SAMPLES), sys.argv[1], "train", progress=False)
"""


def test_a_stream_whose_process_is_killed_goes_on(tmp_path):
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "killed"), str(ROOT / "tests")], cwd=ROOT,
                            timeout=100, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    dump(Stream(SAMPLES), tmp_path / "once")
    assert "train.lmdb.journal" in state(tmp_path / "killed")
    dump(Stream(SAMPLES), tmp_path / "killed", resume=True)
    assert state(tmp_path / "killed") == state(tmp_path / "once")


@pytest.mark.parametrize("make", [list, Stream, Flow])
def test_bad_samples_stop_a_dump_or_are_left_out_and_listed(tmp_path, make, monkeypatch):
    monkeypatch.setattr(space, "_SAMPLE", 1)
    bad = [(b"no image", 0), (SAMPLES[0][0], -5), (SAMPLES[1][0], 1, "good"), "nothing", (b"", 0, "void.jpg")]
    with pytest.raises(ValueError, match="sample 0: it is damaged.*remove the sample; on_error='skip' leaves"):
        dump(make(bad), tmp_path / "stopped", "val")
    summary = dump(make(bad), tmp_path / "skipped", "val", on_error="skip")
    assert summary.count == 1 and [entry["name"] for entry in summary.skipped] == [
        "00000000", "00000001", "00000003", "void.jpg"]
    assert "its label is -5, and must be a class number" in summary.skipped[1]["reason"]
    checked = check_split(make(bad), "val", progress=False)
    assert not checked.ok and checked.count == 1 and checked.num_classes == 2 and len(checked.failures) == 4
    assert check_split(make(bad), "val", on_error="skip", progress=False).ok


def test_a_source_without_a_sample_says_what_may_be_the_matter(tmp_path):
    samples = iter(SAMPLES)
    assert dump(samples, tmp_path, "val").count == COUNT
    with pytest.raises(ValueError, match="the source gave no image. An iterator can be used once only"):
        dump(samples, tmp_path, "val", overwrite=True)
    assert dump(iter(SAMPLES), tmp_path / "again", "val").count == COUNT
    assert not check_split(iter([]), "val", progress=False).ok
