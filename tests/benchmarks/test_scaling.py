"""benchmark.py --scaling: every format with every number of workers, in turns, as a table and a plot.

Each point is a process that imports torch, so a run of the whole has the series of one format, another one those of the
other format, and all points load in the test's own process.
"""
import json

import pytest

import benchmark
from benchmarks import scaling
from benchmarks.contestants import Job
from benchmarks.scaling import SERIES

pytestmark = pytest.mark.clusters


def run_main(photos, tmp_path, *options):
    out = tmp_path / "figures"
    code = benchmark.main(["--source", str(photos), "--lmdb", str(tmp_path / "lmdb"), "--scaling", "--batch-size", "4",
                           "--timeout", "60", "--epochs", "1", "--out", str(out), *options])
    return code, json.loads(out.with_suffix(".json").read_text()), out.with_suffix(".png")


@pytest.mark.time_limit(400)  # each point imports its libraries in a process of its own
def test_the_series_of_a_format_run_with_every_number_of_workers(photos, tmp_path, capfd):
    code, run, image = run_main(photos, tmp_path, "--splits", "train", "--num-workers", "2", "--formats",
                                "uint8")
    printed = capfd.readouterr()
    [group] = run["groups"]
    assert code == 0 and (group["split"], group["images"], group["workers"]) == ("train", 23, [1, 2])
    names = [f"{series}, {workers}" for series in ("folder", "uint8") for workers in ("1 worker", "2 workers")]
    assert [result["contestant"] for result in group["results"]] == names
    for result in group["results"]:
        assert result["error"] is None and [epoch["images"] for epoch in result["epochs"]] == [23, 23]
    assert group["series"] == ["folder", "uint8"] and not (tmp_path / "lmdb" / "jpeg").exists()
    # All of them in one run: each round has a turn of each.
    turns = [line.split(": ")[-1] for line in printed.err.splitlines() if "epoch 1 of 1: " in line]
    assert turns == names[::-1]
    assert image.read_bytes().startswith(b"\x89PNG")
    lines = printed.out.splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("images/s "))
    assert [line.split()[0] for line in lines[head + 1:head + 3]] == group["series"]
    assert all(float(cell.replace(",", "")) > 0 for line in lines[head + 1:head + 3] for cell in line.split()[1:])


def test_series_read_the_dumps_that_they_name(photos, tmp_path, capfd):
    code, run, _ = run_main(photos, tmp_path, "--splits", "val", "--num-workers", "1", "--images", "6", "--what",
                            "jpeg", "jpeg-no-tiles")
    assert code == 0 and run["groups"][0]["images"] == 6
    folder = tmp_path / "lmdb" / "images-6"
    assert {path.name for path in folder.iterdir()} == {"files", "jpeg", "jpeg-no-tiles"}
    for dump in ("jpeg", "jpeg-no-tiles"):
        assert (b"RSTINDEX" in (folder / dump / "val.lmdb").read_bytes()) == (dump == "jpeg")


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more processes than the machine has processors
@pytest.mark.parametrize("name", SERIES)
@pytest.mark.parametrize("workers", [1, 3])
def test_a_point_loads_with_its_number_of_workers(name, workers, photos, tiled_lmdb, jpeg_lmdb, uint8_lmdb, tmp_path):
    for dump, folder in (("jpeg", tiled_lmdb), ("jpeg-no-tiles", jpeg_lmdb), ("uint8", uint8_lmdb)):
        (tmp_path / dump).symlink_to(folder)
    job = Job(str(photos), "val", "", str(tmp_path), 10, 4, 99)
    [point] = scaling.points([SERIES[name]], [workers])
    assert point.options["num_workers"] == workers
    with point.open(job) as epoch:
        batches = epoch(0)
        assert getattr(batches, "_num_workers", workers) == workers  # torch's iterator tells how many processes it has
        assert [len(labels) for _, labels in batches] == [4, 4, 2]


def test_table_and_plot_show_medians_and_what_failed(tmp_path):
    def result(series, workers, rates, error=None):
        return {"contestant": scaling.point_name(series, workers), "error": error,
                "epochs": [{"images_per_s": rate} for rate in rates]}

    group = {"split": "train", "images": 10, "workers": [1, 2], "cpu_count": 2, "series": ["folder", "jpeg"],
             "results": [result("folder", 1, [1, 100, 300, 200]), result("folder", 2, [1], "Traceback\nOSError: gone"),
                         result("jpeg", 1, [9, 1000]), result("jpeg", 2, [9, 2000])]}
    assert scaling.table(group).splitlines() == [
        "train: 10 images, 2 processors",
        "images/s  1 worker  2 workers",
        "folder         200     failed",  # the warm-up does not count
        "jpeg         1,000      2,000",
        "folder, 2 workers failed: OSError: gone"]
    scaling.plot([group], str(tmp_path / "plot.png"))
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("options, said", [(("--scaling", "--what", "pool"), "pool is none of"),
                                           (("--scaling", "--cold"), "not allowed with argument")])
def test_what_does_not_go_together_is_refused(options, said, capsys):
    with pytest.raises(SystemExit) as ended:
        benchmark.main(["--source", "a", "--lmdb", "b", *options])
    assert ended.value.code == 2 and said in capsys.readouterr().err
