"""Interrupting and resuming: the batches after load_state_dict are those of the run that was not interrupted."""
import collections
import itertools
import json
import pickle
import subprocess
import sys
from zlib import crc32

import pytest
import torch

from dataflows import CenterCrop, RandomResizedCrop
from helpers.batches import frozen, samples
from helpers.paths import ROOT
from uint_lmdb_iterloader import LMDBIterLoader
from uint_lmdb_loader import LMDBLoader

TIMEOUT_SECONDS = 60
CROP = RandomResizedCrop(8)
ORDERS = {"shuffled": (LMDBLoader, {}), "not shuffled": (LMDBLoader, {"shuffle": False}),
          "local": (LMDBIterLoader, {"shuffle_buffer": 7}),
          "block": (LMDBIterLoader, {"order": "block", "block_size": 4, "shuffle_buffer": 5}),
          "blocks alone": (LMDBIterLoader, {"order": "block", "block_size": 4, "shuffle_buffer": 0}),
          "sequential": (LMDBIterLoader, {"order": "sequential"})}


@pytest.fixture(params=["shuffled", "local", "block", "sequential"])
def order(request):
    return request.param


@pytest.fixture
def path(uint8_lmdb):
    """23 records."""
    return uint8_lmdb / "train.lmdb"


def make(order, path, batch_size=4, **options):
    """A loader of 6 batches an epoch, which decodes ahead of what is read."""
    cls, own = ORDERS[order]
    return cls(path, batch_size, **{"transform": CROP, "num_workers": 2, "prefetch": 3, "seed": 5} | own | options)


def interrupted(loader, batches):
    """The first batches of the loader's next epoch, and the state after them."""
    head = frozen(itertools.islice(loader, batches))
    return head, loader.state_dict()


def resumed(loader, state):
    loader.load_state_dict(state)
    return loader


# --- the same world


@pytest.mark.parametrize("options", [{}, {"drop_last": True}, {"repeats": 2, "indices": [3, 20, 7, 3, 11]}], ids=str)
@pytest.mark.parametrize("order", ORDERS)
def test_after_any_batch_the_rest_is_that_of_the_uninterrupted_run(order, path, options):
    whole = make(order, path, **options)
    expected, following = frozen(whole), frozen(whole)
    running = make(order, path, **options)
    for count, _ in enumerate(running, 1):  # several batches are in flight
        state = json.loads(json.dumps(running.state_dict()))
        other = resumed(make(order, path, num_workers=0, **options), state)
        assert frozen(other) == expected[count:]
        assert frozen(other) == following
    assert count == len(expected)


@pytest.mark.parametrize("options", [{"num_workers": 0}, {"num_workers": 1, "prefetch": 1}, {"num_workers": 8}],
                         ids=str)
def test_the_number_of_workers_may_change(order, path, options):
    expected = frozen(make(order, path))
    _, state = interrupted(make(order, path, **options), 2)
    assert frozen(resumed(make(order, path), state)) == expected[2:]
    _, state = interrupted(make(order, path), 3)
    assert frozen(resumed(make(order, path, **options), state)) == expected[3:]


@pytest.mark.parametrize("order", ["shuffled", "local"])
@pytest.mark.parametrize("before, after", [("thread", "process"), ("process", "thread")])
def test_the_type_of_workers_may_change(order, path, before, after):
    expected = frozen(make(order, path))
    head, state = interrupted(make(order, path, worker_type=before), 2)
    assert head + frozen(resumed(make(order, path, worker_type=after), state)) == expected


def test_the_batch_size_may_change(order, path):
    expected = samples(make(order, path))
    _, state = interrupted(make(order, path), 2)
    assert samples(resumed(make(order, path, batch_size=5), state)) == expected[8:]


RESUME = """
import json, sys
from zlib import crc32
from {module} import {cls}
from dataflows import RandomResizedCrop
loader = {cls}(sys.argv[1], 4, transform=RandomResizedCrop(8), seed=5, **{options})
loader.load_state_dict(json.loads(sys.argv[2]))
print(*(crc32(images.numpy().tobytes()) for images, _ in loader))
"""


@pytest.mark.parametrize("order", ["block"])
def test_another_process_goes_on(order, path):
    expected = [crc32(images) for images, _ in frozen(make(order, path))]
    _, state = interrupted(make(order, path), 4)
    cls, options = ORDERS[order]
    code = RESUME.format(module=cls.__module__, cls=cls.__name__, options=options)
    done = subprocess.run([sys.executable, "-c", code, path, json.dumps(state)], cwd=ROOT, text=True,
                          capture_output=True, timeout=TIMEOUT_SECONDS, check=True)
    assert list(map(int, done.stdout.split())) == expected[4:]


def test_a_state_is_small_and_plain(order, path):
    loader = make(order, path)
    for state in (loader.state_dict(), interrupted(loader, 2)[1]):
        assert json.loads(json.dumps(state)) == pickle.loads(pickle.dumps(state)) == state
        assert len(json.dumps(state)) < 1000
    state["order"].clear()
    state["done"].append("garbage")
    assert loader.state_dict()["order"] and loader.state_dict()["done"] == []  # a state is a copy


# --- epochs


def test_a_training_loop_goes_on_in_its_epoch(order, path):
    reference = make(order, path)
    expected = [frozen(reference) for _ in range(5)]
    running = make(order, path)
    for epoch in range(2):
        running.set_epoch(epoch)
        frozen(running)
    head, state = interrupted(running, 4)
    assert state["epoch"] == 2
    loader = resumed(make(order, path), state)
    for epoch in range(state["epoch"], 5):
        loader.set_epoch(epoch)  # naming the epoch that was loaded keeps the place in it
        batches = frozen(loader)
        assert (head + batches if epoch == 2 else batches) == expected[epoch]


def test_without_set_epoch_epochs_follow_each_other(order, path):
    reference = make(order, path)
    expected = list(itertools.chain(*(frozen(reference) for _ in range(3))))
    frozen(running := make(order, path))
    head, state = interrupted(running, 1)
    loader = resumed(make(order, path), state)
    assert expected[:6] + head + frozen(loader) + frozen(loader) == expected


def test_a_run_may_be_interrupted_any_number_of_times(order, path):
    expected = frozen(make(order, path))
    seen, state = [], make(order, path).state_dict()
    for batches in (1, 2, 0, 1):
        head, state = interrupted(resumed(make(order, path), state), batches)
        seen += head
    assert seen + frozen(resumed(make(order, path), state)) == expected


def test_states_between_epochs(order, path):
    reference = make(order, path)
    first, second, third = (frozen(reference) for _ in range(3))
    loader = make(order, path)
    before = loader.state_dict()
    batches = iter(loader)
    not_started = loader.state_dict()
    assert frozen(itertools.islice(batches, 6)) == first
    at_the_end = loader.state_dict()
    assert frozen(batches) == []
    after = loader.state_dict()
    assert frozen(resumed(make(order, path), before)) == frozen(resumed(make(order, path), not_started)) == first
    other = resumed(make(order, path), at_the_end)
    assert [frozen(other) for _ in range(3)] == [[], second, third]
    other = resumed(make(order, path), after)
    assert [frozen(other) for _ in range(2)] == [second, third]
    assert after["epoch"] == 1 and after["samples"] == 0


def test_after_a_break_a_state_is_at_the_break_until_an_epoch_is_named(order, path):
    reference = make(order, path)
    first, second = frozen(reference), frozen(reference)
    for epoch in (None, 1):
        loader = make(order, path)
        for count, _ in enumerate(loader, 1):
            if count == 3:
                break
        if epoch is not None:
            loader.set_epoch(epoch)
        rest = first[3:] if epoch is None else second
        assert frozen(resumed(make(order, path), loader.state_dict())) == rest
        assert frozen(loader) == second


def test_a_loaded_state_is_the_state_until_the_next_batch(order, path):
    _, state = interrupted(make(order, path), 3)
    loader = resumed(make(order, path), state)
    assert loader.state_dict() == state
    iter(loader)
    assert loader.state_dict() == state
    next(iter(loader))
    assert loader.state_dict() == state | {"samples": 16}


def test_naming_another_epoch_forgets_the_place(order, path):
    reference = make(order, path)
    first, second = frozen(reference), frozen(reference)
    _, state = interrupted(make(order, path), 3)
    loader = resumed(make(order, path), state)
    loader.set_epoch(1)
    assert frozen(loader) == second
    loader.set_epoch(0)
    assert frozen(loader) == first


def test_a_state_may_be_loaded_into_a_loader_in_use(order, path):
    expected = frozen(make(order, path))
    loader = make(order, path)
    _, state = interrupted(loader, 2)
    running = iter(loader)
    next(running)
    loader.load_state_dict(state)
    assert frozen(loader) == expected[2:]
    running.close()


# --- other worlds


def run_ranks(order, path, world_size, state, batches, **options):
    """Samples that each rank reads of an epoch, all or the first batches, and rank 0's state."""
    loaders = [make(order, path, batch_size=2, rank=rank, world_size=world_size, num_workers=0, **options)
               for rank in range(world_size)]
    if state is not None:
        for loader in loaders:
            loader.load_state_dict(state)
    return [samples(itertools.islice(loader, batches)) for loader in loaders], loaders[0].state_dict()


@pytest.mark.parametrize("uneven", ["pad", "drop", "keep"])
def test_another_number_of_ranks_reads_what_is_left(order, path, uneven):
    expected = collections.Counter(samples(make(order, path, uneven=uneven)))
    assert len(expected) == 23  # the same crop of the same image is the same position
    first, state = run_ranks(order, path, 2, None, 2, uneven=uneven)
    second, state = run_ranks(order, path, 3, state, 1, uneven=uneven)
    again, state = run_ranks(order, path, 3, state, 1, uneven=uneven)
    assert state["done"] == [[2, 4]] and state["samples"] == 4
    last, state = run_ranks(order, path, 1, state, None, uneven=uneven)
    seen = collections.Counter(itertools.chain(*first, *second, *again, *last))
    assert not expected - seen and max((seen & expected).values()) == 1
    # 15 were left to 3 ranks, 3 to one: nothing had to be repeated or left out.
    assert seen == expected
    assert state["epoch"] == 1 and state["done"] == []


@pytest.mark.parametrize("world_size", [2, 5])
@pytest.mark.parametrize("uneven", ["pad", "drop", "keep"])
def test_another_number_of_ranks_is_as_uneven_as_it_says(order, path, uneven, world_size):
    expected = set(samples(make(order, path, uneven=uneven)))
    first, state = run_ranks(order, path, 3, None, 1, uneven=uneven)
    rest, _ = run_ranks(order, path, world_size, state, None, uneven=uneven)
    left = 23 - 6
    count = {"pad": left + -left % world_size, "drop": left - left % world_size, "keep": left}[uneven]
    assert sum(map(len, rest)) == count
    seen = list(itertools.chain(*first, *rest))
    assert len(set(seen) & expected) == min(23, 6 + count) and len(set(seen)) == len(seen)
    assert uneven == "keep" or len(set(map(len, rest))) == 1


def test_epochs_after_it_are_those_of_the_new_number_of_ranks(order, path):
    _, state = run_ranks(order, path, 2, None, 1)
    for rank in range(3):
        options = {"batch_size": 2, "rank": rank, "world_size": 3}
        loader, reference = (make(order, path, **options) for _ in range(2))
        loader.load_state_dict(state)
        frozen(loader)
        reference.set_epoch(1)
        assert frozen(loader) == frozen(reference)
        assert loader.state_dict() == reference.state_dict()


def test_ranks_yield_equally_many_batches_and_have_one_state(order, path):
    loaders = [make(order, path, batch_size=2, rank=rank, world_size=3, uneven="pad") for rank in range(3)]
    for _ in zip(*loaders, strict=True):
        first, *others = (loader.state_dict() for loader in loaders)
        assert others == [first, first]


# --- what is refused


OTHER = {"seed": 6, "indices": [1, 2, 3], "repeats": 2, "uneven": "drop", "shuffle": False, "shuffle_buffer": 8,
         "block_size": 3}


@pytest.mark.parametrize("order, option", [
    *itertools.product(["shuffled", "block"], ["seed", "indices", "repeats", "uneven"]), ("shuffled", "shuffle"),
    ("local", "shuffle_buffer"), ("block", "block_size")])
def test_a_state_of_another_order_is_refused(order, option, path):
    _, state = interrupted(make(order, path), 2)
    with pytest.raises(ValueError, match=f"the state was taken with another {option}: .* and not .*set_epoch\\(0\\)"):
        make(order, path, **{option: OTHER[option]}).load_state_dict(state)


@pytest.mark.parametrize("other", ["uint8 val", "jpeg train"])
def test_a_state_of_another_file_is_refused(order, path, other, request):
    image_format, split = other.split()
    _, state = interrupted(make(order, path), 2)
    loader = make(order, request.getfixturevalue(f"{image_format}_lmdb") / f"{split}.lmdb")
    with pytest.raises(ValueError, match="the state was taken with another file"):
        loader.load_state_dict(state)


def test_a_file_without_an_index_is_told_from_others_too(path, uint8_lmdb, tmp_path):
    for split in ("train", "val"):
        (tmp_path / f"{split}.lmdb").write_bytes((uint8_lmdb / f"{split}.lmdb").read_bytes())
    _, state = interrupted(make("shuffled", tmp_path / "train.lmdb"), 2)
    assert frozen(resumed(make("shuffled", tmp_path / "train.lmdb"), state)) == frozen(make("shuffled", path))[2:]
    with pytest.raises(ValueError, match="another file"):
        make("shuffled", tmp_path / "val.lmdb").load_state_dict(state)


def test_a_state_of_another_kind_of_order_is_refused(path):
    for one, other in itertools.permutations(["shuffled", "local", "block", "sequential"], 2):
        with pytest.raises(ValueError, match="the state was taken with another (shuffle|order)"):
            make(other, path).load_state_dict(make(one, path).state_dict())


def damaged():
    """(what is wrong, a function that damages a state)."""
    for thing in (None, 3, "state", [], {}, {"version": 1}, {"version": 2}):
        yield repr(thing), lambda state, thing=thing: thing
    for name in ("version", "epoch", "done", "samples", "world_size", "order"):
        yield f"no {name}", lambda state, name=name: {key: value for key, value in state.items() if key != name}
    for name, value in itertools.product(("epoch", "samples", "world_size"), (None, -1, 1.5, "1", [1])):
        yield f"{name}={value!r}", lambda state, change={name: value}: state | change
    for value in (None, 3, [3], [[1]], [["2", 4]], [[0, 4]], [[2, -1]], [{}], "ab", [[2, 4], None]):
        yield f"done={value!r}", lambda state, value=value: state | {"done": value}
    for value in (None, [], "order", {}, {"file": 3}):
        yield f"order={value!r}", lambda state, value=value: state | {"order": value}
    yield "world_size=0", lambda state: state | {"world_size": 0}
    # Numbers that would be replayed for hours, or overflow.
    for name, value in itertools.product(("epoch", "samples", "world_size"), (10**9 * (1 + 10**10), 10**40)):
        yield f"{name}={value:.0e}", lambda state, name=name, value=value: state | {name: value}
    for done in ([[10**9, 1]], [[2**17, 0]], [[10**40, 1]], [[2, 10**9]], [[2, 10**40]], [[23, 1], [2, 1]],
                 [[2, 1]] * 10**5, [[1, 0]] * 1001):
        yield f"done={str(done)[:20]}", lambda state, done=done: state | {"done": done}


@pytest.mark.parametrize("damage", [pytest.param(damage, id=name) for name, damage in damaged()])
def test_what_is_no_state_is_refused_and_changes_nothing(path, damage):
    loader = make("shuffled", path)
    _, state = interrupted(loader, 2)
    loader.load_state_dict(state)
    with pytest.raises(ValueError, match="state|integer"):
        loader.load_state_dict(damage(state))
    assert loader.state_dict() == state
    assert frozen(loader) == frozen(make("shuffled", path))[2:]


# --- transforms that change


@pytest.mark.parametrize("worker_type", ["thread", "process"])
def test_resolution_may_grow_by_epochs(path, worker_type):
    loader = make("shuffled", path, worker_type=worker_type)
    for epoch, transform in enumerate([RandomResizedCrop(8), CenterCrop(12, 16), RandomResizedCrop((9, 10)), None]):
        loader.transform = transform
        assert loader.transform is transform
        reference = make("shuffled", path, transform=transform)
        reference.set_epoch(epoch)
        for (images, labels), (expected, numbers) in zip(loader, reference, strict=True):
            assert torch.equal(labels, numbers) and all(map(torch.equal, images, expected))


def test_a_new_transform_is_for_the_next_iteration(order, path):
    expected = frozen(make(order, path))
    loader = make(order, path)
    batches = iter(loader)
    head = frozen([next(batches)])
    loader.transform = CenterCrop(12, 16)
    assert head + frozen(batches) == expected
    assert {images.shape[1:] for images, _ in loader} == {(3, 12, 12)}


def test_a_resumed_run_may_have_another_transform(order, path):
    expected = frozen(make(order, path, transform=RandomResizedCrop(12)))
    _, state = interrupted(make(order, path), 2)
    loader = resumed(make(order, path), state)
    loader.transform = RandomResizedCrop(12)  # keeps the place
    assert loader.state_dict() == state
    assert frozen(loader) == expected[2:]


@pytest.mark.parametrize("transform", ["RandomResizedCrop", 224, (224, 224)])
def test_a_wrong_transform_is_refused_and_the_old_one_stays(path, transform):
    loader = make("shuffled", path)
    with pytest.raises(TypeError, match="must be RandomResizedCrop, CenterCrop, a callable, a list or Compose of such"):
        loader.transform = transform
    assert loader.transform is CROP and frozen(loader) == frozen(make("shuffled", path))
