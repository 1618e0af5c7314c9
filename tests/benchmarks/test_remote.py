"""benchmark.py --remote: data sets at URLs and the same files here, in turns."""
import json

import pytest

import benchmark
from benchmarks import range_server, remote

pytestmark = pytest.mark.clusters

pytest.importorskip("aiohttp")


@pytest.mark.time_limit(400)  # each contestant imports its libraries in a process of its own
def test_loaders_of_urls_run_beside_those_of_files(photos, tmp_path, capfd):
    out, what = tmp_path / "figures", ["local", "remote", "cached", "remote-iterloader"]
    code = benchmark.main(["--source", str(photos), "--lmdb", str(tmp_path / "lmdb"), "--remote", "--batch-size", "4",
                           "--timeout", "200", "--epochs", "1", "--splits", "train", "--formats", "jpeg", "--what",
                           *what, "--out", str(out)])
    run, printed = json.loads(out.with_suffix(".json").read_text()), capfd.readouterr().out
    [group] = run["groups"]
    assert [(result["contestant"], result["error"]) for result in group["results"]] == [(name, None) for name in what]
    assert code == 0 and all([epoch["images"] for epoch in result["epochs"]] == [23, 23]
                             for result in group["results"])
    lines = printed[printed.index("train, jpeg, remote: 23 images"):].splitlines()[1:]
    assert lines[0].split() == ["loader", "images/s", "x", "local", "first", "batch", "s", "opening", "s"]
    assert [line.split()[0] for line in lines[1:5]] == what and range_server.kind() in printed


@pytest.mark.parametrize("nginx", [False, True])
def test_the_server_gives_ranges(tmp_path, monkeypatch, nginx):
    import urllib.request

    if not nginx:
        monkeypatch.setattr(range_server.shutil, "which", lambda _: None)
    elif range_server.kind() != "nginx":
        pytest.skip("nginx is not installed")
    (tmp_path / "file").write_bytes(bytes(range(256)))
    with range_server.serving(str(tmp_path)) as url:
        for wanted, expected in (("bytes=3-9", bytes(range(3, 10))), ("bytes=250-999", bytes(range(250, 256)))):
            with urllib.request.urlopen(urllib.request.Request(f"{url}/file", headers={"Range": wanted})) as answer:
                assert (answer.status, answer.read()) == (206, expected)
        assert urllib.request.urlopen(f"{url}/file").read() == bytes(range(256))
    with pytest.raises(OSError):
        urllib.request.urlopen(f"{url}/file", timeout=5)


def test_what_failed_is_in_the_table():
    epochs = [{"images_per_s": 10.0, "first_batch_s": 0.1}] * 2
    good = {"error": None, "epochs": epochs, "median": epochs[0], "open_s": 1.0, "skipped": False}
    group = {"split": "train", "format": "jpeg", "images": 5, "lmdb_bytes": 10**6, "results": [
        {"contestant": "local", **good}, {"contestant": "remote", **good},
        {"contestant": "cached", "error": "Traceback\nOSError: gone", "epochs": [], "median": None, "skipped": False}]}
    lines = remote.table(group).splitlines()
    assert lines[3].split() == ["remote", "10", "1.00", "0.100", "1.00"]
    assert lines[4].split(maxsplit=1) == ["cached", "failed: OSError: gone"]
