"""Finding the container against the phantoms' own truth, and not finding one where none is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from ctray.config import PreprocessConfig
from ctray.phantom import Kind, Phantom, make_phantom, preset
from ctray.phantom.scenes import benchmark_spec
from ctray.preprocess.container import find_container
from ctray.preprocess.cylinder import Cylinder
from ctray.preprocess.field_of_view import FieldOfView, find_field_of_view
from ctray.volumes.multiscale import downsample_mean

SIDE = 48


def view_of(phantom: Phantom) -> FieldOfView:
    return find_field_of_view(phantom.volume.astype(np.float32), PreprocessConfig())


def halved_view(phantom: Phantom) -> FieldOfView:
    halved = downsample_mean(phantom.volume.astype(np.float32), (2, 2, 2))
    return find_field_of_view(halved, PreprocessConfig())


def scene(difficulty: str, index: int, **options: object) -> Phantom:
    return make_phantom(preset(difficulty, seed=11, index=index, **{"size": SIDE, **options}))


@pytest.mark.parametrize(
    ("difficulty", "container", "index"),
    [("easy", "centred", 0), ("paper", "centred", 1), ("easy", "offset", 2), ("hard", "tilted", 3)],
)
def test_inside_of_the_tube_is_found(difficulty: str, container: str, index: int) -> None:
    phantom = scene(difficulty, index, container=container, distractors=0, streaks=0.0)
    found = view_of(phantom).container
    assert found is not None
    inside = found.mask(phantom.volume.shape)
    truth = phantom.medium | phantom.mask
    # What is taken for inside is inside but for single voxels of the wall's blur ...
    assert (inside & ~truth).sum() < 0.01 * inside.sum()
    # ... and what is lost is a rim of about two voxels, no piece of the sample.
    lost = truth & ~inside
    assert lost.sum() < 0.25 * truth.sum()
    assert (lost & phantom.mask).sum() < 0.01 * phantom.mask.sum()


def test_tilt_is_followed() -> None:
    phantom = scene("hard", 3, distractors=0, streaks=0.0)
    found = view_of(phantom).container
    assert found is not None
    truth = phantom.medium | phantom.mask
    _, y, x = np.nonzero(truth)
    z = np.nonzero(truth)[0]
    for end in (slice(0, 8), slice(SIDE - 8, SIDE)):
        here = (z >= end.start) & (z < end.stop)
        middle = (end.start + end.stop - 1) / 2
        cy, cx = found.centers(middle)
        assert (float(cy), float(cx)) == pytest.approx((y[here].mean(), x[here].mean()), abs=1.2)
    assert np.hypot(found.slope_y, found.slope_x) > 0.02


# Rings several times those of the presets, which a search for walls must not fall for.
@pytest.mark.parametrize(
    ("difficulty", "options"),
    [
        ("easy", {}),
        ("easy", {"reconstruction_circle": False, "kind": "multi"}),
        ("paper", {"container": "none"}),
        ("paper", {"container": "none", "rings": 0.3, "noise": 0.4, "size": 96}),
        ("hard", {"container": "none"}),
        ("paper", {"container": "none", "empty": True, "rings": 0.2, "size": 96}),
    ],
    ids=["plain", "multi", "paper", "rings", "hard", "empty-with-rings"],
)
def test_no_tube_where_there_is_none(difficulty: str, options: dict[str, object]) -> None:
    phantom = scene(difficulty, 5, **options)
    assert view_of(phantom).container is None


@pytest.mark.parametrize(
    ("family", "name", "index"),
    [
        ("embryo", "equal", 1),
        ("fish", "easy", 0),
        ("fish", "easy", 1),
        ("fish", "border", 1),
        ("embryo", "paper-equal", 1),
    ],
)
def test_outline_of_a_sample_is_no_tube(family: Kind, name: str, index: int) -> None:
    """What lay beyond was lost to all that followed: 3% of the sample, and 18 slices of a tail."""
    phantom = make_phantom(benchmark_spec("tuning", family, name, index, 128))
    assert halved_view(phantom).container is None


@pytest.mark.parametrize("index", [0, 1, 2])
def test_sample_beside_the_wall_stays_in_view(index: int) -> None:
    phantom = make_phantom(benchmark_spec("tuning", "embryo", "hard", index, 128))
    view = halved_view(phantom)
    sample = downsample_mean(phantom.mask.astype(np.float32), (2, 2, 2))
    assert view.container is not None
    assert sample[~view.mask(sample.shape)].sum() < 0.003 * sample.sum()


def test_no_tube_in_noise() -> None:
    noise = np.random.default_rng(0).normal(100, 10, (SIDE,) * 3).astype(np.float32)
    assert find_container(noise) is None


def test_no_tube_in_a_volume_that_is_nearly_constant() -> None:
    volume = np.full((16, 40, 40), 7, np.float32)
    volume[3, 20, 20] = 8
    assert find_container(volume) is None


@pytest.mark.parametrize("shape", [(8, 8, 8), (8, 64, 9)])
def test_least_volumes_do_not_fail(shape: tuple[int, int, int]) -> None:
    noise = np.random.default_rng(1).normal(100, 10, shape).astype(np.float32)
    assert find_container(noise) is None


def test_tube_in_a_volume_with_holes_of_nan() -> None:
    """Voxels that are not finite are left out, not taken for a wall."""
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    distance = np.hypot(y, x)
    volume = np.random.default_rng(2).normal(100, 5, (24, SIDE, SIDE)).astype(np.float32)
    volume[:, (distance > 17) & (distance < 19)] += 60
    volume[5:7, 30:34, 20:25] = np.nan
    found = find_field_of_view(volume, PreprocessConfig(circle="off")).container
    assert found is not None
    assert 14 <= found.radius <= 17.5
    assert isinstance(found, Cylinder)


@pytest.mark.real
@pytest.mark.parametrize("name", ["mouse_B6129PF1_J", "mouse_B6SJLF1_J"])
def test_tube_of_real_scans_is_found_and_holds_the_head(name: str, real_data: Path) -> None:
    folder = real_data / "mouse_heads_tube" / name
    volume = tifffile.imread(folder / "volume.tif").astype(np.float32)
    head = tifffile.imread(folder / "mask.tif") > 0
    found = find_field_of_view(volume, PreprocessConfig()).container
    assert found is not None
    inside = found.mask(volume.shape)
    assert (head & ~inside).sum() < 0.005 * head.sum()
    assert inside.mean() < 0.4
