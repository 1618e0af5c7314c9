"""webdataset: tar shards, read in processes."""
import contextlib
import glob
import math
import os
from typing import Iterator

from torch.utils.data import default_collate

from benchmarks.contestants import Epoch, Job
from benchmarks.copies import copy_of, files_in_order
from benchmarks.decoder import Decoder, planar

_SHUFFLE_BUFFER = 2000  # records that are mixed, besides whole shards


@contextlib.contextmanager
def webdataset(job: Job) -> Iterator[Epoch]:
    """Tar shards, read by webdataset's loader in processes that batch for themselves.

    Train shuffles whole shards and then samples within a buffer.
    """
    import webdataset as wds

    folder = copy_of(job, "webdataset", lambda partial: _write_shards(job, partial))
    shards = sorted(glob.glob(os.path.join(glob.escape(folder), "*.tar")))
    dataset = wds.WebDataset(shards, shardshuffle=len(shards) if job.training else False, empty_check=False)
    if job.training:
        dataset = dataset.shuffle(_SHUFFLE_BUFFER)
    dataset = (dataset.to_tuple("jpg", "cls").map_tuple(Decoder(job.training), int)
               .batched(job.batch_size, collation_fn=default_collate, partial=True))
    loader = wds.WebLoader(dataset, batch_size=None, num_workers=job.num_workers,
                           persistent_workers=job.num_workers > 0)
    yield lambda number: (planar(*batch) for batch in loader)


def _write_shards(job: Job, folder: str) -> None:
    import webdataset as wds

    files = files_in_order(job)
    per_shard = min(1000, math.ceil(len(files) / max(8, job.num_workers)))  # enough shards for every worker
    with wds.ShardWriter(os.path.join(folder, "%06d.tar"), maxcount=per_shard, verbose=0) as sink:
        for number, (name, label) in enumerate(files):
            sink.write({"__key__": f"{number:08d}", "jpg": files.read(name), "cls": label})
