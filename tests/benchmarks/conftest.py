"""Temporary folders of contestants are made below the tests' own, also where a test is killed."""
import tempfile

import pytest


@pytest.fixture(autouse=True)
def temporary(tmp_path_factory, monkeypatch):
    """The folder that temporary folders are made in."""
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder
