"""Memory of batches: what the user keeps is never overwritten, and none is left when epochs end."""
import os
import subprocess
import sys

import pytest

from helpers.paths import ROOT


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_batches_that_the_user_keeps_are_never_overwritten(path, method, tmp_path):
    """More than there is shared memory for: the others travel as copies."""
    script = tmp_path / "keeps.py"
    script.write_text(f"""
import multiprocessing, torch
from dataflows import RandomResizedCrop
from uint_lmdb_loader import LMDBLoader
if __name__ == "__main__":
    multiprocessing.set_start_method({method!r})
    options = dict(transform=RandomResizedCrop(160), seed=3)  # 77 kB an image: shared
    expected = [images.clone() for images, _ in LMDBLoader({str(path)!r}, 1, num_workers=0, **options)]
    kept = [images for images, _ in LMDBLoader({str(path)!r}, 1, num_workers=2, worker_type="process", **options)]
    assert len(kept) > 10 and all(map(torch.equal, expected, kept))
    with LMDBLoader({str(path)!r}, 1, num_workers=1, worker_type="process", prefetch=1, **options) as loader:
        views = [images[0, 0] for images, _ in loader]  # a view keeps its memory too
    assert all(torch.equal(image[0, 0], view) for image, view in zip(expected, views, strict=True))
""")
    subprocess.run([sys.executable, str(script)], check=True, timeout=100, env=os.environ | {"PYTHONPATH": str(ROOT)})
