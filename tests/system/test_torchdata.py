"""The datasets under torch's DistributedSampler and torchdata's StatefulDataLoader."""
import collections
import itertools
import json
import pickle

import pytest
from torch.utils.data import DataLoader, DistributedSampler
from torchdata.stateful_dataloader import StatefulDataLoader

from dataflows import CenterCrop
from helpers.batches import frozen, samples
from uint_lmdb_iterloader import LMDBIterDataset
from uint_lmdb_loader import LMDBDataset

TIMEOUT_SECONDS = 60
pytestmark = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # torchdata 0.11 calls it
OPTIONS = {"in order": {}, "local": {"order": "local", "shuffle_buffer": 7},
           "block": {"order": "block", "block_size": 3, "shuffle_buffer": 4}}


@pytest.fixture
def path(uint8_lmdb):
    """23 records."""
    return uint8_lmdb / "train.lmdb"


def iterable(path, order, **options):
    return LMDBIterDataset(path, transform=CenterCrop(8, 12), **OPTIONS[order] | options)


def stateful(dataset, num_workers=0, **options):
    return StatefulDataLoader(dataset, batch_size=2, num_workers=num_workers,
                              timeout=TIMEOUT_SECONDS if num_workers else 0, **options)


def interrupted(loader, batches):
    """The first batches of an epoch, and the state after them as another process would get it."""
    iterator = iter(loader)
    head = frozen(itertools.islice(iterator, batches))
    return head, pickle.loads(pickle.dumps(loader.state_dict()))


# --- StatefulDataLoader


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("order", OPTIONS)
def test_an_iterable_dataset_goes_on_after_any_batch(path, order, num_workers):
    expected = frozen(stateful(iterable(path, order), num_workers))
    for batches in ((0, 1, 5, 11, 12) if num_workers == 0 else (5, 12)):
        loader = stateful(iterable(path, order), num_workers)
        head, state = interrupted(loader, batches)
        assert head == expected[:batches]
        other = stateful(iterable(path, order), num_workers)
        other.load_state_dict(state)
        assert frozen(other) == expected[batches:]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_map_style_dataset_goes_on_in_a_shuffled_epoch(path, num_workers):
    dataset = LMDBDataset(path, transform=CenterCrop(8, 12))
    loader = stateful(dataset, num_workers, shuffle=True)
    iterator = iter(loader)
    head = frozen(itertools.islice(iterator, 5))
    state = pickle.loads(pickle.dumps(loader.state_dict()))
    rest = frozen(iterator)
    other = stateful(dataset, num_workers, shuffle=True)
    other.load_state_dict(state)
    assert frozen(other) == rest
    assert len(head + rest) == 12 and len(set(head + rest)) == 12


def test_an_epoch_that_was_loaded_is_that_of_the_state(path):
    dataset = iterable(path, "local")
    dataset.set_epoch(3)
    expected = frozen(stateful(dataset))
    _, state = interrupted(stateful(dataset), 4)
    other = stateful(iterable(path, "local"))
    other.load_state_dict(state)
    assert frozen(other) == expected[4:]


def test_after_a_resumed_epoch_the_next_one_is_whole(path):
    _, state = interrupted(stateful(iterable(path, "local")), 4)
    dataset = iterable(path, "local")
    loader = stateful(dataset)
    loader.load_state_dict(state)
    frozen(loader)
    for epoch in (1, 2):
        dataset.set_epoch(epoch)
        reference = iterable(path, "local")
        reference.set_epoch(epoch)
        assert frozen(loader) == frozen(stateful(reference))


# --- the state of an iterator


def test_the_state_of_an_iterator_is_plain_and_a_copy(path):
    iterator = iter(iterable(path, "block"))
    next(iterator)
    state = iterator.state_dict()
    assert json.loads(json.dumps(state)) == state and state["samples"] == 1
    next(iterator)
    assert state["samples"] == 1 and iterator.state_dict()["samples"] == 2
    state["order"].clear()
    assert iterator.state_dict()["order"]


@pytest.mark.parametrize("change, message", [
    ({"seed": 1}, "another seed: 0 and not 1"),
    ({"shuffle_buffer": 9}, "another shuffle_buffer: 7 and not 9"), ({"indices": [1]}, "another indices"),
    ({"rank": 0, "world_size": 2}, "taken with world_size=1, and the dataset has 2")])
def test_a_state_of_another_order_is_refused(path, change, message):
    state = iter(iterable(path, "local")).state_dict()
    with pytest.raises(ValueError, match=message):
        iter(iterable(path, "local", **change)).load_state_dict(state)


def test_a_state_of_another_file_is_refused(path, uint8_lmdb):
    state = iter(iterable(path, "local")).state_dict()
    with pytest.raises(ValueError, match="another file"):
        iter(iterable(uint8_lmdb / "val.lmdb", "local")).load_state_dict(state)


@pytest.mark.parametrize("name, value", [
    *itertools.product(["epoch", "part", "parts", "samples", "order", "version"], [None, -1, "1", 1.5]), ("parts", 0),
    ("part", 1), ("world_size", None)])
def test_what_is_no_state_is_refused_and_changes_nothing(path, name, value):
    iterator = iter(iterable(path, "local"))
    next(iterator)
    state = iterator.state_dict()
    without = {key: value for key, value in state.items() if key != name}
    for damaged in (state | {name: value}, without, None, []):
        with pytest.raises(ValueError, match="state|integer"):
            iterator.load_state_dict(damaged)
    assert iterator.state_dict() == state


# --- DistributedSampler, and ranks of an iterable dataset


@pytest.mark.parametrize("num_workers", [0, 2])
def test_distributed_samplers_share_out_a_map_style_dataset(path, num_workers):
    dataset = LMDBDataset(path, transform=CenterCrop(8, 12))
    expected = set(samples(DataLoader(dataset, 4)))
    epochs = []
    for epoch in range(2):
        ranks = []
        for rank in range(3):
            sampler = DistributedSampler(dataset, num_replicas=3, rank=rank, seed=1)
            sampler.set_epoch(epoch)
            ranks.append(samples(DataLoader(dataset, 4, sampler=sampler, num_workers=num_workers)))
        assert [len(rank) for rank in ranks] == [8, 8, 8]
        assert set(itertools.chain(*ranks)) == expected
        epochs.append(ranks)
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize("order, num_workers", [("in order", 0), ("block", 0), ("local", 2)])
@pytest.mark.parametrize("uneven", ["pad", "drop", "keep"])
def test_ranks_and_workers_share_out_an_iterable_dataset(path, order, num_workers, uneven):
    expected = collections.Counter(samples(DataLoader(iterable(path, order), 4)))
    seen = collections.Counter()
    for rank in range(3):
        dataset = iterable(path, order, rank=rank, world_size=3, uneven=uneven)
        own = samples(DataLoader(dataset, 4, num_workers=num_workers))
        assert len(own) == len(dataset) == {"pad": [8, 8, 8], "drop": [7, 7, 7], "keep": [8, 8, 7]}[uneven][rank]
        seen += collections.Counter(own)
    assert sum((seen & expected).values()) == (21 if uneven == "drop" else 23)
    assert sum(seen.values()) == {"pad": 24, "drop": 21, "keep": 23}[uneven]
