"""Augmentation: what each one does, and that none changes another one's draws."""

from __future__ import annotations

from dataclasses import fields
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ctray.config import Augmentation, SortingConfig
from ctray.learn.pretext.augment import apply_views
from ctray.learn.pretext.views import Views, draw_views

ALL: frozenset[Augmentation] = frozenset(get_args(Augmentation))
COUNT, SIDE = 5, 16


def slices(seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(0, 1, (COUNT, SIDE, SIDE))).float()


def views_of(names: frozenset[Augmentation], seed: int = 1) -> dict[str, torch.Tensor]:
    drawn = draw_views(np.random.default_rng(seed), COUNT, names)
    return {f.name: torch.from_numpy(getattr(drawn, f.name)) for f in fields(Views)}


def applied(names: frozenset[Augmentation], x: torch.Tensor, seed: int = 1) -> torch.Tensor:
    return apply_views(x, views_of(names, seed), names, torch.Generator().manual_seed(0))


def test_none_changes_nothing() -> None:
    assert torch.equal(applied(frozenset(), slices()), slices())


def test_settings_name_their_augmentations() -> None:
    assert SortingConfig(augment="none").augmentations == frozenset()
    assert SortingConfig(augment="light").augmentations == {"flip", "turn"}
    assert SortingConfig(augment="aggressive").augmentations == ALL
    assert SortingConfig(augment=("noise", "grey")).augmentations == {"noise", "grey"}


@given(seed=st.integers(0, 1000))
def test_flip_is_one_of_four_exactly(seed: int) -> None:
    x = slices()
    for before, after in zip(x, applied(frozenset({"flip"}), x, seed), strict=True):
        flips = [before, before.flip(0), before.flip(1), before.flip(0, 1)]
        assert any(torch.allclose(after, f, atol=1e-3) for f in flips)


def test_turn_turns_about_the_centre() -> None:
    """A disc stays where it is, a spot moves along its circle."""
    y, x = np.mgrid[:33, :33] - 16.0
    disc = torch.from_numpy((np.hypot(y, x) < 8).astype(np.float32))[None].repeat(COUNT, 1, 1)
    spot = torch.from_numpy(np.exp(-((y - 9) ** 2 + x**2) / 4).astype(np.float32))
    turned = applied(frozenset({"turn"}), disc)
    assert float((turned - disc).abs().mean()) < 0.03
    for after in applied(frozenset({"turn"}), spot[None].repeat(COUNT, 1, 1)):
        at = np.unravel_index(int(after.argmax()), (33, 33))
        assert np.hypot(at[0] - 16, at[1] - 16) == pytest.approx(9, abs=1)


def test_rescale_and_grey_belong_to_the_scan_and_shift_to_the_slice() -> None:
    views = views_of(ALL)
    size = torch.linalg.det(views["matrix"][:, :, :2]).abs()
    assert float(size.std()) < 1e-6
    assert not torch.allclose(size, torch.ones(COUNT), atol=1e-3)
    for name in ("gain", "bias", "blur_px", "noise"):
        assert len(views[name].unique()) == 1
    assert len(views["matrix"][:, 0, 2].unique()) == COUNT


def test_grey_is_gain_and_bias() -> None:
    names: frozenset[Augmentation] = frozenset({"grey"})
    views = views_of(names)
    expected = slices() * views["gain"][0] + views["bias"][0]
    torch.testing.assert_close(applied(names, slices()), expected)


def test_blur_is_the_gaussian_of_its_width() -> None:
    """A spot spreads to a Gaussian of that standard deviation, and keeps its sum."""
    spot = torch.zeros(COUNT, 15, 15)
    spot[:, 7, 7] = 1
    views = views_of(frozenset({"blur"})) | {"blur_px": torch.full((COUNT,), 0.8)}
    blurred = apply_views(spot, views, frozenset({"blur"}))
    offset = np.arange(15) - 7
    expected = np.exp(-0.5 * (offset / 0.8) ** 2)
    expected[np.abs(offset) > 2] = 0
    expected /= expected.sum()
    for after in blurred:
        np.testing.assert_allclose(after, np.outer(expected, expected), atol=1e-6)


def test_noise_is_drawn_from_the_generator_alone() -> None:
    names: frozenset[Augmentation] = frozenset({"noise"})
    one, other = applied(names, slices()), applied(names, slices())
    assert torch.equal(one, other)
    level = float(views_of(names)["noise"][0])
    assert float((one - slices()).std()) == pytest.approx(level, rel=0.1)


@given(names=st.sets(st.sampled_from(sorted(ALL))))
def test_no_augmentation_changes_what_another_one_draws(names: set[Augmentation]) -> None:
    chosen, everything = views_of(frozenset(names)), views_of(ALL)
    for column, name in (("gain", "grey"), ("blur_px", "blur"), ("noise", "noise")):
        if name in names:
            assert torch.equal(chosen[column], everything[column])
