"""The rotation task: signs, mask, classes and loss against plain formulas."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ctray.config import RotationConfig, RunConfig
from ctray.learn.pretext.rotation import (
    RotationTask,
    circular_mask,
    class_angles,
    make_views,
    rotate,
    rotation_loss,
    zero_class,
)
from ctray.learn.pretext.slices import standardise


def picture(side: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(1, side, side, generator=torch.Generator().manual_seed(seed))


def batch_of(image: npt.NDArray[np.uint8], label: int) -> dict[str, torch.Tensor]:
    """One pair of a slice (1, H, W) and itself, of mean 100 and standard deviation 50."""
    rows = {
        "slice": image,
        "twin": image,
        "label": np.array([label]),
        "orientation_deg": np.zeros(1, np.float32),
        "mean": np.full(1, 100, np.float32),
        "std": np.full(1, 50, np.float32),
    }
    return {k: torch.from_numpy(v) for k, v in rows.items()}


@pytest.mark.parametrize("quarters", [-2, -1, 0, 1, 2, 3])
@pytest.mark.parametrize("side", [8, 9])
def test_rotation_is_numpys_rot90(quarters: int, side: int) -> None:
    """Positive angles turn counter-clockwise as seen with row 0 at the top, like `rot90`."""
    image = picture(side)
    turned = rotate(image, torch.tensor([90.0 * quarters]))
    expected = np.rot90(image[0].numpy(), quarters)
    np.testing.assert_allclose(turned[0].numpy(), expected, atol=1e-4)


def test_every_slice_of_a_batch_turns_by_its_own_angle() -> None:
    images = torch.cat([picture(8, seed) for seed in range(3)])
    turned = rotate(images, torch.tensor([0.0, 90.0, 180.0]))
    for i in range(3):
        np.testing.assert_allclose(turned[i].numpy(), np.rot90(images[i].numpy(), i), atol=1e-4)


@pytest.mark.parametrize("angle", [30.0, 45.0, -75.0, 200.0])
def test_spot_moves_along_its_circle(angle: float) -> None:
    side, radius = 65, 20
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    # A spot to the right of the centre; counter-clockwise takes it up, towards row 0.
    spot = np.exp(-((y**2 + (x - radius) ** 2) / 8)).astype(np.float32)
    mask = circular_mask(side)
    turned = make_views(torch.from_numpy(spot)[None], torch.tensor([angle]), mask)[0, 0].numpy()
    found = [(turned * axis).sum() / turned.sum() for axis in (y, x)]
    expected = (-radius * math.sin(math.radians(angle)), radius * math.cos(math.radians(angle)))
    np.testing.assert_allclose(found, expected, atol=0.2)


@given(side=st.integers(2, 70))
def test_mask_is_the_largest_circle(side: int) -> None:
    mask = circular_mask(side).numpy()
    middle = (side - 1) / 2
    for row in (0, side // 3, side - 1):
        for col in (0, side // 2, side - 1):
            inside = math.hypot(row - middle, col - middle) <= side / 2
            assert mask[row, col] == float(inside)
    np.testing.assert_array_equal(mask, np.rot90(mask))
    np.testing.assert_array_equal(mask, mask[::-1])
    if side > 4:
        assert abs(mask.mean() - math.pi / 4) < 1.5 / side


def test_views_hold_nothing_outside_the_circle() -> None:
    side = 16
    mask = circular_mask(side)
    images = torch.cat([picture(side, seed) for seed in range(5)])
    views = make_views(images, torch.tensor([0.0, 10.0, 45.0, 90.0, 333.0]), mask)
    assert views.shape == (5, 1, side, side)
    assert (views[:, 0, mask == 0] == 0).all()
    np.testing.assert_allclose(views[0, 0].numpy(), (images[0] * mask).numpy(), atol=1e-5)
    # Inside, the corners that turned in are the slice's own, not a constant edge.
    assert (views[:, 0, mask == 1] != 0).all()


@pytest.mark.parametrize(
    ("config", "angles"),
    [
        (RotationConfig(), [-90, -60, -30, 0, 30, 60, 90]),
        (RotationConfig(angle_step=90), [-90, 0, 90]),
        (RotationConfig(max_angle=45, angle_step=22.5), [-45, -22.5, 0, 22.5, 45]),
    ],
)
def test_class_angles(config: RotationConfig, angles: list[float]) -> None:
    found = class_angles(config).tolist()
    assert found == angles
    assert len(found) == config.num_classes
    assert found[zero_class(config)] == 0


def test_standardise_gives_mean_zero_and_spread_one() -> None:
    grey = torch.randint(0, 256, (2, 50, 50), generator=torch.Generator().manual_seed(1))
    images = grey.to(torch.uint8)
    mean = images.float().mean(dim=(1, 2))
    std = images.float().std(dim=(1, 2))
    found = standardise(images, mean, std)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.mean(dim=(1, 2)), torch.zeros(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(found.std(dim=(1, 2)), torch.ones(2), atol=1e-4, rtol=0)


@given(seed=st.integers(0, 1000), classes=st.integers(2, 9), count=st.integers(1, 12))
def test_loss_is_the_mean_negative_log_of_the_labels_probability(
    seed: int, classes: int, count: int
) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (count, classes))
    labels = rng.integers(0, classes, count)
    powers = np.exp(logits)
    probability = powers[np.arange(count), labels] / powers.sum(axis=1)
    found = rotation_loss(torch.from_numpy(logits), torch.from_numpy(labels))
    assert found.shape == ()
    assert float(found) == pytest.approx(-np.log(probability).mean(), rel=1e-4, abs=1e-5)


def test_loss_of_indifferent_logits_is_log_of_the_classes() -> None:
    loss = rotation_loss(torch.zeros(4, 7), torch.tensor([0, 3, 5, 6]))
    assert float(loss) == pytest.approx(math.log(7))


def test_label_is_the_angle_from_first_to_second_view(config_of: Any) -> None:
    """With slice and twin equal, the second view is the first one turned by the class's angle."""
    config: RunConfig = config_of()
    side = 16
    task = RotationTask(config, side, torch.device("cpu"))
    image = np.random.default_rng(0).integers(0, 256, (1, side, side), dtype=np.uint8)
    angles = class_angles(config.rotation).tolist()
    mask = circular_mask(side).numpy()
    for label, angle in enumerate(angles):
        first, second = task.views(batch_of(image, label))
        plain = (image[0].astype(np.float32) - 100) / 50
        np.testing.assert_allclose(first[0, 0].numpy(), plain * mask, atol=1e-4)
        expected = np.rot90(plain, round(angle / 90)) * mask
        np.testing.assert_allclose(second[0, 0].numpy(), expected, atol=1e-3)


def test_training_adds_a_drift_of_its_own_to_each_view_and_validation_none(config_of: Any) -> None:
    config: RunConfig = config_of(rotation={"drift": 0.5})
    side = 16
    image = np.random.default_rng(0).integers(0, 256, (1, side, side), dtype=np.uint8)
    zero = class_angles(config.rotation).tolist().index(0)
    batch = batch_of(image, zero)
    rng = torch.Generator().manual_seed(0)
    plain, again = RotationTask(config, side, torch.device("cpu"), augment=False).views(batch, rng)
    torch.testing.assert_close(plain, again)
    first, second = RotationTask(config, side, torch.device("cpu")).views(batch, rng)
    outside = circular_mask(side) == 0
    for view in (first, second):
        added = view - plain
        assert float(added.abs().max()) > 0.05
        assert not added[0, 0][outside].any()
    assert not torch.allclose(first, second, atol=0.05)
