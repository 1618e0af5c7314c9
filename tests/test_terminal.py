"""What is printed: names escaped, in any encoding, and no stream whose failure undoes the work before it."""
import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import unicodedata

import pytest

from dataflows import terminal
from dataflows.dump.verify import verify
from dataflows.storage.index import load_index
from helpers.paths import ROOT
from helpers.photos import encode_jpeg, make_photo

HOSTILE = b"caf\xe9\x1b[2J\nowned.jpg"  # not UTF-8, a terminal's command, a line end
ESCAPED = r"caf\udce9\x1b[2J\nowned.jpg"
STREAMS = {"narrow": dict(PYTHONIOENCODING="ascii"), "latin": dict(PYTHONIOENCODING="latin-1"),
           "C": dict(LC_ALL="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0"), "UTF-8": dict(PYTHONUTF8="1")}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A split with one photo that is gray, a copy of it, and one file that is no image: all with hostile names."""
    folder = os.fsencode(tmp_path_factory.mktemp("hostile") / "val" / "cl\x1b[1mass")
    os.makedirs(folder)
    for name, content in ((HOSTILE, encode_jpeg(make_photo(50, 60, 1)[:, :, 1])), (b"no" + HOSTILE, b"not an image")):
        with open(os.path.join(folder, name), "wb") as file:
            file.write(content)
    return pathlib.Path(os.fsdecode(folder)).parent.parent


@contextlib.contextmanager
def stream(kind):
    """A stream for a child process: read by us, on a full disk, or into a pipe that nobody reads."""
    if kind == "full":
        with open("/dev/full", "wb") as file:
            yield file
    elif kind == "unread":
        read, write = os.pipe()
        os.close(read)
        with os.fdopen(write, "wb") as file:
            yield file
    else:
        yield subprocess.PIPE if kind == "read" else None


def run(*command, streams="UTF-8", stdout="read", stderr="read", missing=()):
    """Runs Python; `missing` are descriptors that it is started without."""
    environment = os.environ | STREAMS[streams] | {"PYTHONPATH": str(ROOT)}
    with stream(stdout) as out, stream(stderr) as err:
        return subprocess.run([sys.executable, *map(str, command)], env=environment, cwd=ROOT, timeout=100, stdout=out,
                              stderr=err, preexec_fn=lambda: [os.close(number) for number in missing])


def dump(source, target, *more, **options):
    return run("dump_imagenet.py", "--source", source, "--target", target, "--split", "val", "--on-error", "skip",
               *more, **options)


def assert_clean(text):
    assert not {unicodedata.category(c) for c in text.replace("\n", "").replace("\r", "")} & {"Cc", "Cf", "Cs"}, text


@pytest.mark.parametrize("streams", STREAMS)
def test_a_dump_of_names_that_cannot_be_printed_is_a_good_one(hostile, tmp_path, streams):
    done = dump(hostile, tmp_path / "t\x1b[3mo", streams=streams)
    out, err = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == 0, err
    assert ESCAPED in out and r"t\x1b[3mo" in out and r"cl\x1b[1mass" in out
    assert_clean(out)
    assert_clean(err)
    assert out.splitlines()[-1].endswith(ESCAPED) and "1 image of 1 class as" in out and "1 file skipped" in out
    path = tmp_path / "t\x1b[3mo" / "val.lmdb"
    assert load_index(str(path), str(path)).name[0] == b"cl\x1b[1mass/" + HOSTILE


@pytest.mark.parametrize("streams", STREAMS)
def test_commands_print_what_cannot_be_printed(hostile, tmp_path, streams):
    assert dump(hostile, tmp_path).returncode == 0
    path = tmp_path / "val.lmdb"
    shutil.copy(path, tmp_path / "bad\x1b[m.lmdb")
    shutil.copy(f"{path}.index.npz", tmp_path / "bad\x1b[m.lmdb.index.npz")
    for command, code, words in (
            (["info", path], 0, ESCAPED), (["verify", path], 0, "all as they were written"),
            (["sheet", path, "-o", tmp_path / "sh\x1b[meet.png"], 0, r"Wrote " + str(tmp_path) + r"/sh\x1b[meet.png"),
            (["info", tmp_path / "no\x1b[2J\nsuch"], 2, r"no\x1b[2J\nsuch")):
        done = run("-m", "dataflows", *command, streams=streams)
        text = done.stdout.decode() + done.stderr.decode()
        assert done.returncode == code and words in text, text
        assert_clean(text)
    with open(tmp_path / "bad\x1b[m.lmdb", "rb+") as file:
        file.seek(int(load_index(str(path), str(path)).offset[0]) + 9)
        file.write(b"xyz")
    done = run("-m", "dataflows", "verify", "--no-progress", tmp_path / "bad\x1b[m.lmdb", streams=streams)
    assert done.returncode == 1 and ESCAPED in done.stdout.decode() and done.stderr == b""
    assert_clean(done.stdout.decode())


def test_json_is_exact_in_any_encoding(hostile, tmp_path):
    assert dump(hostile, tmp_path).returncode == 0
    texts = [run("-m", "dataflows", "info", "--json", tmp_path / "val.lmdb", streams=name).stdout for name in STREAMS]
    assert len(set(texts)) == 1
    [example] = json.loads(texts[0])["found"]["findings"]["grayscale"]["examples"]
    assert os.fsencode(example) == b"cl\x1b[1mass/" + HOSTILE


def test_bars_are_drawn_with_what_the_encoding_has(tiled_lmdb):
    assert "###" in run("-m", "dataflows", "info", tiled_lmdb / "val.lmdb", streams="narrow").stdout.decode("ascii")
    assert "███" in run("-m", "dataflows", "info", tiled_lmdb / "val.lmdb").stdout.decode()


# Streams that take nothing.

@pytest.mark.parametrize("options, told", [
    (dict(stdout="full"), b"could not be printed: [Errno 28]"), (dict(stderr="full"), None),
    (dict(stdout="full", stderr="full"), None), (dict(stdout="unread"), b""), (dict(stderr="unread"), None),
    (dict(missing=[1]), b"could not be printed: it was closed"), (dict(missing=[2]), None),
    (dict(missing=[0, 1, 2]), None)], ids=str)
def test_a_dump_that_nobody_can_read_of_is_a_good_one(photos, tmp_path, options, told, tiled_lmdb):
    done = dump(photos, tmp_path, **options)
    assert done.returncode == 0
    assert {path.name for path in tmp_path.iterdir()} == {"val.lmdb", "val.lmdb.index.npz"}
    assert (tmp_path / "val.lmdb").read_bytes() == (tiled_lmdb / "val.lmdb").read_bytes()
    assert verify(tmp_path / "val.lmdb", progress=False).bad == []
    if told is not None:
        assert told in done.stderr and (b"printed" in done.stderr) == bool(told)


@pytest.mark.parametrize("stdout, code, told", [
    ("full", 2, b"what there is to say could not be printed: [Errno 28] No space left on device\n"),
    ("unread", 0, b"")])
def test_info_says_when_it_cannot_say_it(tiled_lmdb, stdout, code, told):
    done = run("-m", "dataflows", "info", tiled_lmdb / "val.lmdb", stdout=stdout)
    assert (done.returncode, done.stderr) == (code, told)


@pytest.mark.parametrize("stdout", ["full", "unread"])
def test_verify_and_sheet_end_as_if_they_were_read(tiled_lmdb, tmp_path, stdout):
    for name in ("val.lmdb", "val.lmdb.index.npz"):
        shutil.copy(tiled_lmdb / name, tmp_path)
    path, picture = tmp_path / "val.lmdb", tmp_path / "a.png"
    assert run("-m", "dataflows", "verify", path, stdout=stdout).returncode == 0
    assert run("-m", "dataflows", "sheet", path, "-o", picture, stdout=stdout).returncode == 0
    assert picture.stat().st_size > 1000
    with open(path, "rb+") as file:
        file.seek(int(load_index(str(path), str(path)).offset[3]) + 9)
        file.write(b"xyz")
    assert run("-m", "dataflows", "verify", path, stdout=stdout).returncode == 1


def test_what_c_libraries_print_is_not_written_into_the_dump(tmp_path):
    """libjpeg warns of flawed data on descriptor 2, which without a stderr would be that of the journal."""
    jpeg = encode_jpeg(make_photo(80, 90, 1), subsampled=False)
    scan = jpeg.index(b"\xff\xda")
    folder = tmp_path / "source" / "val" / "class"
    folder.mkdir(parents=True)
    for number in range(20):
        at = scan + 200 + number
        (folder / f"{number}.jpg").write_bytes(jpeg[:at] + b"\x00\xff\x00" + jpeg[at + 3:])
    told = dump(tmp_path / "source", tmp_path / "all", "--no-progress")
    assert told.returncode == 0 and b"Corrupt JPEG data" in told.stderr  # or the test shows nothing
    assert dump(tmp_path / "source", tmp_path / "none", "--no-progress", missing=[2]).returncode == 0
    assert (tmp_path / "none" / "val.lmdb").read_bytes() == (tmp_path / "all" / "val.lmdb").read_bytes()


def test_plurals():
    assert [terminal.plural(n, "class", "classes") for n in (0, 1, 2)] == ["0 classes", "1 class", "2 classes"]
