"""A path at which there is no LMDB: the error says what is there, and what to give instead."""
import os
import re
import shutil

import pytest

from dataflows.__main__ import main
from dataflows.dump.verify import verify
from dataflows.storage.paths import existing_file, lmdbs
from dataflows.tools.advise.sources import open_source
from dataflows.tools.info.facts import describe
from dataflows.tools.sheet.picture import contact_sheet
from uint_lmdb_iterloader import LMDBIterDataset, LMDBIterLoader
from uint_lmdb_loader import LMDBDataset, LMDBLoader


@pytest.fixture
def folder(tiled_lmdb, tmp_path):
    """Two dumps and their indexes, what a third one has left, and a folder."""
    for name in ("train.lmdb", "train.lmdb.index.npz", "val.lmdb", "val.lmdb.index.npz"):
        shutil.copy(tiled_lmdb / name, tmp_path)
    for name in ("test.lmdb.partial", "test.lmdb.journal", "test.lmdb.index.npz.partial", "notes.txt"):
        (tmp_path / name).write_text("x")
    (tmp_path / "empty").mkdir()
    return tmp_path


def refusal(path):
    with pytest.raises(FileNotFoundError) as info:
        existing_file(str(path))
    text = str(info.value)
    assert text.startswith(f"there is no LMDB file {path}")
    return text.removeprefix(f"there is no LMDB file {path}")


OPENERS = {"info": describe, "verify": verify, "sheet": contact_sheet, "LMDBDataset": LMDBDataset,
           "LMDBIterDataset": LMDBIterDataset, "LMDBLoader": lambda path: LMDBLoader(path, 4),
           "LMDBIterLoader": lambda path: LMDBIterLoader(path, 4, io="pread", verify=True)}


@pytest.mark.parametrize("open_it", OPENERS.values(), ids=OPENERS)
def test_everything_that_reads_says_so(folder, open_it):
    for name, words in (("", "which holds train.lmdb and val.lmdb. Give one of them"), ("trian.lmdb", "Did you mean"),
                        ("train.lmdb.index.npz", "it is the index of an LMDB file. Give")):
        with pytest.raises(FileNotFoundError, match=f"there is no LMDB file {re.escape(str(folder / name))}.*{words}"):
            open_it(folder / name)


@pytest.mark.parametrize("command", ["info", "verify", "sheet"])
def test_commands_end_with_what_is_there_and_exit_code_2(folder, command, capsys):
    assert main([command, str(folder)]) == 2
    assert capsys.readouterr() == ("", f"there is no LMDB file {folder}: it is a folder, which holds train.lmdb and "
                                       f"val.lmdb. Give one of them\n")


def test_a_file_and_a_folder_with_data_are_taken(folder):
    assert existing_file(str(folder / "val.lmdb")) == str(folder / "val.lmdb")
    shutil.copy(folder / "val.lmdb", folder / "empty" / "data.mdb")
    assert existing_file(str(folder / "empty")) == str(folder / "empty" / "data.mdb")


def test_a_folder_names_what_it_holds(folder):
    assert refusal(folder / "empty") == (": it is a folder, in which there is none. Write one with dump_imagenet.py, "
                                         "or check the path")
    shutil.copy(folder / "val.lmdb", folder / "empty" / "one.LMDB")
    assert refusal(folder / "empty") == ": it is a folder, which holds one.LMDB. Give that"
    for i in range(9):
        shutil.copy(folder / "val.lmdb", folder / "empty" / f"{i}.mdb")
    assert refusal(folder / "empty") == (": it is a folder, which holds 0.mdb, 1.mdb, 2.mdb, 3.mdb, 4.mdb and 5 more. "
                                         "Give one of them")


def test_what_looks_like_an_lmdb(folder):
    os.mkdir(folder / "lsun_lmdb")
    shutil.copy(folder / "val.lmdb", folder / "lsun_lmdb" / "data.mdb")
    for name in ("indexed", "indexed.index.npz", "lock.mdb", "x.lmdb-lock", "a.jpg"):
        (folder / name).write_text("x")
    os.mkdir(folder / "folder.lmdb")
    os.symlink("nowhere", folder / "link.lmdb")
    assert lmdbs(str(folder)) == ["indexed", "lsun_lmdb", "train.lmdb", "val.lmdb"]
    assert lmdbs(str(folder / "lsun_lmdb")) == ["data.mdb"] and lmdbs(str(folder / "none")) == []


@pytest.mark.parametrize("name, meant", [("trian.lmdb", "train.lmdb"), ("train", "train.lmdb"),
                                         ("VAL.LMDB", "val.lmdb"), ("val.mdb", "val.lmdb"), ("vals.lmdb", "val.lmdb")])
def test_a_name_that_is_like_another(folder, name, meant):
    assert refusal(folder / name) == f". Did you mean {folder / meant}?"


def test_a_name_that_is_like_none(folder):
    assert refusal(folder / "other.lmdb") == (". Write one with dump_imagenet.py, or check the path: its folder holds "
                                              "train.lmdb and val.lmdb")
    os.unlink(folder / "train.lmdb")
    assert refusal(folder / "train.lmdb").endswith("its folder holds val.lmdb")  # another split is not what was meant


def test_names_without_a_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert refusal("trian.lmdb") == ". Did you mean train.lmdb?"
    assert "which holds train.lmdb and val.lmdb" in refusal(".")


@pytest.mark.parametrize("name, what", [
    ("train.lmdb.index.npz", "it is the index of an LMDB file. Give {}/train.lmdb"),
    ("test.lmdb.partial", "it is an unfinished dump. Resume the dump"),
    ("test.lmdb.journal", "it is the journal of an unfinished dump. Resume the dump"),
    ("test.lmdb.index.npz.partial", "it is the index of an unfinished dump. Resume the dump"),
    ("test.lmdb", "its dump is not finished. Resume the dump"),
    ("train.lmdb/", "it is a file, and no folder. Give {}/train.lmdb"),
])
def test_what_lies_beside_an_lmdb(folder, name, what):
    assert refusal(f"{folder}/{name}") == f": {what.format(folder)}"


def test_lock_files(folder):
    for name, meant in (("train.lmdb-lock", folder / "train.lmdb"), ("empty/lock.mdb", folder / "empty")):
        (folder / name).write_text("")
        assert refusal(folder / name) == f": it is a lock of LMDB's. Give {meant}"


def test_links_pipes_and_missing_folders(folder):
    os.symlink("nowhere", folder / "link.lmdb")
    assert refusal(folder / "link.lmdb") == (": it is a link to nowhere, which is not there. Mend the link, or check "
                                              "the path")
    os.mkfifo(folder / "pipe.lmdb")  # which nobody writes to: reading it would wait for ever
    assert "is a folder, a pipe or a device, not a file" in refusal(folder / "pipe.lmdb")
    os.mkdir(folder / "empty" / "data.mdb")
    assert "data.mdb is a folder, a pipe or a device, not a file" in refusal(folder / "empty")
    assert refusal(folder / "no" / "train.lmdb") == (f", and no folder {folder / 'no'}. Write one with "
                                                     f"dump_imagenet.py, or check the path")


def test_a_name_of_the_folder_reaches_the_terminal_as_text_only(folder):
    shutil.copy(folder / "val.lmdb", folder / "empty" / "\x1b[2J.lmdb")
    shutil.copy(folder / "val.lmdb", os.fsencode(folder / "empty") + b"/caf\xe9.lmdb")
    text = refusal(folder / "empty")
    assert r"\x1b[2J.lmdb" in text and r"caf\udce9.lmdb" in text and text.isprintable()


def test_advise_names_the_lmdbs_of_a_folder_without_images(folder):
    for _ in range(2):
        with pytest.raises(FileNotFoundError, match="no class folders.*, which holds train.lmdb and val.lmdb. Give"):
            open_source(str(folder), 0)
        shutil.rmtree(folder / "empty", ignore_errors=True)  # which might be a class
    os.mkdir(folder / "empty")
    with pytest.raises(FileNotFoundError, match="empty holds no class folders with images. Give an LMDB"):
        open_source(str(folder / "empty"), 0)
