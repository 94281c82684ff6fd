"""The mean that makes a level, against plain arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ctray.core.errors import GeometryError
from ctray.volumes.multiscale import downsample_mean, level_shapes, plan_levels

SHAPES = st.tuples(*[st.integers(1, 7)] * 3)
FACTORS = st.tuples(*[st.integers(1, 3)] * 3).filter(lambda f: f != (1, 1, 1))
INTEGERS = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"]


def cells(array: np.ndarray, factors: tuple[int, int, int]) -> dict[tuple[int, ...], np.ndarray]:
    """Members of every cell, by its index: the definition, one cell at a time."""
    shape = [-(-n // f) for n, f in zip(array.shape, factors, strict=True)]
    found = {}
    for index in np.ndindex(*shape):
        where = tuple(slice(i * f, i * f + f) for i, f in zip(index, factors, strict=True))
        found[index] = array[where].ravel()
    return found


@settings(max_examples=60)
@given(st.data(), SHAPES, FACTORS, st.sampled_from(INTEGERS))
def test_integers_are_exact_means_half_to_even(
    data: st.DataObject, shape: tuple[int, ...], factors: tuple[int, int, int], dtype: str
) -> None:
    array = data.draw(arrays(dtype, shape))
    pooled = downsample_mean(array, factors)
    assert pooled.dtype == array.dtype
    for index, members in cells(array, factors).items():
        # Fraction rounds half to even.
        assert pooled[index] == round(Fraction(sum(int(m) for m in members), len(members)))


@settings(max_examples=60)
@given(st.data(), SHAPES, FACTORS, st.sampled_from(["float32", "float64"]))
def test_floats_are_means_of_what_is_finite(
    data: st.DataObject, shape: tuple[int, ...], factors: tuple[int, int, int], dtype: str
) -> None:
    values = st.floats(-1e3, 1e3, width=32) | st.sampled_from([np.nan, np.inf, -np.inf])
    array = data.draw(arrays(dtype, shape, elements=values))
    pooled = downsample_mean(array, factors)
    assert pooled.dtype == array.dtype
    for index, members in cells(array, factors).items():
        finite = members[np.isfinite(members)].astype(np.float64)
        if finite.size:
            assert pooled[index] == pytest.approx(finite.mean(), rel=1e-6, abs=1e-6)
        else:
            assert np.isnan(pooled[index])


def test_half_to_even_by_hand() -> None:
    array = np.array([[[0, 1], [2, 3]]], np.uint8)
    assert downsample_mean(array, (1, 1, 2)).tolist() == [[[0], [2]]]  # 0.5 and 2.5
    assert downsample_mean(array, (1, 2, 2)).tolist() == [[[2]]]  # 1.5


def test_factors_of_one_are_a_copy() -> None:
    array = np.array([[[np.inf, 1.0]]])
    pooled = downsample_mean(array, (1, 1, 1))
    np.testing.assert_array_equal(pooled, array)
    assert not np.shares_memory(pooled, array)


def test_booleans_follow_the_majority() -> None:
    array = np.array([[[True, True, False, False, True, False]]])
    assert downsample_mean(array, (1, 1, 3)).tolist() == [[[True, False]]]


def test_large_values_do_not_overflow() -> None:
    array = np.full((2, 2, 2), np.iinfo(np.uint64).max, np.uint64)
    assert downsample_mean(array)[0, 0, 0] == np.iinfo(np.uint64).max
    half = np.full((2, 2, 2), np.finfo(np.float32).max, np.float32)
    assert downsample_mean(half)[0, 0, 0] == np.finfo(np.float32).max


def test_plan_of_a_pyramid() -> None:
    assert level_shapes((100, 7, 1), 3) == ((100, 7, 1), (50, 4, 1), (25, 2, 1))
    plans = plan_levels((504, 500, 300))
    # 504, 252, 126, 63: the first longest side of at most 64 ends it.
    assert [max(plan.shape) for plan in plans] == [504, 252, 126, 63]
    assert plans[3].offset == (3.5, 3.5, 3.5)
    assert len(plan_levels((100_000, 10, 10))) == 8
    assert len(plan_levels((64, 64, 64))) == 1


@pytest.mark.parametrize("bad", [(0, 1, 1), (2, 2)])
def test_factors_that_make_no_sense(bad: tuple[int, ...]) -> None:
    with pytest.raises(GeometryError, match="factors"):
        downsample_mean(np.zeros((2, 2, 2)), bad)
    with pytest.raises(GeometryError, match="2 axes"):
        downsample_mean(np.zeros((2, 2)))
    with pytest.raises(GeometryError, match="at least 1"):
        plan_levels((4, 4, 4), 0)
