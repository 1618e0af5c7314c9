"""A dump to a URL: the files of a local one, each complete before its index, whatever interrupts it."""
import os

import fsspec
import pytest

import dump_imagenet
from dataflows.dump import space
from dataflows.dump.recovery import upload
from dataflows.dump.verify import verify
from dataflows.errors import Damaged, Refused
from dataflows.storage.remote.upload import put_file
from dataflows.storage.store import Store
from dump_imagenet import dump_split, merge_shards

memory = fsspec.filesystem("memory")


@pytest.fixture
def target():
    """A URL whose files are in the memory of this process."""
    yield "memory://far/data"
    if memory.exists("/far"):
        memory.rm("/far", recursive=True)


def dump(source, target, split="train", **options):
    return dump_split(source, target, split, progress=False, **options)


def far():
    return {os.path.basename(path): memory.cat_file(path) for path in memory.find("/far")}


def near(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("shards", [None, 3])
def test_the_files_are_those_of_a_local_dump(photos, tmp_path, target, shards):
    one = dump(photos, tmp_path / "near", shards=shards)
    other = dump(photos, target, shards=shards, scratch=tmp_path / "scratch")
    assert far() == near(tmp_path / "near")
    assert other.path == one.path.replace(os.fspath(tmp_path / "near"), target)
    assert (other.count, other.findings, other.stored_bytes) == (one.count, one.findings, one.stored_bytes)
    assert not list((tmp_path / "scratch").iterdir())
    report = verify(other.path, progress=False)
    assert (report.records, report.bad) == (23, [])
    assert len(Store(other.path)) == 23


def test_without_a_scratch_folder_nothing_stays_here(photos, tmp_path, target, monkeypatch):
    monkeypatch.setattr(upload.tempfile, "tempdir", os.fspath(tmp_path))
    dump(photos, target, "val")
    assert sorted(far()) == ["val.lmdb", "val.lmdb.index.npz"] and not list(tmp_path.iterdir())


def test_the_index_and_then_the_manifest_come_last(photos, target, monkeypatch):
    written, put = [], upload.put_file
    monkeypatch.setattr(upload, "put_file", lambda path, url, options: (written.append(url), put(path, url, options)))
    dump(photos, target, shards=2)
    names = [os.path.basename(url) for url in written]
    shards = [f"train-{k:05d}-of-00002.lmdb" for k in range(2)]
    assert names == [shards[0], f"{shards[0]}.index.npz", shards[1], f"{shards[1]}.index.npz", "train.manifest.json"]


@pytest.mark.parametrize("shards, kept", [(None, "train.lmdb"), (2, "train.manifest.json")])
def test_what_exists_is_refused_or_replaced(photos, tmp_path, target, shards, kept):
    dump(photos, target, shards=shards)
    before = far()
    with pytest.raises(Refused, match=f"memory://far/data/{kept} exists already.*overwrite=True"):
        dump(photos, target, shards=shards, scratch=tmp_path)
    assert far() == before and not list(tmp_path.iterdir())
    dump(photos, target, shards=shards, overwrite=True, seed=5)
    assert far().keys() == before.keys() and far() != before


@pytest.mark.parametrize("shards, fails_at", [(None, 1), (None, 2), (3, 1), (3, 2), (3, 3), (3, 7)])
def test_an_interrupted_dump_goes_on_and_writes_nothing_twice(photos, tmp_path, target, monkeypatch, shards, fails_at):
    put, written = upload.put_file, []

    def interrupted(path, url, options):
        written.append(url)
        if len(written) == fails_at:
            raise KeyboardInterrupt
        put(path, url, options)

    scratch = tmp_path / "scratch"
    monkeypatch.setattr(upload, "put_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        dump(photos, target, shards=shards, scratch=scratch)
    done = [url for url in written[:-1] if url.endswith(".index.npz")]
    summary = dump(photos, target, shards=shards, scratch=scratch, resume=True)
    assert all(written.count(url) == 1 for url in done)
    monkeypatch.undo()
    one = dump(photos, tmp_path / "near", shards=shards)
    assert far() == near(tmp_path / "near") and summary.count == one.count
    assert not list(scratch.iterdir())


# --- parts, which share the scratch folder


def part(photos, target, scratch, number, **options):
    return dump(photos, target, shards=3, scratch=scratch, part=(number, 2), **options)


def test_parts_bring_their_shards_there_and_the_merge_the_manifest(photos, tmp_path, target):
    scratch = tmp_path / "scratch"
    plan = dump(photos, target, shards=3, scratch=scratch, plan=True)
    assert (plan.path, plan.manifest) == (f"{target}/train-*-of-00003.lmdb", f"{target}/train.manifest.json")
    one, zero = (part(photos, target, scratch, number) for number in (1, 0))
    assert (one.shards, zero.shards, one.path) == ([1], [0, 2], plan.path)
    assert not list(scratch.glob("*.lmdb"))  # only what the others need to know is here
    again = part(photos, target, scratch, 0)
    assert again.resumed == zero.count
    whole = merge_shards(target, "train", scratch=scratch)
    near_by = dump(photos, tmp_path / "near", shards=3)
    assert (whole.path, whole.count, whole.findings) == (plan.manifest, near_by.count, near_by.findings)
    assert far() == near(tmp_path / "near") and not list(scratch.iterdir())
    with pytest.raises(Refused, match="memory://far/data/train.manifest.json exists already"):
        merge_shards(target, "train", scratch=scratch)


@pytest.mark.parametrize("fails_at", [1, 2, 3, 4])
def test_a_part_that_was_interrupted_runs_again(photos, tmp_path, target, monkeypatch, fails_at):
    scratch, written = tmp_path / "scratch", []

    def interrupted(path, url, options):
        written.append(url)
        if len(written) == fails_at:
            raise KeyboardInterrupt
        put_file(path, url, options)

    monkeypatch.setattr(upload, "put_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        part(photos, target, scratch, 0)
    with pytest.raises(Refused, match="shards .* missing, or not complete"):
        merge_shards(target, "train", scratch=scratch)
    done = [url for url in written[:-1] if url.endswith(".index.npz")]
    for number in (0, 1):
        part(photos, target, scratch, number)
    assert all(written.count(url) == 1 for url in done)
    merge_shards(target, "train", scratch=scratch)
    dump(photos, tmp_path / "near", shards=3)
    assert far() == near(tmp_path / "near") and not list(scratch.iterdir())


def test_a_shard_that_is_gone_there_is_missing(photos, tmp_path, target):
    for number in (0, 1):
        part(photos, target, tmp_path, number)
    memory.rm("/far/data/train-00001-of-00003.lmdb")
    with pytest.raises(Refused, match="of 3 shards 1 is missing, or not complete: 1"):
        merge_shards(target, "train", scratch=tmp_path)
    part(photos, target, tmp_path, 1)
    assert merge_shards(target, "train", scratch=tmp_path).count == 23


def test_an_existing_data_set_is_replaced_by_another_plan(photos, tmp_path, target):
    dump(photos, target, shards=3)
    before = far()
    with pytest.raises(Refused, match="train.manifest.json exists already"):
        part(photos, target, tmp_path, 0)
    dump(photos, target, shards=3, scratch=tmp_path, plan=True, overwrite=True, seed=5)
    assert "train.manifest.json" not in far()
    for number in (0, 1):
        part(photos, target, tmp_path, number, seed=5)
    merge_shards(target, "train", scratch=tmp_path)
    assert far().keys() == before.keys() and far() != before


def test_a_plan_is_of_one_target(photos, tmp_path, target):
    part(photos, target, tmp_path, 0)
    with pytest.raises(Refused, match="target was 'memory://far/data' and is 'memory://far/other'"):
        part(photos, "memory://far/other", tmp_path, 1)
    with pytest.raises(Refused, match="is of a dump to memory://far/data, and not to memory://far/other"):
        merge_shards("memory://far/other", "train", scratch=tmp_path)
    dump(photos, tmp_path / "near", shards=3, plan=True)
    with pytest.raises(Refused, match=f"is of a dump to {tmp_path / 'near'}, and not to memory://far/data"):
        merge_shards(target, "train", scratch=tmp_path / "near")


@pytest.mark.parametrize("number", [2, 3])
def test_shards_that_are_there_are_refused_unless_they_are_replaced(photos, target, number):
    dump(photos, target, shards=3)
    memory.rm("/far/data/train.manifest.json")
    words = "another number of files" if number == 2 else "neither a manifest nor an unfinished dump"
    with pytest.raises(Refused, match=f"memory://far/data/train-00000-of-00003.lmdb .*{words}"):
        dump(photos, target, shards=number)
    if number == 2:
        with pytest.raises(Refused, match=words):
            dump(photos, target, shards=number, overwrite=True)
    else:
        assert dump(photos, target, shards=number, overwrite=True).count == 23


def test_there_is_nothing_to_resume_without_the_scratch_folder(photos, target):
    with pytest.raises(Refused, match="resume=True goes on with what is in scratch, and none is given"):
        dump(photos, target, resume=True)


@pytest.mark.parametrize("options", [dict(part=(0, 2)), dict(plan=True)])
def test_without_a_shared_folder_there_are_no_parts(photos, target, options):
    with pytest.raises(Refused, match="need a folder that all tasks share.* Give scratch=DIR, too"):
        dump(photos, target, shards=3, **options)
    with pytest.raises(Refused, match="have left their plan in a folder.* Give scratch=DIR, too"):
        merge_shards(target, "train")
    with pytest.raises(Refused, match="holds no unfinished dump of train in shards"):
        merge_shards(target, "train", scratch="nowhere")
    with pytest.raises(Refused, match="are for a target that is a URL"):
        merge_shards("somewhere", "train", scratch="nowhere")


def test_the_commands_of_parts(photos, tmp_path, target, capsys):
    command = ["--source", os.fspath(photos), "--target", target, "--scratch", os.fspath(tmp_path), "--split", "train",
               "--shards", "2", "--no-progress"]
    for number in (0, 1):
        assert dump_imagenet.main([*command, "--part", f"{number}/2"]) == 0
    assert f"part 1/2 of {target}/train-*-of-00002.lmdb" in capsys.readouterr().out
    assert dump_imagenet.main(["--target", target, "--scratch", os.fspath(tmp_path), "--split", "train",
                               "--merge"]) == 0
    assert f"{target}/train.manifest.json: 23 images" in capsys.readouterr().out


def test_the_scratch_folder_needs_room_for_one_file(photos, tmp_path, target, monkeypatch):
    monkeypatch.setattr(space, "free_bytes", lambda folder: 60_000)
    with pytest.raises(Refused, match="the dump needs about"):
        dump(photos, tmp_path / "near", shards=12)
    assert dump(photos, target, shards=12, scratch=tmp_path / "scratch").count == 23


def test_what_arrives_damaged_has_no_index_there(photos, tmp_path, target, monkeypatch):
    put = upload.put_file

    def damaging(path, url, options):
        put(path, url, options)
        content = bytearray(memory.cat_file(url))
        content[len(content) // 2] ^= 1
        memory.pipe_file(url, bytes(content))

    monkeypatch.setattr(upload, "put_file", damaging)
    with pytest.raises(Damaged, match="memory://far/data/val.lmdb: what was read back is not what was written"):
        dump(photos, target, "val", scratch=tmp_path)
    assert list(far()) == ["val.lmdb"]


def test_wrong_targets_and_options_are_refused(photos, tmp_path):
    with pytest.raises(Refused, match="on a web server, which takes no files"):
        dump(photos, "http://example.com/data")
    with pytest.raises(Refused, match="has a user or a password"):
        dump(photos, "s3://me:secret@bucket/data")
    with pytest.raises(Refused, match="are for a target that is a URL"):
        dump(photos, tmp_path / "new", scratch=tmp_path)
    assert not (tmp_path / "new").exists()


def test_the_command(photos, tmp_path, target, capsys, monkeypatch):
    command = ["--source", os.fspath(photos), "--target", target, "--split", "val", "--no-progress",
               "--scratch", os.fspath(tmp_path)]
    with monkeypatch.context() as patch:
        patch.setattr(upload, "put_file", lambda *_: (_ for _ in ()).throw(OSError("the network is down")))
        assert dump_imagenet.main(command) == 1
    assert "the network is down; what was written is kept: go on from there with --resume" in capsys.readouterr().err
    assert dump_imagenet.main([*command, "--resume"]) == 0
    assert f"{target}/val.lmdb: 10 images of 3 classes" in capsys.readouterr().out
    assert dump_imagenet.main(command) == 2
    assert f"{target}/val.lmdb exists already" in capsys.readouterr().err
    assert dump_imagenet.main([*command, "--check"]) == 0
    capsys.readouterr()
