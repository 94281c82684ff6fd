"""Phantoms: exact truth, one switch per scene option, equal means where asked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from ctray.core.errors import ConfigError, CtrayError
from ctray.core.geometry import Box
from ctray.phantom import Phantom, PhantomSpec, SceneSpec, make_phantom, preset
from ctray.phantom.render import tight_box

KINDS = ("embryo", "fish", "multi")
SIZE = 48


def contrast_units(phantom: Phantom) -> np.ndarray:
    low, high = phantom.window
    top = np.iinfo(phantom.volume.dtype).max
    return (phantom.volume.astype(np.float64) - 1) / (top - 1) * (high - low) + low


def make(kind: str = "embryo", *, index: int = 0, **options: Any) -> Phantom:
    return make_phantom(preset("easy", kind=kind, size=SIZE, index=index, **options))


@settings(max_examples=25)
@given(
    kind=st.sampled_from(KINDS),
    difficulty=st.sampled_from(("easy", "paper", "hard")),
    seed=st.integers(0, 2**40),
    index=st.integers(0, 10_000),
    size=st.sampled_from((40, 48, (52, 44, 48))),
)
# No tilted tube around any of the first places, and with the drawn fill around none at all.
@example(kind="embryo", difficulty="easy", seed=259, index=512, size=(52, 44, 48))
@example(kind="fish", difficulty="easy", seed=30209, index=3, size=(44, 40, 48))
# A box a little too small, and no room for one that is corrected upwards.
@example(kind="multi", difficulty="paper", seed=278472073085, index=8128, size=(44, 40, 48))
def test_truth_is_exact(kind: Any, difficulty: Any, seed: int, index: int, size: Any) -> None:
    phantom = make_phantom(preset(difficulty, kind=kind, seed=seed, index=index, size=size))
    shape = phantom.spec.shape
    for array in (phantom.volume, phantom.mask, phantom.labels, phantom.specimens, phantom.medium):
        assert array.shape == shape
    box = phantom.box
    assert box is not None
    box.check_inside(shape)
    # Whole: one voxel of background all around, so nothing was cut off by the border.
    assert min(box.start) >= 1
    assert all(b < n for b, n in zip(box.stop, shape, strict=True))
    assert box == tight_box(phantom.mask)
    fill = box.num_voxels / np.prod(shape)
    assert 0.15 <= fill <= 0.30
    assert len(phantom.boxes) == phantom.specimens.max()
    assert (2 <= len(phantom.boxes) <= 4) if kind == "multi" else (len(phantom.boxes) == 1)
    for number, own in enumerate(phantom.boxes, start=1):
        assert own == tight_box(phantom.specimens == number)
    np.testing.assert_array_equal(phantom.specimens > 0, phantom.mask)
    assert not (phantom.mask & phantom.medium).any()
    assert not phantom.labels[~phantom.mask].any()
    assert not phantom.volume[~_circle(shape)].any()
    assert phantom.volume[_circle(shape)].min() >= 1
    assert _circle(shape)[phantom.mask].all()


def _circle(shape: tuple[int, int, int]) -> np.ndarray:
    _, ny, nx = shape
    y, x = np.ogrid[:ny, :nx]
    inside = np.hypot(y - (ny - 1) / 2, x - (nx - 1) / 2) <= 0.485 * min(ny, nx)
    return np.broadcast_to(inside, shape)


@pytest.mark.parametrize("kind", KINDS)
def test_each_specimen_is_one_piece(kind: str) -> None:
    for index in range(4):
        phantom = make(kind, index=index)
        for number in range(1, len(phantom.boxes) + 1):
            _, pieces = ndimage.label(phantom.specimens == number, np.ones((3, 3, 3)))
            assert pieces == 1


def test_specimens_of_multi_lie_apart() -> None:
    for index in range(6):
        boxes = make("multi", index=index).boxes
        for i, box in enumerate(boxes):
            assert all(box.intersection(other) is None for other in boxes[i + 1 :])


def test_number_of_specimens_can_be_set() -> None:
    assert [len(make("multi", specimens=n).boxes) for n in (2, 3, 4)] == [2, 3, 4]


@pytest.mark.parametrize("kind", KINDS)
def test_same_spec_gives_the_same_voxels(kind: str) -> None:
    spec = preset("hard", kind=kind, size=SIZE, seed=5, index=7)
    first, second = make_phantom(spec), make_phantom(spec)
    np.testing.assert_array_equal(first.volume, second.volume)
    np.testing.assert_array_equal(first.mask, second.mask)
    for other in (replace(spec, seed=6), replace(spec, index=8)):
        assert (make_phantom(other).mask != first.mask).any()


@pytest.mark.parametrize(
    "option",
    [
        {"medium_contrast": 0.0},
        {"reconstruction_circle": False},
        {"container": "centred"},
        {"container": "offset"},
        {"container": "tilted"},
        {"noise": 0.5},
        {"rings": 0.3},
        {"cupping": 0.5},
        {"distractors": 8},
        {"streaks": 0.3},
    ],
    ids=lambda option: "-".join(map(str, *option.items())),
)
@pytest.mark.parametrize("kind", KINDS)
def test_scene_option_changes_the_volume_and_no_specimen(kind: str, option: dict[str, Any]) -> None:
    plain, changed = make(kind, noise=0.0), make(kind, **{"noise": 0.0, **option})
    np.testing.assert_array_equal(plain.specimens, changed.specimens)
    np.testing.assert_array_equal(plain.labels, changed.labels)
    assert (plain.volume != changed.volume).any()
    # Structure inside the sample is the same too, but for noise and artefacts over it.
    if not {"noise", "rings", "cupping", "streaks"} & option.keys():
        inner = ndimage.binary_erosion(plain.mask, iterations=2)
        a, b = (contrast_units(p)[inner] for p in (plain, changed))
        assert np.abs((a - a.mean()) - (b - b.mean())).max() < 0.05


def test_noise_has_the_asked_spread_and_nothing_else_changes() -> None:
    clean, noisy = make(noise=0.0, dtype="uint16"), make(noise=0.7, dtype="uint16")
    difference = (contrast_units(noisy) - contrast_units(clean))[_circle((SIZE,) * 3)]
    assert difference.std() == pytest.approx(0.7, rel=0.02)
    assert difference.mean() == pytest.approx(0.0, abs=0.01)


@pytest.mark.parametrize("difficulty", ["easy", "paper", "hard"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("contrast", [-0.5, 0.0, 1.0])
def test_contrast_is_what_was_asked(kind: Any, difficulty: Any, contrast: float) -> None:
    options = {"noise": 0.0, "medium_contrast": contrast, "dtype": "uint16"}
    phantom = make_phantom(preset(difficulty, kind=kind, size=SIZE, index=3, **options))
    grey = contrast_units(phantom)
    assert grey[phantom.mask].mean() - grey[phantom.medium].mean() == pytest.approx(
        contrast, abs=0.01
    )


def best_threshold_iou(score: np.ndarray, truth: Box, *, steps: int = 60) -> float:
    best = 0.0
    for cut in np.quantile(score, np.linspace(0.02, 0.9995, steps)):
        for chosen in (score > cut, score < cut):
            found = tight_box(chosen)
            if found is not None:
                best = max(best, found.iou(truth))
    return best


def test_equal_means_hide_the_sample_from_thresholds_but_not_from_texture() -> None:
    raw, local = [], []
    for index in range(4):
        phantom = make_phantom(
            preset("hard", size=SIZE, index=index, container="none", streaks=0.0)
        )
        grey = contrast_units(phantom)
        inside = np.where(phantom.volume == 0, grey[phantom.medium].mean(), grey)
        assert phantom.box is not None
        raw.append(best_threshold_iou(inside, phantom.box))
        smooth = ndimage.gaussian_filter(inside, 1.0)
        spread = np.sqrt(
            np.maximum(
                ndimage.gaussian_filter(smooth**2, 2.0) - ndimage.gaussian_filter(smooth, 2.0) ** 2,
                0,
            )
        )
        local.append(spread[phantom.mask].mean() / spread[phantom.medium].mean())
    assert np.mean(raw) < 0.6
    assert min(local) > 1.3


def test_easy_is_easy_for_a_threshold_on_the_smoothed_volume() -> None:
    phantom = make()
    assert phantom.box is not None
    smooth = ndimage.gaussian_filter(contrast_units(phantom) * _circle((SIZE,) * 3), 0.7)
    assert best_threshold_iou(smooth, phantom.box) > 0.8


def test_empty_has_no_sample_but_the_same_scene() -> None:
    options = {"container": "tilted", "distractors": 5, "noise": 0.0}
    full, empty = make(**options), make(empty=True, **options)
    assert empty.box is None
    assert empty.boxes == []
    assert not empty.mask.any()
    assert not empty.labels.any()
    outside = ~ndimage.binary_dilation(full.mask, iterations=3)
    shift = contrast_units(full)[outside] - contrast_units(empty)[outside]
    assert np.abs(shift - np.median(shift)).max() < 0.03


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("container", ["none", "centred", "offset", "tilted"])
def test_sample_touching_the_border_is_the_whole_one_moved_out(kind: str, container: str) -> None:
    for index in range(3):
        whole = make(kind, index=index)
        phantom = make(kind, index=index, touches_border=True, container=container)
        assert whole.box is not None
        assert phantom.box is not None
        assert (phantom.box.start[0] == 0) != (phantom.box.stop[0] == SIZE)
        assert len(phantom.boxes) == len(whole.boxes)
        if phantom.box.start[0] == 0:
            moved = whole.specimens[whole.box.stop[0] - phantom.box.stop[0] :]
            np.testing.assert_array_equal(phantom.specimens[: len(moved)], moved)
        else:
            moved = whole.specimens[: SIZE - phantom.box.start[0] + whole.box.start[0]]
            np.testing.assert_array_equal(phantom.specimens[SIZE - len(moved) :], moved)
        assert phantom.mask.sum() < whole.mask.sum()


@pytest.mark.parametrize("container", ["centred", "offset", "tilted"])
def test_container_is_brighter_than_the_sample_and_around_it(container: str) -> None:
    for index in range(4):
        phantom = make(index=index, container=container, noise=0.0)
        # The container is the same without its specimen: there nothing else is as bright.
        wall = contrast_units(make(index=index, container=container, noise=0.0, empty=True)) > 0.6
        grey = contrast_units(phantom)
        assert np.quantile(grey[wall], 0.9) > grey[phantom.mask].mean() + 0.9
        middles = []
        for z in (0, SIZE - 1):
            y, x = np.nonzero(wall[z])
            middles.append(np.array([y.min() + y.max(), x.min() + x.max()]) / 2)
        off_centre = np.hypot(*(np.mean(middles, axis=0) - (SIZE - 1) / 2))
        tilt = np.hypot(*(middles[0] - middles[1]))
        assert (off_centre >= 1) == (container != "centred")
        assert (tilt >= 1) == (container == "tilted")
        lumen = np.stack([ndimage.binary_fill_holes(plane) & ~plane for plane in wall])
        assert lumen[phantom.mask].all()


def test_rings_do_not_change_around_the_axis_and_cupping_darkens_it() -> None:
    plain = contrast_units(make(noise=0.0, dtype="uint16"))
    rings = contrast_units(make(noise=0.0, rings=0.3, dtype="uint16")) - plain
    turned = np.rot90(rings, axes=(1, 2))
    inside = _circle((SIZE,) * 3)
    drop = rings - rings[inside].mean()
    assert np.abs((turned - rings)[inside]).max() < 0.1
    assert drop[inside].std() > 0.15
    cupping = contrast_units(make(noise=0.0, cupping=0.5, dtype="uint16")) - plain
    middle, rim = cupping[:, SIZE // 2, SIZE // 2], cupping[:, SIZE // 2, 2]
    assert (rim - middle).mean() == pytest.approx(0.5, abs=0.3)


def test_fish_lies_head_first_with_its_visual_system_in_the_head() -> None:
    for index in range(4):
        phantom = make("fish", index=index)
        back = make("fish", index=index, head_first=False)
        assert phantom.box is not None
        assert back.box is not None
        assert phantom.box.shape[0] == pytest.approx(0.85 * SIZE, abs=2)
        assert set(np.unique(phantom.labels)) == {0, 1, 2, 3}
        for one, sign in ((phantom, 1), (back, -1)):
            assert one.box is not None
            head = np.nonzero(one.labels)[0].mean()
            centre = (one.box.start[0] + one.box.stop[0]) / 2
            assert sign * (centre - head) > 0.25 * one.box.shape[0]


def test_fish_span_and_fill_can_be_set() -> None:
    phantom = make("fish", span=0.6, fill=(0.05, 0.08))
    assert phantom.box is not None
    assert phantom.box.shape[0] == pytest.approx(0.6 * SIZE, abs=2)
    assert 0.05 <= phantom.box.num_voxels / SIZE**3 <= 0.08


def test_fish_of_the_largest_span_is_whole() -> None:
    phantom = make("fish", span=0.95)
    assert phantom.box is not None
    assert phantom.box.start[0] >= 1
    assert phantom.box.stop[0] < SIZE
    assert phantom.box.shape[0] == pytest.approx(0.95 * SIZE, abs=2)


def test_the_same_specimen_at_another_size() -> None:
    small, large = make(), make_phantom(preset("easy", size=2 * SIZE))
    assert small.box is not None
    assert large.box is not None
    np.testing.assert_allclose(
        np.array(large.box.faces) / 2, np.array(small.box.faces), atol=0.03 * SIZE
    )


def test_uint16_uses_its_range_without_clipping() -> None:
    phantom = make(dtype="uint16", noise=0.75)
    assert phantom.volume.dtype == np.uint16
    inside = phantom.volume[phantom.volume > 0]
    assert np.mean((inside == 1) | (inside == 65535)) < 1e-3
    assert np.ptp(inside) > 30_000


def test_presets_are_what_they_say() -> None:
    easy = preset("easy").scene
    assert (easy.container, easy.medium_contrast) == ("none", 1.0)
    papers = [preset("paper", index=i).scene for i in range(40)]
    assert {p.container for p in papers} == {"none", "centred"}
    assert {p.noise for p in papers} == {0.75}
    hard = preset("hard").scene
    assert (hard.container, hard.medium_contrast) == ("tilted", 0.0)
    assert hard.distractors > 0
    assert preset("paper", medium_contrast=0.0).scene == replace(
        preset("paper").scene, medium_contrast=0.0
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "crab"}, "kind 'crab'"),
        ({"container": "box"}, "container 'box'"),
        ({"size": 8}, "size z=8"),
        ({"size": (64, 64)}, "2 values"),
        ({"fill": (0.4, 0.2)}, "fill"),
        ({"noise": -1.0}, "noise=-1.0"),
        ({"noise": float("nan")}, "noise=nan"),
        ({"index": -1}, "index=-1"),
        ({"specimens": 7}, "specimens=7"),
        ({"dtype": "float32"}, "float32"),
        ({"nose": 1.0}, "'nose'"),
    ],
)
def test_bad_option_is_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(CtrayError, match=words):
        preset("easy", **options)


def test_bad_difficulty_and_impossible_fill_are_named() -> None:
    with pytest.raises(ConfigError, match="'brutal'"):
        preset("brutal")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="choose a smaller fill"):
        make_phantom(PhantomSpec(size=32, fill=(0.59, 0.6), scene=SceneSpec()))
