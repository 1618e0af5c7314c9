"""Shards are read as the one file of the same records: batches, states, ranks, workers; and what is refused."""
import itertools
import os
import pathlib
import pickle
import resource
import shutil

import numpy as np
import pytest
import torch

from dataflows import CenterCrop, RandomResizedCrop
from dataflows.dump.split import dump_split
from dataflows.errors import RecordError
from dataflows.storage.shards.files import shard_files
from dataflows.storage.store import Store
from helpers.lmdb_files import write_raw
from helpers.shards import arrays, split
from uint_lmdb_iterloader import LMDBIterDataset, LMDBIterLoader
from uint_lmdb_loader import LMDBDataset, LMDBLoader

CROP = RandomResizedCrop(20)
LOADERS = {"shuffled": (LMDBLoader, {}), "unshuffled": (LMDBLoader, {"shuffle": False}),
           "local": (LMDBIterLoader, {"shuffle_buffer": 7}), "sequential": (LMDBIterLoader, {"order": "sequential"}),
           "block": (LMDBIterLoader, {"order": "block", "block_size": 3, "shuffle_buffer": 5}),
           "pinned": (LMDBLoader, {"partition": "pinned", "rank": 1, "world_size": 2})}


@pytest.fixture(params=["jpeg", "uint8"])
def single(request):
    return request.getfixturevalue(f"{request.param}_lmdb") / "train.lmdb"


@pytest.fixture(params=[1, 2, 5, 23])
def shards(request, single, tmp_path):
    return split(single, request.param, tmp_path)


@pytest.fixture
def five(jpeg_lmdb, tmp_path):
    return split(jpeg_lmdb / "train.lmdb", 5, tmp_path)


def folder(pattern):
    return pathlib.Path(pattern).parent


def forms(pattern):
    """The same shards as a pattern and a list."""
    return [pattern, sorted(folder(pattern).glob("train-*.lmdb"))]


def same(ours, others):
    return all(torch.equal(a, b) for batch, other in itertools.zip_longest(ours, others) for a, b in zip(batch, other))


# --- one file


def test_a_store_of_shards_is_that_of_one_file(single, shards):
    one = Store(single)
    for form in forms(shards):
        many = Store(form)
        assert len(many) == len(one) == 23 and many.fingerprint() == one.fingerprint()
        numbers = [3, 22, 0, 7, 7, 12]
        assert [value.tobytes() for value in many.values(numbers)] == [one.value(number).tobytes()
                                                                       for number in numbers]
        assert [many.value(number).tobytes() for number in range(23)] == [one.value(number).tobytes()
                                                                          for number in range(23)]
        for name, column in arrays(one.index).items():
            assert np.array_equal(column, getattr(many.index, name))
        assert many.index.classes == one.index.classes and many.index.meta.findings == one.index.meta.findings
        assert many.will_need(numbers)[0] == one.will_need(numbers)[0]
        many.release(numbers)
        assert many.place(22).startswith(os.fspath(folder(shards)))


@pytest.mark.parametrize("worker_type", ["thread", "process"])
@pytest.mark.parametrize("order", LOADERS)
def test_batches_and_states_are_those_of_one_file(single, tmp_path, order, worker_type):
    shards = split(single, 4, tmp_path)
    cls, options = LOADERS[order]
    options = options | {"transform": CROP, "seed": 3, "num_workers": 2, "worker_type": worker_type}
    one, many = cls(single, 5, **options), cls(shards, 5, **options)
    assert len(many) == len(one)
    for _ in range(2):
        assert same(many, one)
        assert many.state_dict() == one.state_dict()


def test_an_interrupted_epoch_goes_on_between_one_file_and_shards(single, tmp_path):
    shards = split(single, 3, tmp_path)
    expected = [labels for rank in range(2) for _, labels in LMDBLoader(single, 2, transform=CROP, rank=rank,
                                                                        world_size=2, uneven="keep")]
    loaders = [LMDBLoader(single, 2, transform=CROP, rank=rank, world_size=3, uneven="keep") for rank in range(3)]
    seen = [next(batches)[1] for batches in map(iter, loaders)]
    state = loaders[0].state_dict()
    for rank in range(2):
        loader = LMDBLoader(shards, 2, transform=CROP, rank=rank, world_size=2, uneven="keep")
        loader.load_state_dict(state)
        seen += [labels for _, labels in loader]
    assert sorted(torch.cat(seen).tolist()) == sorted(torch.cat(expected).tolist())


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_datasets_read_shards_in_workers(five, jpeg_lmdb, start_method):
    one, many = (LMDBDataset(path, transform=CenterCrop(20, 24)) for path in (jpeg_lmdb / "train.lmdb", five))
    assert many.targets == one.targets and many.classes == one.classes
    assert same(torch.utils.data.DataLoader(many, 4, num_workers=2, multiprocessing_context=start_method),
                torch.utils.data.DataLoader(one, 4))
    assert len(pickle.dumps(many)) < 10_000
    samples = LMDBIterDataset(five, order="sequential")
    labels = [label for _, label in torch.utils.data.DataLoader(samples, None, num_workers=2)]
    assert sorted(labels) == sorted(one.targets)


def test_files_of_other_writers_are_read_as_one(tmp_path, jpeg_lmdb):
    store = Store(jpeg_lmdb / "train.lmdb")
    files = [tmp_path / "a.lmdb", tmp_path / "b.lmdb"]
    for i, file in enumerate(files):
        write_raw(file, {b"%08d" % number: store.value(number).tobytes() for number in range(i * 10, i * 10 + 10)})
    many = Store(files)
    assert many.index is None and len(many) == 20
    assert [many.value(number).tobytes() for number in range(20)] == [store.value(n).tobytes() for n in range(20)]
    images, _ = next(iter(LMDBLoader(files, 20, shuffle=False, transform=CenterCrop(20, 24))))
    assert torch.equal(images, next(iter(LMDBLoader(jpeg_lmdb / "train.lmdb", 20, shuffle=False,
                                                    transform=CenterCrop(20, 24))))[0])


def test_verify_and_pread_hold_for_each_shard(five, jpeg_lmdb):
    options = {"transform": CROP, "io": "pread", "verify": True, "cache": "drop"}
    assert same(LMDBLoader(five, 4, **options), LMDBLoader(jpeg_lmdb / "train.lmdb", 4, transform=CROP))


# --- what is refused


def test_a_missing_shard_is_named(five):
    os.remove(folder(five) / "train-00003-of-00005.lmdb")
    with pytest.raises(FileNotFoundError, match=r"of 5 shards 1 are missing: .*train-00003-of-00005\.lmdb"):
        Store(five)


def test_damage_within_a_shard_names_it(five):
    file = folder(five) / "train-00004-of-00005.lmdb"
    offset = int(Store(file).index.offset[1])
    with open(file, "r+b") as handle:
        handle.seek(offset + 100)
        handle.write(b"\xff" * 8)
    with pytest.raises(RecordError, match=r"train-00004-of-00005\.lmdb, key 00000001: the record is not what"):
        list(LMDBLoader(five, 4, transform=CROP, verify=True))


def test_shards_of_other_classes_are_refused(five, tmp_path, photos):
    import dump_imagenet
    source = tmp_path / "source" / "train" / "n00000001"
    source.mkdir(parents=True)
    shutil.copy(next(photos.rglob("*.JPEG")), source / "a.JPEG")
    other = dump_imagenet.dump_split(tmp_path / "source", tmp_path, "train", progress=False, tiles=False).path
    with pytest.raises(ValueError, match=r"train\.lmdb has other classes than .*train-00000-of-00005\.lmdb"):
        Store([folder(five) / "train-00000-of-00005.lmdb", other])


def test_lists_and_patterns_that_name_nothing_or_twice(five):
    with pytest.raises(ValueError, match="a list of LMDBs must name one at least"):
        shard_files([])
    with pytest.raises(FileNotFoundError, match="no LMDB matches .*val-"):
        shard_files(os.fspath(folder(five) / "val-*.lmdb"))
    file = folder(five) / "train-00000-of-00005.lmdb"
    with pytest.raises(ValueError, match="named twice"):
        shard_files([file, file])
    assert shard_files(file) is None


# --- orders that know of files


def test_an_epoch_of_whole_shards(five):
    starts = Store(five).starts.tolist()
    loader = LMDBIterLoader(five, 4, order="shard", shuffle_buffer=0, return_index=True, transform=CROP)
    epochs = [torch.cat([numbers for _, _, numbers in loader]).tolist() for _ in range(3)]
    for numbers in epochs:
        assert sorted(numbers) == list(range(23))
        met = [np.searchsorted(starts, number, side="right") for number in numbers]
        assert len([*itertools.groupby(met)]) == 5
    assert epochs[0] != epochs[1] != epochs[2]


def test_a_pinned_rank_reads_the_same_shards_in_each_epoch(single, tmp_path):
    shards = split(single, 4, tmp_path)
    for cls, options in ((LMDBLoader, {}), (LMDBIterLoader, {"order": "shard", "shuffle_buffer": 3})):
        ranks = [cls(shards, 4, partition="pinned", rank=rank, world_size=2, uneven="keep", return_index=True,
                     transform=CROP, **options) for rank in range(2)]
        epochs = [[torch.cat([numbers for _, _, numbers in loader]).tolist() for loader in ranks] for _ in range(2)]
        assert [[sorted(numbers) for numbers in epoch] for epoch in epochs] == [[[*range(12)], [*range(12, 23)]]] * 2
        assert epochs[0] != epochs[1]


def test_a_state_of_another_partition_or_of_other_shards_is_refused(single, tmp_path):
    shards, others = (split(single, count, tmp_path / str(count)) for count in (3, 4))
    state = LMDBIterLoader(shards, 4, order="shard").state_dict()
    LMDBIterLoader(shards, 4, order="shard").load_state_dict(state)
    with pytest.raises(ValueError, match="shards"):
        LMDBIterLoader(others, 4, order="shard").load_state_dict(state)
    with pytest.raises(ValueError, match="partition"):
        LMDBLoader(shards, 4).load_state_dict(LMDBLoader(shards, 4, partition="pinned").state_dict())
    with pytest.raises(ValueError, match="partition must be 'rotate' or 'pinned', not 'fixed'"):
        LMDBLoader(shards, 4, partition="fixed")


def test_the_index_of_shards_is_put_together_when_it_is_asked_for(five, jpeg_lmdb):
    many, one = Store(five), Store(jpeg_lmdb / "train.lmdb")
    loader = LMDBLoader(five, 4, transform=CROP)
    next(iter(loader))
    assert loader.source_names([22, 3]) == LMDBLoader(jpeg_lmdb / "train.lmdb", 4).source_names([22, 3])
    assert "name" not in vars(loader._reader.store.index) and "offset" not in vars(loader._reader.store.index)
    assert many.index.name.tolist() == one.index.name.tolist() and many.mean_nbytes == pytest.approx(one.mean_nbytes)


def test_labels_of_two_kinds_are_refused(jpeg_lmdb, tmp_path):
    samples = [[np.full((4, 4, 3), number, np.uint8), np.float32([0, 1])] for number in range(3)]
    dump_split(samples, tmp_path, "train", format="uint8", progress=False)
    with pytest.raises(ValueError, match="train.lmdb has labels that are a vector of 2, and those of .* are a class"):
        Store([jpeg_lmdb / "train.lmdb", tmp_path / "train.lmdb"])


def test_more_files_than_the_soft_limit_allows(jpeg_lmdb, tmp_path):
    shards = split(jpeg_lmdb / "train.lmdb", 23, tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 20, hard))
        store = Store(shards)
        assert sum(len(value) for value in store.values(list(range(23))))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
