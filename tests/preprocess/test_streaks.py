"""Planes with streaks: streaks are reduced, samples are kept."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctray.config import PreprocessConfig
from ctray.phantom import make_phantom, preset
from ctray.preprocess.background import outer_rim
from ctray.preprocess.field_of_view import find_field_of_view, remove_drift
from ctray.preprocess.prepare import prepare
from ctray.preprocess.streaks import reduce_streaks

DEPTH, SIDE = 24, 48
SHAPE = (DEPTH, SIDE, SIDE)
WHOLE = np.ones(SHAPE, dtype=bool)
STREAKED = slice(9, 14)


def noise(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 10, SHAPE).astype(np.float32)


def rays(height: float) -> np.ndarray:
    """Rays from a place near the rim, as bright as they are dark."""
    y, x = np.mgrid[:SIDE, :SIDE] - np.array([SIDE / 2, 8])[:, None, None]
    angle = np.arctan2(y, x)
    return (height * (np.cos(13 * angle) + np.cos(19 * angle + 1))).astype(np.float32)


def streaked(height: float = 60.0, seed: int = 0) -> np.ndarray:
    volume = noise(seed)
    volume[STREAKED] += rays(height)
    return volume


def plane_spreads(volume: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Half of what the middle two thirds of a plane's medium span, in those of the usual plane."""
    rim = outer_rim(inside)
    spans = [np.ptp(np.percentile(p[r], (16, 84))) for p, r in zip(volume, rim, strict=True)]
    return np.array(spans) / np.median(spans)


def test_streaks_become_as_plain_as_the_other_planes() -> None:
    volume = streaked()
    assert plane_spreads(volume, WHOLE)[STREAKED].min() > 4
    times = plane_spreads(reduce_streaks(volume, WHOLE), WHOLE)
    assert 0.5 < times[STREAKED].min() <= times[STREAKED].max() < 1.5


def test_planes_without_streaks_are_left_alone() -> None:
    volume = streaked()
    change = (reduce_streaks(volume, WHOLE) != volume).any(axis=(1, 2))
    assert np.flatnonzero(change).tolist() == list(range(DEPTH))[STREAKED]


def test_where_streaks_fade_out_they_are_reduced_too() -> None:
    volume = noise()
    weights = np.exp(-(((np.arange(DEPTH) - 11) / 3) ** 2))
    volume += weights[:, None, None].astype(np.float32) * rays(60.0)
    times = plane_spreads(reduce_streaks(volume, WHOLE), WHOLE)
    assert plane_spreads(volume, WHOLE).max() > 4
    assert times.max() < 1.5


def test_sample_in_streaks_stays_bright() -> None:
    volume, sample = streaked(), np.zeros(SHAPE, bool)
    sample[5:20, 20:32, 20:34] = True
    volume[sample] += 400
    reduced = reduce_streaks(volume, WHOLE)
    within = sample.copy()
    within[: STREAKED.start] = within[STREAKED.stop :] = False
    medium = ~sample & (np.abs(np.arange(DEPTH) - 11) < 3)[:, None, None]
    assert np.median(reduced[within]) - np.median(reduced[medium]) > 200
    # And stands out more than it did.
    assert np.median(reduced[within] - 100) / reduced[medium].std() > 2 * (
        np.median(volume[within] - 100) / volume[medium].std()
    )


@settings(max_examples=25)
@given(height=st.floats(20, 500), seed=st.integers(0, 99), offset=st.floats(-1e3, 1e3))
def test_order_of_grey_values_within_a_plane_is_kept(
    height: float, seed: int, offset: float
) -> None:
    volume = streaked(height, seed) + np.float32(offset)
    reduced = reduce_streaks(volume, WHOLE)
    for before, after in zip(volume, reduced, strict=True):
        ordered = after.ravel()[np.argsort(before, axis=None)]
        assert np.diff(ordered).min() >= -1e-3
        assert np.ptp(after) <= np.ptp(before) + 1e-3


@settings(max_examples=25)
@given(seed=st.integers(0, 999))
def test_noise_alone_is_left_alone(seed: int) -> None:
    volume = noise(seed)
    assert np.array_equal(reduce_streaks(volume, WHOLE), volume)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("part", [0.1, 0.2, 0.25])
def test_sample_that_reaches_the_rim_is_no_streak(part: float, sign: int) -> None:
    volume = noise()
    volume[STREAKED, :, : round(part * SIDE)] += sign * 200
    assert np.array_equal(reduce_streaks(volume, WHOLE), volume)


@settings(max_examples=40)
@given(columns=st.integers(1, SIDE - 1), sign=st.sampled_from([1, -1]))
def test_sample_stands_out_however_much_of_the_rim_it_fills(columns: int, sign: int) -> None:
    volume = noise()
    volume[STREAKED, :, :columns] += sign * 200
    reduced = reduce_streaks(volume, WHOLE)[STREAKED]
    contrast = np.median(reduced[..., :columns]) - np.median(reduced[..., columns:])
    assert sign * contrast > 150


def test_flat_air_tells_nothing() -> None:
    """Air clipped to zero: any plane is many times as streaks as one without noise."""
    volume = np.zeros(SHAPE, np.float32)
    volume[6:18, 14:34, 14:34] = 200
    volume[STREAKED] += np.abs(np.random.default_rng(0).normal(0, 0.5, SHAPE[1:]))
    assert np.array_equal(reduce_streaks(volume, WHOLE), volume)
    assert np.array_equal(reduce_streaks(np.zeros(SHAPE, np.float32), WHOLE), np.zeros(SHAPE))


def test_scan_of_which_most_planes_are_streaked_is_left_alone() -> None:
    volume = noise() + rays(60.0)
    assert np.array_equal(reduce_streaks(volume, WHOLE), volume)


def test_voxels_outside_stay() -> None:
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    inside = np.broadcast_to(np.hypot(y, x) < 20, SHAPE)
    volume = streaked()
    reduced = reduce_streaks(volume, inside)
    assert np.array_equal(reduced[~inside], volume[~inside])
    assert not np.array_equal(reduced[inside], volume[inside])


def test_field_of_view_without_a_voxel_or_with_few() -> None:
    volume, few = streaked(), np.zeros(SHAPE, bool)
    few[:, 20:22, 20:22] = True
    assert np.array_equal(reduce_streaks(volume, few), volume)
    assert np.array_equal(reduce_streaks(volume, np.zeros(SHAPE, bool)), volume)


@pytest.mark.parametrize("kind", ["embryo", "fish", "multi"])
def test_phantoms_with_streaks(kind: str) -> None:
    spec = preset("easy", seed=31, index=0, size=64, kind=kind, streaks=0.1, noise=0.04)
    phantom = make_phantom(spec)
    volume = phantom.volume.astype(np.float32)
    inside = find_field_of_view(volume, PreprocessConfig()).mask(volume.shape)
    flat = remove_drift(volume, inside)
    reduced = reduce_streaks(flat, inside)
    assert plane_spreads(flat, inside).max() > 2.5
    assert plane_spreads(reduced, inside).max() < 1.6

    def stands_out(values: np.ndarray) -> float:
        medium = values[inside & ~phantom.mask]
        return float(np.median(values[phantom.mask]) - np.median(medium)) / float(medium.std())

    assert stands_out(reduced) > 1.2 * stands_out(flat)


@pytest.mark.parametrize("difficulty", ["easy", "paper", "hard"])
def test_phantoms_without_streaks_are_left_alone(difficulty: str) -> None:
    """The same with the step and without."""
    spec = preset(difficulty, seed=32, index=1, size=64, kind="fish", streaks=0.0)
    volume = make_phantom(spec).volume
    on, off = (
        prepare(volume, (1, 1, 1), PreprocessConfig(streaks=s), seed=0).voxels
        for s in ("auto", "off")
    )
    assert np.array_equal(on, off)


def test_streaks_are_reduced_when_asked_for() -> None:
    plain = PreprocessConfig(circle="off", container="off", drift="off", noise_floor=0)
    volume = streaked()
    reduced, unchanged = (
        plane_spreads(prepare(volume, (1, 1, 1), plain.model_copy(update=u)).voxels, WHOLE)
        for u in ({}, {"streaks": "off"})
    )
    assert reduced.max() < 1.6 < 3 < unchanged.max()
