"""Parts of a dump into shards: in any order, at once, twice, killed and again; the result is that of one process."""
import os
import shutil
import signal

import pytest

import dump_imagenet
from dataflows.dump import one_file
from dataflows.dump.shards import shard, workplace
from dataflows.dump.verify import verify
from dump_imagenet import merge_shards
from helpers.dumps import WORK, die, dump, end, start, state

pytestmark = pytest.mark.usefixtures("small_transactions")


def test_parts_in_any_order_and_again(photos, tmp_path, once):
    done = [dump(photos, tmp_path, shards=5, part=(i, 3)) for i in (2, 0, 0, 1, 2)]
    assert [one.shards for one in done] == [[2], [0, 3], [0, 3], [1, 4], [2]]
    assert [(one.count, one.resumed) for one in done] == [(4, 0), (9, 0), (9, 9), (10, 0), (4, 4)]
    assert "part 2/3 of " in str(done[0]) and "1 of 5 shards: 4 images of 3 classes" in str(done[0])
    assert not os.path.exists(done[0].manifest)
    summary = merge_shards(tmp_path, "train")
    assert state(tmp_path) == state(once) and not (tmp_path / WORK).exists()
    assert summary.path == done[0].manifest and summary.count == 23
    assert not verify(summary.path, progress=False).bad


def test_more_parts_than_shards(photos, tmp_path):
    assert dump(photos, tmp_path, shards=1, part="1/2").count == 0
    assert dump(photos, tmp_path, shards=1, part="0/2").count == 23
    assert merge_shards(tmp_path, "train").count == 23


def test_each_part_twice_at_once(photos, tmp_path, once):
    parts = [start(photos, tmp_path, shards=5, part=(i, 2)) for i in (0, 1, 0, 1)]
    assert end(*parts) == [0] * 4
    merge_shards(tmp_path, "train")
    assert state(tmp_path) == state(once) and not (tmp_path / WORK).exists()


def _before_the_index(target):
    replace = os.replace
    os.replace = lambda a, b: die() if b == f"{target}/train-00002-of-00005.lmdb.index.npz" else replace(a, b)


KILLS = {"before anything is written": lambda _: setattr(one_file, "packed_files", die),
         "when it is written": lambda _: setattr(one_file, "read_back", die),
         "when it is verified": lambda _: setattr(one_file.publish, "rename", die),
         "before the plan has its name": lambda _: setattr(os, "rename", die),
         "before the facts": lambda _: setattr(shard, "write_facts", die),
         "before the index has its name": _before_the_index}
RESUMED = {"when it is written": 4, "when it is verified": 4, "before the facts": 4,
           "before the index has its name": 9}


@pytest.mark.parametrize("when", KILLS)
def test_a_killed_part_goes_on(photos, tmp_path, once, when):
    killed = start(photos, tmp_path, lambda: KILLS[when](tmp_path), shards=5, part=(0, 1))
    assert end(killed) == [-signal.SIGKILL]
    assert dump(photos, tmp_path, shards=5, part=(0, 1)).resumed == RESUMED.get(when, 0)
    merge_shards(tmp_path, "train")
    assert state(tmp_path) == state(once) and not (tmp_path / WORK).exists()


class _Held(Exception):
    pass


def interrupted(photos, target, monkeypatch, **options):
    """A part that ends when its first shard is verified, as by Ctrl-C."""
    with monkeypatch.context() as patch:
        patch.setattr(shard, "write_facts", lambda *_: (_ for _ in ()).throw(_Held))
        with pytest.raises(_Held):
            dump(photos, target, **options)


def test_what_another_machine_has_left_is_left_alone(photos, tmp_path, once, monkeypatch):
    interrupted(photos, tmp_path, monkeypatch, shards=5, part="1/5")
    [left] = (tmp_path / WORK).glob("00001.*/")
    left.rename(left.with_name("00001.othermachine-1-2"))
    assert dump(photos, tmp_path, shards=5, part="1/5").resumed == 0
    assert (tmp_path / WORK / "00001.othermachine-1-2").exists()
    dump(photos, tmp_path, shards=5, part="0/1")
    merge_shards(tmp_path, "train")
    assert state(tmp_path) == state(once) and not (tmp_path / WORK).exists()


def test_an_attempt_that_still_runs_is_left_alone(photos, tmp_path, once, monkeypatch):
    interrupted(photos, tmp_path, monkeypatch, shards=5, part="1/5")
    [left] = (tmp_path / WORK).glob("00001.*/")
    with workplace.left_attempts(str(tmp_path / WORK), 1) as [held]:
        assert os.path.samefile(held, left)
        assert dump(photos, tmp_path, shards=5, part="1/5").resumed == 0
    assert left.exists()


def test_an_attempt_that_comes_after_the_merge_changes_nothing(photos, tmp_path, once, monkeypatch):
    """Of two attempts at one shard, one is held up until the data set is merged."""
    held = shard.write_facts

    def meanwhile(plan, number, columns, index):
        monkeypatch.setattr(shard, "write_facts", held)
        dump(photos, tmp_path, shards=5, part=(0, 1))
        merge_shards(tmp_path, "train")
        held(plan, number, columns, index)

    dump(photos, tmp_path, shards=5, plan=True)
    monkeypatch.setattr(shard, "write_facts", meanwhile)
    with pytest.raises(ValueError, match="is gone: the data set was merged, .* Nothing is left to do for it"):
        dump(photos, tmp_path, shards=5, part="3/5")
    assert state(tmp_path) == state(once) and not (tmp_path / WORK).exists()


def test_names_of_attempts_are_their_own(tmp_path):
    assert len({workplace.own_name() for _ in range(100)}) == 100


def test_one_bar_over_all_shards(photos, tmp_path, capfd):
    dump_imagenet.dump_split(photos, tmp_path, "train", shards=5)
    shown = capfd.readouterr().err
    last = shown.replace("\r", "\n").strip().splitlines()[-1]
    assert "writing train: 100%" in last and "23/23" in last and "images/s" in last and "5/5 shards" in last
    assert "reading" not in shown.replace("reading class folders", "")


def test_the_bar_counts_what_was_there_and_what_is_left_out(photos, tmp_path, capfd):
    source = shutil.copytree(photos, tmp_path / "photos")
    (source / "train" / "n01443537" / "n01443537_3.JPEG").write_bytes(b"")
    dump(source, tmp_path / "many", shards=5, part="0/2", on_error="skip")
    dump_imagenet.dump_split(source, tmp_path / "many", "train", shards=5, part="0/1", on_error="skip")
    last = capfd.readouterr().err.replace("\r", "\n").strip().splitlines()[-1]
    assert "23/23" in last and "5/5 shards, 1 skipped" in last
