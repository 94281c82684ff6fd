"""Baselines: exact on small cases, and never weaker than what they claim to be."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from skimage.filters import threshold_otsu

from ctray.core.errors import ConfigError, GeometryError
from ctray.core.geometry import Box
from ctray.evaluate import baselines
from ctray.evaluate.baseline_maps import BaselineArrays, baseline_maps
from ctray.evaluate.baseline_thresholds import (
    axis_maxima,
    between,
    candidate_quantiles,
    component_faces,
    foreground_faces,
    nonzero_faces,
    otsu_threshold,
    thin,
)
from ctray.evaluate.baselines import (
    BaselineCase,
    BaselineResult,
    run_baselines,
)
from ctray.evaluate.scoring import score_methods
from ctray.evaluate.truth import Truth, read_truths
from ctray.preprocess.grey_maps import as_float, less_z_median, local_deviation
from ctray.volumes.multiscale import downsample_mean

GREY = hnp.arrays(
    np.uint8,
    hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=7),
    elements=st.integers(0, 5),
)
BLOCK = Box(start=(3, 5, 7), stop=(11, 16, 20))
SHAPE = (17, 19, 23)


def case(
    volume: npt.NDArray[Any],
    box: Box | None,
    name: str = "v",
    factors: tuple[int, int, int] = (1, 1, 1),
    **arrays: Any,
) -> BaselineCase:
    z, y, x = (n * f for n, f in zip(volume.shape, factors, strict=True))
    truth = Truth(volume_id=name, shape=(z, y, x), box=box)
    return BaselineCase(
        truth=truth, factors=factors, load=lambda: BaselineArrays(raw=volume, **arrays)
    )


@pytest.fixture(scope="module", autouse=True)
def fewer_thresholds() -> Iterator[None]:
    """Search with fewer thresholds than in use, which is faster."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(baselines, "_NUM_COARSE", 16)
        patch.setattr(baselines, "_NUM_FINE", 5)
        yield


def by_method(cases: Sequence[BaselineCase]) -> dict[str, BaselineResult]:
    return {r.method: r for r in run_baselines(cases)}


def tight(foreground: npt.NDArray[np.bool_]) -> list[int]:
    where = np.nonzero(foreground)
    if not len(where[0]):
        return [-1] * 6
    return [f for index in where for f in (int(index.min()), int(index.max()) + 1)]


@given(GREY, st.lists(st.integers(-1, 6), min_size=1, max_size=4))
def test_foreground_boxes_are_those_of_the_voxels_above(
    grey: npt.NDArray[np.uint8], limits: list[int]
) -> None:
    faces = foreground_faces(axis_maxima(as_float(grey)), limits)
    assert faces.tolist() == [tight(grey.astype(int) > limit) for limit in limits]


@given(GREY)
def test_nonzero_cropping_is_the_box_of_nonzero_voxels(grey: npt.NDArray[np.uint8]) -> None:
    assert nonzero_faces(as_float(grey)).tolist() == [tight(grey != 0)]


@given(GREY, st.lists(st.integers(-1, 6), min_size=1, max_size=4))
def test_component_box_is_that_of_a_largest_component(
    grey: npt.NDArray[np.uint8], limits: list[int]
) -> None:
    for faces, limit in zip(component_faces(as_float(grey), limits), limits, strict=True):
        labels, count = ndimage.label(grey.astype(int) > limit)
        sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
        largest = [i + 1 for i, n in enumerate(sizes) if n == sizes.max()]
        wanted = [tight(labels == i) for i in largest] or [[-1] * 6]
        # Of equal ones the first counts: labels rise in (z, y, x) order of the first voxel.
        assert faces.tolist() == wanted[0]


def test_component_is_chosen_by_voxels_not_by_extent() -> None:
    volume = np.zeros((5, 7, 11), np.float32)
    volume[0, 0, :] = 2  # a long line, 11 voxels
    volume[2:5, 3:7, 4:5] = 2  # a slab, 12 voxels
    assert component_faces(volume, [1]).tolist() == [[2, 5, 3, 7, 4, 5]]
    # Corners do not connect.
    volume[1, 2, 3] = 2
    assert component_faces(volume, [1]).tolist() == [[2, 5, 3, 7, 4, 5]]


def test_less_z_median_removes_a_straight_tube_and_keeps_a_block() -> None:
    volume = np.zeros((7, 5, 5), np.float32)
    volume[:, 1, :] = 13
    volume[2:5, 3, 3] = 3
    difference = less_z_median(volume)
    assert (difference[:, 1] == 0).all()
    assert difference.nonzero()[0].tolist() == [2, 3, 4]


def test_local_deviation_matches_numpy_in_its_window_and_survives_an_offset() -> None:
    rng = np.random.default_rng(2)
    volume = rng.normal(size=(7, 7, 7)).astype(np.float32)
    deviation = local_deviation(volume, None, sigma=0.0, radius=2)
    assert deviation[3, 3, 3] == pytest.approx(volume[1:6, 1:6, 1:6].std(), rel=1e-4)
    shifted = local_deviation(volume.astype(np.float64) + 50_000, None, sigma=0.0, radius=2)
    np.testing.assert_allclose(shifted, deviation, atol=0.01)


def test_local_deviation_leaves_out_the_rim_of_the_field_of_view_but_not_the_border() -> None:
    inside = np.zeros((5, 13, 13), bool)
    inside[:, 2:11, 3:12] = True
    volume = np.where(inside, 0.0, 100.0)
    deviation = local_deviation(volume, inside, sigma=0.0, radius=2)
    valid = np.isfinite(deviation)
    assert tight(valid) == [0, 5, 4, 9, 5, 10]
    assert valid.sum() == 5 * 5 * 5
    assert (deviation[valid] == 0).all()


def test_values_that_are_not_finite_are_never_foreground() -> None:
    volume = np.full((3, 3, 3), 7.0)
    volume[0, 0, 0], volume[1, 1, 1], volume[2, 2, 2] = np.nan, np.inf, -5
    values = as_float(volume)
    assert values[0, 0, 0] == values[1, 1, 1] == -5
    assert np.isfinite(as_float(np.full((2, 2, 2), np.nan))).all()


def test_otsu_separates_two_groups_and_knows_when_there_is_one() -> None:
    values = np.array([1, 2, 1, 2, 91, 92, -np.inf], np.float32).reshape(7, 1, 1)
    limit = otsu_threshold(values)
    assert limit == 2
    close = np.array([1e8, np.nextafter(np.float32(1e8), np.inf)], np.float32)
    assert otsu_threshold(close) == 1e8
    assert otsu_threshold(np.full((3, 3, 3), 5, np.float32)) is None
    assert otsu_threshold(np.full((3, 3, 3), -np.inf, np.float32)) is None


def test_otsu_agrees_with_scikit_image_to_a_bin() -> None:
    rng = np.random.default_rng(11)
    values = np.concatenate([rng.normal(0, 2, 5000), rng.normal(7, 3, 900)]).astype(np.float32)
    limit = otsu_threshold(values)
    assert limit == pytest.approx(threshold_otsu(values), abs=float(np.ptp(values)) / 256)


def test_candidates_are_thinned_by_rank_with_both_ends_and_refined_between_neighbours() -> None:
    thresholds = np.array([3, 1, 1, 2, 50, 40], np.float32)
    assert thin(thresholds, 3).tolist() == [1, 3, 50]
    assert thin(thresholds, 9).tolist() == [1, 2, 3, 40, 50]
    assert between(np.array([0, 2, 6], np.float32), 1, 2).tolist() == [2, 4]
    assert between(np.array([0, 2, 6], np.float32), 0, 1).tolist() == [1]
    quantiles = candidate_quantiles(np.arange(1001, dtype=np.float32))
    assert (np.diff(quantiles) > 0).all()
    assert quantiles[0] == 50


@settings(max_examples=10)
@given(st.integers(0, 2**16), st.integers(20, 200))
def test_best_threshold_finds_a_brighter_block_exactly(seed: int, contrast: int) -> None:
    rng = np.random.default_rng(seed)
    volume = rng.integers(0, 10, SHAPE)
    volume[BLOCK.slices] += contrast
    found = by_method([case(volume.astype(np.uint16), BLOCK)])
    for method in ("raw-best", "raw-best-each"):
        assert found[method].boxes["v"] == BLOCK
    assert found["raw-otsu"].boxes["v"] == BLOCK


def test_one_threshold_serves_all_volumes_but_each_has_its_own_best() -> None:
    # Background 50 in b is above the block of a: no common threshold can find both.
    a = np.zeros(SHAPE, np.float32)
    b = np.full(SHAPE, 50, np.float32)
    a[BLOCK.slices] = 30
    b[BLOCK.slices] = 80
    found = by_method([case(a, BLOCK, "a"), case(b, BLOCK, "b")])
    limits = found["raw-best"].thresholds
    assert limits["a"] == limits["b"]
    boxes = found["raw-best"].boxes
    assert [boxes["a"], boxes["b"]].count(BLOCK) == 1
    assert found["raw-best-each"].boxes == {"a": BLOCK, "b": BLOCK}


def test_largest_component_wins_where_a_speck_is_brighter_than_the_sample() -> None:
    volume = np.zeros(SHAPE, np.uint8)
    volume[BLOCK.slices] = 50
    volume[16, 18, 22] = 200
    best = by_method([case(volume, BLOCK)])["raw-best"]
    assert best.variant == "raw, component"
    assert best.boxes["v"] == BLOCK


def test_all_foreground_wins_where_the_sample_is_in_two_parts() -> None:
    volume = np.zeros(SHAPE, np.uint8)
    volume[3:6, 5:16, 7:20] = 50
    volume[8:11, 5:16, 7:20] = 50
    best = by_method([case(volume, BLOCK)])["raw-best"]
    assert best.variant == "raw, all"
    assert best.boxes["v"] == BLOCK


def test_absolute_difference_finds_a_darker_sample() -> None:
    rng = np.random.default_rng(3)
    volume = rng.normal(100, 1, (31, 29, 37))
    box = Box(start=(11, 7, 13), stop=(19, 20, 26))
    volume[box.slices] -= 40
    found = by_method([case(volume, box)])["zmedian-otsu"]
    assert found.variant == "zmedian-absolute, component"
    # Smoothing by 1.5 voxels moves a face by no more than 1.
    assert found.boxes["v"] == box.expand(1, volume.shape)


def test_local_deviation_finds_texture_of_equal_mean_inside_the_field_of_view() -> None:
    rng = np.random.default_rng(5)
    shape, box = (31, 37, 41), Box(start=(9, 11, 13), stop=(21, 24, 29))
    volume = rng.normal(0, 0.1, shape)
    volume[box.slices] += ndimage.gaussian_filter(rng.normal(0, 8, box.shape), 1.0)
    inside = np.zeros(shape, bool)
    inside[:, 4:33, 4:37] = True
    # A bright wall outside: whatever looks beyond the field of view reads it.
    wall = np.where(inside, volume, 30 + rng.normal(0, 5, shape))
    found = by_method([case(wall, box, filled=np.where(inside, volume, 0), inside=inside)])
    boxes = [found[m].boxes["v"] for m in ("localstd-best", "localstd-otsu", "raw-best")]
    best, automatic, raw = (b.iou(box) if b else 0.0 for b in boxes)
    assert best > 0.7
    assert automatic > 0.4
    assert raw < 0.3


def test_boxes_come_back_at_level_0_clipped_to_the_volume() -> None:
    volume = np.zeros((5, 6, 7), np.uint8)
    volume[2:5, 1:3, 4:6] = 9
    truth = Truth(volume_id="v", shape=(9, 12, 21), box=Box(start=(4, 2, 12), stop=(8, 6, 18)))
    with_level = BaselineCase(
        truth=truth, factors=(2, 2, 3), load=lambda: BaselineArrays(raw=volume)
    )
    box = by_method([with_level])["nonzero"].boxes["v"]
    assert box == Box(start=(4, 2, 12), stop=(9, 6, 18))


def test_empty_and_constant_volumes_take_no_part_in_the_choice() -> None:
    volume = np.zeros(SHAPE, np.uint8)
    volume[BLOCK.slices] = 100
    bright = np.full(SHAPE, 255, np.uint8)
    found = by_method([case(volume, BLOCK, "a"), case(bright, None, "empty")])
    assert found["raw-best"].boxes["a"] == BLOCK
    assert found["raw-best-each"].boxes["empty"] is None
    assert found["raw-otsu"].boxes["empty"] is None
    assert found["raw-otsu"].thresholds["empty"] is None
    only_empty = by_method([case(bright, None, "empty")])
    assert "raw-best" not in only_empty
    assert only_empty["raw-otsu"].boxes == {"empty": None}


def test_a_field_of_view_without_any_room_gives_no_box_rather_than_a_failure() -> None:
    volume = np.zeros(SHAPE, np.uint8)
    volume[BLOCK.slices] = 100
    found = by_method([case(volume, BLOCK, inside=np.zeros(SHAPE, bool))])
    assert found["localstd-best"].boxes == {"v": None}
    assert found["localstd-otsu"].boxes == {"v": None}


def test_supervision_is_at_least_as_good_as_otsu_per_volume_and_never_beaten_by_one_for_all() -> (
    None
):
    rng = np.random.default_rng(7)
    cases = []
    for i in range(3):
        volume = rng.normal(100, 10, SHAPE)
        volume[BLOCK.slices] += 20 + 10 * i
        cases.append(case(volume, BLOCK, f"v{i}"))
    found = by_method(cases)
    truths = {c.truth.volume_id: c.truth for c in cases}
    table = score_methods({m: r.boxes for m, r in found.items()}, truths)
    for family in ("raw", "smoothed", "zmedian", "localstd"):
        each = table.summary(f"{family}-best-each").mean_voxels
        shared = table.summary(f"{family}-best").mean_voxels
        assert each is not None
        assert shared is not None
        assert each <= shared


def test_errors_of_the_search_are_those_of_the_score() -> None:
    volume = np.zeros(SHAPE, np.uint8)
    volume[4:11, 5:16, 7:20] = 100
    one = case(volume, BLOCK)
    found = by_method([one])["raw-best"]
    summary = score_methods({"m": found.boxes}, {"v": one.truth}).summary("m")
    assert summary.mean_voxels == pytest.approx(1 / 6)


def test_progress_counts_every_volume_in_every_pass() -> None:
    seen: list[tuple[int, int]] = []
    volume = np.zeros((3, 3, 3), np.uint8)
    cases = [case(volume, None, name) for name in "ab"]
    run_baselines(cases, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i, 6) for i in range(1, 7)]


def test_maps_are_float32_of_the_volumes_shape() -> None:
    arrays = BaselineArrays(raw=np.arange(3 * 5 * 7, dtype=np.uint16).reshape(3, 5, 7))
    maps = dict(baseline_maps(arrays, sigma=1.0, deviation_sigma=1.0, radius=1))
    assert list(maps) == ["raw", "smoothed", "zmedian", "zmedian-absolute", "localstd"]
    assert all(m.shape == (3, 5, 7) and m.dtype == np.float32 for m in maps.values())


def test_mistakes_are_named() -> None:
    with pytest.raises(ConfigError, match="no volume"):
        run_baselines([])
    with pytest.raises(GeometryError, match="'inside' has shape"):
        BaselineArrays(raw=np.zeros((3, 3, 3)), inside=np.zeros((3, 3, 5), bool))
    other = BaselineCase(
        truth=Truth(volume_id="v", shape=(10, 10, 10), box=None),
        factors=(2, 2, 2),
        load=lambda: BaselineArrays(raw=np.zeros((5, 5, 7))),
    )
    with pytest.raises(GeometryError, match="x=10 at level 0 in its truth, but 7 at factor 2"):
        run_baselines([other])


@pytest.mark.real
def test_supervised_component_is_strong_on_scans_whose_air_is_clipped() -> None:
    default = Path(__file__).parents[2].parent / "shared" / "data"
    root = Path(os.environ.get("CTRAY_TEST_DATA", default)) / "mouse_heads_tube"
    if not root.is_dir():
        pytest.skip(f"no real volumes at {root}; set CTRAY_TEST_DATA")
    truths = dict(list(read_truths(str(root)).items())[:3])
    cases = []
    for name, truth in truths.items():
        small = downsample_mean(tifffile.imread(root / name / "volume.tif"), (4, 4, 4))
        cases.append(
            BaselineCase(
                truth=truth,
                factors=(4, 4, 4),
                load=lambda small=small: BaselineArrays(raw=small),  # type: ignore[misc]
            )
        )
    found = by_method(cases)
    table = score_methods({m: r.boxes for m, r in found.items()}, truths)
    best = table.summary("raw-best").mean_voxels
    nonzero = table.summary("nonzero").mean_voxels
    assert best is not None
    assert nonzero is not None
    assert best < 4 < nonzero
