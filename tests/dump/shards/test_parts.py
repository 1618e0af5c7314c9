"""Parts of a dump into shards: in any order, at once, twice, killed and again; the result is that of one process."""
import json
import multiprocessing
import os
import shutil
import signal

import pytest

import dump_imagenet
from dataflows.dump import one_file, write
from dataflows.dump.shards import shard, workplace
from dataflows.dump.verify import verify
from dataflows.errors import Refused
from dataflows.storage.store import Store
from dump_imagenet import merge_shards
from helpers.dumps import WORK, die, dump, end, start, state
from helpers.imagenet_forms import TRAIN, class_tars, lines, tar_of
from helpers.imagenet_forms import write as write_files
from helpers.samples import SAMPLES


@pytest.fixture(autouse=True)
def _small_transactions(monkeypatch):
    monkeypatch.setattr(write, "_TRANSACTION_BYTES", 10_000)


@pytest.fixture(scope="module")
def once(photos, tmp_path_factory):
    """The folder of a dump into five shards by one process."""
    folder = tmp_path_factory.mktemp("once")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "_TRANSACTION_BYTES", 10_000)
        dump(photos, folder, shards=5)
    return folder


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


def test_a_part_with_other_options_or_versions_is_refused(photos, tmp_path):
    dump(photos, tmp_path, shards=5, plan=True)
    before = state(tmp_path / WORK / "plan")
    for options, told in (({"seed": 3}, "seed was 0 and is 3"), ({"shards": 4}, "shards was 5 and is 4"),
                          ({"format": "uint8", "quality": 80}, "format was 'jpeg' and is 'uint8'; quality was 90"),
                          ({"shards": None, "shard_bytes": "1GB"}, "shards was 5 and is None; shard_bytes was None"),
                          ({"source": photos / "train"}, "source was '.*photos0' and is '.*photos0/train'")):
        with pytest.raises(Refused, match=told):
            dump(options.pop("source", photos), tmp_path, **{"shards": 5, "part": "0/5"} | options)
    plan = tmp_path / WORK / "plan" / "plan.json"
    content = json.loads(plan.read_text())
    content["versions"]["simplejpeg"] = "1.2.3"
    plan.write_text(json.dumps(content))
    with pytest.raises(Refused, match=r"version of simplejpeg was '1\.2\.3' and is '.*Use the same .* versions"):
        dump(photos, tmp_path, shards=5, part="0/5")
    assert state(tmp_path) == {} and state(tmp_path / WORK / "plan").keys() == before.keys()


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


def test_a_plan_replaces_a_data_set_only_when_it_is_told_to(photos, tmp_path, once):
    dump(photos, tmp_path, shards=5, seed=1)
    before = state(tmp_path)
    for options, told in (({"plan": True}, "exists already: nothing is left to do"),
                          ({"part": "0/1"}, "exists already: nothing is left to do"),
                          ({"part": "0/1", "overwrite": True}, "overwrite=True cannot be a part's")):
        with pytest.raises(Refused, match=told):
            dump(photos, tmp_path, shards=5, **options)
    assert state(tmp_path) == before
    planned = dump(photos, tmp_path, shards=5, plan=True, overwrite=True)
    assert "plan of " in str(planned) and "no shard is written yet" in str(planned)
    assert (planned.count, planned.shards, planned.of) == (0, [], 5)
    dump(photos, tmp_path, shards=5, part="1/2")
    with pytest.raises(Refused, match="of 5 shards 3 are missing, or not complete: 0, 2, 4"):
        merge_shards(tmp_path, "train")  # the old ones do not count
    dump(photos, tmp_path, shards=5, part="0/2")
    merge_shards(tmp_path, "train")
    assert state(tmp_path) == state(once)


def test_a_plan_is_replaced_by_a_plan(photos, tmp_path, once):
    dump(photos, tmp_path, shards=5, part="0/5", seed=8)
    dump(photos, tmp_path, shards=5, plan=True, overwrite=True)
    dump(photos, tmp_path, shards=5, part="0/1")
    merge_shards(tmp_path, "train")
    assert state(tmp_path) == state(once)


def test_a_plan_that_cannot_be_read_is_replaced_when_it_is_told_to(photos, tmp_path, once):
    dump(photos, tmp_path, shards=5, plan=True)
    (tmp_path / WORK / "plan" / "plan.json").write_text("{}")
    for options in ({"part": "0/5"}, {"resume": True}, {"plan": True}):
        with pytest.raises(Refused, match="plan is no plan that this version reads .* Start anew with overwrite=True"):
            dump(photos, tmp_path, shards=5, **options)
    dump(photos, tmp_path, shards=5, overwrite=True)
    assert state(tmp_path) == state(once) and not (tmp_path / WORK).exists()


@pytest.mark.parametrize("options, told", [
    ({"part": "0/2"}, "part is for a dump into several files"), ({"plan": True}, "plan is for a dump into several"),
    ({"engine": "ray"}, "engine is for a dump into several files"), ({"engine": "dask"}, "engine must be 'ray', not"),
    ({"shards": 2, "shard_bytes": 9}, "shards=N and shard_bytes=B both say"),
    ({"shards": 2, "part": "2/2"}, "part must be I/N, .* not '2/2'"), ({"shards": 2, "part": (0, 0)}, "part must be"),
    ({"shards": 2, "part": "a"}, "part must be I/N"), ({"shards": 2, "part": 3}, "part must be I/N"),
    ({"shards": 2, "part": "0/2", "plan": True}, "plan does something else"),
    ({"shards": 2, "part": "0/2", "engine": "ray"}, "engine does something else"),
    ({"shard_bytes": "1 potato"}, "shard_bytes must be a number of bytes, such as .* not '1 potato'"),
    ({"shard_bytes": 0}, "shard_bytes must be an integer of at least 1"), ({"shard_bytes": "iB"}, "a number of bytes")])
def test_options_are_checked(photos, tmp_path, options, told):
    with pytest.raises(Refused, match=told):
        dump(photos, tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


def test_the_number_of_shards_follows_from_their_size(photos, tmp_path):
    """Of stored bytes: 23 photos take some 10 KB each as JPEGs, and five times as much as pixels."""
    assert dump(photos, tmp_path / "jpeg", shard_bytes="1GB").count == 23
    assert (tmp_path / "jpeg" / "train-00000-of-00001.lmdb").exists()
    few, many = (dump(photos, tmp_path / f"{image_format} plan", shard_bytes=200_000, format=image_format, plan=True).of
                 for image_format in ("jpeg", "uint8"))
    assert 1 <= few < many
    size = dump(photos, tmp_path / "one", format="uint8").stored_bytes
    assert many - 1 <= size / 200_000 <= many + 1


def _forms(folder):
    """{name: (source, options)} of sources in other forms than folders of classes."""
    write_files(folder / "tar", {"ILSVRC2012_img_train.tar": class_tars(TRAIN)})
    write_files(folder / "shards", {f"train-{i}.tar": tar_of({
        f"{i}{number}.{kind}": content for number, photo in enumerate([*TRAIN.values()][4 * i:4 * i + 4])
        for kind, content in (("jpg", photo), ("cls", b"%d" % number))}) for i in range(2)})
    for name, header, label in (("numbers", "file,label", "{}"), ("vectors", "file,red,round", "0.{},1")):
        write_files(folder / name, TRAIN)
        rows = [header, *(f"{file},{label.format(i % 3)}" for i, file in enumerate(TRAIN))]
        (folder / f"{name}.csv").write_bytes(lines(rows))
    return {"tar": (folder / "tar", {}), "shards": (folder / "shards", {}),
            **{name: (folder / name, {"labels": folder / f"{name}.csv"}) for name in ("numbers", "vectors")},
            "samples": (SAMPLES, {"classes": ["a", "b", "c"]})}


@pytest.mark.parametrize("form", ["tar", "shards", "numbers", "vectors", "samples"])
def test_parts_of_other_sources(tmp_path, form):
    source, options = _forms(tmp_path)[form]
    one = dump(source, tmp_path / "one", **options)
    for i in (1, 0):
        dump(source, tmp_path / "many", shards=3, part=(i, 2), **options)
    merged = merge_shards(tmp_path / "many", "train")
    same = ("count", "num_classes", "vectors", "source_bytes", "pixel_bytes", "untiled", "findings", "examples",
            "class_counts", "layout")
    assert {name: getattr(one, name) for name in same} == {name: getattr(merged, name) for name in same}
    single, sharded = Store(one.path), Store(merged.path)
    assert [value.tobytes() for value in single.values(range(one.count))] == [
        value.tobytes() for value in sharded.values(range(one.count))]
    assert single.index.classes == sharded.index.classes


def test_samples_that_have_changed_are_refused(tmp_path):
    dump(SAMPLES, tmp_path, shards=3, part="0/3", classes=["a", "b", "c"])
    with pytest.raises(Refused, match="the source had 40 samples and has 39"):
        dump(SAMPLES[:-1], tmp_path, shards=3, part="1/3", classes=["a", "b", "c"])


def test_what_cannot_be_looked_into_is_left_out_by_the_plan(photos, tmp_path):
    source = shutil.copytree(photos, tmp_path / "photos")
    (source / "train" / "n01443537" / "more").symlink_to(tmp_path / "nowhere")
    with pytest.raises(Refused, match="1 folders or links may hold more images"):
        dump(source, tmp_path / "many", shards=2, part="0/2")
    dump(source, tmp_path / "many", shards=2, part="0/2", on_error="skip")
    with pytest.raises(Refused, match="1 folder or link that cannot be looked into, such as n01443537/more, were left "
                                      "out, which on_error='fix' does not do"):
        dump(source, tmp_path / "many", shards=2, part="1/2")
    dump(source, tmp_path / "many", shards=2, part="1/2", on_error="skip")
    [skipped] = merge_shards(tmp_path / "many", "train").skipped
    assert skipped["name"] == "n01443537/more"
    dump(source, tmp_path / "once", shards=2, on_error="skip")
    assert state(tmp_path / "many") == state(tmp_path / "once")


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


def test_the_source_is_listed_once(photos, tmp_path, once):
    """A file that comes later is in no shard."""
    source = shutil.copytree(photos, tmp_path / "photos")
    dump(source, tmp_path / "many", shards=5, part="4/5")
    shutil.copy(source / "train" / "n01443537" / "n01443537_3.JPEG", source / "train" / "n01440764" / "new.JPEG")
    dump(source, tmp_path / "many", shards=5, part="0/1")
    merge_shards(tmp_path / "many", "train")
    assert state(tmp_path / "many") == state(once)


def test_a_full_disk_is_refused_before_the_first_shard(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6 - 90_000, 90_000))
    with pytest.raises(Refused, match="needs about 0.00 GB and .* has 0.00 GB free"):
        dump(photos, tmp_path / "new", shards=23, part="0/23")  # of which one would fit
    assert not (tmp_path / "new").exists()


def test_a_tar_that_became_shorter_is_named(tmp_path):
    tar = write_files(tmp_path, {"ILSVRC2012_img_train.tar": class_tars(TRAIN)}) / "ILSVRC2012_img_train.tar"
    dump(tmp_path, tmp_path / "many", shards=2, plan=True)
    os.truncate(tar, 30_000)
    with pytest.raises(ValueError, match=f"train-0000.-of-00002.lmdb: {tar}/n0.*: {tar} ends within n0.*; it was"):
        dump(tmp_path, tmp_path / "many", shards=2, part="0/1")


def test_names_of_attempts_are_their_own(tmp_path):
    assert len({workplace.own_name() for _ in range(100)}) == 100


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
