"""Drift of slices in training: slow, of the strength that was asked for, another one for each."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from ctray.learn.pretext.drift import random_drift


def drift_of(
    count: int, side: int, strength: float = 0.15, seed: int = 0
) -> npt.NDArray[np.float32]:
    rng = torch.Generator().manual_seed(seed)
    return random_drift(count, side, strength, rng).numpy()


@pytest.mark.parametrize("strength", [0.0, 0.1, 1.0])
def test_mean_square_is_that_of_strengths_from_none_to_twice(strength: float) -> None:
    """The mean square of 2 s u, u uniform in [0, 1], is 4/3 s^2."""
    drift = drift_of(2000, 16, strength)
    assert drift.shape == (2000, 16, 16)
    assert drift.dtype == np.float32
    assert np.mean(drift**2) == pytest.approx(4 / 3 * strength**2, rel=0.1)


def test_it_is_slow() -> None:
    """Less than a fiftieth of its power changes faster than four waves over the canvas."""
    side = 64
    drift = drift_of(64, side) * np.outer(np.hanning(side), np.hanning(side))
    power = (np.abs(np.fft.fft2(drift)) ** 2).sum(0)
    cycles = np.fft.fftfreq(side, 1 / side)
    fast = np.hypot(cycles[:, None], cycles[None]) > 6
    assert power[fast].sum() < 0.02 * power.sum()


def test_slices_share_nothing() -> None:
    """Over many pairs, the drift of one slice does not tell that of the next."""
    drift = drift_of(4000, 8)
    drift = drift.reshape(2000, 2, -1)
    alike = np.mean(drift[:, 0] * drift[:, 1]) / np.mean(drift**2)
    assert abs(alike) < 0.05


def test_the_generator_alone_decides() -> None:
    np.testing.assert_array_equal(drift_of(3, 9, seed=4), drift_of(3, 9, seed=4))
    assert not np.array_equal(drift_of(3, 9, seed=4), drift_of(3, 9, seed=5))


def test_mixed_precision_leaves_it_as_it_is() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        rounded = drift_of(3, 9)
    np.testing.assert_array_equal(rounded, drift_of(3, 9))
