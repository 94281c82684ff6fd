"""Matched noise: what fills the volume beyond its field of view looks like its background."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from ctray.preprocess.background import estimate_background, outer_rim
from ctray.preprocess.cylinder import Cylinder

SHAPE = (40, 48, 48)
SPREAD = 10.0


def coloured(blur: float | tuple[float, float, float], seed: int = 0) -> np.ndarray:
    """Noise of mean 100 and spread 10, correlated over `blur` voxels."""
    white = np.random.default_rng(seed).standard_normal(SHAPE)
    smooth = ndimage.gaussian_filter(white, blur, mode="wrap") if np.any(blur) else white
    return (100 + SPREAD * smooth / smooth.std()).astype(np.float32)


def correlation(noise: np.ndarray, axis: int, lag: int) -> float:
    centred = noise - noise.mean()
    return float((centred * np.roll(centred, lag, axis)).mean() / centred.var())


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


INSIDE = Cylinder(center_y=23.5, center_x=23.5, radius=22).mask(SHAPE)
WHOLE = np.ones(SHAPE, bool)


@pytest.mark.parametrize("blur", [0, 0.8, (0.0, 1.2, 1.2)], ids=["white", "soft", "plane"])
@pytest.mark.parametrize("inside", [INSIDE, WHOLE], ids=["circle", "whole"])
def test_noise_has_the_backgrounds_mean_spread_and_correlation(
    blur: float | tuple[float, float, float], inside: np.ndarray
) -> None:
    volume = coloured(blur)
    found = estimate_background(volume, inside, rng())
    assert found.noise.shape == (64, 64, 64)
    assert found.noise.dtype == np.float32
    assert abs(float(found.noise.mean())) < 0.05 * SPREAD
    assert float(found.noise.std()) == pytest.approx(SPREAD, rel=0.12)
    for axis in range(3):
        for lag in (1, 2):
            ours = correlation(found.noise, axis, lag)
            # Blocks of 8 voxels tell little of what is correlated over half of them.
            assert ours == pytest.approx(correlation(volume, axis, lag), abs=0.2), (axis, lag)


def test_fill_follows_the_level_of_the_slices() -> None:
    """A level that drifts along z must not end at the edge of the field of view."""
    drift = np.linspace(-30, 30, SHAPE[0], dtype=np.float32)
    volume = coloured(0) + drift[:, None, None]
    filled = estimate_background(volume, INSIDE, rng()).fill(SHAPE)
    assert filled.shape == SHAPE
    ours = filled.mean(axis=(1, 2))
    expected = 100 + drift
    # At the ends the running mean looks at fewer neighbours.
    np.testing.assert_allclose(ours[3:-3], expected[3:-3], atol=1.5)


def test_sample_does_not_reach_the_fill() -> None:
    z, y, x = np.mgrid[:40, :48, :48]
    sample = (z - 20) ** 2 / 150 + (y - 24) ** 2 / 90 + (x - 22) ** 2 / 110 < 1
    volume = coloured(0) + 80 * sample.astype(np.float32)
    found = estimate_background(volume, INSIDE, rng())
    assert float(found.noise.std()) == pytest.approx(SPREAD, rel=0.12)
    np.testing.assert_allclose(found.level, 100, atol=2)


def test_edge_of_the_field_of_view_cannot_be_seen() -> None:
    """Filled and real noise are alike on both sides of the rim."""
    volume = coloured(0.8)
    filled = estimate_background(volume, INSIDE, rng()).fill(SHAPE)
    both = np.where(INSIDE, volume, filled)
    for values in (both[~INSIDE], both[INSIDE]):
        assert values.mean() == pytest.approx(100, abs=0.7)
        assert values.std() == pytest.approx(SPREAD, rel=0.12)


def test_noise_is_a_function_of_its_generator() -> None:
    volume = coloured(0.8)
    one, again, other = (
        estimate_background(volume, WHOLE, np.random.default_rng(seed)).noise for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, again)
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.02


def test_tile_is_periodic() -> None:
    found = estimate_background(coloured(1.2), WHOLE, rng())
    filled = found.fill((130, 70, 65)) - np.resize(found.level, 130)[:, None, None]
    np.testing.assert_allclose(filled[:2], filled[64:66], atol=1e-3)
    np.testing.assert_allclose(filled[:, :6], filled[:, 64:], atol=1e-3)
    # The seam is as smooth as the inside.
    seam = np.abs(found.noise[0] - found.noise[-1]).mean()
    inner = np.abs(found.noise[20] - found.noise[21]).mean()
    assert seam == pytest.approx(inner, rel=0.25)


def test_background_without_noise_gives_none() -> None:
    volume = np.full(SHAPE, 7, np.float32)
    volume[10:20, 10:20, 10:20] = 90
    found = estimate_background(volume, WHOLE, rng())
    assert np.abs(found.noise).max() < 1e-3
    np.testing.assert_allclose(found.fill(SHAPE), 7, atol=1e-3)


@pytest.mark.parametrize("shape", [(1, 20, 20), (3, 5, 7), (40, 7, 40)])
def test_volumes_thinner_than_a_block(shape: tuple[int, int, int]) -> None:
    volume = np.random.default_rng(0).normal(100, SPREAD, shape).astype(np.float32)
    found = estimate_background(volume, np.ones(shape, bool), rng())
    filled = found.fill(shape)
    assert filled.shape == shape
    assert np.isfinite(filled).all()
    assert found.noise.std() == pytest.approx(SPREAD, rel=0.4)
    assert filled.mean() == pytest.approx(100, abs=8)


def test_rim_is_the_outer_part_of_a_disc() -> None:
    rim = outer_rim(INSIDE)
    y, x = np.mgrid[:48, :48] - 23.5
    distance = np.hypot(y, x)
    assert not rim[:, distance < 16].any()
    assert rim[:, (distance > 19) & (distance < 21.5)].all()
    assert not (rim & ~INSIDE).any()
