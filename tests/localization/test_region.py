"""From a map to a box: threshold, region, ranges."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctray.config import UncertaintyConfig
from ctray.localization.dropout_map import UncertaintyMap
from ctray.localization.region import choose_map_threshold, find_region

PLAIN = UncertaintyConfig(smooth=0)
TOP = UncertaintyConfig(smooth=0, threshold="top", min_fraction=0)


def map_of(values: np.ndarray, **changes: Any) -> UncertaintyMap:
    given: dict[str, Any] = {"cell": (1, 4, 4), "offset": (0, 0, 0), "scale": 1.0, "axis": 0}
    return UncertaintyMap(values=values.astype(np.float32), **given | changes)


def background(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.1, 0.005, shape)


def ranges(found: Any) -> list[tuple[int, int]]:
    return [(found.stretches[a].start, found.stretches[a].stop) for a in "zyx"]


@settings(max_examples=40)
@given(
    start=st.tuples(st.integers(0, 18), st.integers(0, 6), st.integers(0, 6)),
    size=st.tuples(st.integers(3, 10), st.integers(2, 5), st.integers(2, 5)),
    before=st.integers(0, 3),
)
def test_box_is_that_of_what_stands_out(
    start: tuple[int, int, int], size: tuple[int, int, int], before: int
) -> None:
    values = background((30, 12, 12))
    stop = [min(a + s, n) for a, s, n in zip(start, size, values.shape, strict=True)]
    values[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = 0.8
    shape = (30, 48 - before, 48 - before)
    found, profiles = find_region(map_of(values, offset=(0, -before, -before)), shape, PLAIN)
    assert found is not None
    expected = [
        (max(0, a * c - o), min(n, b * c - o))
        for a, b, c, o, n in zip(start, stop, (1, 4, 4), (0, before, before), shape, strict=True)
    ]
    assert ranges(found) == expected
    assert {name: len(p) for name, p in profiles.items()} == dict(zip("zyx", shape, strict=True))


@pytest.mark.parametrize(
    ("small", "large", "expected"),
    [
        # The larger of two regions, not the more uncertain one.
        ([(2, 5)] * 3, [(10, 17), (8, 14), (8, 14)], [(10, 17), (32, 56), (32, 56)]),
        # Cells that touch by a corner are one region.
        ([(2, 8)] * 3, [(8, 12)] * 3, [(2, 12), (8, 48), (8, 48)]),
    ],
    ids=["two regions", "corner"],
)
def test_region_is_the_largest_connected_one(small: Any, large: Any, expected: Any) -> None:
    values = background((20, 16, 16))
    for block, value in ((small, 1.0), (large, 0.6)):
        values[tuple(slice(a, b) for a, b in block)] = value
    found, _ = find_region(map_of(values), (20, 64, 64), PLAIN)
    assert found is not None
    assert ranges(found) == expected


@pytest.mark.parametrize("part", [0.03, 0.2])
def test_top_takes_that_part_of_the_superpixels(part: float) -> None:
    values = np.random.default_rng(2).random((20, 10, 10))
    config = UncertaintyConfig(smooth=0, threshold="top", top_fraction=part)
    threshold, _ = choose_map_threshold(values.astype(np.float32), config)
    assert (values.astype(np.float32) >= threshold).sum() == round(part * values.size)


def test_top_part_cuts_a_sample_that_is_larger_than_it() -> None:
    """The paper's 3% is what it is: of a sample of 12% it keeps the most uncertain quarter."""
    values = background((20, 10, 10))
    values[4:16, 3:7, 3:8] = 0.5 + 0.4 * np.linspace(0, 1, 12)[:, None, None]
    found, _ = find_region(map_of(values), (20, 40, 40), TOP)
    assert found is not None
    assert ranges(found)[0] == (13, 16)
    ours, _ = find_region(map_of(values), (20, 40, 40), PLAIN)
    assert ours is not None
    assert ranges(ours)[0] == (4, 16)


def test_smoothing_calms_single_cells() -> None:
    values = background((20, 16, 16))
    values[5:15, 4:12, 4:12] = 0.8
    rng = np.random.default_rng(1)
    lone = rng.integers(0, 16, (40, 3))
    values[lone[:, 0], lone[:, 1], 0] = 0.35
    config = UncertaintyConfig(smooth=1.0, rise_fraction=0.3)
    found, _ = find_region(map_of(values), (20, 64, 64), config)
    assert found is not None
    assert ranges(found)[2][0] >= 8


def test_map_without_anything_is_no_region() -> None:
    assert find_region(map_of(np.zeros((9, 9, 9))), (9, 36, 36), PLAIN)[0] is None
    assert find_region(map_of(np.ones((9, 9, 9))), (9, 36, 36), PLAIN)[0] is None


def test_region_below_the_least_size_is_none() -> None:
    values = background((20, 16, 16))
    values[3, 3, 3] = 1.0
    assert find_region(map_of(values), (20, 64, 64), UncertaintyConfig(smooth=0))[0] is None


def test_faces_are_as_certain_as_the_map_is_steep() -> None:
    values = background((40, 16, 16))
    values[5:30, 4:12, 4:12] = np.linspace(0.9, 0.2, 25)[:, None, None]
    found, _ = find_region(map_of(values), (40, 64, 64), PLAIN)
    assert found is not None
    stretch = found.stretches["z"]
    assert stretch is not None
    assert stretch.confidence[0] > 0.9
    assert stretch.confidence[1] < 0.3
