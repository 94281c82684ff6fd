"""From a working level to what the network sees."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctray.config import PreprocessConfig
from ctray.core.errors import InvalidVolumeError
from ctray.phantom import make_phantom, preset
from ctray.preprocess.cylinder import Cylinder
from ctray.preprocess.field_of_view import FieldOfView
from ctray.preprocess.prepare import Prepared, is_constant, prepare

PLAIN = PreprocessConfig(circle="off", container="off", rings="off", drift="off", noise_floor=0)
CIRCLE = PLAIN.model_copy(update={"circle": "auto"})


def noise(shape: tuple[int, int, int] = (16, 20, 24), dtype: Any = np.float32) -> np.ndarray:
    return np.random.default_rng(0).normal(100, 10, shape).astype(dtype)


def in_circle(side: int = 40, depth: int = 16, outside: float = 0.0) -> np.ndarray:
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    inside = np.hypot(y, x) <= 0.49 * side
    return np.where(inside, noise((depth, side, side)), outside).astype(np.float32)


# --- window ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_volume_without_bounds_is_only_windowed(dtype: Any) -> None:
    volume = noise(dtype=dtype)
    found = prepare(volume, (1, 1, 1), PLAIN)
    low, high = np.percentile(volume.astype(np.float32), PLAIN.window_percentiles)
    assert found.window == pytest.approx((low, high), rel=1e-5)
    expected = np.clip(np.rint((volume.astype(float) - low) / (high - low) * 255), 0, 255)
    assert found.voxels.dtype == np.uint8
    assert np.abs(found.voxels - expected).max() <= 1  # float32 at a half
    assert found.field_of_view == FieldOfView()
    assert found.shape == volume.shape
    assert found.mean == pytest.approx(found.voxels.mean(), rel=1e-4)
    assert found.std == pytest.approx(found.voxels.std(), rel=1e-4)


@settings(max_examples=15)
@given(gain=st.floats(1e-4, 1e4), offset=st.floats(-1e3, 1e3))
def test_unit_of_the_grey_values_does_not_matter(gain: float, offset: float) -> None:
    """Float reconstructions hold attenuations of 1e-4; others hold 16-bit counts."""
    volume = noise((8, 10, 12), np.float64)
    base = prepare(volume, (1, 1, 1), PLAIN).voxels.astype(int)
    scaled = (volume - 100) * gain + offset * gain
    moved = prepare(scaled, (1, 1, 1), PLAIN).voxels.astype(int)
    assert np.abs(moved - base).max() <= 1


def test_outliers_are_clipped() -> None:
    volume = noise()
    volume[0, 0, 0], volume[1, 1, 1] = 1e6, -1e6
    found = prepare(volume, (1, 1, 1), PLAIN)
    assert (found.voxels[0, 0, 0], found.voxels[1, 1, 1]) == (255, 0)
    assert found.std > 30


def test_whole_pipeline_is_repeatable_and_seeded() -> None:
    volume = make_phantom(preset("paper", seed=1, index=0, size=32)).volume
    settings_ = PreprocessConfig(container="off")
    one, again, other = (prepare(volume, (1, 1, 1), settings_, seed=s) for s in (0, 0, 1))
    np.testing.assert_array_equal(one.voxels, again.voxels)
    np.testing.assert_array_equal(one.noise, again.noise)
    assert not np.array_equal(one.noise, other.noise)
    inside = one.field_of_view.mask(one.shape)
    assert inside.any()
    assert not inside.all()
    assert not np.array_equal(one.voxels[~inside], other.voxels[~inside])


# --- what lies outside ----------------------------------------------------------------------


@pytest.mark.parametrize("outside", [0.0, 1e5, np.nan])
def test_what_lies_beyond_the_circle_becomes_background(outside: float) -> None:
    found = prepare(in_circle(outside=outside), (1, 1, 1), CIRCLE)
    circle = found.field_of_view.circle
    assert circle is not None
    inside = found.field_of_view.mask(found.shape)
    beyond, within = found.voxels[~inside].astype(float), found.voxels[inside].astype(float)
    assert beyond.mean() == pytest.approx(within.mean(), abs=4)
    assert beyond.std() == pytest.approx(within.std(), rel=0.15)
    # Slices differ beyond the circle: equal ones would give the angle away.
    assert (found.voxels[0] != found.voxels[1])[~inside[0]].mean() > 0.9


def test_voxels_that_are_not_finite_become_background() -> None:
    volume = noise((24, 24, 24))
    holes = np.zeros(volume.shape, bool)
    holes[4:10, 5:15, 3:9] = True
    volume[holes] = np.nan
    volume[20, 20, 20], volume[21, 20, 20] = np.inf, -np.inf
    holes[20:22, 20, 20] = True
    found = prepare(volume, (1, 1, 1), PLAIN)
    filled, rest = found.voxels[holes].astype(float), found.voxels[~holes].astype(float)
    assert filled.mean() == pytest.approx(rest.mean(), abs=12)
    assert filled.std() == pytest.approx(rest.std(), rel=0.3)
    assert np.isfinite([found.mean, found.std, *found.window]).all()


def test_slices_without_a_finite_voxel_are_filled() -> None:
    volume = noise((24, 24, 24))
    volume[:3] = np.nan
    found = prepare(volume, (1, 1, 1), PreprocessConfig(container="off"))
    assert found.voxels[:3].std() > 0.5 * found.voxels[3:].std()


def test_trend_is_removed_when_asked_for() -> None:
    slope = np.linspace(0, 80, 24, dtype=np.float32)
    volume = noise((24, 24, 24)) + slope[:, None, None]

    def rise(config: PreprocessConfig) -> float:
        found = prepare(volume, (1, 1, 1), config)
        low, high = found.window
        means = found.voxels.mean(axis=(1, 2)) * (high - low) / 255
        return float(np.ptp(means))

    assert rise(PLAIN) > 60
    assert rise(PLAIN.model_copy(update={"drift": "auto"})) < 8


# --- nothing in it --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "volume",
    [
        np.full((4, 5, 6), 7, np.uint8),
        np.full((4, 5, 6), np.nan, np.float32),
        np.where(np.arange(120).reshape(4, 5, 6) % 2, 3.5, np.nan),
    ],
    ids=["constant", "nan", "constant-and-nan"],
)
def test_volume_without_contrast_is_refused(volume: np.ndarray) -> None:
    assert is_constant(volume)
    with pytest.raises(InvalidVolumeError, match="same grey value"):
        prepare(volume, (1, 1, 1), PreprocessConfig())


def test_one_voxel_makes_a_volume_not_constant() -> None:
    volume = np.zeros((4, 5, 6), np.uint16)
    volume[1, 2, 3] = 1
    assert not is_constant(volume)


def test_volume_in_which_nearly_all_voxels_are_equal() -> None:
    """The percentiles coincide: the window is then all that there is."""
    volume = np.zeros((16, 16, 16), np.float32)
    volume[8, 8, 8] = 50
    found = prepare(volume, (1, 1, 1), PLAIN)
    assert found.voxels[8, 8, 8] == 255
    assert (found.voxels == 255).sum() == 1
    assert found.std > 0


@pytest.mark.parametrize("shape", [(1, 32, 32), (2, 30, 33), (3, 5, 7), (32, 1, 32)])
def test_thin_volumes(shape: tuple[int, int, int]) -> None:
    found = prepare(noise(shape), (1, 1, 1), PreprocessConfig())
    assert found.shape == shape
    assert found.voxels.std() > 20


# --- slices ---------------------------------------------------------------------------------


def test_slices_lie_in_the_middle_of_their_canvas() -> None:
    found = prepare(noise((6, 9, 12)), (1, 1, 1), PLAIN)
    for axis, index in ((0, 3), (1, 8), (2, 0)):
        plane = np.take(found.voxels, index, axis=axis)
        canvas = found.slice(axis, index, 15)
        assert canvas.shape == (15, 15)
        assert canvas.dtype == np.uint8
        top, left = (15 - plane.shape[0]) // 2, (15 - plane.shape[1]) // 2
        window = canvas[top : top + plane.shape[0], left : left + plane.shape[1]]
        np.testing.assert_array_equal(window, plane)


def test_padding_is_background_and_moves_with_the_shift() -> None:
    found = prepare(noise((40, 30, 20)), (1, 1, 1), PLAIN)
    frame = np.ones((64, 64), bool)
    frame[12:52, 17:47] = False  # slices along x are 40 by 30
    one, other = (found.slice(2, 5, 64, shift)[frame].astype(float) for shift in (3, 4))
    values = found.voxels.astype(float)
    assert one.mean() == pytest.approx(values.mean(), abs=5)
    assert one.std() == pytest.approx(values.std(), rel=0.15)
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.1
    np.testing.assert_array_equal(one, found.slice(2, 5, 64, 3)[frame])


def test_slice_that_fits_is_not_copied_through_noise() -> None:
    found = prepare(noise((8, 8, 8)), (1, 1, 1), PLAIN)
    np.testing.assert_array_equal(found.slice(1, 2, 8, 5), found.voxels[:, 2])


# --- as bytes -------------------------------------------------------------------------------


def same(one: Prepared, other: Prepared) -> None:
    np.testing.assert_array_equal(one.voxels, other.voxels)
    np.testing.assert_array_equal(one.noise, other.noise)
    assert one.factors == other.factors
    assert one.to_json() == other.to_json()


@pytest.mark.parametrize("volume", [noise((6, 9, 12)), in_circle()], ids=["plain", "circle"])
def test_prepared_comes_back_from_bytes(volume: np.ndarray) -> None:
    found = prepare(volume, (4, 2, 2), CIRCLE)
    loaded = Prepared.from_bytes(found.to_bytes())
    same(loaded, found)
    # Twice through bytes is once: nothing is rounded a second time.
    same(Prepared.from_bytes(loaded.to_bytes()), loaded)
    assert loaded.to_bytes() == Prepared.from_bytes(loaded.to_bytes()).to_bytes()


def test_small_grey_values_keep_their_window_in_bytes() -> None:
    """Attenuations per voxel are as small as 1e-4; six decimals would leave nothing of them."""
    volume = (noise((6, 9, 12)) - 100) * 1e-6
    found = prepare(volume, (1, 1, 1), PLAIN)
    loaded = Prepared.from_bytes(found.to_bytes())
    assert loaded.window == pytest.approx(found.window, rel=1e-4)
    low, high = loaded.window
    assert low < high


def test_view_with_a_tilted_container_comes_back() -> None:
    bound = Cylinder(center_y=10.25, center_x=9.5, slope_y=0.125, slope_x=-0.25, radius=7.5)
    plain = prepare(noise(), (1, 1, 1), PLAIN)
    tilted = Prepared(
        **{name: getattr(plain, name) for name in Prepared.__dataclass_fields__}
        | {"field_of_view": FieldOfView(container=bound)}
    )
    assert Prepared.from_bytes(tilted.to_bytes()).field_of_view.container == bound


def damaged() -> dict[str, bytes]:
    data = prepare(noise((6, 9, 12)), (1, 1, 1), PLAIN).to_bytes()
    plain = io.BytesIO()
    np.save(plain, np.zeros(3))
    missing = io.BytesIO()
    np.savez(missing, voxels=np.zeros((2, 2, 2), np.uint8))
    return {
        "nothing": b"",
        "text": b"not an archive",
        "half": data[: len(data) // 2],
        "tail lost": data[:-10],
        "middle changed": data[:2000] + bytes(200) + data[2200:],
        "one array": plain.getvalue(),
        "arrays missing": missing.getvalue(),
    }


@pytest.mark.parametrize("what", sorted(damaged()))
def test_damaged_bytes_are_refused(what: str) -> None:
    with pytest.raises(InvalidVolumeError, match="prepared volume is damaged") as caught:
        Prepared.from_bytes(damaged()[what])
    assert "\n" not in str(caught.value)


# --- noise floor ----------------------------------------------------------------------------


def clear_scan() -> np.ndarray:
    """A bright ball in a medium with little noise."""
    z, y, x = np.mgrid[:32, :32, :32] - 15.5
    ball = np.where(z**2 + y**2 + x**2 < 81, 10.0, 0.0)
    return (ball + np.random.default_rng(2).normal(0, 0.2, ball.shape)).astype(np.float32)


def test_clear_scan_gets_noise_for_the_pretext_tasks_alone() -> None:
    volume = clear_scan()
    found = prepare(volume, (1, 1, 1), PLAIN.model_copy(update={"noise_floor": 0.5}))
    assert found.noisy is not None
    low, high = found.window
    empty = np.s_[:4]
    grey = found.noisy[empty].astype(float) * (high - low) / 255
    # In the medium the noise is all there is, and its extremes are cut by the window.
    assert grey.std() == pytest.approx(0.5 * volume.std(), rel=0.15)
    clear = found.slice(0, 2, 32, added_noise=False).astype(float) * (high - low) / 255
    assert clear.std() < 0.3
    np.testing.assert_array_equal(found.slice(0, 2, 32), found.noisy[2])
    again = Prepared.from_bytes(found.to_bytes())
    assert again.noisy is not None
    np.testing.assert_array_equal(again.noisy, found.noisy)


def test_padding_of_a_slice_is_as_noisy_as_the_slice() -> None:
    flat = clear_scan()[:, :20]
    found = prepare(flat, (1, 1, 1), PLAIN.model_copy(update={"noise_floor": 0.5}))
    canvas = found.slice(0, 1, 32).astype(float)
    assert canvas[:5].std() == pytest.approx(canvas[8:24].std(), rel=0.25)
    canvas = found.slice(0, 1, 32, added_noise=False).astype(float)
    assert canvas[:5].std() < 0.3 * found.slice(0, 1, 32)[:5].std()


def test_an_outlier_asks_for_no_noise() -> None:
    volume = noise()
    volume[0, 0, 0] = 1e6
    assert prepare(volume, (1, 1, 1), PLAIN.model_copy(update={"noise_floor": 0.5})).noisy is None


def test_noisy_scan_stays_as_it_is() -> None:
    found = prepare(noise(), (1, 1, 1), PLAIN.model_copy(update={"noise_floor": 0.5}))
    assert found.noisy is None
