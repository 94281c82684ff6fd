"""Boxes and voxel sizes: what holds for every one of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctray.core.errors import GeometryError
from ctray.core.geometry import AxisFaces, Box, VoxelSize, micrometres_per, tiles

EXTENT = 12
SHAPE = (EXTENT,) * 3


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    pairs = [
        sorted(draw(st.lists(st.integers(0, EXTENT), min_size=2, max_size=2, unique=True)))
        for _ in range(3)
    ]
    return Box.from_ranges(pairs)


def mask(box: Box, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """The box as voxels: the meaning that all its arithmetic must keep."""
    inside = np.zeros(shape, bool)
    inside[box.slices] = True
    return inside


@given(boxes())
def test_shape_and_spellings_agree(box: Box) -> None:
    assert mask(box).sum() == box.num_voxels == np.prod(box.shape)
    assert Box.from_ranges(box.ranges) == box
    z0, z1, y0, y1, x0, x1 = box.faces
    assert Box(start=(z0, y0, x0), stop=(z1, y1, x1)) == box
    assert hash(box) == hash(Box.from_ranges(box.ranges))


@given(boxes(), boxes())
def test_set_arithmetic_is_that_of_voxels(a: Box, b: Box) -> None:
    both, either = mask(a) & mask(b), mask(a) | mask(b)
    common = a.intersection(b)
    assert (common is None) == (not both.any())
    if common:
        np.testing.assert_array_equal(mask(common), both)
    assert a.intersection(b) == b.intersection(a)
    assert a.iou(b) == pytest.approx(both.sum() / either.sum())
    assert a.contains(b) == bool((both == mask(b)).all())
    hull = a.union(b)
    assert hull.contains(a)
    assert hull.contains(b)
    where = np.argwhere(either)
    assert hull.start == tuple(where.min(0))
    assert hull.stop == tuple(where.max(0) + 1)


@given(boxes(), st.tuples(*[st.integers(1, 5)] * 3))
def test_snapping_outward_is_the_smallest_box_on_the_stride(
    box: Box, stride: tuple[int, int, int]
) -> None:
    snapped = box.snap_outward(stride, SHAPE)
    assert snapped.contains(box)
    snapped.check_inside(SHAPE)
    for a, b, s, a0, b0 in zip(
        snapped.start, snapped.stop, stride, box.start, box.stop, strict=True
    ):
        assert a % s == 0
        assert b % s == 0 or b == EXTENT
        assert a0 - a < s
        assert b - b0 < s
    assert snapped.snap_outward(stride, SHAPE) == snapped


@given(boxes(), st.integers(0, 5))
def test_expanding_adds_a_margin_within_the_volume(box: Box, margin: int) -> None:
    grown = box.expand(margin, SHAPE)
    assert grown.contains(box)
    assert grown == box.expand(AxisFaces.both_sides((margin,) * 3), SHAPE)
    for a, b, a0, b0 in zip(grown.start, grown.stop, box.start, box.stop, strict=True):
        assert a == max(0, a0 - margin)
        assert b == min(EXTENT, b0 + margin)


def test_each_face_has_a_margin_of_its_own() -> None:
    box = Box(start=(13, 11, 17), stop=(50, 37, 51))
    grown = box.expand(AxisFaces(3, 2, 20, 1, 2, 9), (70, 50, 55))
    assert grown == Box(start=(10, 0, 15), stop=(52, 38, 55))


@given(boxes())
def test_box_is_that_of_its_faces(box: Box) -> None:
    assert Box.from_faces(box.faces) == box
    assert list(zip(*box.faces.pairs, strict=True)) == [box.start, box.stop]


def test_six_values_are_faces_and_others_are_refused() -> None:
    margins = AxisFaces.of([1, 2, 3, 4, 5, 6], "margins")
    assert (margins.z0, margins.y1, margins.x1) == (1, 4, 6)
    assert margins.map(str) == ("1", "2", "3", "4", "5", "6")
    assert margins.combine(AxisFaces.both_sides((4, 2, 0)), max) == (4, 4, 3, 4, 5, 6)
    with pytest.raises(GeometryError, match=r"margins \[1, 2\] has 2 values; .* z0, z1, y0"):
        AxisFaces.of([1, 2], "margins")


@given(boxes(), st.tuples(*[st.integers(0, 9)] * 3))
def test_shifting_there_and_back(box: Box, offset: tuple[int, int, int]) -> None:
    assert box.shift(offset).shape == box.shape
    assert box.shift(offset).shift([-o for o in offset]) == box


@given(boxes(), st.tuples(*[st.integers(1, 4)] * 3))
def test_levels_coarsen_outward_and_refine_exactly(box: Box, factors: tuple[int, int, int]) -> None:
    coarse_shape = [-(-EXTENT // f) for f in factors]
    coarse = box.to_level(1, factors, coarse_shape)
    assert coarse.level == 1
    back = coarse.to_level(0, factors, SHAPE)
    # The coarse voxels that a box touches are those that its snapped box covers.
    assert back == box.snap_outward(factors, SHAPE)
    assert back.to_level(1, factors, coarse_shape) == coarse


@given(boxes(), st.tuples(*[st.integers(1, EXTENT)] * 3))
def test_clipping_is_intersection_with_the_volume(box: Box, shape: tuple[int, int, int]) -> None:
    common = box.intersection(Box.whole(shape))
    if common is None:
        with pytest.raises(GeometryError, match="empty"):
            box.clip(shape)
    else:
        assert box.clip(shape) == common
        assert (common == box) == all(b <= n for b, n in zip(box.stop, shape, strict=True))


@given(st.tuples(*[st.integers(1, 9)] * 3), st.tuples(*[st.integers(1, 5)] * 3))
def test_tiles_cover_every_voxel_once(
    shape: tuple[int, int, int], tile: tuple[int, int, int]
) -> None:
    count = np.zeros(shape, int)
    for box in tiles(shape, tile):
        assert all(n <= t for n, t in zip(box.shape, tile, strict=True))
        count[box.slices] += 1
    assert (count == 1).all()


@pytest.mark.parametrize(
    ("start", "stop", "level", "message"),
    [
        ((0, -1, 0), (1, 1, 1), 0, "y=-1 is negative"),
        ((0, 0, 3), (1, 1, 3), 0, r"x range \[3, 3\) is empty"),
        ((0, 0, 0), (1, 1, 1), -1, "level -1 is negative"),
        ((0, 0), (1, 1), 0, "has 2 values"),
    ],
)
def test_boxes_that_cannot_be(
    start: tuple[int, ...], stop: tuple[int, ...], level: int, message: str
) -> None:
    with pytest.raises(GeometryError, match=message):
        Box(start=start, stop=stop, level=level)  # type: ignore[arg-type]


def test_errors_name_axis_values_and_remedy() -> None:
    box = Box(start=(0, 0, 0), stop=(612, 1, 1), level=2)
    with pytest.raises(GeometryError, match=r"z=612 exceeds extent 504 at level 2; clip with"):
        box.check_inside((504, 10, 10))
    with pytest.raises(GeometryError, match="level 2 and level 0 do not compare"):
        box.intersection(Box.whole((1, 1, 1)))


@given(st.tuples(*[st.floats(1e-3, 1e3)] * 3), st.sampled_from(["nm", "µm", "millimeter", "metre"]))
def test_voxel_sizes_are_micrometres(edges: tuple[float, float, float], unit: str) -> None:
    size = VoxelSize.of(edges, unit)
    assert size.um == pytest.approx([e * micrometres_per(unit) for e in edges])
    assert size.scaled((2, 4, 8)).um == pytest.approx(
        [e * f for e, f in zip(size.um, (2, 4, 8), strict=True)]
    )


def test_units_by_hand() -> None:
    assert VoxelSize.of((3.5,), "mm").um == (3500.0, 3500.0, 3500.0)
    assert micrometres_per("\u03bcm") == micrometres_per("\u00b5m") == 1.0
    assert micrometres_per("Å") == pytest.approx(1e-4)
    with pytest.raises(GeometryError, match="'parsec' is no known length"):
        micrometres_per("parsec")


@pytest.mark.parametrize("edges", [(0.0, 1.0, 1.0), (1.0, float("nan"), 1.0), (1.0, 1.0)])
def test_voxel_sizes_that_cannot_be(edges: tuple[float, ...]) -> None:
    with pytest.raises(GeometryError, match="voxel size"):
        VoxelSize.of(edges)
