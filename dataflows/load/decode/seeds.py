"""What transforms draw at random, as a function of (seed, epoch, position): the global generators, seeded anew."""
import contextlib
import random
from typing import Iterator, Sequence

import numpy as np
import torch

from dataflows.images.uniforms import uniforms

_COLUMN = 64  # of the numbers that a position has: crops take those before
PER_IMAGE, PER_BATCH, ERASE = range(_COLUMN, _COLUMN + 3)  # each kind of draws has seeds of its own


def seeds_of(purpose: int, seed: int, epoch: int, positions: Sequence[int] | np.ndarray) -> list[int]:
    """A seed from 0 to 2**53 - 1 for each of these positions of an epoch."""
    draws = uniforms(range(purpose, purpose + 1), seed, epoch, np.asarray(positions, np.int64))
    seeds: list[int] = (draws[:, 0] * 2.0**53).astype(np.int64).tolist()
    return seeds


def seed_generators(seed: int, device: torch.device | None = None) -> None:
    """Seeds the global generators of Python, numpy and torch; and of torch's, that of a CUDA device, if one is given.
    Those of other devices stay as they are: torch.manual_seed looks for all, which takes 0.1 ms."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    for generator in _of_torch(device):
        generator.manual_seed(seed)


@contextlib.contextmanager
def generators_kept(device: torch.device | None = None) -> Iterator[None]:
    """Has the same generators go on afterwards as if nothing had been drawn in the body."""
    states = random.getstate(), np.random.get_state()
    of_torch = [(generator, generator.get_state()) for generator in _of_torch(device)]
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        for generator, state in of_torch:
            generator.set_state(state)


def _of_torch(device: torch.device | None) -> list[torch.Generator]:
    found = [torch.default_generator]
    if device is not None and device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index  # which has it initialized
        found.append(torch.cuda.default_generators[index])
    return found
