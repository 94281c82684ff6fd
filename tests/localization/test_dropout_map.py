"""Uncertainty maps: against the definition, in their place, and at less than T full passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import ctray.localization.dropout_map as uncertainty_module
from ctray.config import RunConfig
from ctray.core.errors import ConfigError
from ctray.learn.pretext.encoder import SortingModel, SpatialDropout, monte_carlo
from ctray.learn.pretext.tasks import build_model
from ctray.localization.dropout_map import over_channels, sample_variance, uncertainty_map
from ctray.preprocess.field_of_view import FieldOfView
from ctray.preprocess.prepare import Prepared

ConfigOf = Callable[..., RunConfig]
ENCODERS = [
    {"name": "narrow", "widths": [6, 8, 10], "output_stride": 8},
    {"name": "narrow", "widths": [6, 8, 10, 12], "output_stride": 16},
    {"name": "resnet18", "output_stride": 32},
]
IDS = ["narrow-8", "narrow-16", "resnet18-32"]


def config_with(
    config_of: ConfigOf, encoder: dict[str, Any], axes: Any = ("z",), **more: Any
) -> RunConfig:
    return config_of(
        task="sorting",
        sorting={"axes": axes},
        encoder={"dropout": 0.2, "pool_grid": 1, **encoder},
        uncertainty=more,
    )


def model_of(config: RunConfig) -> SortingModel:
    model = build_model(config)
    assert isinstance(model, SortingModel)
    return model.eval()


def prepared(voxels: np.ndarray) -> Prepared:
    return Prepared(
        voxels=voxels.astype(np.uint8),
        noise=np.full((64, 64, 64), 100, np.uint8),
        mean=100.0,
        std=20.0,
        window=(0.0, 255.0),
        field_of_view=FieldOfView(),
        factors=(1, 1, 1),
    )


def noisy(shape: tuple[int, int, int], seed: int = 0) -> Prepared:
    rng = np.random.default_rng(seed)
    return prepared(np.clip(rng.normal(100, 20, shape), 0, 255))


@pytest.mark.parametrize("encoder", ENCODERS, ids=IDS)
def test_variance_is_that_of_full_passes_one_mask_after_the_other(
    config_of: ConfigOf, encoder: dict[str, Any]
) -> None:
    """Two passes: the mean over all samples first, then the squared distances from it."""
    model = model_of(config_with(config_of, encoder))
    x = torch.from_numpy(np.random.default_rng(1).normal(0, 1, (3, 1, 64, 64))).float()
    samples = 7
    with torch.inference_mode():
        found = sample_variance(model, x, samples, seed=5)
        with monte_carlo(model, samples, 5):
            model.encoder.superpixels(x)
            dropouts = [m for m in model.modules() if isinstance(m, SpatialDropout)]
            masks = [d._masks for d in dropouts]
        passes = []
        for sample in range(samples):
            for dropout, mask in zip(dropouts, masks, strict=True):
                assert mask is not None
                dropout.samples, dropout._masks = 1, mask[sample : sample + 1]
            passes.append(model.encoder.superpixels(x).double())
        for dropout in dropouts:
            dropout.samples = 0
        mean = sum(passes) / samples
        squares = sum((p - mean) ** 2 for p in passes) / (samples - 1)
    np.testing.assert_allclose(found, squares, rtol=1e-3, atol=1e-6)
    assert float(found.mean()) > 0


@pytest.mark.parametrize("encoder", ENCODERS, ids=IDS)
def test_work_before_the_first_dropout_is_done_once(
    config_of: ConfigOf, encoder: dict[str, Any]
) -> None:
    model = model_of(config_with(config_of, encoder))
    rows: dict[str, int] = {}
    convolutions = [
        (n, m)
        for n, m in model.named_modules()
        if isinstance(m, torch.nn.Conv2d) and "skip" not in n
    ]
    for name, module in convolutions:
        module.register_forward_hook(
            lambda _m, inputs, _o, name=name: rows.__setitem__(name, len(inputs[0]))
        )
    with torch.inference_mode():
        sample_variance(model, torch.zeros(2, 1, 64, 64), 5, seed=0)
    assert rows[convolutions[0][0]] == 2
    assert rows[convolutions[-1][0]] == 10


def test_no_channel_speaks_for_all() -> None:
    """One channel varies a thousand times more than the other and would be all of a plain mean."""
    quiet = torch.tensor([[1.0, 1.0], [1.0, 5.0]])
    loud = torch.tensor([[1000.0, 1000.0], [3000.0, 1000.0]])
    silent = torch.zeros(2, 2)
    variance = torch.stack([quiet, loud, silent])[None]
    unit = variance.mean(dim=(0, 2, 3))
    found = over_channels(variance, unit)[0]
    np.testing.assert_allclose(found, (quiet / 2 + loud / 1500) / 2, rtol=1e-6)
    assert over_channels(variance, None)[0].argmax() == 2
    assert found.argmax() == 3
    outlier = torch.tensor([[[[1e6, 1.0]]]])
    assert over_channels(outlier, torch.tensor([1.0])).max() == 10


def test_model_is_as_before_after_sampling(config_of: ConfigOf) -> None:
    model = model_of(config_with(config_of, ENCODERS[0]))
    x = torch.ones(1, 1, 32, 32)
    with torch.inference_mode():
        before = model(x)
        sample_variance(model, x, 3, seed=0)
        assert torch.equal(model(x), before)


@pytest.mark.parametrize("shifts", [1, 2, 4])
@pytest.mark.parametrize("stride", [4, 8, 16, None])
def test_spot_is_mapped_to_its_place(config_of: ConfigOf, stride: int | None, shifts: int) -> None:
    """What stands out in the map lies around the voxels that stand out in the volume."""
    config = config_with(config_of, ENCODERS[1], stride=stride, shifts=shifts, samples=6)
    voxels = np.full((6, 60, 52), 100)
    spot = (4, 37, 14)
    voxels[spot[0], spot[1] - 2 : spot[1] + 3, spot[2] - 2 : spot[2] + 3] = 250
    model = model_of(config)
    with torch.no_grad():
        # Random kernels lean to a side; these do not.
        for module in model.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.weight.fill_(1 / module.weight[0].numel())
    found = uncertainty_map(model, prepared(voxels), 64, config)
    cell = (stride or 16) // shifts
    assert found.cell == (1, cell, cell)
    above = found.values - np.median(found.values)
    place = [
        (np.arange(n) + 0.5) * c + o
        for n, c, o in zip(found.values.shape, found.cell, found.offset, strict=True)
    ]
    weight = np.clip(above, 0, None)
    assert weight.sum() > 0
    for axis in (1, 2):
        others = tuple(a for a in range(3) if a != axis)
        centre = (weight.sum(axis=others) * place[axis]).sum() / weight.sum()
        assert centre == pytest.approx(spot[axis] + 0.5, abs=0.5 * cell)
    assert set(np.flatnonzero(weight.sum(axis=(1, 2)))) == {spot[0]}


@pytest.mark.parametrize("shape", [(9, 40, 40), (7, 33, 21), (5, 64, 50)])
@pytest.mark.parametrize("shifts", [1, 2, 4])
def test_cells_cover_the_volume(
    config_of: ConfigOf, shape: tuple[int, int, int], shifts: int
) -> None:
    config = config_with(config_of, ENCODERS[0], shifts=shifts, samples=2)
    found = uncertainty_map(model_of(config), noisy(shape), max(shape), config)
    for axis in range(3):
        first, size, count = found.offset[axis], found.cell[axis], found.values.shape[axis]
        assert -size < first <= 0
        assert first + count * size >= shape[axis]
        assert first + (count - 1) * size < shape[axis]
    assert found.to_voxels(found.values, shape).shape == shape
    assert found.values.dtype == np.float32
    assert found.scale > 0


def test_map_does_not_depend_on_the_slabs(
    config_of: ConfigOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_with(config_of, ENCODERS[0], shifts=2, samples=3)
    model, volume = model_of(config), noisy((20, 16, 16))
    whole = uncertainty_map(model, volume, 16, config)
    monkeypatch.setattr(uncertainty_module, "_BATCH_PIXELS", 1)
    one_by_one = uncertainty_map(model, volume, 16, config)
    np.testing.assert_allclose(one_by_one.values, whole.values, rtol=1e-4, atol=1e-6)


def test_same_seed_gives_the_same_map_and_another_one_another(config_of: ConfigOf) -> None:
    config = config_with(config_of, ENCODERS[0], shifts=1, samples=3)
    model, volume = model_of(config), noisy((14, 12, 12))
    one, two, other = (uncertainty_map(model, volume, 16, config, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.values, two.values)
    assert not np.array_equal(one.values, other.values)


def test_slices_are_taken_along_the_longest_axis(config_of: ConfigOf) -> None:
    config = config_with(config_of, ENCODERS[0], axes="longest", stride=8, shifts=1, samples=2)
    found = uncertainty_map(model_of(config), noisy((16, 12, 30)), 16, config)
    assert found.axis == 2
    assert found.cell == (8, 8, 1)
    assert found.values.shape[2] == 30


def test_without_dropout_nothing_is_uncertain(config_of: ConfigOf) -> None:
    config = config_with(config_of, {**ENCODERS[0], "dropout": 0.0})
    with pytest.raises(ConfigError, match=r"encoder\.dropout is 0"):
        uncertainty_map(model_of(config), noisy((9, 9, 9)), 16, config)
