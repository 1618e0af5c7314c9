"""examples/train.py: a run that is killed in mid-epoch and resumed ends with the weights that it would have had."""
import importlib.util
import os
import pathlib
import signal
import subprocess
import sys

import psutil
import pytest
import torch
from conftest import CLASSES, encode_jpeg, make_photo

import dataflows
from dump_imagenet import dump_split

ROOT = pathlib.Path(dataflows.__file__).parents[1]
SCRIPT = ROOT / "examples" / "train.py"
TIMEOUT_SECONDS = 100
PER_CLASS = {"train": 60, "val": 5}
# Epochs of 90 short steps, or 45 of two ranks: who is killed at step 4 is far from the end of the first one.
OPTIONS = ["--epochs", "2", "--batch-size", "2", "--lr", "0.05", "--size", "32", "--start-size", "16", "--width", "8",
           "--blocks", "1", "--workers", "2", "--device", "cpu", "--checkpoint-every", "4"]
ALONE = [sys.executable, str(SCRIPT)]
TWO_RANKS = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(SCRIPT)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of train.lmdb and val.lmdb with tiny images of three classes."""
    folder = tmp_path_factory.mktemp("train_example")
    for split, count in PER_CLASS.items():
        for number, name in enumerate(CLASSES):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = make_photo(40, 48, seed=number + 3 * i)
                (folder / split / name / f"{i}.JPEG").write_bytes(encode_jpeg(pixels))
        dump_split(folder, folder, split, format="uint8", progress=False)
    return folder


def environment():
    # One thread of torch's in each process, as torchrun has it: the sums of more threads are other sums.
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def start(command, *arguments):
    return subprocess.Popen([*command, *map(str, arguments)], env=environment(), text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT)


def finish(process, code=0):
    """What it printed; it must end with this code."""
    output, _ = process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode == code, output
    return output


def kill_at_first_checkpoint(process):
    """Kills a process of it that trains as soon as the first checkpoint is written."""
    for line in process.stdout:
        if "step 4: loss" in line:
            break
    everyone = [psutil.Process(process.pid), *psutil.Process(process.pid).children()]
    victim = next(p for p in reversed(everyone) if str(SCRIPT) in p.cmdline() and "--nproc-per-node" not in p.cmdline())
    victim.send_signal(signal.SIGKILL)
    finish(process, -signal.SIGKILL if victim.pid == process.pid else 1)


def checkpoint(path):
    return torch.load(path, weights_only=True)


def assert_equal(a, b):
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, (dict, list, tuple)):
        assert len(a) == len(b)
        for key in (a if isinstance(a, dict) else range(len(a))):
            assert_equal(a[key], b[key])
    else:
        assert a == b


@pytest.mark.parametrize("command", [ALONE, TWO_RANKS], ids=["one process", "two ranks"])
def test_a_killed_run_that_is_resumed_is_the_uninterrupted_one(command, data, tmp_path):
    whole, killed = tmp_path / "whole.pt", tmp_path / "killed.pt"
    with (start(command, data, *OPTIONS, "--checkpoint", whole) as uninterrupted,
          start(command, data, *OPTIONS, "--checkpoint", killed) as victim):
        kill_at_first_checkpoint(victim)
        expected = finish(uninterrupted)
    interrupted = checkpoint(killed)
    assert interrupted["loader"]["epoch"] == 0 and interrupted["loader"]["samples"] >= 8

    # It also judges the accuracy, and none is as high as this.
    with start(command, data, *OPTIONS, "--checkpoint", killed, "--resume", "--expect-accuracy", 1.1) as resumed:
        output = finish(resumed, code=1)
    assert f"resumed {killed} in epoch 0, step {interrupted['scheduler']['last_epoch']}" in output
    assert "epoch 1: 32 px" in output
    assert [line for line in expected.splitlines() if line.startswith("accuracy on val")][0] in output
    assert "is less than --expect-accuracy 110.0%" in output
    assert_equal(checkpoint(killed), checkpoint(whole))


@pytest.fixture(scope="module")
def main():
    spec = importlib.util.spec_from_file_location("train_example", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.mark.parametrize("missing", ["train", "val"])
def test_a_missing_file_is_named(main, missing, data, tmp_path, capsys):
    if missing == "val":
        for name in ("train.lmdb", "train.lmdb.index.npz"):
            (tmp_path / name).symlink_to(data / name)
    assert main([str(tmp_path), "--device", "cpu", "--batch-size", "2"]) == 1
    assert f"there is no LMDB file {tmp_path / missing}.lmdb. Write one with" in capsys.readouterr().err


def test_a_batch_larger_than_the_data_is_refused(main, data, capsys):
    assert main([str(data), "--device", "cpu", "--batch-size", "181"]) == 1
    assert "use a smaller batch_size" in capsys.readouterr().err


def test_resuming_needs_a_checkpoint(main, data, capsys):
    with pytest.raises(SystemExit) as ended:
        main([str(data), "--resume"])
    assert ended.value.code == 2
    assert "--resume needs --checkpoint" in capsys.readouterr().err
