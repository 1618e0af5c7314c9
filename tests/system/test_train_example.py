"""examples/train.py: a run that is killed in mid-epoch and resumed ends with the weights that it would have had."""
import importlib.util
import os
import re
import signal
import subprocess
import sys

import psutil
import pytest
import torch

from dump_imagenet import dump_split
from helpers.paths import ROOT
from helpers.photos import CLASSES, encode_jpeg, make_photo

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
        dump_split(folder, folder / "shards", split, format="uint8", shards=3, progress=False)
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
    """One run reads a file, and the other, which is killed, reads shards."""
    whole, killed = tmp_path / "whole.pt", tmp_path / "killed.pt"
    with (start(command, data, *OPTIONS, "--checkpoint", whole) as uninterrupted,
          start(command, data / "shards", *OPTIONS, "--checkpoint", killed) as victim):
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
    sys.modules["train_example"] = module
    spec.loader.exec_module(module)
    yield module.main
    del sys.modules["train_example"]


def refused(main, capsys, *arguments):
    """What it prints about arguments that it refuses."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert ended.value.code == 2
    return capsys.readouterr().err


def dumped(folder, split, classes):
    for name in classes:
        (folder / split / name).mkdir(parents=True)
        (folder / split / name / "0.JPEG").write_bytes(encode_jpeg(make_photo(40, 48, seed=1)))
    dump_split(folder, folder, split, format="uint8", progress=False)


@pytest.mark.parametrize("train, val, message", [
    ("abc", "ab", "train.lmdb has 3 classes and {}val.lmdb 2; number 2 is c in the one and missing in the other"),
    ("ac", "abc", "train.lmdb has 2 classes and {}val.lmdb 3; number 1 is c in the one and b in the other"),
    ("abc", "abd", "train.lmdb has 3 classes and {}val.lmdb 3; number 2 is c in the one and d in the other")])
def test_splits_of_other_classes_are_refused(main, train, val, message, tmp_path, capsys):
    dumped(tmp_path, "train", train)
    dumped(tmp_path, "val", val)
    assert main([str(tmp_path), "--device", "cpu", "--batch-size", "1"]) == 1
    assert f"{tmp_path}/{message.format(f'{tmp_path}/')}. Dump both splits" in capsys.readouterr().err


def test_where_an_index_is_missing_numbers_are_enough(main, tmp_path, capsys):
    dumped(tmp_path, "train", "abc")
    dumped(tmp_path, "val", "abc")
    (tmp_path / "val.lmdb.index.npz").unlink()
    assert main([str(tmp_path), "--device", "cpu", "--batch-size", "1", "--epochs", "1", "--width", "8", "--blocks",
                 "1", "--size", "64", "--workers", "1"]) == 0
    assert "accuracy on val: " in capsys.readouterr().out


def test_each_epoch_tells_its_loss_its_accuracy_and_its_speed(main, data, capsys, monkeypatch):
    losses = []
    module = sys.modules[main.__module__]
    original = module.functional.cross_entropy

    def cross_entropy(*arguments, **options):
        losses.append(original(*arguments, **options))
        return losses[-1]

    monkeypatch.setattr(module.functional, "cross_entropy", cross_entropy)
    assert main([str(data), *OPTIONS, "--batch-size", "60", "--checkpoint-every", "1000"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(losses) == 6 and len(lines) == 3
    for epoch, line in enumerate(lines[:2]):
        mean = sum(loss.item() for loss in losses[3 * epoch:3 * epoch + 3]) / 3
        assert re.fullmatch(rf"epoch {epoch}: (16|32) px, loss {mean:.3f}, [\d,]+ images/s, val accuracy [\d.]+%, "
                            rf"[\d.]+ s", line), line


@pytest.mark.parametrize("every", ["1", "1000"])
def test_a_training_that_diverges_ends_and_keeps_its_last_checkpoint(main, every, data, tmp_path, capsys):
    path = tmp_path / "run.pt"
    assert main([str(data), *OPTIONS, "--checkpoint", str(path), "--epochs", "3", "--checkpoint-every", every,
                 "--lr", "1e20"]) == 1
    error = capsys.readouterr().err
    assert re.search(r"the loss is (nan|inf) by step \d+: the training has diverged. Start anew, without --resume, "
                     r"with an --lr lower than 1e\+20", error)
    assert path.exists() == (every == "1")  # of the first step, whose loss was finite


@pytest.mark.parametrize("missing", ["train", "val"])
def test_a_missing_file_is_named(main, missing, data, tmp_path, capsys):
    if missing == "val":
        for name in ("train.lmdb", "train.lmdb.index.npz"):
            (tmp_path / name).symlink_to(data / name)
    error = refused(main, capsys, tmp_path)
    assert f"argument DATA: there is no {missing}.lmdb" in error
    assert (f"in {tmp_path}, and no manifest. Write each with dump-imagenet --source IMAGENET --target {tmp_path} "
            f"--split {missing}" in error)


@pytest.mark.parametrize("name", ["train.lmdb", "val.lmdb", "train.lmdb.index.npz"])
def test_a_file_in_place_of_its_folder_is_named(main, name, data, capsys):
    assert (f"argument DATA: give the folder of train.lmdb and val.lmdb, {data}, not {data / name}"
            in refused(main, capsys, data / name))


def test_a_batch_larger_than_the_data_is_refused(main, data, capsys):
    assert main([str(data), "--device", "cpu", "--batch-size", "181"]) == 1
    assert "use a smaller batch_size" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--epochs", "--batch-size", "--size", "--start-size", "--width", "--blocks",
                                    "--checkpoint-every"])
def test_nothing_is_done_no_times(main, option, data, capsys):
    assert f"argument {option}: must be a whole number of at least 1, not 0" in refused(main, capsys, data, option, "0")


def test_a_checkpoint_is_a_file(main, data, tmp_path, capsys):
    assert (f"argument --checkpoint: {tmp_path} is a folder; name a file in it, such as {tmp_path / 'run.pt'}"
            in refused(main, capsys, data, "--checkpoint", tmp_path))


@pytest.mark.parametrize("content", [b"", b"garbage", None, {"model": {}}, [1]])
def test_another_checkpoint_is_refused_and_kept(main, content, data, tmp_path, capsys):
    path = tmp_path / "run.pt"
    if content is None:  # of a narrower model
        assert main([str(data), *OPTIONS, "--batch-size", "60", "--width", "4", "--checkpoint", str(path)]) == 0
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    before = path.read_bytes()
    assert main([str(data), *OPTIONS, "--checkpoint", str(path), "--resume"]) == 1
    assert f"{path} is no checkpoint of this model. Give --width, --blocks and DATA" in capsys.readouterr().err
    assert path.read_bytes() == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_named(main, data, capsys):
    assert "argument --device: torch finds no CUDA device here" in refused(main, capsys, data, "--device", "cuda")


def test_resuming_needs_a_checkpoint(main, data, capsys):
    with pytest.raises(SystemExit) as ended:
        main([str(data), "--resume"])
    assert ended.value.code == 2
    assert "--resume needs --checkpoint" in capsys.readouterr().err
