"""`python -m dataflows` on data sets at URLs."""
import shutil

import pytest

from dataflows.__main__ import main
from dataflows.dump.verify import verify
from dataflows.tools.info.facts import describe
from helpers.web_server import WebServer

pytest.importorskip("aiohttp")


@pytest.fixture
def server(tiled_lmdb, tmp_path):
    shutil.copytree(tiled_lmdb, tmp_path / "served")
    with WebServer(tmp_path / "served") as serving:
        yield serving


def test_facts_are_those_of_the_local_file(server, tiled_lmdb):
    far, near = describe(f"{server.url}/val.lmdb"), describe(tiled_lmdb / "val.lmdb")
    assert {name for name in near if far[name] != near[name]} == {"path", "index"}
    assert far["path"] == f"{server.url}/val.lmdb"


def test_info_and_sheet_work(server, tmp_path, capsys):
    url = f"{server.url}/val.lmdb"
    assert main(["info", url]) == 0 and "10 records of 3 classes" in capsys.readouterr().out
    assert main(["sheet", url, "--count", "4", "-o", str(tmp_path / "sheet.png")]) == 0
    assert main(["sheet", url, "--count", "4", "--report", str(tmp_path / "report")]) == 0
    assert url in (tmp_path / "report" / "index.html").read_text()


def test_verify_reports_as_locally(server, tiled_lmdb, capsys):
    url = f"{server.url}/val.lmdb"
    assert main(["verify", url, "--no-progress"]) == 0
    assert f"{url}: 10 records" in capsys.readouterr().out
    path = server.folder / "val.lmdb"
    content = bytearray(path.read_bytes())
    content[verify_offset(path)] ^= 1
    path.write_bytes(content)
    assert main(["verify", url, "--no-progress"]) == 1
    far, near = capsys.readouterr().out.splitlines(), verify(path, progress=False)
    assert far[1:] == [f"  {line}" for line in near.bad] and "key 00000003" in far[1]


def verify_offset(path):
    from dataflows.storage.index import load_index

    return int(load_index(str(path), str(path)).offset[3]) + 5


def test_what_is_missing_is_exit_code_2(server, capsys):
    assert main(["verify", f"{server.url}/none.lmdb"]) == 2
    assert "none.lmdb" in capsys.readouterr().err
    (server.folder / "val.lmdb.index.npz").unlink()
    assert main(["verify", f"{server.url}/val.lmdb"]) == 2
    assert "has no index" in capsys.readouterr().err
    assert main(["advise", f"{server.url}/val.lmdb"]) == 2
    assert "has no index" in capsys.readouterr().err
