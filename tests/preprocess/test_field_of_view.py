"""The field of view: reconstruction circle, rings and drift."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ctray.config import PreprocessConfig
from ctray.phantom import Phantom, make_phantom, preset
from ctray.preprocess.cylinder import Cylinder, radial_profile
from ctray.preprocess.field_of_view import (
    FieldOfView,
    find_circle,
    find_field_of_view,
    remove_drift,
    remove_rings,
)

ALL_OFF = PreprocessConfig(circle="off", container="off", rings="off", drift="off")
CIRCLE_ONLY = ALL_OFF.model_copy(update={"circle": "auto"})


def disc(side: int, radius: float, off: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    return np.hypot(y - off[0], x - off[1]) <= radius


def scan(inside: np.ndarray, *, outside: float = 0.0, seed: int = 0, depth: int = 5) -> np.ndarray:
    """Noise inside, a constant outside."""
    noise = np.random.default_rng(seed).normal(100, 10, (depth, *inside.shape))
    return np.where(inside, noise, outside).astype(np.float32)


def noise(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 10, shape).astype(np.float32)


# --- reconstruction circle ------------------------------------------------------------------


@settings(max_examples=40)
@given(
    side=st.integers(24, 70),
    part=st.floats(0.47, 0.6),
    outside=st.sampled_from([0.0, -3.5, 100.0, np.nan]),
    seed=st.integers(0, 100),
)
def test_circle_is_found(side: int, part: float, outside: float, seed: int) -> None:
    """The radius comes back one to two voxels smaller: the rim is partly outside."""
    inside = disc(side, part * side)
    assume(not inside.all() and (~inside).mean() > 0.04)
    found = find_circle(scan(inside, outside=outside, seed=seed))
    assert found is not None
    assert 0.5 < part * side - found.radius < 2.2
    assert abs(found.center_y - (side - 1) / 2) <= 0.5
    assert abs(found.center_x - (side - 1) / 2) <= 0.5
    assert (found.slope_y, found.slope_x) == (0, 0)
    assert inside[found.mask((1, side, side))[0]].all()


def test_circle_in_slices_that_are_no_squares() -> None:
    """Cut at the sides where the slice is narrow."""
    inside = disc(64, 31)[8:-8]
    found = find_circle(scan(inside))
    assert found is not None
    assert (found.center_y, found.center_x) == pytest.approx((23.5, 31.5), abs=0.5)
    assert found.radius == pytest.approx(31, abs=2.2)


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("difficulty", ["easy", "paper", "hard"])
def test_circle_of_phantoms(difficulty: str, index: int) -> None:
    phantom = make_phantom(preset(difficulty, seed=1, index=index, size=40, container="none"))
    found = find_circle(phantom.volume.astype(np.float32))
    assert found is not None
    assert found.radius == pytest.approx(0.485 * 40, abs=2.2)


def test_no_circle_where_the_volume_is_full() -> None:
    assert find_circle(noise((5, 40, 40))) is None


def test_no_circle_in_phantoms_without() -> None:
    phantom = make_phantom(preset("easy", seed=1, size=40, reconstruction_circle=False))
    assert find_circle(phantom.volume.astype(np.float32)) is None


@pytest.mark.parametrize(
    "inside",
    [
        disc(48, 23, (5, 0)),  # off the rotation axis
        disc(48, 15),  # air that was clipped to zero around a tube
        np.pad(np.ones((40, 40), bool), 4),  # a frame
        np.tri(48, dtype=bool),  # one dead corner
        np.pad(np.ones((48, 40), bool), ((0, 0), (8, 0))),  # dead columns
    ],
    ids=["off-centre", "small", "frame", "corner", "columns"],
)
def test_what_is_constant_but_no_circle(inside: np.ndarray) -> None:
    assert find_circle(scan(inside)) is None


def test_constant_spot_in_the_middle_stays_inside() -> None:
    """A saturated sample is as constant along z as what lies outside."""
    inside = disc(48, 23)
    volume = scan(inside)
    volume[:, 20:28, 18:30] = 255
    found = find_circle(volume)
    assert found is not None
    assert found.mask((1, 48, 48))[0, 20:28, 18:30].all()


def test_circle_off_is_not_looked_for() -> None:
    volume = scan(disc(40, 19))
    assert find_field_of_view(volume, ALL_OFF) == FieldOfView()
    assert find_field_of_view(volume, CIRCLE_ONLY).circle is not None


# --- the view itself ------------------------------------------------------------------------

BOUND = Cylinder(center_y=10.25, center_x=9.5, slope_y=0.125, slope_x=-0.25, radius=7.5)


def test_view_without_bounds_is_everything() -> None:
    view = FieldOfView()
    assert view.mask((3, 4, 5)).all()
    assert view.mask((3, 4, 5)).shape == (3, 4, 5)


def test_view_is_what_lies_within_both_bounds() -> None:
    circle = Cylinder(center_y=9.5, center_x=9.5, radius=9)
    shape = (6, 20, 20)
    both = FieldOfView(circle=circle, container=BOUND)
    np.testing.assert_array_equal(both.mask(shape), circle.mask(shape) & BOUND.mask(shape))


@pytest.mark.parametrize("z", [0, 5])
def test_mask_of_a_tilted_cylinder(z: int) -> None:
    inside = BOUND.mask((6, 20, 20))[z]
    y, x = np.mgrid[:20, :20]
    distance = np.hypot(y - (10.25 + 0.125 * z), x - (9.5 - 0.25 * z))
    np.testing.assert_array_equal(inside, distance <= 7.5)


@pytest.mark.parametrize(
    "view",
    [
        FieldOfView(),
        FieldOfView(circle=dataclasses.replace(BOUND, slope_y=0, slope_x=0)),
        FieldOfView(container=BOUND),
        FieldOfView(circle=BOUND, container=BOUND),
    ],
)
def test_view_comes_back_from_json(view: FieldOfView) -> None:
    assert FieldOfView.from_json(view.to_json()) == view


# --- rings ----------------------------------------------------------------------------------


def with_rings(side: int = 40, height: float = 8.0) -> tuple[np.ndarray, np.ndarray, Cylinder]:
    """Noise with rings, the rings, and the circle."""
    centre = (side - 1) / 2
    circle = Cylinder(center_y=centre, center_x=centre, radius=0.48 * side)
    y, x = np.mgrid[:side, :side] - centre
    profile = np.zeros(side)
    # Narrow rings, each a detector pixel that is off.
    for radius, sign in ((6, 1), (9, -1), (13, 0.7), (16, -0.8)):
        profile[radius] = sign * height
    rings = np.interp(np.hypot(y, x), np.arange(side), profile).astype(np.float32)
    rings *= disc(side, 0.48 * side)
    return noise((side, side, side)) + rings, rings, circle


def ring_spread(volume: np.ndarray, circle: Cylinder) -> float:
    """Spread of the radial profile's sharp part, noise of 40 slices averaged out."""
    profile = radial_profile(volume.astype(np.float32), circle, int(circle.radius) - 1)
    fine = profile - np.convolve(np.pad(profile, 2, mode="edge"), np.ones(5) / 5, mode="valid")
    return float(fine[6:].std())


def test_rings_are_removed() -> None:
    volume, _, circle = with_rings()
    cleaned = remove_rings(volume, circle, np.ones(volume.shape, bool))
    before, after = ring_spread(volume, circle), ring_spread(cleaned, circle)
    assert after < 0.5 * before


def test_volume_without_rings_stays_as_it_is() -> None:
    volume, rings, circle = with_rings()
    clean = volume - rings
    # What is subtracted of noise alone is small beside its spread of 10.
    change = np.abs(remove_rings(clean, circle, np.ones(clean.shape, bool)) - clean)
    assert change.max() < 3
    assert change.mean() < 0.6


def test_sample_off_the_axis_is_kept_by_ring_removal() -> None:
    volume, _, circle = with_rings(height=0)
    z, y, x = np.mgrid[:40, :40, :40]
    ball = (z - 20) ** 2 + (y - 14) ** 2 + (x - 24) ** 2 < 36
    volume[ball] += 60
    cleaned = remove_rings(volume, circle, np.ones(volume.shape, bool))
    assert (cleaned - volume)[ball].mean() == pytest.approx(0, abs=1.5)


def test_round_sample_on_the_axis_is_kept_by_ring_removal() -> None:
    volume, _, circle = with_rings(height=0)
    z, y, x = np.mgrid[:40, :40, :40] - 19.5
    ball = z**2 + y**2 + x**2 < 64
    volume[ball] += 60
    cleaned = remove_rings(volume, circle, np.ones(volume.shape, bool))
    contrast = cleaned[ball].mean() - cleaned[~ball].mean()
    assert contrast == pytest.approx(60, rel=0.1)


def test_wall_off_the_axis_leaves_no_print_in_the_medium_beside_it() -> None:
    volume, _, circle = with_rings(height=0)
    tube = Cylinder(center_y=21.5, center_x=17.0, radius=12)
    inside = tube.mask(volume.shape)
    volume[~inside] -= 40
    volume[dataclasses.replace(tube, radius=14).mask(volume.shape) & ~inside] += 140
    whole = np.ones(volume.shape, bool)
    # With the wall there would be one.
    assert np.abs(remove_rings(volume, circle, whole) - volume)[inside].max() > 10
    assert np.abs(remove_rings(volume, circle, inside) - volume)[inside].max() < 3


def test_nothing_is_known_of_rings_without_a_voxel_inside() -> None:
    volume, _, circle = with_rings()
    cleaned = remove_rings(volume, circle, np.zeros(volume.shape, bool))
    np.testing.assert_array_equal(cleaned, volume)


# --- drift ----------------------------------------------------------------------------------


def polynomial(shape: tuple[int, int, int]) -> np.ndarray:
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    return (12 * (x**2 + y**2) + 8 * z - 6 * x * y + 5 * z**2 * x).astype(np.float32)


def smooth_spread(volume: np.ndarray, inside: np.ndarray | None = None) -> float:
    """Spread of block means: what is left of a drift, noise averaged out."""
    blocks = volume.reshape(5, 8, 5, 8, 5, 8).mean(axis=(1, 3, 5))
    return float(blocks[inside].std() if inside is not None else blocks.std())


WHOLE = (40, 40, 40)


@pytest.mark.parametrize("bound", [None, Cylinder(center_y=19.5, center_x=19.5, radius=19)])
def test_polynomial_drift_is_flattened(bound: Cylinder | None) -> None:
    inside = FieldOfView(circle=bound).mask(WHOLE)
    volume = noise(WHOLE) + polynomial(WHOLE)
    full = inside.reshape(5, 8, 5, 8, 5, 8).all(axis=(1, 3, 5))
    cleaned = remove_drift(volume, inside, degree=4)
    assert smooth_spread(volume, full) > 4
    # A block's mean of 512 voxels has a noise of 10 / sqrt(512) = 0.44.
    assert smooth_spread(cleaned, full) < 0.9
    np.testing.assert_array_equal(cleaned[~inside], volume[~inside])


def test_drift_of_a_higher_degree_than_allowed_stays() -> None:
    x = np.linspace(-1, 1, WHOLE[2])
    volume = noise(WHOLE) + (30 * (5 * x**3 - 3 * x) / 2).astype(np.float32)
    inside = np.ones(WHOLE, bool)
    assert smooth_spread(remove_drift(volume, inside, degree=1)) > 8
    assert smooth_spread(remove_drift(volume, inside, degree=3)) < 0.9


def test_volume_without_drift_stays_as_it_is() -> None:
    volume = noise(WHOLE)
    change = remove_drift(volume, np.ones(WHOLE, bool)) - volume
    assert np.abs(change).mean() < 0.6
    assert np.abs(change).max() < 4


@pytest.mark.parametrize("height", [40.0, -40.0])
@pytest.mark.parametrize("radius", [8, 12])
def test_bright_ball_keeps_its_height_and_gets_no_halo(height: float, radius: int) -> None:
    """A halo would be a structure of the medium, and would make slices beside it certain."""
    z, y, x = np.mgrid[:40, :40, :40]
    distance = np.sqrt((z - 21) ** 2 + (y - 17) ** 2 + (x - 20) ** 2)
    volume = noise(WHOLE) + np.where(distance < radius, height, 0).astype(np.float32)
    cleaned = remove_drift(volume, np.ones(WHOLE, bool))
    shell = (distance > radius + 1) & (distance < radius + 4)
    far = distance > radius + 8
    rise = cleaned[distance < radius].mean() - cleaned[far].mean()
    assert rise == pytest.approx(height, rel=0.08)
    assert abs(cleaned[shell].mean() - cleaned[far].mean()) < 0.03 * abs(height)


def test_mean_grey_value_stays() -> None:
    volume = noise(WHOLE) + polynomial(WHOLE)
    cleaned = remove_drift(volume, np.ones(WHOLE, bool))
    middle = (slice(15, 25),) * 3
    assert abs(cleaned.mean() - volume[middle].mean()) < 8


@pytest.mark.parametrize("shape", [(1, 40, 40), (3, 3, 3), (40, 2, 40)])
def test_thin_volumes_pass_through(shape: tuple[int, int, int]) -> None:
    volume = noise(shape)
    cleaned = remove_drift(volume, np.ones(shape, bool))
    assert cleaned.shape == shape
    assert np.isfinite(cleaned).all()


def test_phantoms_keep_their_sample(phantom_of: Callable[..., Phantom]) -> None:
    phantom = phantom_of(0, 40)
    volume = phantom.volume.astype(np.float32)
    cleaned = remove_drift(volume, np.ones(volume.shape, bool))

    def contrast(grey: np.ndarray) -> float:
        return float(grey[phantom.mask].mean() - grey[phantom.medium].mean())

    assert contrast(cleaned) == pytest.approx(contrast(volume), rel=0.15)
