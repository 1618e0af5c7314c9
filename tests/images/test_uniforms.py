"""The random numbers of a sample: uniform, and functions of (seed, epoch, position)."""
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflows.images.uniforms import uniforms


def test_golden_uniforms():
    # Change these only if you know what you are doing: runs that are repeated or resumed would see others.
    assert uniforms(range(3), 0, 0, np.arange(2)).tolist() == [
        [0.1296456182997474, 0.049920065672091285, 0.6703283700586791],
        [0.8513026201288322, 0.18670452030252627, 0.45453079945154873]]
    assert uniforms(range(2), 5, 7, np.array([1_000_000])).tolist() == [[0.6804794415175894, 0.03713558446643739]]


@pytest.mark.parametrize("seed, epoch", [(0, 0), (1, 0), (0, 1), (2**63, 90), (2**64 - 1, 2**31)])
def test_uniforms_are_uniform_and_uncorrelated(seed, epoch):
    draws = uniforms(range(8), seed, epoch, np.arange(8000))
    assert draws.shape == (8000, 8) and draws.dtype == np.float64
    assert draws.min() >= 0 and draws.max() < 1
    counts = np.stack([np.histogram(column, bins=20, range=(0, 1))[0] for column in draws.T])
    assert (((counts - 400) ** 2 / 400).sum(axis=1) < 60).all()  # chi-square of 19 degrees: 1 in 300,000 exceeds it
    correlation = np.corrcoef(np.concatenate([draws[:-1].T, draws[1:].T]))  # of columns, and of neighbours
    assert np.abs(correlation - np.eye(16)).max() < 0.06


def test_uniforms_of_other_seeds_epochs_and_positions_are_other_numbers():
    draws = [uniforms(range(4), seed, epoch, np.arange(50)) for seed in range(8) for epoch in range(8)]
    assert len(np.unique(draws)) == 64 * 50 * 4


@given(st.integers(2**64, 2**130))
def test_any_seed_is_admitted(seed):
    assert uniforms(range(1), seed, 0, np.arange(3)).shape == (3, 1)
