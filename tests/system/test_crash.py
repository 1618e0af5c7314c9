"""Dumps that are killed, or fail, at any moment: what has a final name is complete, nothing earlier is lost, and the
next dump starts anew or, with resume, ends with the same bytes as if nothing had happened.
"""
import errno
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

import dump_imagenet
from dataflows.dump import one_file, space, split, write
from dataflows.dump.recovery import journal as journals
from dataflows.dump.recovery import publish
from dataflows.dump.recovery.journal import Journal, SkippedFile, StoredFile
from dataflows.dump.verify import verify
from dataflows.errors import Damaged, Locked, NotStarted, Refused
from dataflows.sources.imagenet import ImageNetFiles
from dataflows.storage.store import Store
from dump_imagenet import dump_split, main
from helpers.odd_files import CMYK_JPEG
from helpers.paths import ROOT
from helpers.photos import encode_jpeg, make_photo

TRANSACTION_BYTES = 20_000  # about 8 of them
COUNT = 60
FINAL = {"val.lmdb", "val.lmdb.index.npz"}

# Forks one dump after another, to import only once, and kills each: at a random moment, or when it is about to make its
# n-th call of the operating system that changes files or flushes them.
DRIVER = """
import json, os, random, signal, sys, time
import cv2
from dataflows.dump import write
import dump_imagenet
source, target, plans = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
write._TRANSACTION_BYTES = int(sys.argv[4])
cv2.setNumThreads(0)  # OpenCV's pool does not survive a fork
for _ in range(2):  # the first one compiles
    started = time.perf_counter()
    dump_imagenet.dump_split(source, target + "/warm", "val", progress=False, overwrite=True)
    seconds = time.perf_counter() - started
random.seed(1)

def die_at(call):
    left = [call]
    def counted(function):
        def wrapper(*args, **options):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **options)
        return wrapper
    for name in ("fsync", "replace", "unlink"):
        setattr(os, name, counted(getattr(os, name)))

for number, (call, overwrite) in enumerate(plans):
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        if call:
            die_at(call)
        try:
            dump_imagenet.dump_split(source, f"{target}/{number}", "val", progress=False, overwrite=overwrite)
        finally:
            os._exit(0)
    if not call:
        time.sleep(random.random() * 1.1 * seconds)
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A split of 60 images in two classes, one of them not decodable."""
    folder = tmp_path_factory.mktemp("source")
    for i in range(COUNT + 1):
        (folder / "val" / f"class{i % 2}").mkdir(parents=True, exist_ok=True)
        content = encode_jpeg(make_photo(40 + i, 60 + i % 7, i)) if i != 31 else b"not an image"
        (folder / "val" / f"class{i % 2}" / f"{i:02d}.jpg").write_bytes(content)
    return folder


@pytest.fixture(autouse=True)
def _small_transactions(monkeypatch):
    monkeypatch.setattr(write, "_TRANSACTION_BYTES", TRANSACTION_BYTES)


def dump(source, target, **options):
    return dump_split(source, target, "val", progress=False, on_error="skip", **options)


def state(folder):
    folder = pathlib.Path(folder)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()} if (
        folder.exists()) else {}


@pytest.fixture(scope="module")
def clean(source, tmp_path_factory):
    """What an uninterrupted dump writes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "_TRANSACTION_BYTES", TRANSACTION_BYTES)
        folder = tmp_path_factory.mktemp("clean")
        dump(source, folder)
        return state(folder)


@pytest.fixture(scope="module")
def earlier(source, tmp_path_factory):
    """The folder of another dump, which has the names before."""
    folder = tmp_path_factory.mktemp("earlier")
    dump(source, folder, max_side=30)
    return folder


def killed(source, folder, plans, earlier):
    """Makes folder/0, 1, 2...: what dumps have left that were killed as `plans` say."""
    for number, (_, overwrite) in enumerate(plans):
        if overwrite:
            shutil.copytree(earlier, folder / str(number))
    code = DRIVER.replace("progress=False", "progress=False, on_error='skip'")
    subprocess.run([sys.executable, "-c", code, str(source), str(folder), json.dumps(plans), str(TRANSACTION_BYTES)],
                   cwd=ROOT, check=True, timeout=100)
    return [folder / str(number) for number in range(len(plans))]


def check(source, folder, clean, before, resume):
    """What holds after a kill, and after the next dump."""
    found = state(folder)
    final = {name: digest for name, digest in found.items() if name in FINAL}
    halves = [before, before | {"val.lmdb": clean["val.lmdb"]}, clean]  # nothing, one rename, both
    assert final in [{name: half[name] for name in half if name in FINAL} for half in halves]
    try:
        dump(source, folder, resume=resume, overwrite=bool(before))
    except NotStarted as error:  # complete already, and may not be replaced
        assert not before and "exists already" in str(error)
    assert state(folder) == clean
    assert verify(folder / "val.lmdb", progress=False).bad == []


@pytest.mark.parametrize("overwrite", [False, True])
def test_kills_at_random_moments(source, clean, earlier, tmp_path, overwrite, caplog):
    folders = killed(source, tmp_path, [[0, overwrite]] * 15, earlier)
    begun = sum("val.lmdb.partial" in state(folder) for folder in folders)
    assert begun > 0  # or the test shows nothing
    for number, folder in enumerate(folders):
        check(source, folder, clean, state(earlier) if overwrite else {}, resume=bool(number % 3))
    assert "an interrupted dump left" in caplog.text


@pytest.mark.parametrize("overwrite", [False, True])
def test_kills_before_each_call_that_changes_or_flushes_files(source, clean, earlier, tmp_path, overwrite, caplog):
    folders = killed(source, tmp_path, [[call, overwrite] for call in range(1, 25)], earlier)
    assert state(folders[-1]) == clean  # it makes fewer calls than that
    for number, folder in enumerate(folders):
        check(source, folder, clean, state(earlier) if overwrite else {}, resume=number % 2 == overwrite)
    for words in ("an interrupted dump left", "it now has its final name"):
        assert words in caplog.text


# Going on.

def interrupt(source, target, after=40, error=KeyboardInterrupt, **options):
    """A dump that is interrupted when it has read so many files."""
    read, count = ImageNetFiles.read, [0]

    def failing(self, name):
        count[0] += 1
        if count[0] > after:
            raise error()
        return read(self, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageNetFiles, "read", failing)
        patch.setattr(space, "_SAMPLE", 1)
        with pytest.raises((error, ValueError)):
            dump(source, target, **options)


@pytest.mark.parametrize("image_format", ["jpeg", "uint8"])
@pytest.mark.parametrize("workers", [1, 3])
def test_a_dump_interrupted_again_and_again_ends_with_the_same_bytes(source, tmp_path, image_format, workers):
    for after in (12, 20, 28):
        interrupt(source, tmp_path / "often", after, num_workers=workers, resume=True, format=image_format)
    dump(source, tmp_path / "often", resume=True, format=image_format)
    dump(source, tmp_path / "once", format=image_format)
    assert state(tmp_path / "often") == state(tmp_path / "once")


def test_finished_work_is_not_done_again(source, tmp_path, clean, monkeypatch):
    interrupt(source, tmp_path)
    read, names = ImageNetFiles.read, []
    monkeypatch.setattr(ImageNetFiles, "read", lambda self, name: names.append(name) or read(self, name))
    monkeypatch.setattr(space, "_SAMPLE", 1)
    summary = dump(source, tmp_path, resume=True)
    assert summary.resumed > 10 and len(names) <= COUNT + 1 - summary.resumed + 1  # and the sample
    assert summary.count == COUNT and len(summary.skipped) == 1 and state(tmp_path) == clean
    assert f"{summary.resumed} were there already" in str(summary)


@pytest.mark.parametrize("options, words", [(dict(format="uint8"), "format was 'jpeg' and is 'uint8'"),
                                            (dict(max_side=50), "max_side was None and is 50"),
                                            (dict(shuffle=True, seed=3), "seed was None and is 3"),
                                            (dict(tiles=False), "tiles was True and is False")])
def test_other_options_are_refused(source, tmp_path, options, words):
    interrupt(source, tmp_path)
    before = state(tmp_path)
    with pytest.raises(Refused, match=f"cannot be resumed: .*{words}.*leave resume=True out"):
        dump(source, tmp_path, resume=True, **options)
    assert state(tmp_path) == before and "val.lmdb.journal" in before
    assert dump(source, tmp_path, **options).count == COUNT
    assert set(state(tmp_path)) == FINAL


def cmyk_source(folder):
    """60 photos, of which number 10 is CMYK, and number 50 is no image."""
    for number in range(COUNT):
        content = {10: CMYK_JPEG, 50: b"not an image"}.get(number, encode_jpeg(make_photo(40 + number, 60, number)))
        (folder / "val" / "class").mkdir(parents=True, exist_ok=True)
        (folder / "val" / "class" / f"{number:02d}.jpg").write_bytes(content)
    return folder


def dump_by(on_error, source, target, **options):
    return dump_split(source, target, "val", progress=False, on_error=on_error, **options)


def test_a_more_lenient_dump_goes_on_and_a_stricter_one_only_where_it_deals_alike(tmp_path, monkeypatch):
    source, target = cmyk_source(tmp_path / "source"), tmp_path / "target"
    monkeypatch.setattr(space, "_SAMPLE", 1)
    monkeypatch.setattr(write, "_TRANSACTION_BYTES", 1)  # all files before the one that stops it are kept
    with pytest.raises(ValueError, match="10.jpg: CMYK"):
        dump_by("raise", source, target)
    with pytest.raises(ValueError, match="50.jpg: "):
        dump_by("fix", source, target, resume=True)
    before = state(target)
    with pytest.raises(Refused, match="class/10.jpg was converted, which on_error='raise' does not do"):
        dump_by("raise", source, target, resume=True)  # though it had begun so
    assert state(target) == before
    interrupt_by("skip", source, target, 55)
    before = state(target)
    for on_error, words in (("raise", "10.jpg was converted"), ("fix", "50.jpg was left out")):
        with pytest.raises(Refused, match=f"{words}, which on_error='{on_error}' does not do"):
            dump_by(on_error, source, target, resume=True)
    assert state(target) == before
    assert dump_by("skip", source, target, resume=True).resumed > 50
    dump_by("skip", source, tmp_path / "once")
    assert state(target) == state(tmp_path / "once")


def test_a_stricter_dump_goes_on_where_nothing_was_converted_or_left_out(tmp_path, monkeypatch):
    source = cmyk_source(tmp_path / "source")
    for number in (10, 50):
        (source / "val" / "class" / f"{number}.jpg").unlink()
    monkeypatch.setattr(write, "_TRANSACTION_BYTES", 1)
    interrupt_by("skip", source, tmp_path / "target", 30)
    assert dump_by("raise", source, tmp_path / "target", resume=True).resumed > 10


def interrupt_by(on_error, source, target, number):
    """A dump that is interrupted at the file of this number."""
    read = ImageNetFiles.read

    def failing(self, name):
        if name.endswith(f"{number}.jpg"):
            raise KeyboardInterrupt
        return read(self, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageNetFiles, "read", failing)
        patch.setattr(space, "_SAMPLE", 1)
        with pytest.raises(KeyboardInterrupt):
            dump_by(on_error, source, target, resume=True)


def test_another_source_is_refused(source, tmp_path):
    interrupt(source, tmp_path / "target")
    shutil.copytree(source, tmp_path / "source")
    (tmp_path / "source" / "val" / "class0" / "00.jpg").rename(tmp_path / "source" / "val" / "class0" / "000.jpg")
    with pytest.raises(Refused, match="source was "):
        dump(tmp_path / "source", tmp_path / "target", resume=True)


def test_resume_with_nothing_left_just_dumps(source, tmp_path, clean, caplog):
    dump(source, tmp_path, resume=True)
    assert state(tmp_path) == clean and caplog.text == ""


@pytest.mark.parametrize("damage", [lambda path: os.truncate(path, 5000), lambda path: path.write_bytes(bytes(50_000)),
                                    lambda path: path.unlink()], ids=["truncated", "zeros", "gone"])
@pytest.mark.parametrize("name", ["val.lmdb.partial", "val.lmdb.journal"])
def test_what_a_lost_disk_cache_damages_is_not_resumed(source, tmp_path, clean, name, damage):
    interrupt(source, tmp_path)
    damage(tmp_path / name)
    dump(source, tmp_path, resume=True)
    assert state(tmp_path) == clean


def test_a_damaged_record_of_before_is_found_in_the_end(source, tmp_path, clean):
    interrupt(source, tmp_path)
    content = bytearray((tmp_path / "val.lmdb.partial").read_bytes())
    at = content.index(b"\xff\xd8\xff") + 400
    content[at] ^= 1
    (tmp_path / "val.lmdb.partial").write_bytes(content)
    with pytest.raises(Damaged, match=r"key 0000000\d: what was read back is not what was written"):
        dump(source, tmp_path, resume=True)
    assert state(tmp_path) == {}


def test_the_command_line_says_what_is_kept_and_what_was_found(source, tmp_path, clean, monkeypatch, capsys, caplog):
    argv = ["--source", str(source), "--target", str(tmp_path), "--split", "val", "--no-progress"]
    monkeypatch.setattr(space, "_SAMPLE", 1)
    assert main(argv) == 1  # at the file that is no image
    assert "31.jpg" in (err := capsys.readouterr().err) and "what was written is kept: go on from there with" in err
    assert main([*argv, "--resume"]) == 1
    assert "going on from there" in caplog.text and "31.jpg" in capsys.readouterr().err
    assert main([*argv, "--on-error", "skip", "--resume"]) == 0  # nothing was left out before that file
    assert "were there already" in capsys.readouterr().out and state(tmp_path) == clean


def test_without_resume_the_next_dump_says_what_it_removes(source, tmp_path, clean, caplog):
    interrupt(source, tmp_path, after=COUNT)
    with pytest.raises(Refused, match="class1/31.jpg was left out, which on_error='fix' does not do"):
        dump_split(source, tmp_path, "val", progress=False, resume=True)
    dump(source, tmp_path)
    assert "they were removed, and the dump starts anew (to resume would keep" in caplog.text
    assert state(tmp_path) == clean


def test_a_refusal_after_something_was_removed_does_not_say_that_nothing_was(source, tmp_path, monkeypatch):
    interrupt(source, tmp_path)
    before = state(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6 - 5000, 5000))
    with pytest.raises(Refused, match="free"):
        dump(source, tmp_path, resume=True)
    assert state(tmp_path) == before
    with pytest.raises(NotStarted, match="free") as info:
        dump(source, tmp_path)
    assert not isinstance(info.value, Refused) and state(tmp_path) == {}


def test_nor_does_a_refusal_after_a_rename(source, tmp_path, clean, monkeypatch, capsys):
    def killed(path):
        raise KeyboardInterrupt

    target, other = tmp_path / "target", tmp_path / "other"
    with monkeypatch.context() as patch:
        patch.setattr(publish, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            dump(source, target)
    assert not FINAL & set(state(target))
    shutil.copytree(target, other)
    with pytest.raises(NotStarted, match="exists already") as info:
        dump(source, target)
    assert not isinstance(info.value, Refused)
    assert command_line(source, other) == 2 and "exists already" in capsys.readouterr().err
    assert state(target) == state(other) == clean
    with pytest.raises(Refused, match="exists already"):  # now nothing is left to rename
        dump(source, target)


# What `main` says is kept, and whether it is so.

def command_line(source, target, *more):
    return main(["--source", str(source), "--target", str(target), "--split", "val", "--on-error", "skip",
                 "--no-progress", *more])


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("can't start new thread"), OSError("no disk"),
                                   MemoryError()], ids=lambda error: type(error).__name__)
def test_what_comes_after_a_complete_dump_is_no_failure(source, tmp_path, clean, monkeypatch, capsys, error):
    def failing(*_):
        raise error

    monkeypatch.setattr(dump_imagenet, "say", failing)
    assert command_line(source, tmp_path) == 0
    assert "; the dump is complete and verified all the same\n" in capsys.readouterr().err and state(tmp_path) == clean


@pytest.mark.parametrize("method, told", [
    ("summarize", "the dump is complete and verified all the same"),
    ("rename", "the dump is complete and verified, and lacks only its final name: --resume gives it that"),
    ("prepare", "what was written is kept: go on from there with --resume, or start anew without it"),
    ("find_resume_point", "nothing was kept")])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("of something"), OSError("no disk"),
                                   MemoryError()], ids=lambda error: type(error).__name__)
def test_each_ending_tells_what_is_kept(source, tmp_path, clean, earlier, monkeypatch, capsys, method, told, error):
    def failing(*_, **__):
        raise error

    shutil.copytree(earlier, tmp_path, dirs_exist_ok=True)
    with monkeypatch.context() as patch:
        module = next(module for module in (publish, one_file, split) if hasattr(module, method))
        patch.setattr(module, method, failing)
        code = command_line(source, tmp_path, "--overwrite")
    if method == "find_resume_point" and isinstance(error, OSError):
        assert code == 2 and "no disk" in capsys.readouterr().err
    else:
        last = capsys.readouterr().err.splitlines()[-1]
        assert code == (method != "summarize") and last.startswith("dump-imagenet: ") and last.endswith(f"; {told}")
    assert {name: digest for name, digest in state(tmp_path).items() if name in FINAL} == (
        clean if method == "summarize" else state(earlier) | {})
    assert command_line(source, tmp_path, "--overwrite", "--resume") == 0 and state(tmp_path) == clean


def test_an_unexpected_error_is_shown_whole(source, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ImageNetFiles, "read", lambda *_: [][1])
    assert command_line(source, tmp_path) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):" and lines[-2] == "IndexError: list index out of range"
    assert lines[-1] == "dump-imagenet: unexpected IndexError: list index out of range; nothing was kept"


def test_a_journal_that_stays_is_no_failure(source, tmp_path, clean, monkeypatch, capsys, caplog):
    unlink = os.unlink

    def stays(path, **options):
        if str(path).endswith(".journal"):
            raise PermissionError(errno.EPERM, "Operation not permitted")
        unlink(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", stays)
        assert command_line(source, tmp_path) == 0
    assert "its journal cannot be removed" in caplog.text and set(state(tmp_path)) == FINAL | {"val.lmdb.journal"}
    assert command_line(source, tmp_path, "--resume") == 0 and state(tmp_path) == clean


# Faults of the disk.

@pytest.fixture
def small_disk(tmp_path):
    """A file system of 400 KB."""
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)], capture_output=True,
                          text=True, timeout=30)
    if done.returncode:
        pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True, timeout=30)


def test_a_disk_that_is_full_in_the_middle(source, small_disk, clean, monkeypatch):
    monkeypatch.setattr(one_file, "refuse_full_disk", lambda *_: None)
    (small_disk / "val.lmdb").write_bytes(b"precious")
    (small_disk / "filler").write_bytes(bytes(300_000))
    with pytest.raises(OSError, match="No space left|could not be written"):
        dump(source, small_disk, overwrite=True)
    assert (small_disk / "val.lmdb").read_bytes() == b"precious"
    assert (small_disk / "val.lmdb.journal").exists()
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True, timeout=30)
    (small_disk / "filler").unlink()
    assert dump(source, small_disk, overwrite=True, resume=True).resumed > 0
    assert state(small_disk) == clean


class Failing:
    """A file whose n-th write fails."""

    def __init__(self, file, writes):
        self._file, self._left = file, writes

    def write(self, content):
        self._left -= 1
        if self._left < 0:
            self._file.write(content[:7])
            raise OSError(errno.EIO, "Input/output error")
        return self._file.write(content)

    def __iter__(self):
        return iter(self._file)

    def __getattr__(self, name):
        return getattr(self._file, name)


@pytest.mark.parametrize("writes", range(6))
def test_a_journal_that_cannot_be_written(source, tmp_path, clean, writes):
    lock = journals._lock
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journals, "_lock", lambda path: Failing(lock(path), writes))
        with pytest.raises(OSError, match="Input/output error"):
            dump(source, tmp_path)
    assert not FINAL & set(state(tmp_path))
    assert (dump(source, tmp_path, resume=True).resumed > 0) == (writes > 1)
    assert state(tmp_path) == clean


def test_a_disk_that_cannot_be_read_back(source, tmp_path, monkeypatch):
    def broken(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "pread", broken)
    with pytest.raises(Damaged, match="key 00000000"):
        dump(source, tmp_path)
    assert state(tmp_path) == {}


def test_a_file_that_appears_meanwhile_is_not_replaced(source, tmp_path, clean, monkeypatch):
    prepare = publish.prepare

    def meanwhile(path, *rest):
        prepare(path, *rest)
        pathlib.Path(path).write_text("precious")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publish, "prepare", meanwhile)
        with pytest.raises(FileExistsError, match="exists already"):
            dump(source, tmp_path)
    with pytest.raises(Refused, match="exists already"):
        dump(source, tmp_path, resume=True)
    assert (tmp_path / "val.lmdb").read_text() == "precious"
    dump(source, tmp_path, resume=True, overwrite=True)
    assert state(tmp_path) == clean


# Two dumps of one target.

def test_a_second_dump_is_refused_and_the_first_goes_on(source, tmp_path, clean):
    read, tried = ImageNetFiles.read, []

    def second(self, name):
        if not tried:
            tried.append(name)
            for options in ({}, dict(resume=True), dict(overwrite=True)):
                with pytest.raises(Refused, match="another dump writes .*val.lmdb.journal"):
                    dump(source, tmp_path, **options)
        return read(self, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageNetFiles, "read", second)
        dump(source, tmp_path, num_workers=1)
    assert tried and state(tmp_path) == clean


def test_a_lock_on_a_removed_journal_is_none(tmp_path, monkeypatch):
    path, flock = str(tmp_path / "a.lmdb"), journals.fcntl.flock

    def removed_first(fd, how):  # as if the one who held it had just ended
        monkeypatch.setattr(journals.fcntl, "flock", flock)
        os.unlink(path + ".journal")
        flock(fd, how)

    monkeypatch.setattr(journals.fcntl, "flock", removed_first)
    journal = Journal(path)
    assert os.path.exists(path + ".journal")
    with pytest.raises(Locked):
        Journal(path)
    journal.close()
    assert not os.path.exists(path + ".journal")  # it was empty


def test_a_journal_gives_back_what_was_added_up_to_a_torn_line(tmp_path):
    path = str(tmp_path / "a.lmdb")
    journal = Journal(path)
    rows = [StoredFile("a/caf\udce9.jpg", 1, 2, 3, 2**32 - 1, 5, None, ["x"], "00" * 16),
            SkippedFile("b", "is \"bad\"\n"),
            StoredFile("c", 0, 1, 1, 7, 9, "progressive", [], "ff" * 16)]
    journal.begin({"seed": 3})
    journal.add(rows)
    journal.close()
    with open(path + ".journal", "ab") as file:
        file.write(b'["torn", 1')
    journal = Journal(path)
    assert journal.header == {"seed": 3} and [*journal.rows()] == rows and not journal.verified
    assert journal.cut(None) == 3 and [*journal.rows()] == rows
    assert journal.cut(1) == 1 and [*journal.rows()] == rows[:1]
    with pytest.raises(ValueError, match="names 1 records and LMDB holds 2"):
        journal.cut(2)
    journal.mark_verified()
    assert journal.verified
    journal.remove()
    assert not os.listdir(tmp_path)


def test_readers_of_a_file_that_is_replaced_keep_it(earlier, source, tmp_path, clean):
    shutil.copytree(earlier, tmp_path / "target")
    store = Store(tmp_path / "target" / "val.lmdb")
    before = [store.value(i).tobytes() for i in range(len(store))]
    dump(source, tmp_path / "target", overwrite=True)
    assert [store.value(i).tobytes() for i in range(len(store))] == before
    assert state(tmp_path / "target") == clean
