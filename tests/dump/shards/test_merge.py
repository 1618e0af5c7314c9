"""The merge: what is missing, what was left out, and merges that were killed; and the commands."""
import multiprocessing
import os
import shutil
import signal

import pytest

import dump_imagenet
from dataflows.dump.shards import workplace
from dataflows.errors import Refused
from dump_imagenet import merge_shards
from helpers.dumps import WORK, die, dump, end, state

pytestmark = pytest.mark.usefixtures("small_transactions")


def test_the_merge_names_all_that_is_missing(photos, tmp_path):
    with pytest.raises(Refused, match="holds no unfinished dump of train in shards"):
        merge_shards(tmp_path, "train")
    dump(photos, tmp_path, shards=8, part="3/8")
    with pytest.raises(Refused, match="of 8 shards 7 are missing, or not complete: 0 to 2, 4 to 7. Run the parts"):
        merge_shards(tmp_path, "train")
    dump(photos, tmp_path, shards=8, part="0/1")
    os.truncate(tmp_path / "train-00006-of-00008.lmdb", 4096)
    (tmp_path / WORK / "00001.facts").write_bytes(b"")
    with pytest.raises(Refused, match="of 8 shards 2 are missing, or not complete: 1, 6. Run"):
        merge_shards(tmp_path, "train")
    dump(photos, tmp_path, shards=8, part="0/1")
    assert merge_shards(tmp_path, "train").count == 23
    with pytest.raises(Refused, match="exists already: nothing is left to do"):
        merge_shards(tmp_path, "train")
    with pytest.raises(Refused, match="exists already: nothing is left to do"):
        dump(photos, tmp_path, shards=8, part="0/8")


def test_a_bad_image_stops_its_part_or_is_left_out(photos, tmp_path):
    source = shutil.copytree(photos, tmp_path / "photos")
    bad = source / "train" / "n01443537" / "n01443537_3.JPEG"
    content = bad.read_bytes()
    bad.write_bytes(content[:200])
    failed = []
    for i in range(5):
        try:
            dump(source, tmp_path / "many", shards=5, part=(i, 5))
        except ValueError as error:
            failed.append((i, str(error)))
    [(number, told)] = failed
    assert told.startswith(f"train-{number:05d}-of-00005.lmdb: {bad}: it is damaged: truncated")
    with pytest.raises(Refused, match=f"of 5 shards 1 is missing, or not complete: {number}. "):
        merge_shards(tmp_path / "many", "train")
    assert dump(source, tmp_path / "many", shards=5, part=(number, 5), on_error="skip").skipped[0]["name"] == \
        "n01443537/n01443537_3.JPEG"
    assert [entry["name"] for entry in merge_shards(tmp_path / "many", "train").skipped] == \
        ["n01443537/n01443537_3.JPEG"]
    dump(source, tmp_path / "once", shards=5, on_error="skip")
    assert state(tmp_path / "many") == state(tmp_path / "once")


def test_what_was_left_out_is_dumped_again_by_a_part_that_leaves_nothing_out(photos, tmp_path, once):
    source = shutil.copytree(photos, tmp_path / "photos")
    bad = source / "train" / "n01443537" / "n01443537_3.JPEG"
    content = bad.read_bytes()
    bad.write_bytes(b"")
    assert len(dump(source, tmp_path / "many", shards=5, part="0/1", on_error="skip").skipped) == 1
    with pytest.raises(ValueError, match="the file is empty"):
        dump(source, tmp_path / "many", shards=5, part="0/1")
    bad.write_bytes(content)
    dump(source, tmp_path / "many", shards=5, part="0/1")
    merge_shards(tmp_path / "many", "train")
    assert state(tmp_path / "many") == state(once)


def test_a_merge_that_was_killed_is_ended(photos, tmp_path, once):
    """After the manifest was written, and while the rest was removed."""
    dump(photos, tmp_path, shards=5, part="0/1")
    killed = multiprocessing.get_context("fork").Process(
        target=lambda: (setattr(workplace, "clear", die), merge_shards(tmp_path, "train")))
    killed.start()
    assert end(killed) == [-signal.SIGKILL] and (tmp_path / "train.manifest.json").exists()
    assert dump(photos, tmp_path, shards=5, part="0/2").resumed == 13
    merge_shards(tmp_path, "train")
    assert state(tmp_path) == state(once) and not (tmp_path / WORK).exists()
    (tmp_path / WORK / "00003.other-machine-1").mkdir(parents=True)
    with pytest.raises(Refused, match="exists already: nothing is left to do"):
        merge_shards(tmp_path, "train")
    assert state(tmp_path) == state(once) and not (tmp_path / WORK).exists()


def test_the_commands(photos, tmp_path, once, capsys):
    common = ["--target", os.fspath(tmp_path), "--split", "train"]
    part = [*common, "--source", os.fspath(photos), "--shards", "5", "--no-progress"]
    assert dump_imagenet.main([*part, "--part", "0/2"]) == 0
    assert "part 0/2 of " in capsys.readouterr().out
    assert dump_imagenet.main([*common, "--merge"]) == 2
    assert "of 5 shards 2 are missing, or not complete: 1, 3. Run the parts that dump them again: with --part I/N" in \
        capsys.readouterr().err
    assert dump_imagenet.main([*part, "--part", "1/2", "--seed", "2"]) == 2
    assert "write another plan: --plan with --overwrite" in capsys.readouterr().err
    assert dump_imagenet.main([*part, "--part", "1/2"]) == 0
    assert dump_imagenet.main([*common, "--merge"]) == 0
    assert "train.manifest.json: 23 images of 3 classes" in capsys.readouterr().out
    assert state(tmp_path) == state(once)
