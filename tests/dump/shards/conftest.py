"""Small transactions, so that little is lost; and what one process makes of the same photos."""

import pytest

from dataflows.dump import write
from helpers.dumps import dump


@pytest.fixture
def small_transactions(monkeypatch):
    monkeypatch.setattr(write, "_TRANSACTION_BYTES", 10_000)


@pytest.fixture(scope="module")
def once(photos, tmp_path_factory):
    """The folder of a dump into five shards by one process."""
    folder = tmp_path_factory.mktemp("once")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "_TRANSACTION_BYTES", 10_000)
        dump(photos, folder, shards=5)
    return folder
