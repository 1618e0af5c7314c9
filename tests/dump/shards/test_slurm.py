"""Parts as a Slurm array, and the merge behind it, as docs/dump.md has them."""
import os
import re
import subprocess
import sys

import pytest

from helpers import slurm
from helpers.dumps import WORK, dump, state
from helpers.paths import ROOT
from helpers.waiting import eventually

pytestmark = pytest.mark.clusters

SECONDS = 100


def script():
    """The commands of the document, with this checkout's own program."""
    text = (ROOT / "docs" / "dump.md").read_text()
    [block] = re.findall(r"```text\n(#!/bin/bash\n.*?)```", text, re.S)
    return block.replace("dump-imagenet", f"{sys.executable} {ROOT / 'dump_imagenet.py'}")


@pytest.mark.skipif(slurm.missing() or os.getuid(), reason=f"Slurm needs root, and {slurm.missing() or 'no more'}")
@pytest.mark.time_limit(300)
def test_an_array_and_its_merge(photos, tmp_path, tmp_path_factory):
    folder, target = tmp_path_factory.mktemp("s"), tmp_path / "many"
    with slurm.cluster(folder) as environment:
        job = folder / "dump.sh"
        job.write_text(script().replace("IMAGENET", str(photos)).replace("DIR", str(target))
                       .replace("--array=0-15", "--array=0-2").replace("--shards 140", "--shards 5")
                       .replace("--cpus-per-task=8", "--cpus-per-task=1"))
        environment |= {"PYTHONPATH": str(ROOT)}
        submitted = subprocess.run(["sbatch", "--parsable", f"--output={folder}/%a.out", job], env=environment,
                                   cwd=folder, text=True, capture_output=True, check=True).stdout.strip()
        merge = f"{sys.executable} {ROOT / 'dump_imagenet.py'} --target {target} --split train --merge"
        then = [f"--dependency=afterok:{submitted}", f"--output={folder}/merge.out", f"--wrap={merge}"]
        subprocess.run(["sbatch", *then], env=environment, cwd=folder, capture_output=True, check=True)
        assert eventually((target / "train.manifest.json").exists, SECONDS), [
            path.read_text() for path in folder.glob("*.out")]
        assert eventually(lambda: not (target / WORK).exists())
        assert eventually(lambda: "23 images of 3 classes" in (folder / "merge.out").read_text())
        parts = [(folder / f"{i}.out").read_text() for i in range(3)]
    assert [f"part {i}/3 of " in told for i, told in enumerate(parts)] == [True] * 3
    dump(photos, tmp_path / "once", shards=5)
    assert state(target) == state(tmp_path / "once")
