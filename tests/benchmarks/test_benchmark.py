"""benchmark.py: every contestant delivers what it is asked for, whatever fails is reported, and nothing survives."""
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import cv2
import numpy as np
import pytest

import benchmark
from benchmarks import cold, recipes
from benchmarks.child import run_epoch
from benchmarks.contestants import CONTESTANTS, Contestant, Job
from benchmarks.copies import copy_of
from benchmarks.inputs import subset
from benchmarks.measure import POINTERS, choose
from benchmarks.processes import PeakMemory, anonymous_bytes, available, cpu_seconds, tree
from benchmarks.report import failure, limit_ratio, plot, ratio, table
from benchmarks.runner import run_group
from dataflows.load.decode.crops import Crops
from dump_imagenet import dump_split
from helpers.contestants import (
    IMAGES,
    does_not_import,
    exits,
    fake,
    fake_job,
    good,
    grows,
    hangs,
    hangs_at_the_end,
    raises_at_start,
    raises_in_second_epoch,
    survivors,
    too_few,
    too_small,
)
from helpers.paths import ROOT
from helpers.waiting import eventually

pytestmark = pytest.mark.clusters

TIMEOUT_S = 20.0  # a slow machine needs some of it to start an interpreter
FIGURES = {"seconds", "images", "images_per_s", "first_batch_s", "main_thread_us_per_image", "cpu_ms_per_image",
           "peak_mb", "anonymous_mb"}
LINUX = pytest.mark.skipif(not available(), reason="figures of processes come from Linux's /proc")


# The runner.

def test_failures_are_reported_and_the_others_go_on(tmp_path):
    fakes = (good, too_few, too_small, raises_at_start, raises_in_second_epoch, exits, hangs)
    lines = []
    results = run_group([fake(function) for function in fakes], fake_job(tmp_path), 2, TIMEOUT_S, lines.append)

    assert [result["contestant"] for result in results] == [function.__name__ for function in fakes]
    errors = {result["contestant"]: result["error"] for result in results}
    assert errors["good"] is None
    assert "9 images, and 10 are expected" in errors["too_few"]
    assert "223" in errors["too_small"] and "expected is uint8 (B, 3, 224, 224)" in errors["too_small"]
    assert errors["raises_at_start"].endswith("RuntimeError: no such disk")
    assert errors["raises_in_second_epoch"].endswith("ZeroDivisionError: division by zero")
    assert "exit code 3" in errors["exits"] and "last words" in errors["exits"]
    assert failure(results[5]) == "failed: its process ended with exit code 3. The end of its output: last words"
    assert f"no answer within {TIMEOUT_S:g} s" in errors["hangs"]
    assert len(os.listdir(tmp_path)) == 11  # one process each, and four workers
    assert eventually(lambda: not survivors(tmp_path))  # the kill is done, dying may take a moment

    counted = {result["contestant"]: len(result["epochs"]) for result in results}
    assert counted["good"] == 3 and counted["raises_in_second_epoch"] == 1 and counted["hangs"] == 0
    assert all(set(epoch) == FIGURES and epoch["images"] == IMAGES for epoch in results[0]["epochs"])
    assert set(results[0]["median"]) == FIGURES and results[-1]["median"] is None
    # In turns, forth and back.
    assert [line.split()[-1] for line in lines if line.startswith("epoch 0")][0] == "good"
    assert [line.split()[-1] for line in lines if line.startswith("epoch 1")][-1] == "good"


def rival(function):
    """A contestant of a library that is installed."""
    return dataclasses.replace(fake(function), needs=("json",))


def test_rivals_that_do_not_start_are_skipped_and_others_are_not(tmp_path):
    fakes = [rival(does_not_import), rival(raises_at_start), rival(good), rival(raises_in_second_epoch),
             fake(raises_at_start)]
    results = run_group(fakes, fake_job(tmp_path), 1, TIMEOUT_S, lambda line: None)
    assert [(result["skipped"], result["error"] is None) for result in results] == [
        (True, False), (True, False), (False, True), (False, False), (False, False)]
    assert [failure(result) for result in results if result["error"]] == [
        "skipped: ImportError: no_such_library is not what it needs:", "skipped: RuntimeError: no such disk",
        "failed: ZeroDivisionError: division by zero", "failed: RuntimeError: no such disk"]
    assert eventually(lambda: not survivors(tmp_path))


@pytest.mark.parametrize("function, code", [(does_not_import, 0), (too_few, 1)])
def test_what_is_skipped_is_told_and_no_failure(function, code, photos, tmp_path, capfd, monkeypatch):
    monkeypatch.setitem(CONTESTANTS, function.__name__, rival(function))
    found, run, image = run_main(photos, tmp_path, "--splits", "val", "--formats", "jpeg", "--epochs", "1", "--what",
                                 function.__name__, "pool")
    out, err = capfd.readouterr()
    assert found == code and "Traceback" not in out + err
    [line] = [line for line in out.splitlines() if line.startswith(function.__name__)]
    assert line.split(maxsplit=1)[1].startswith("failed: ValueError: a batch is (" if code else
                                                "skipped: ImportError: no_such_library is not")
    [group] = run["groups"]
    assert [result["skipped"] for result in group["results"]] == [not code, False]
    assert "a hint of several lines" in group["results"][0]["error"] or code
    assert image.exists()


def test_a_contestant_that_does_not_close_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.runner._CLOSING_S", 0.5)
    [result] = run_group([fake(hangs_at_the_end)], fake_job(tmp_path), 1, TIMEOUT_S, lambda line: None)
    assert result["error"] is None and len(result["epochs"]) == 2
    assert eventually(lambda: not survivors(tmp_path))  # the kill is done, dying may take a moment


@LINUX
def test_memory_that_grows_from_epoch_to_epoch_is_shown(tmp_path):
    results = run_group([fake(good), fake(grows)], fake_job(tmp_path), 3, TIMEOUT_S, lambda line: None)
    flat, growing = (result["growth_mb"] for result in results)
    assert abs(flat) < 5 and 38 < growing < 50  # between the ends of the first and of the third counted epoch
    [once] = run_group([fake(grows)], fake_job(tmp_path), 1, TIMEOUT_S, lambda line: None)
    assert once["growth_mb"] is None and once["median"]["anonymous_mb"] > 40


def test_temporary_files_of_contestants_go_with_them(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    (tmp_path / "pids").mkdir()
    run_group([fake(grows), fake(exits)], fake_job(tmp_path / "pids"), 1, TIMEOUT_S, lambda line: None)
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_its_parent(tmp_path, number):
    """No process and no folder, while one contestant hangs in its epoch and the other is stopped, each with a worker.
    """
    script = ("import sys; sys.path[:0] = sys.argv[2:]\n"
              "from benchmarks.runner import run_group\n"
              "from helpers.contestants import fake, fake_job, good, hangs\n"
              "if __name__ == '__main__':\n"
              "    run_group([fake(good), fake(hangs)], fake_job(sys.argv[1]), 1, 600.0, print)\n")
    path = tmp_path / "parent.py"
    path.write_text(script)
    folder, temporary = tmp_path / "pids", tmp_path / "temporary"
    folder.mkdir()
    temporary.mkdir()
    with subprocess.Popen([sys.executable, "-u", str(path), str(folder), str(ROOT), str(ROOT / "tests")],
                          env=os.environ | {"TMPDIR": str(temporary)}, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True) as parent:
        try:
            for line in parent.stdout:
                if line == "epoch 0 of 1: hangs\n":
                    break
            time.sleep(0.2)  # into the epoch
            assert len(survivors(folder)) == 4 and len(os.listdir(temporary)) == 2
            parent.send_signal(number)
            parent.wait(30)
            assert eventually(lambda: not survivors(folder) and not os.listdir(temporary))
        finally:
            parent.kill()


@LINUX
def test_costs_of_a_tree_of_processes_are_counted():
    code = ("import time; from multiprocessing import Process; import os\n"
            "data = bytearray(os.urandom(1 << 20)) * 64\n"
            "pid = os.fork()\n"  # shares the 64 MB
            "end = time.process_time() + 0.3\n"
            "while time.process_time() < end: pass\n"
            "os.write(1, b'ready\\n')\n"
            "time.sleep(60)")
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as root:
        try:
            assert [root.stdout.readline(), root.stdout.readline()] == ["ready\n"] * 2
            assert len(tree(root.pid)) == 2
            assert 0.55 < cpu_seconds(root.pid) < 10
            memory = PeakMemory(root.pid)
            memory.sample()
            assert 64 < memory.bytes / 2**20 < 110  # once, though two processes have it
            assert anonymous_bytes(root.pid) / 2**20 > 128  # once for each
        finally:
            for pid in tree(root.pid)[::-1]:
                os.kill(pid, signal.SIGKILL)


# The contestants.

def run_main(photos, tmp_path, *options):
    out = tmp_path / "figures"
    code = benchmark.main(["--source", str(photos), "--lmdb", str(tmp_path / "lmdb"), "--batch-size", "4",
                           "--timeout", "200", "--out", str(out), *options])
    return code, json.loads(out.with_suffix(".json").read_text()), out.with_suffix(".png")


# Those that differ from `loader` only in its options: as each process imports torch, these run in the test's, below.
SAME = [name for name, one in CONTESTANTS.items()
        if one.function == CONTESTANTS["loader"].function and one.options and not one.recipe]


@pytest.mark.time_limit(400)  # each contestant imports its libraries in a process of its own
def test_every_contestant_trains(photos, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr("benchmarks.measure.IMAGENET", 10_000)
    what = [name for name in (*CONTESTANTS, POINTERS) if name not in SAME]
    code, run, image = run_main(photos, tmp_path, "--splits", "train", "--formats", "jpeg", "--epochs", "1", "--what",
                                *what)
    printed = capfd.readouterr().out
    assert [result["error"] for group in run["groups"] for result in group["results"]
            if result["error"]] == [] and code == 0

    [group] = run["groups"]
    assert (group["split"], group["format"], group["images"]) == ("train", "jpeg", 23)
    measured = {result["contestant"] for result in group["results"]}
    assert measured >= {"folder-pil", "tensorpack", "pool", "dataset", "loader", "iterloader"}
    assert measured == {name for name, contestant in CONTESTANTS.items()
                        if contestant.takes_part("train", "jpeg")} - set(run["skipped"]) - set(SAME)
    for result in group["results"]:
        assert [epoch["images"] for epoch in result["epochs"]] == [23, 23]
        assert set(result["median"]) == FIGURES and result["open_s"] > 0
    assert run["arguments"]["batch_size"] == 4 and run["cpu_count"] >= 1 and run["versions"]["torch"]
    assert set(run["pointers_us_per_image"]) == {"loader", "iterloader"}
    assert image.read_bytes().startswith(b"\x89PNG")

    [limit] = group["limit"]
    assert limit["error"] is None and limit["median"]["images"] == 23
    assert "CPU limit: " in printed and "ms/image for the crops alone" in printed and "x limit" in printed
    assert "x folder-pil" in printed and "x tensorpack" in printed and "µs per image" in printed
    assert "tensorflow" not in printed.lower() and "prctl" not in printed
    for name in run["skipped"]:
        assert printed.count(f"{name} is skipped: not installed: ") == 1


def test_uint8_validation_of_a_subset(photos, tmp_path):
    what = ("tensorpack", "memmap", "loader")
    code, run, _ = run_main(photos, tmp_path, "--splits", "val", "--formats", "uint8", "--epochs", "1", "--images", "7",
                            "--what", *what)
    [group] = run["groups"]
    assert code == 0 and group["images"] == 7
    assert [result["contestant"] for result in group["results"]] == list(what)
    assert {path.name for path in (tmp_path / "lmdb" / "images-7" / "uint8").iterdir()} == {
        "val.lmdb", "val.lmdb.index.npz"}
    assert 0 < group["limit"][0]["median"]["limit_ms"]


def test_what_misses_several_modules_names_them(monkeypatch):
    rival = Contestant("rival", "no_such:rival", "for a test", needs=("no_such", "json", "no_such.child"))
    monkeypatch.setitem(CONTESTANTS, "rival", rival)
    chosen, skipped = choose(["loader", "rival", POINTERS])
    assert [contestant.name for contestant in chosen] == ["loader"]
    assert skipped == {"rival": "not installed: no_such, no_such.child"}


def test_subset_is_spread_over_the_classes(photos, tmp_path):
    subset(photos, "train", 6, tmp_path)
    chosen = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("train/*/*"))
    assert len(chosen) == 6 and len({name.split("/")[1] for name in chosen}) == 3
    assert all((tmp_path / name).read_bytes() == (photos / name).read_bytes() for name in chosen)


def test_lmdb_of_other_files_is_refused(photos, jpeg_lmdb, tmp_path, capsys):
    (tmp_path / "jpeg").symlink_to(jpeg_lmdb)
    subset(photos, "train", 6, tmp_path / "fewer")
    code = benchmark.main(["--source", str(tmp_path / "fewer"), "--lmdb", str(tmp_path), "--what", "loader",
                           "--formats", "jpeg", "--splits", "train", "--out", str(tmp_path / "out")])
    assert code == 2 and "23 images" in capsys.readouterr().err


def test_a_copy_is_made_once_and_only_whole(tmp_path):
    job, calls = fake_job(tmp_path), []

    def write(folder, fail=False):
        calls.append(os.listdir(folder))
        (pathlib.Path(folder) / "part").touch()
        if fail:
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        copy_of(job, "rival", lambda folder: write(folder, fail=True))
    assert not (tmp_path / "rival" / "train").exists()
    folder = copy_of(job, "rival", write)
    assert folder == copy_of(job, "rival", write) and os.listdir(folder) == ["part"]
    assert os.listdir(tmp_path / "rival") == ["train"]
    assert calls == [[], []]  # what the first attempt left was removed


def epochs_of(contestant, job, numbers):
    """The batches, or the figures, of each of these epochs, in this process."""
    threads = cv2.getNumThreads()
    with contestant.open(job) as epoch:
        found = [epoch(number) if contestant.own_figures else list(epoch(number)) for number in numbers]
    cv2.setNumThreads(threads)
    return found


@pytest.mark.parametrize("name, split, dump", [
    *((name, "train", "tiled_lmdb") for name in SAME),
    *((name, "val", "uint8_lmdb") for name in ("dataset", "loader-linear", "iterloader"))])
def test_other_contestants_deliver_every_epoch_as_asked(name, split, dump, photos, tmp_path, request):
    folder = request.getfixturevalue(dump)
    job = Job(str(photos), split, str(folder / f"{split}.lmdb"), str(tmp_path), {"train": 23, "val": 10}[split], 4, 2)
    threads = cv2.getNumThreads()
    with CONTESTANTS[name].open(job) as epoch:
        assert [run_epoch(epoch, number, job, "uint8")["images"] for number in (0, 1)] == [job.images] * 2
    cv2.setNumThreads(threads)


@pytest.mark.parametrize("name", ["pool", "memmap"])
def test_thread_pool_yields_every_sample_of_an_epoch_once(name, photos, uint8_lmdb, tmp_path):
    from benchmarks.decoder import decode_fast
    from benchmarks.opencv import center_crop, decode
    from dataflows.sources.imagenet import ImageNetFiles

    for split, count in (("train", 23), ("val", 10)):
        job = Job(str(photos), split, str(uint8_lmdb / f"{split}.lmdb"), str(tmp_path), count, 4, 2)
        first, second = epochs_of(CONTESTANTS[name], job, (0, 1))
        files = ImageNetFiles(photos, split)
        for found in (first, second):
            assert [len(labels) for _, labels in found] == [4] * (count // 4) + [count % 4]
            assert sorted(int(label) for _, labels in found for label in labels) == sorted(label for _, label in files)
        if split == "val":
            whole = {"pool": decode_fast, "memmap": decode}[name]  # the dump decodes exactly
            expected = [center_crop(whole(files.read(file))) for file, _ in files]
            shown = [image.permute(1, 2, 0).numpy() for images, _ in first for image in images]
            assert np.array_equal(shown, expected)
        else:
            assert any(not np.array_equal(a[1], b[1]) for a, b in zip(first, second))


RECIPES = [name for name, contestant in CONTESTANTS.items() if contestant.recipe]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_does_what_torchvisions_reference_training_does(name, photos, tiled_lmdb, tmp_path):
    pytest.importorskip("torchvision", reason="the recipes are torchvision's")
    job = Job(str(photos), "train", str(tiled_lmdb / "train.lmdb"), str(tmp_path), 23, 8, 2)
    epochs = epochs_of(CONTESTANTS[name], job, range(6))
    labels = [sorted(int(label) for _, labels in epoch for label in labels) for epoch in epochs]
    assert labels == [[0] * 9 + [1] * 8 + [2] * 6] * 6
    images = np.concatenate([batch.numpy() for epoch in epochs for batch, _ in epoch])
    mean, std = (np.array(values, np.float32).reshape(3, 1, 1) for values in (recipes.MEAN, recipes.STD))
    assert images.shape == (6 * 23, 3, 224, 224) and images.dtype == np.float32
    erased = (images == 0).all(1).mean((1, 2)) > 0.01  # no pixel is the mean by itself
    levels = (images * std + mean)[~erased] * 255
    assert np.abs(levels - levels.round()).max() < 0.01 and (levels.round().min(), levels.round().max()) == (0, 255)
    black = (levels.round() == 0).all(1).mean((1, 2)) > 0.01  # what TrivialAugmentWide turned or moved in
    if CONTESTANTS[name].recipe == "erasing":
        assert 0.1 < erased.mean() < 0.4 and black.mean() < 0.05
    else:
        assert not erased.any() and 0.1 < black.mean() < 0.6


def test_rivals_decode_every_image_within_a_few_levels(photos):
    from benchmarks.decoder import decode_fast
    from benchmarks.opencv import decode
    from dataflows.sources.imagenet import ImageNetFiles

    files = ImageNetFiles(photos, "val")
    for name, _ in files:
        fast, exact = decode_fast(files.read(name)), decode(files.read(name))
        assert fast.shape == exact.shape and np.abs(fast.astype(int) - exact).mean() < 4
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    png = cv2.imencode(".png", pixels[:, :, ::-1])[1].tobytes()
    assert np.array_equal(decode_fast(png), pixels)


@pytest.mark.parametrize("split, least, most", [("train", 0.25, 0.65), ("val", 0.45, 0.75)])
def test_limit_is_measured_for_each_way_of_making_crops(split, least, most, photos, tiled_lmdb, monkeypatch):
    from benchmarks import limit
    seen = []
    real = Crops.many
    monkeypatch.setattr(Crops, "many", lambda crops, *args: seen.append(
        (crops._antialias, crops._fast, made := real(crops, *args))) or made)
    job = Job(str(photos), split, str(tiled_lmdb / f"{split}.lmdb"), "", 0, 4, 2)
    with limit.limit(job) as epoch:
        found, again = epoch(0), epoch(1)
    assert least < found["share"] < most
    assert (found["share"] == again["share"]) == (split == "val")  # a train epoch has crops of its own
    assert all(found[name] > 0 for name in [*limit._WAYS, "libraries_ms"])
    assert found["images"] == (23 if split == "train" else 10)
    assert {each[:2] for each in seen} == {(True, False), (True, True), (False, False), (False, True)}
    assert all(all(made.done) for _, _, made in seen)


def test_baseline_crops_as_the_loaders_do(photos, jpeg_lmdb):
    """The PIL baseline's evaluation is the same task: pixels within two levels."""
    from benchmarks.contestants.torch_folder import PilFolder
    from dataflows import CenterCrop
    from uint_lmdb_loader import LMDBDataset

    job = Job(str(photos), "val", str(jpeg_lmdb / "val.lmdb"), "", 10, 4, 0)
    ours, theirs = LMDBDataset(job.lmdb, transform=CenterCrop(224)), PilFolder(job)
    for (image, label), (expected, expected_label) in zip(ours, theirs, strict=True):
        assert label == expected_label
        assert (image.int() - expected.int()).abs().max() <= 2
    ours.close()


def test_random_boxes_lie_within_the_image():
    from benchmarks.opencv import center_crop, random_box, random_crop

    for height, width in ((1, 1), (500, 375), (3, 900), (900, 3)):
        for _ in range(50):
            top, left, h, w = random_box(height, width)
            assert 0 <= top <= top + h <= height and 0 <= left <= left + w <= width and h > 0 and w > 0
        pixels = np.zeros((height, width, 3), np.uint8)
        assert center_crop(pixels).shape == random_crop(pixels).shape == (224, 224, 3)


# The report.

def result(name, rates, error=None):
    epochs = [{"images_per_s": rate, "cpu_ms_per_image": None, "peak_mb": None, "first_batch_s": 0.5} for rate in rates]
    return {"contestant": name, "error": error, "open_s": 1.0, "epochs": epochs, "growth_mb": None,
            "median": None if error else epochs[1]}


@pytest.fixture
def group():
    results = [result("folder-pil", [1, 100, 200, 400]), result("loader", [1, 200, 600, 800]),
               result("dataset", [1], error="Traceback\nOSError: gone")]
    return {"split": "train", "format": "jpeg", "images": 10, "lmdb_bytes": 1e6, "results": results, "limit": []}


def test_ratios_are_medians_within_rounds(group):
    baseline, ours, failed = group["results"]
    assert ratio(ours, baseline) == 2.0  # of 2, 3 and 2; the warm-up does not count
    assert ratio(failed, baseline) is None and ratio(ours, failed) is None and ratio(ours, None) is None


def test_ratios_are_of_the_same_work():
    folder, ours, erasing = (result(name, [1, 100 * times, 200 * times]) for name, times in
                             (("torchvision-trivial", 1), ("loader-trivial", 4), ("loader-erasing", 8)))
    assert ratio(ours, folder) == 4.0
    assert ratio(erasing, folder) is ratio(result("loader", [1, 2, 3]), folder) is ratio(ours, erasing) is None


def test_table_and_plot_show_what_failed_and_what_is_unknown(group, tmp_path):
    lines = table(group).splitlines()
    assert lines[0].startswith("train, jpeg: 10 images")
    assert lines[2].split() == ["folder-pil", "100", "100-400", "1.00", "n/a", "n/a", "n/a", "n/a", "0.500", "1.50"]
    assert lines[4].split(maxsplit=1) == ["dataset", "failed: OSError: gone"]
    plot([group], str(tmp_path / "plot.png"))
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_processor_time_is_compared_with_the_limit_of_the_same_round(group):
    baseline, ours, failed = group["results"]
    for epoch, cpu in zip(ours["epochs"], (9, 6, 3, 8)):
        epoch["cpu_ms_per_image"] = cpu
    terms = {"share": 0.5, "libraries_ms": 1.5, "limit_linear_ms": 0.75, "limit_fast_ms": 0.9,
             "limit_linear_fast_ms": 0.65}
    limit = {"error": None, "epochs": [{"limit_ms": ms} for ms in (1, 1, 2, 2)], "median": terms | {"limit_ms": 1.0}}
    assert limit_ratio(ours, [limit]) == 4.0  # of 6, 1.5 and 4; the warm-up does not count
    assert limit_ratio(ours, []) is limit_ratio(baseline, [limit]) is limit_ratio(failed, [limit]) is None
    assert limit_ratio(ours, [limit | {"error": "gone"}]) is None
    lines = table(group | {"limit": [limit]}).splitlines()
    assert lines[3].split()[4:6] == ["6.00", "4.00"]
    assert lines[-1] == ("CPU limit: 1.00 ms/image for the crops alone; 0.75 with INTER_LINEAR; 0.90 and 0.65 with "
                         "fast decoding; 1.50 by OpenCV and torch, of 0.50 of each image")
    assert table(group | {"limit": [{"error": "Traceback\nOSError: gone"}]}).endswith("failed: OSError: gone")


# Cold storage.

@pytest.fixture
def own_files_only(tmp_path, monkeypatch):
    """Lets no test drop what others have in memory; skips where files stay in memory whatever is asked."""
    (tmp_path / "folder").mkdir()
    monkeypatch.setattr(cold, "_DROP", str(tmp_path / "folder"))  # which cannot be written, as for most users
    (tmp_path / "probe").write_bytes(b"x" * 2**20)
    try:
        cold.check_droppable(str(tmp_path / "probe"))
    except OSError as error:
        pytest.skip(str(error))


@LINUX
def test_readers_read_every_record_from_the_disk(own_files_only, photos, tmp_path, capfd):
    what = ("file", "lmdb-readahead", "iterloader")
    code, run, image = run_main(photos, tmp_path, "--cold", "--splits", "train", "--formats", "uint8", "--epochs", "1",
                                "--what", *what)
    printed = capfd.readouterr().out
    assert code == 0 and not image.exists() and run["arguments"]["cold"]
    [group] = run["groups"]
    assert [result["contestant"] for result in group["results"]] == list(what)
    for result in group["results"]:
        assert result["error"] is None and [epoch["images"] for epoch in result["epochs"]] == [23]
        assert result["median"]["mb_per_s"] > 0 and result["median"]["first_batch_s"] > 0
        assert result["median"]["read_per_needed"] > 0.9  # nothing was left of what the others read
    assert "x file" in printed and "x lmdb-readahead" in printed and "read/needed" in printed
    assert group["dropped"] in printed and "posix_fadvise" in printed


@pytest.mark.parametrize("name", [name for name in cold.READERS if "loader" not in name])
def test_every_reader_needs_the_bytes_of_each_record_once(name, photos, uint8_lmdb, tmp_path):
    from dataflows.storage.index import load_index

    path = str(uint8_lmdb / "train.lmdb")
    job = Job(str(photos), "train", path, str(tmp_path), 23, 4, 2)
    with cold.READERS[name].open(job) as epoch:
        figures = epoch(1)
    needed = {"file": os.path.getsize(path), "files": sum(file.stat().st_size for file in photos.glob("train/*/*"))}
    assert figures["images"] == 23
    assert figures["mb_per_s"] * figures["seconds"] * 1e6 == pytest.approx(
        needed.get(name, load_index(path, path).nbytes.sum()))


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="there is no file system in memory")
def test_what_cannot_be_cold_is_refused(own_files_only, photos, capsys):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        code = benchmark.main(["--source", str(photos), "--lmdb", folder, "--cold", "--splits", "val",
                               "--formats", "jpeg", "--out", os.path.join(folder, "out")])
    assert code == 2 and "the page cache cannot be dropped" in capsys.readouterr().err


def test_readers_that_fail_are_reported(photos, jpeg_lmdb, tmp_path):
    job = Job(str(photos), "train", str(tmp_path / "missing.lmdb"), "", 23, 4, 1)
    drops = []
    [gone, files] = cold.run_cold([cold.READERS["file"], cold.READERS["files"]], job, 2, TIMEOUT_S * 4,
                                  lambda line: None, lambda: drops.append(1))
    assert "FileNotFoundError" in gone["error"] and gone["median"] is None
    assert files["error"] is None and len(files["epochs"]) == 2
    group = {"split": "train", "format": "jpeg", "images": 23, "lmdb_bytes": 1e6, "dropped": "all",
             "results": [gone, files]}
    lines = cold.table(group).splitlines()
    assert lines[2].startswith("file ") and "failed: FileNotFoundError" in lines[2] and "n/a" in lines[3]


@pytest.mark.parametrize("options, name", [((), "ours-shuffled"), (("--cold",), "pool")])
def test_a_name_of_the_other_kind_is_refused(options, name, capsys):
    with pytest.raises(SystemExit) as ended:
        benchmark.main(["--source", "a", "--lmdb", "b", "--what", name, *options])
    assert ended.value.code == 2 and f"{name} is none of" in capsys.readouterr().err


@pytest.mark.parametrize("option, value, why", [
    ("--out", "no_such_folder/figures", "there is no folder no_such_folder to write into; make it first"),
    ("--out", "docs/", "must end in the beginning of the files' names, and 'docs/' does not"),
    ("--epochs", "0", "must be a whole number of at least 1, not 0"),
    ("--images", "all", "must be a whole number of at least 1, not all"),
    ("--timeout", "0", "must be a number of seconds above 0, not 0"),
    ("--timeout", "nan", "must be a number of seconds above 0, not nan"),
    ("--timeout", "1 min", "must be a number of seconds above 0, not 1 min")])
def test_a_value_that_cannot_be_used_is_refused_before_anything_is_measured(option, value, why, capsys):
    with pytest.raises(SystemExit) as ended:
        benchmark.main(["--source", "a", "--lmdb", "b", option, value])
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith(f"error: argument {option}: {why}\n")


def test_a_manifest_is_measured_by_what_can_read_it(photos, tmp_path, capfd):
    dump_split(photos, tmp_path / "lmdb" / "uint8", "val", format="uint8", max_side=500, shards=3, progress=False)
    code, run, _ = run_main(photos, tmp_path, "--splits", "val", "--formats", "uint8", "--epochs", "1", "--what",
                            "tensorpack", "loader")
    assert code == 0 and run["skipped"] == {"tensorpack": f"it reads one LMDB file, and {tmp_path}/lmdb/uint8/"
                                                          f"val.manifest.json has several"}
    [group] = run["groups"]
    assert len(group["results"]) == 1 and group["results"][0]["error"] is None and group["images"] == 10
    assert group["lmdb_bytes"] > 100_000
