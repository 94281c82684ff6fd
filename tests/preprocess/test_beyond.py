"""No container where the sample goes on beyond the wall; what touches the wall stays in view."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from ctray.config import PreprocessConfig
from ctray.preprocess.beyond import look_beyond
from ctray.preprocess.container import find_container
from ctray.preprocess.cylinder import Cylinder
from ctray.preprocess.field_of_view import FieldOfView, find_circle, find_field_of_view
from ctray.preprocess.prepare import Prepared, prepare

SIDE, DEPTH = 60, 32
Z, Y, X = np.mgrid[:DEPTH, :SIDE, :SIDE]
# Off-centre: around the middle it could be a ring artefact.
DISTANCE = np.hypot(Y - 27, X - 33)
WALL = (DISTANCE >= 21) & (DISTANCE < 23)
MIDDLE = np.hypot(Y - (SIDE - 1) / 2, X - (SIDE - 1) / 2)


def ball(z: float, y: float, x: float, radius: float) -> np.ndarray:
    return (Z - z) ** 2 + (Y - y) ** 2 + (X - x) ** 2 <= radius**2


def scan(sample: np.ndarray, *, wall: float = 15.0, noise: float = 1.0) -> np.ndarray:
    """A sample of 60 in air of 0, in a tube, blurred and with noise."""
    grey = np.where(sample, 60.0, np.where(WALL, wall, 0.0))
    noisy = ndimage.gaussian_filter(grey, 0.6)
    rng = np.random.default_rng(0)
    return np.asarray(noisy + noise * rng.standard_normal(grey.shape), dtype=np.float32)


HEAD = ball(16, 27, 33, 11)
# From the head to the wall and into it, as an ear that lies on its tube.
EAR = (np.abs(Z - 16) < 4) & (np.abs(Y - 27) < 3) & (X >= 41) & (DISTANCE < 22.5)


def test_what_touches_the_wall_stays_in_view() -> None:
    volume = scan(HEAD | EAR)
    view = find_field_of_view(volume, PreprocessConfig())
    assert view.container is not None
    sample = HEAD | EAR
    hidden = sample & ~view.container.mask(volume.shape)
    assert hidden.sum() > 20, "the case is none unless the wall alone would hide some"
    assert (hidden & ~view.mask(volume.shape)).sum() <= 0.2 * hidden.sum()
    assert 0 < view.kept_fraction < 0.1
    # The wall itself stays out of view.
    beside = WALL & ~ndimage.binary_dilation(sample, iterations=3)
    assert view.mask(volume.shape)[beside].mean() < 0.01


def test_a_tube_alone_keeps_nothing() -> None:
    view = find_field_of_view(scan(HEAD), PreprocessConfig())
    assert view.container is not None
    assert view.kept is None
    assert view.kept_fraction == 0


def test_a_bed_beyond_the_tube_is_no_sample() -> None:
    bed = (X >= 1) & (X < 3) & (Z >= 0)
    volume = scan(HEAD)
    volume[bed] += 25
    view = find_field_of_view(volume, PreprocessConfig())
    assert view.container is not None
    assert not view.mask(volume.shape)[bed].any()


@pytest.mark.parametrize("wall", [40.0, 160.0])
def test_a_ring_of_bone_with_flesh_beyond_it_is_no_container(wall: float) -> None:
    """A faint and a strong ring, both in a sample that is larger than they are."""
    flesh = np.hypot(Y - 31, X - 29) < 28
    grey = np.where(WALL, wall, np.where(flesh, 30.0 + 6 * np.sin(Z / 3.0), 0.0))
    rng = np.random.default_rng(1)
    volume = (ndimage.gaussian_filter(grey, 0.6) + rng.normal(0, 1, grey.shape)).astype(np.float32)
    found = find_container(volume)
    assert found is None or not (flesh & ~found.inside.mask(volume.shape) & ~found.kept).any()


def test_beyond_a_wall_that_runs_through_a_sample_lies_much_of_it() -> None:
    half = ball(16, 27, 8, 9)
    volume = scan(HEAD | half | ((np.abs(Z - 16) < 3) & (np.abs(Y - 27) < 3) & (X < 30)))
    inner = Cylinder(center_y=27.0, center_x=33.0, radius=20.0)
    wall = Cylinder(center_y=27.0, center_x=33.0, radius=22.0)
    found = look_beyond(volume, wall, inner, np.ones(volume.shape, dtype=bool))
    assert found.far_fraction > 0.1
    assert (half & ~inner.mask(volume.shape) & ~found.voxels).sum() < 0.05 * half.sum()


def test_nothing_beyond_tells_nothing() -> None:
    inner = Cylinder(center_y=27.0, center_x=33.0, radius=100.0)
    found = look_beyond(scan(HEAD), inner, inner, np.ones((DEPTH, SIDE, SIDE), dtype=bool))
    assert (found.fraction, found.far_fraction) == (0, 0)
    assert not found.voxels.any()


def test_clipped_air_around_a_round_sample_is_no_reconstruction_circle() -> None:
    """Constant up to the corners, centred, and round but for its ears."""
    angle = np.arctan2(Y - 29.5, X - 29.5)
    sample = (MIDDLE - 1.6 * np.cos(5 * angle) < 27.5)[0]
    rng = np.random.default_rng(2)
    volume = np.where(sample, rng.normal(60, 5, (DEPTH, SIDE, SIDE)), 0).astype(np.float32)
    assert find_circle(volume) is None


def test_what_was_kept_comes_back_from_bytes() -> None:
    prepared = prepare(scan(HEAD | EAR), (1, 1, 1), PreprocessConfig())
    loaded = Prepared.from_bytes(prepared.to_bytes())
    assert prepared.field_of_view.kept is not None
    np.testing.assert_array_equal(
        loaded.field_of_view.mask(loaded.shape), prepared.field_of_view.mask(prepared.shape)
    )
    told = prepared.field_of_view.to_json()
    assert told["kept_fraction"] > 0
    # The receipt tells how much was kept; where it is lies with the prepared volume alone.
    assert FieldOfView.from_json(told).container is not None
