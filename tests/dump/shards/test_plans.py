"""Plans of a dump into shards: options that differ or contradict, data sets that exist, sources in all forms."""
import json
import os
import shutil

import pytest

from dataflows.errors import Refused
from dataflows.storage.store import Store
from dump_imagenet import merge_shards
from helpers.dumps import WORK, dump, state
from helpers.imagenet_forms import TRAIN, class_tars, lines, tar_of
from helpers.imagenet_forms import write as write_files
from helpers.samples import SAMPLES

pytestmark = pytest.mark.usefixtures("small_transactions")


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
    assert "train-*-of-00005.lmdb: 23 images of 3 classes as jpeg in 5 shards, listed in" in str(planned)
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
    with pytest.raises(Refused, match="1 folder or link may hold more images"):
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
