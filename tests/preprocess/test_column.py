"""Columns of medium: found where they are, told from round samples, and made to disappear."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from ctray.config import PreprocessConfig
from ctray.preprocess.column import find_column, level_column
from ctray.preprocess.cylinder import Cylinder
from ctray.preprocess.field_of_view import FieldOfView, find_field_of_view
from ctray.preprocess.prepare import prepare

SHAPE = (40, 64, 64)
SAMPLE = np.s_[10:30, 24:40, 26:44]


def scan(
    column: Cylinder | None,
    *,
    step: float = 4.0,
    noise: float = 1.0,
    soft: float = 0.0,
    seed: int = 3,
) -> np.ndarray:
    """Noise, a column of medium that is brighter by `step`, and a bright sample in it."""
    rng = np.random.default_rng(seed)
    volume = rng.normal(0, noise, SHAPE)
    if column is not None:
        volume += ndimage.gaussian_filter(step * column.mask(SHAPE), (0, soft, soft))
    volume[SAMPLE] += 12 * rng.random((20, 16, 18))
    return volume.astype(np.float32)


@settings(max_examples=8)
@given(
    center=st.tuples(st.floats(26, 37), st.floats(26, 37)),
    slope=st.tuples(st.floats(-0.05, 0.05), st.floats(-0.05, 0.05)),
    radius=st.floats(20, 26),
    soft=st.sampled_from([0.0, 1.5]),
)
@example(center=(30.0, 26.0), slope=(0.0, 0.0), radius=20.0, soft=0.0)
@example(center=(30.0, 35.5), slope=(0.0, -0.046875), radius=23.0, soft=0.0)
def test_column_is_found_to_parts_of_a_voxel(
    center: tuple[float, float], slope: tuple[float, float], radius: float, soft: float
) -> None:
    column = Cylinder(
        center_y=center[0] - 20 * slope[0],
        center_x=center[1] - 20 * slope[1],
        slope_y=slope[0],
        slope_x=slope[1],
        radius=radius,
    )

    found = find_column(scan(column, soft=soft))

    assert found is not None
    assert found.radius == pytest.approx(radius, abs=0.5)
    for z in (0, SHAPE[0] - 1):
        np.testing.assert_allclose(found.centers(z), column.centers(z), atol=0.8)


COLUMN = Cylinder(center_y=30, center_x=34, radius=23)


def test_edge_of_the_column_disappears_and_the_sample_stays() -> None:
    volume = scan(COLUMN)
    found = find_column(volume)
    assert found is not None

    levelled = level_column(volume, found)

    inside = COLUMN.mask(SHAPE)
    inside[SAMPLE] = False
    outside = ~COLUMN.mask(SHAPE)
    before = volume[inside].mean() - volume[outside].mean()
    after = levelled[inside].mean() - levelled[outside].mean()
    assert before > 3.5
    assert abs(after) < 0.25
    np.testing.assert_array_equal(levelled[SAMPLE], volume[SAMPLE])


def test_sample_that_reaches_out_of_its_medium_is_not_cut() -> None:
    volume = scan(COLUMN)
    volume[15:25, 26:34, 50:62] += 30
    view = find_field_of_view(volume, PreprocessConfig())
    assert view.column is not None
    assert view.mask(SHAPE).all()

    prepared = prepare(volume, (1, 1, 1), PreprocessConfig(drift="off"))

    beyond = prepared.voxels[15:25, 26:34, 59:62]
    assert np.median(beyond) > np.median(prepared.voxels) + 60


def rough_core() -> np.ndarray:
    """A drill core: round in every slice, but rough."""
    volume = scan(None)
    grains = np.random.default_rng(4).normal(6, 3, (10, 16, 16))
    volume += COLUMN.mask(SHAPE) * grains.repeat(4, 0).repeat(4, 1).repeat(4, 2)
    return volume.astype(np.float32)


def cupped() -> np.ndarray:
    """Grey values that fall slowly towards the rim."""
    y, x = np.mgrid[: SHAPE[1], : SHAPE[2]] - 31.5
    return scan(None) - (0.008 * (y**2 + x**2)).astype(np.float32)


@pytest.mark.parametrize(
    "volume", [scan(None), rough_core(), cupped()], ids=["none", "core", "cup"]
)
def test_what_is_no_column_is_none(volume: np.ndarray) -> None:
    assert find_column(volume) is None


def test_sample_alone_in_air_without_noise_is_no_column() -> None:
    volume = np.zeros(SHAPE, dtype=np.float32)
    volume[COLUMN.mask(SHAPE)] = (
        5 + np.random.default_rng(1).normal(0, 1, SHAPE).astype(np.float32)[COLUMN.mask(SHAPE)]
    )

    assert find_column(volume) is None


def test_narrow_volume_is_prepared() -> None:
    """Long thin scans have such working levels: no ring fits beside so small an edge."""
    y, x = np.mgrid[:16, :16] - 7.5
    volume = np.random.default_rng(3).normal(0, 1, (120, 16, 16)) + 4 * (np.hypot(y, x) < 5)

    prepared = prepare(volume.astype(np.float32), (1, 1, 1), PreprocessConfig())

    assert prepared.voxels.shape == volume.shape
    assert prepared.voxels.std() > 0


def test_column_survives_its_receipt() -> None:
    view = FieldOfView(column=COLUMN)

    assert FieldOfView.from_json(view.to_json()) == view
    # Receipts of volumes that were never prepared hold no view.
    assert FieldOfView.from_json({}) == FieldOfView()
