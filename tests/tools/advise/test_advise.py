"""The advice: options, JSON, sentences that say what the figures say, and Ctrl-C."""
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from dataflows.__main__ import main
from dataflows.tools.advise import measure as measuring
from dataflows.tools.advise.advise import Advice, advise
from dataflows.tools.advise.predict import predict, recommend
from helpers.measurements import AT_256, FORMATS, GB, HARD_DISK, JPEG_320, PLAIN, SERVER, TILED, UNKNOWN, measured
from helpers.paths import ROOT
from helpers.web_server import WebServer


def advice(found=None, workers=4, gpu_rate=None):
    """The advice that these measurements give."""
    found = found or measured()
    return Advice(workers, gpu_rate, found, predict(found, workers, gpu_rate), recommend(found, workers, gpu_rate))


@pytest.fixture
def short(monkeypatch):
    """Turns that end as soon as they may."""
    monkeypatch.setattr(measuring, "_WINDOW_S", 0.0)
    monkeypatch.setattr(measuring, "_TURNS", 1)


# --- the real thing


def test_advice_is_made_of_what_was_measured(tiled_lmdb, short):
    found = advise(tiled_lmdb / "val.lmdb", gpu_rate=10, num_workers=2)
    assert (found.workers, found.gpu_rate) == (2, 10)
    assert (found.measurements.images, found.measurements.stored) == (10, TILED)
    assert found.predictions == predict(found.measurements, 2, 10)
    assert found.recommendation == recommend(found.measurements, 2, 10)
    assert found.recommendation.format == TILED and found.recommendation.enough


@pytest.mark.parametrize("data_set, shards", [("tiled_lmdb", 1), ("sharded_lmdb", 3)])
def test_of_a_url_it_is_measured_what_its_server_gives(data_set, shards, short, request):
    pytest.importorskip("aiohttp")
    folder = request.getfixturevalue(data_set)
    name = "val.manifest.json" if shards > 1 else "val.lmdb"
    with WebServer(folder) as server:
        found = advise(f"{server.url}/{name}", num_workers=1)
        here = advise(folder / name, num_workers=1)
    assert found.measurements.shards == shards and found.measurements.storage.remote
    assert (found.measurements.images, found.measurements.stored) == (here.measurements.images,
                                                                      here.measurements.stored)
    assert not any(one.fits for one in found.predictions)


def test_the_command_prints_it(photos, short, capsys):
    assert main(["advise", str(photos), "--workers", "1"]) == 0
    assert "23 images, in files" in capsys.readouterr().out
    assert main(["advise", str(photos), "--workers", "1", "--gpu-rate", "5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["gpu_rate"], found["workers"], found["measurements"]["images"]) == (5, 1, 23)


@pytest.mark.parametrize("options, message", [
    (dict(gpu_rate=0), "gpu_rate must be a positive number of images/s, not 0"),
    (dict(gpu_rate=-1.0), "gpu_rate"), (dict(gpu_rate=float("nan")), "gpu_rate"),
    (dict(gpu_rate=float("inf")), "gpu_rate"), (dict(gpu_rate="fast"), "gpu_rate"),
    (dict(num_workers=0), "num_workers must be an integer of at least 1, not 0"),
    (dict(num_workers=1.5), "num_workers")])
def test_wrong_options_are_refused_before_anything_is_measured(options, message):
    with pytest.raises(ValueError, match=message):
        advise("no such file", **options)


def test_the_command_names_what_is_wrong(tmp_path, capsys):
    assert main(["advise", str(tmp_path / "nothing")]) == 2
    assert "nothing. Give an LMDB, or a folder" in capsys.readouterr().err
    (tmp_path / "text").write_text("no LMDB")
    assert main(["advise", str(tmp_path / "text")]) == 1
    assert str(tmp_path / "text") in capsys.readouterr().err


@pytest.mark.parametrize("state", ["dumping", "running"])
def test_ctrl_c_leaves_no_file_behind(state, photos, tmp_path):
    """Its temporary folder is seen first, so that something is there to be removed."""
    command = [sys.executable, "-m", "dataflows", "advise", str(photos)]
    with subprocess.Popen(command, cwd=ROOT, env=os.environ | {"TMPDIR": str(tmp_path)}, stderr=subprocess.PIPE,
                          stdout=subprocess.DEVNULL, text=True) as process:
        wanted = 1 if state == "dumping" else 16  # with the indexes of eight dumps
        while len([*tmp_path.glob("dataflows-advise-*/*")]) < wanted:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.001)
        process.send_signal(signal.SIGINT)
        errors = process.stderr.read()
    assert (process.returncode, errors) == (2, "interrupted\n")
    assert not [*tmp_path.iterdir()]


# --- what it says


def test_a_dict_of_it_is_json_and_complete():
    found = advice(gpu_rate=1800).as_dict()
    assert json.loads(json.dumps(found)) == found
    assert [one["name"] for one in found["predictions"]] == [one.name for one in measured().formats]
    assert found["measurements"]["scaling_encoded"] == [[1, 600.0], [2, 1100.0], [4, 1800.0]]
    assert found["recommendation"] == dataclasses.asdict(recommend(measured(), 4, 1800))


def test_the_report_has_a_row_for_each_format():
    text = str(advice(measured(memory_bytes=200 * GB, storage=HARD_DISK)))
    rows = {line[:24].strip(): line.split() for line in text.splitlines()}
    assert rows[TILED][1:] == ["100.0", "GB", "2,000", "200", "2,000", "decoding", "1.60:", "0.02,", "0.90",
                               "(0.60),",
                               "0.30", "(0.10)"]
    assert rows[PLAIN][-7:] == ["decoding", "2.20:", "0.02,", "1.70", "(0.60),", "0.30", "(0.10)"]
    assert rows["uint8"][1:7] == ["500.0", "GB", "6,000", "320", "320", "storage"]


@pytest.mark.parametrize("found, gpu_rate, sentences", [
    (measured(), None, [
        "1,000,000 images, stored as jpeg", "--format uint8 --max-side 500, 400.0 GB: pixels are 4.0 times",
        "Give --gpu-rate", "LMDBLoader, a full shuffle: the file fits into memory",
        "num_workers=4 gives 8,000 images/s", "prefetch=2, 77 MB", "Then the limit is resizing"]),
    (measured(), 600, [
        "Format: as it is, 100.0 GB", "gives the 600 images/s", "num_workers=1 gives 667 images/s: the fewest",
        "Then the GPU is the limit"]),
    (measured(), 3000, ["--format uint8, 500.0 GB", "tiled JPEGs give 2,000"]),
    (measured(), 20_000, [
        f"--format {AT_256}", "no format gives the 20,000 images/s", "less detail", "60 % of what the GPU takes"]),
    (measured(stored=None), 600, ["in files", "dump-imagenet ... --format jpeg"]),
    (measured(stored="uint8"), None, ["JPEGs that were measured were made of them"]),
    (measured(memory_bytes=1, storage=HARD_DISK), None, [
        "LMDBIterLoader: the file does not fit", "20 MB/s in random order and 160", "Then the limit is storage",
        'cache="drop"']),
    (measured(memory_bytes=1, storage=HARD_DISK, permuted=False), None, ['LMDBIterLoader with order="block"']),
    (measured(memory_bytes=1), None, ["the disk is fast enough in random order"]),
    (measured(storage=SERVER, shards=13), None, [
        'LMDBIterLoader with order="shard". The server gives 20 MB/s in random order, by a request for each record',
        "and 160 in order; cache_dir=FOLDER on a disk of this machine that has", "Then the limit is storage",
        "can hold files of a disk here", "from URL"]),
    (measured(storage=SERVER, permuted=False), None, ['LMDBIterLoader with order="block"']),
    (measured(storage=SERVER), None, ["LMDBIterLoader. The server"]),
    (measured(storage=SERVER, memory_bytes=8 * GB, shards=13), None, [
        'LMDBIterLoader with order="shard" and shuffle_buffer=10000, as much as memory has room for. The server']),
    (measured(storage=SERVER, memory_bytes=8 * GB), None, ["LMDBIterLoader with shuffle_buffer=10000, as much as"]),
    (measured(storage=SERVER), 100, ["LMDBLoader, a full shuffle, of 1,000,000 requests an epoch"]),
    (measured(memory_bytes=1, storage=UNKNOWN), None, ["the disk could not be measured"]),
    (measured(load=3.5), None, [
        "The machine was busy: before measuring, 3.5 processes", "time for 1,818 (jpeg --no-tiles), 2,500 (jpeg)"]),
])
def test_the_sentences_say_what_the_figures_say(found, gpu_rate, sentences):
    text = str(advice(found, gpu_rate=gpu_rate))
    for sentence in sentences:
        assert sentence in text


def test_what_shrinking_gives_up_is_said_where_something_is_shrunk():
    text = str(advice())
    rows = {line[:24].strip(): line.split()[-3:] for line in text.partition("Shrunk images")[2].splitlines()}
    assert "20 % of the crops of full-sized images" in text
    assert rows[JPEG_320] == ["40", "%", "36.0"] and rows[AT_256] == ["90", "%", "30.0"]
    assert TILED not in rows and "uint8" not in rows
    same = tuple(dataclasses.replace(one, psnr_db=None) for one in FORMATS)
    assert "Shrunk images" not in str(advice(measured(formats=same)))


@pytest.mark.parametrize("stored, gpu_rate, how", [
    ("uint8 --shorter-side 256", 3000, "Format: as it is"), (JPEG_320, 600, "Format: as it is"),
    (PLAIN, 600, "Format: dump-imagenet ... --format jpeg,"), ("uint8", 600, "Format: dump-imagenet")])
def test_a_file_of_shrunk_images_is_recommended_as_it_is(stored, gpu_rate, how):
    """No other file of this format could be made of it."""
    assert how in str(advice(measured(stored=stored), gpu_rate=gpu_rate))


def test_a_quiet_machine_is_not_called_busy_and_spare_threads_are_mentioned():
    assert "busy" not in str(advice())
    assert "loaders start no others" not in str(advice())
    assert "4 processors run no more than 4 of 8 threads" in str(advice(workers=8))
