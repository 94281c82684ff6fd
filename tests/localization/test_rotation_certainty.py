"""Certainty profiles of a real, small network."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from ctray.config import RunConfig
from ctray.learn.pretext.tasks import build_model
from ctray.localization.rotation_certainty import certainty_profile, certainty_profiles
from ctray.preprocess.prepare import Prepared, prepare

ConfigOf = Callable[..., RunConfig]


def volume(shape: tuple[int, int, int], config: RunConfig, seed: int = 0) -> Prepared:
    noise = np.random.default_rng(seed).normal(100, 10, shape)
    return prepare(noise, (1, 1, 1), config.preprocess)


@pytest.fixture(scope="module")
def config(config_of: ConfigOf) -> RunConfig:
    return config_of(
        localize={"twin_offsets": [1, 2], "orientations": 3}, preprocess={"drift": "off"}
    )


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_one_certainty_a_slice(config: RunConfig, axis: int) -> None:
    prepared = volume((9, 14, 17), config)
    found = certainty_profile(build_model(config), prepared, axis, 17, config)
    assert found.shape == (prepared.shape[axis],)
    assert found.dtype == np.float64
    assert ((found > 0) & (found < 1)).all()


def test_axes_are_those_of_the_task(config_of: ConfigOf) -> None:
    config = config_of(rotation={"axes": ["x", "z"]})
    found = certainty_profiles(build_model(config), volume((9, 14, 17), config), 17, config)
    assert {name: len(values) for name, values in found.items()} == {"x": 17, "z": 9}


def test_profile_is_the_same_twice_and_whatever_the_models_mode(config: RunConfig) -> None:
    prepared, model = volume((12, 12, 12), config), build_model(config)
    model.train()
    one = certainty_profile(model, prepared, 0, 12, config)
    assert np.array_equal(certainty_profile(model, prepared, 0, 12, config), one)


def test_reversed_volume_gives_the_reversed_profile(config: RunConfig) -> None:
    """A pair has no direction: both orders are asked, and both neighbours of a slice."""
    prepared, model = volume((11, 16, 16), config), build_model(config)
    mirrored = Prepared(
        **{name: getattr(prepared, name) for name in Prepared.__dataclass_fields__}
        | {"voxels": prepared.voxels[::-1].copy()}
    )
    one = certainty_profile(model, prepared, 0, 16, config)
    other = certainty_profile(model, mirrored, 0, 16, config)
    np.testing.assert_allclose(other[::-1], one, atol=1e-5)


def test_profile_is_the_mean_over_pairs_of_the_surer_side(config_of: ConfigOf) -> None:
    """Against the definition, one orientation, pair by pair."""
    from ctray.learn.pretext.rotation import circular_mask, make_views
    from ctray.learn.pretext.slices import standardise

    config = config_of(localize={"twin_offsets": [1, 3], "orientations": 1})
    prepared, model = volume((8, 16, 16), config), build_model(config).eval()

    def view(index: int) -> torch.Tensor:
        plane = torch.from_numpy(prepared.slice(0, index, 16))[None]
        grey = standardise(plane, torch.tensor([prepared.mean]), torch.tensor([prepared.std]))
        return make_views(grey, torch.tensor([90.0]), circular_mask(16))

    def p0(i: int, j: int) -> float:
        with torch.no_grad():
            both = [torch.softmax(model(view(a), view(b)), 1)[0, 1] for a, b in ((i, j), (j, i))]
        return float(sum(both) / 2)

    expected = []
    for i in range(8):
        sides = []
        for sign in (1, -1):
            twins = [i + sign * offset for offset in (1, 3) if 0 <= i + sign * offset < 8]
            if twins:
                sides.append(np.mean([p0(i, twin) for twin in twins]))
        expected.append(max(sides))
    found = certainty_profile(model, prepared, 0, 16, config)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_number_of_slices_at_once_does_not_matter(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:

    from ctray.localization import rotation_certainty

    prepared, model = volume((13, 12, 12), config), build_model(config)
    whole = certainty_profile(model, prepared, 0, 12, config)
    monkeypatch.setattr(rotation_certainty, "_BATCH", 5)
    few = certainty_profile(model, prepared, 0, 12, config)
    np.testing.assert_allclose(few, whole, atol=1e-5)


@pytest.mark.parametrize("extent", [2, 3])
def test_axis_with_fewer_slices_than_the_twins_reach(config: RunConfig, extent: int) -> None:
    found = certainty_profile(build_model(config), volume((extent, 12, 12), config), 0, 12, config)
    assert found.shape == (extent,)
    assert np.isfinite(found).all()


def test_axis_of_a_single_slice_tells_nothing(config: RunConfig) -> None:
    """There is no twin: chance, and no warning."""
    prepared = volume((1, 24, 24), config)
    found = certainty_profile(build_model(config), prepared, 0, 24, config)
    np.testing.assert_allclose(found, [1 / 3])


def test_trained_network_is_sure_inside_and_not_beyond(
    trained_url: str, held_out: list[object]
) -> None:
    from ctray.learn.pretext.checkpoint import load_model

    trained = load_model(trained_url)
    for phantom in held_out:
        prepared = prepare(phantom.volume, (1, 1, 1), trained.config.preprocess)  # type: ignore[attr-defined]
        box = phantom.box  # type: ignore[attr-defined]
        profiles = certainty_profiles(trained.model, prepared, trained.side, trained.config)
        for axis, profile in enumerate(profiles.values()):
            middle = (box.start[axis] + box.stop[axis]) // 2
            inside = profile[middle - 3 : middle + 3].mean()
            outside = np.concatenate([profile[: box.start[axis]], profile[box.stop[axis] :]])
            assert inside > 0.6
            assert np.median(outside) < 0.6
            assert inside > np.median(outside) + 0.15
