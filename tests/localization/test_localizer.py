"""Localizing one volume, in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ctray
from ctray.config import RunConfig, parse_config
from ctray.core.errors import InvalidVolumeError
from ctray.core.geometry import AXES, Box
from ctray.learn.pretext.checkpoint import TrainedModel, load_model, weights_digest
from ctray.learn.pretext.tasks import build_model
from ctray.localization.localizer import Localizer
from ctray.phantom import Phantom
from ctray.volumes.volume import Volume, open_volume
from ctray.volumes.writer import create_volume

CPU = torch.device("cpu")


def stored(folder: Path, voxels: np.ndarray, *, num_levels: int | None = None) -> Volume:
    url = str(folder / f"v{len(list(folder.iterdir()))}.zarr")
    writer = create_volume(
        url, shape=voxels.shape, dtype=voxels.dtype, voxel_size=None, num_levels=num_levels
    )
    for box in writer.grid.shards():
        writer.write(box, voxels[box.slices])
    writer.build_pyramid()
    writer.commit({})
    return open_volume(url)


@pytest.fixture(scope="module")
def trained(trained_url: str) -> TrainedModel:
    return load_model(trained_url)


def test_sample_is_found_in_phantoms_that_were_not_learned_from(
    trained: TrainedModel, held_out: list[Phantom], tmp_path: Path
) -> None:
    """Mean error of the faces at most 2.5 of 32 voxels; the whole volume would be off by 6."""
    errors, whole = [], []
    for phantom in held_out:
        assert phantom.box is not None
        found = ctray.localize(stored(tmp_path, phantom.volume), trained)
        assert found.status == "located"
        assert found.reason is None
        assert found.sample_box is not None
        errors.append(np.abs(np.subtract(found.sample_box.faces, phantom.box.faces)).mean())
        whole.append(np.abs(np.subtract((0, 32) * 3, phantom.box.faces)).mean())
        assert found.sample_box.iou(phantom.box) > 0.4
    assert np.mean(errors) < 2.5
    assert np.mean(whole) > 5


def test_what_is_told_of_a_located_volume(
    trained: TrainedModel, held_out: list[Phantom], tmp_path: Path
) -> None:
    volume = stored(tmp_path, held_out[0].volume)
    found = Localizer(trained, device=CPU).localize(volume)
    assert found.box is not None
    assert found.face_confidence is not None
    assert len(found.face_confidence) == 6
    assert all(0 <= c <= 1 for c in found.face_confidence)
    assert set(found.profiles) == set(found.stretches) == set(AXES)
    assert all(len(p) == 32 for p in found.profiles.values())
    for axis, name in enumerate(AXES):
        stretch = found.stretches[name]
        if stretch is not None:
            expected = (found.box.start[axis], found.box.stop[axis])
            assert (stretch.start, stretch.stop) == expected
    assert found.working["shape"] == [32, 32, 32]
    assert found.bytes_read > 0
    assert found.seconds > 0


def test_localizing_twice_gives_the_same(
    trained: TrainedModel, held_out: list[Phantom], tmp_path: Path
) -> None:
    volume = stored(tmp_path, held_out[1].volume)
    one, other = (Localizer(trained, device=CPU).localize(volume) for _ in range(2))
    assert (one.box, one.profiles) == (other.box, other.profiles)


def test_box_counts_voxels_of_level_0(
    trained: TrainedModel, held_out: list[Phantom], tmp_path: Path
) -> None:
    """The same phantom with every voxel twice along each axis: twice the box."""
    phantom = held_out[0]
    small = ctray.localize(stored(tmp_path, phantom.volume), trained)
    twice = phantom.volume.repeat(2, 0).repeat(2, 1).repeat(2, 2)[:-1]
    large = ctray.localize(stored(tmp_path, twice), trained)
    assert small.sample_box is not None
    assert large.sample_box is not None
    assert large.working["factors"] == [2, 2, 2]
    expected = np.minimum(2 * np.array(small.sample_box.faces), [63, 63, 64, 64, 64, 64])
    np.testing.assert_allclose(large.sample_box.faces, expected, atol=4)
    assert large.sample_box.stop[0] <= 63


# --- nothing there --------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, 77])
def test_constant_volume_is_empty(trained: TrainedModel, tmp_path: Path, value: int) -> None:
    found = ctray.localize(stored(tmp_path, np.full((32, 32, 32), value, np.uint8)), trained)
    assert found.status == "empty"
    assert found.reason == "all voxels have the same grey value"
    assert found.sample_box is None
    assert found.confidence is None


def test_noise_without_a_certain_slice_is_empty(trained: TrainedModel, tmp_path: Path) -> None:
    noise = np.random.default_rng(3).normal(100, 12, (32, 32, 32)).astype(np.uint8)
    # So small a network, trained for seconds, is half sure of some noise that it never saw.
    strict = parse_config({"localize": {"min_peak": 0.6}})
    found = Localizer(trained, strict, device=CPU).localize(stored(tmp_path, noise))
    assert found.status == "empty"
    assert found.reason == "no slice along any axis is certain to hold structure"
    assert set(found.stretches.values()) == {None}
    assert all(len(p) == 32 for p in found.profiles.values())


def test_volume_without_a_finite_voxel(trained: TrainedModel, tmp_path: Path) -> None:
    volume = stored(tmp_path, np.full((32, 32, 32), np.nan, np.float32))
    with pytest.raises(InvalidVolumeError, match="no voxel is finite"):
        ctray.localize(volume, trained)


def test_holes_of_nan_do_not_matter(
    trained: TrainedModel, held_out: list[Phantom], tmp_path: Path
) -> None:
    phantom = held_out[0]
    assert phantom.box is not None
    voxels = phantom.volume.astype(np.float32)
    voxels[:2] = np.nan
    voxels[10:12, 1:4, 1:4] = np.inf
    found = ctray.localize(stored(tmp_path, voxels), trained)
    assert found.sample_box is not None
    assert found.sample_box.iou(phantom.box) > 0.5


# --- an axis that tells nothing -------------------------------------------------------------


def untrained(config: RunConfig, side: int) -> TrainedModel:
    model = build_model(config).eval()
    digest = weights_digest(model.state_dict())
    return TrainedModel(
        model=model, config=config, side=side, step=0, digest=digest, url="memory://none"
    )


def test_axis_without_certain_slices_keeps_its_extent(
    trained: TrainedModel, held_out: list[Phantom], tmp_path: Path
) -> None:
    """The model is asked along z alone; what it says nothing about is not cut."""
    data = trained.config.model_dump(mode="json")
    data["rotation"]["axes"] = ["z"]
    one_axis = TrainedModel(
        model=trained.model,
        config=parse_config(data),
        side=trained.side,
        step=trained.step,
        digest=trained.digest,
        url=trained.url,
    )
    phantom = held_out[0]
    assert phantom.box is not None
    found = ctray.localize(stored(tmp_path, phantom.volume), one_axis)
    assert found.sample_box is not None
    assert found.face_confidence is not None
    assert found.sample_box.start[1:] == (0, 0)
    assert found.sample_box.stop[1:] == (32, 32)
    assert found.face_confidence[2:] == (0.0,) * 4
    assert abs(found.sample_box.start[0] - phantom.box.start[0]) <= 4
    assert abs(found.sample_box.stop[0] - phantom.box.stop[0]) <= 4
    assert found.confidence == 0


@pytest.mark.parametrize("shape", [(1, 40, 40), (2, 30, 33), (24, 1, 24)])
def test_thin_volumes_give_an_answer(
    config_of: Callable[..., RunConfig], tmp_path: Path, shape: tuple[int, int, int]
) -> None:
    config = config_of(localize={"threshold": 0.0, "min_peak": 0.0})
    noise = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    found = ctray.localize(stored(tmp_path, noise, num_levels=1), untrained(config, 24))
    assert found.status in ("located", "empty")
    if found.sample_box is not None:
        found.sample_box.check_inside(shape)


def test_only_the_localize_section_of_another_configuration_counts(
    trained: TrainedModel, held_out: list[Phantom], tmp_path: Path
) -> None:
    other: dict[str, Any] = {
        "localize": {"threshold": 0.0, "min_peak": 0.0},
        "preprocess": {"working_size": 999},
        "rotation": {"angle_step": 10},
    }
    localizer = Localizer(trained, parse_config(other), device=CPU)
    assert localizer.config.preprocess == trained.config.preprocess
    assert localizer.config.rotation == trained.config.rotation
    found = localizer.localize(stored(tmp_path, held_out[0].volume))
    assert found.box is not None
    assert found.box.faces == (0, 32, 0, 32, 0, 32)


def test_sorting_model_gives_a_map(config_of: Any, tmp_path: Path) -> None:
    """Even an untrained encoder is moved more by what stands out from its medium."""
    config: RunConfig = config_of(
        task="sorting",
        preprocess={"working_size": 32},
        sorting={"axes": ["z"]},
        encoder={"widths": [12, 24, 32], "dropout": 0.2},
        uncertainty={"samples": 8},
    )
    model = build_model(config).eval()
    digest = weights_digest(model.state_dict())
    trained = TrainedModel(
        model=model, config=config, side=32, step=0, digest=digest, url="memory://none"
    )
    voxels = np.random.default_rng(0).normal(100, 4, (32, 32, 32))
    voxels[8:24, 10:22, 6:20] += 60
    volume = stored(tmp_path, voxels.astype(np.uint8))
    found = Localizer(trained, device=CPU).localize(volume)
    assert found.status == "located"
    assert found.box is not None
    sample = Box(start=(8, 10, 6), stop=(24, 22, 20))
    assert found.box.contains(sample)
    assert found.box.iou(sample) > 0.2
    assert found.uncertainty is not None
    assert found.uncertainty.cell == (1, 2, 2)
    assert found.working["uncertainty"]["axis"] == "z"
    again = Localizer(trained, device=CPU).localize(volume)
    assert again.box == found.box
