"""Batches of worker processes: those of threads, no more than is asked for, and the same whatever their number."""
import itertools
import multiprocessing
import random
import threading
import time
import uuid

import numpy as np
import pytest
import torch
import zmq

from dataflows import CenterCrop, RandomResizedCrop
from helpers.waiting import eventually
from helpers.worker_processes import CROP, batches_of, frozen, processes, threads, workers

TIMEOUT_SECONDS = 60


def test_names_of_sockets_that_others_have_are_passed_over(cls, path, monkeypatch):
    """tensorpack names them after the time, in tenths of microseconds: two ranks met in a run of the tests."""
    names = itertools.chain(["11111111"] * 3, map(str, itertools.count(10**7)))
    monkeypatch.setattr(uuid, "uuid1", lambda: next(names))
    with zmq.Context() as context, context.socket(zmq.PULL) as other:
        other.bind("ipc://@dataflow-pipe-11111111")
        assert frozen(list(processes(path, cls=cls))) == frozen(list(threads(path, cls=cls)))


# --- the same batches


OPTIONS = {
    "fused": {"transform": CROP}, "whole images": {}, "center": {"transform": CenterCrop(16, resize=20)},
    "channels_last": {"transform": CROP, "channels_last": True}, "drop_last": {"transform": CROP, "drop_last": True},
    "scaled_decode": {"transform": RandomResizedCrop(16, scaled_decode=True)},
    "normalize": {"transform": CROP, "normalize": ([0.5] * 3, [0.2] * 3)}}


@pytest.mark.parametrize(("name", "num_workers"), [("fused", 1), ("fused", 2), ("fused", 8), ("whole images", 1),
                                                   ("whole images", 8), *((name, 3) for name in OPTIONS)])
def test_batches_are_those_of_threads(cls, path, name, num_workers):
    expected = list(threads(path, cls=cls, **OPTIONS[name]))
    got = list(processes(path, cls=cls, num_workers=num_workers, **OPTIONS[name]))
    assert frozen(got) == frozen(expected)
    for (images, _), (others, _) in zip(got, expected):
        if isinstance(images, torch.Tensor):
            assert images.stride() == others.stride()
    assert not workers()


def test_several_epochs_are_those_of_threads(cls, path):
    one, other = processes(path, cls=cls, transform=CROP), threads(path, cls=cls, transform=CROP)
    for _ in range(4):
        assert batches_of(one) == batches_of(other)
    for loader in (one, other):
        loader.set_epoch(9)
        next(iter(loader))  # and the epoch after one that was left early
    assert batches_of(one) == batches_of(other)


def test_more_workers_than_batches_do_no_harm(path):
    assert batches_of(processes(path, 20, num_workers=8)) == batches_of(threads(path, 20))


def test_the_empty_rest_of_an_epoch_is_empty(path):
    loader = processes(path, transform=CROP)
    batches = iter(loader)
    for _ in range(len(loader)):
        next(batches)
    state = loader.state_dict()
    resumed = processes(path, transform=CROP, num_workers=3)
    resumed.load_state_dict(state)
    assert list(resumed) == []
    assert batches_of(resumed) == batches_of(loader)  # epoch 1
    batches.close()


def test_two_loaders_and_two_iterations_at_once(path, tiled_lmdb):
    one, other = processes(path, transform=CROP), processes(tiled_lmdb / "train.lmdb", transform=CROP)
    first, second = zip(*zip(one, other))
    assert frozen(list(first)) == frozen(list(threads(path, transform=CROP)))
    assert frozen(list(second)) == frozen(list(threads(tiled_lmdb / "train.lmdb", transform=CROP)))
    a = iter(one)
    head = [next(a)]
    b = iter(one)
    other_head = [next(b)]
    expected = threads(path, transform=CROP)
    expected.set_epoch(1)
    assert frozen(head + list(a)) == frozen(list(expected))
    assert frozen(other_head + list(b)) == frozen(list(expected))
    assert not workers()


def test_iterations_in_threads_that_are_not_the_main_one(path):
    expected, got = batches_of(threads(path, transform=CROP)), {}

    def run(name):
        got[name] = batches_of(processes(path, transform=CROP))

    running = [threading.Thread(target=run, args=(name,)) for name in range(3)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(TIMEOUT_SECONDS)
    assert got == dict.fromkeys(range(3), expected)
    assert not workers()


def test_workers_start_though_torch_has_used_its_threads(path):
    """OpenMP's pool does not survive a fork; whoever uses it in a child waits for ever."""
    def use():
        a = torch.ones(400, 400)
        torch.nn.functional.interpolate((a @ a)[None, None], size=(999, 999), mode="bilinear")

    expected = batches_of(threads(path, transform=CROP))
    use()
    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert batches_of(processes(path, transform=CROP)) == expected
    transform = torch.nn.AdaptiveAvgPool2d(8)
    loader = processes(path, transform=lambda pixels: transform(torch.from_numpy(pixels).permute(2, 0, 1).float()))
    assert len(batches_of(loader)) == len(loader)


# --- bounded memory


@pytest.mark.parametrize("prefetch", [1, 2, 5])
def test_workers_stop_when_nobody_reads(path, prefetch):
    """Batches of 1 are so small that ZMQ's and the system's queues alone would take them all."""
    calls = multiprocessing.Value("i", 0)

    def transform(pixels):
        with calls.get_lock():
            calls.value += 1
        return pixels[:2, :2]

    loader = processes(path, 1, transform=transform, prefetch=prefetch, repeats=10)
    batches = iter(loader)
    for taken in (1, 2, 3):
        next(batches)
        assert eventually(lambda expected=taken + 2 * prefetch: calls.value >= expected)
        time.sleep(0.1)
        assert calls.value == taken + 2 * prefetch
    batches.close()


# --- what transforms draw at random


def draw(_):
    """One number of each global generator."""
    return torch.tensor([torch.rand(()).item(), np.random.rand(), random.random()], dtype=torch.float64)


def test_random_transforms_draw_the_same_on_any_number_of_processes(cls, path):
    epochs = []
    for num_workers, batch_size in ((1, 5), (2, 5), (3, 4)):
        random.seed(num_workers)  # what the program has drawn before does not matter
        torch.manual_seed(num_workers)
        loader = processes(path, batch_size, cls=cls, num_workers=num_workers, transform=draw, seed=1)
        epochs.append([torch.cat([images for images, _ in loader]) for _ in range(2)])
    assert all(torch.equal(a, b) for other in epochs[1:] for a, b in zip(epochs[0], other, strict=True))
    numbers = torch.cat(epochs[0])
    assert numbers.shape == (46, 3) and len(numbers.unique(dim=0)) == 46  # each image, in each epoch, its own
    other = torch.cat([images for images, _ in processes(path, 5, cls=cls, transform=draw, seed=2)])
    assert not torch.isin(other, numbers).any()


def test_the_programs_own_generators_are_left_alone(path):
    before = random.getstate(), torch.get_rng_state(), np.random.get_state()[1]
    list(processes(path, 5, transform=draw))
    after = random.getstate(), torch.get_rng_state(), np.random.get_state()[1]
    assert before[0] == after[0] and torch.equal(before[1], after[1]) and (before[2] == after[2]).all()
