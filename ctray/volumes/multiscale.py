"""Pyramid arithmetic: shape and position of each level, and its means."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ctray.core.errors import GeometryError
from ctray.core.geometry import Triple, as_triple

SMALLEST_SIDE = 64
MAX_LEVELS = 8

# The shortest side keeps this fraction of the working size, up to so many times its longest side: a
# volume three times as long as it is wide would be a few voxels wide otherwise.
_LEAST_WIDTH, _MOST_LENGTH = 0.5, 4


@dataclass(frozen=True, kw_only=True, slots=True)
class LevelPlan:
    """Shape and position of one level of a pyramid.

    Parameters
    ----------
    shape
        Voxels of the level, (z, y, x).
    factors
        Level-0 voxels per voxel of this level, (z, y, x).
    offset
        Distance from the centre of level 0's first voxel to that of this level, level-0 voxels.
    """

    shape: Triple
    factors: Triple
    offset: tuple[float, float, float]


def default_num_levels(shape: Sequence[int]) -> int:
    """Levels until the longest side is at most 64 voxels, and no more than 8."""
    side, count = max(shape), 1
    while side > SMALLEST_SIDE and count < MAX_LEVELS:
        side, count = -(-side // 2), count + 1
    return count


def level_shapes(shape: Sequence[int], num_levels: int) -> tuple[Triple, ...]:
    """Shapes of a pyramid by halves, level 0 first; odd extents round up."""
    return tuple(plan.shape for plan in plan_levels(shape, num_levels))


def plan_levels(shape: Sequence[int], num_levels: int | None = None) -> tuple[LevelPlan, ...]:
    """Plan of a pyramid by 2x mean: shape ceil(n / f), offset (f - 1) / 2 with f = 2**level.

    The offset puts a mean of f voxels at their middle. An axis of one voxel keeps one, and its
    factor still doubles, so that all axes have the same factor.
    """
    count = default_num_levels(shape) if num_levels is None else num_levels
    if count < 1:
        raise GeometryError(f"number of levels {count} must be at least 1")
    plans = []
    for level in range(count):
        f = 2**level
        offset = (f - 1) / 2
        plans.append(
            LevelPlan(
                shape=as_triple([-(-n // f) for n in shape], "level shape"),
                factors=(f, f, f),
                offset=(offset, offset, offset),
            )
        )
    return tuple(plans)


def downsample_mean(
    array: npt.NDArray[Any], factors: Sequence[int] = (2, 2, 2)
) -> npt.NDArray[Any]:
    """Mean over cells of `factors` voxels; the result has the dtype of `array`.

    Odd extents round up: the last cell averages the voxels it has. Floats average their finite
    values; a cell without any is NaN. Integers are the exact mean rounded half to even, so that
    levels do not drift. Booleans follow the majority; ties are False.

    Parameters
    ----------
    array
        3D, (z, y, x), bool, integer or float.
    factors
        Cell edges, (z, y, x); all 1 gives a copy, infinite values included.

    Returns
    -------
    numpy.ndarray
        Shape ceil(n / factor) per axis.
    """
    if array.ndim != 3:
        raise GeometryError(f"array of shape {array.shape} has {array.ndim} axes; give z, y, x")
    cell = as_triple(factors, "factors")
    if min(cell) < 1:
        raise GeometryError(f"factors {cell} must be at least 1")
    if cell == (1, 1, 1):
        return array.copy()
    if array.dtype.kind == "f":
        return _mean_of_finite(array, cell)
    if array.dtype.kind == "b":
        return _mean_of_integers(array.view(np.uint8), cell).astype(np.bool_)
    return _mean_of_integers(array, cell)


def _out_shape(array: npt.NDArray[Any], cell: Triple) -> Triple:
    return as_triple([-(-n // f) for n, f in zip(array.shape, cell, strict=True)], "shape")


def _phases(array: npt.NDArray[Any], cell: Triple) -> Any:
    """For each position in a cell: a strided view of its voxels, and the cells that have it."""
    for phase in itertools.product(*(range(f) for f in cell)):
        view = array[tuple(slice(p, None, f) for p, f in zip(phase, cell, strict=True))]
        if view.size:
            yield view, tuple(slice(0, n) for n in view.shape)


def _mean_of_finite(array: npt.NDArray[Any], cell: Triple) -> npt.NDArray[Any]:
    total = np.zeros(_out_shape(array, cell), np.float64)
    if np.isfinite(array).all():
        for view, where in _phases(array, cell):
            total[where] += view
        total /= _members(array, cell)
        return total.astype(array.dtype)
    count = np.zeros(total.shape, np.uint16 if math.prod(cell) < 2**16 else np.uint32)
    for view, where in _phases(array, cell):
        finite = np.isfinite(view)
        np.add(total[where], view, out=total[where], where=finite)
        count[where] += finite
    mean = np.full(total.shape, np.nan, np.float64)
    np.divide(total, count, out=mean, where=count > 0)
    return mean.astype(array.dtype)


def _mean_of_integers(array: npt.NDArray[Any], cell: Triple) -> npt.NDArray[Any]:
    # A cell has at most 2**16 members in any sane pyramid: 64 bits hold sums of 32-bit values, and
    # 32 bits hold sums of 16-bit values over the usual cell of 8.
    if array.dtype.itemsize <= 2 and math.prod(cell) < 2**15:
        wide: Any = np.int32 if array.dtype.kind == "i" else np.uint32
    else:
        wide = np.int64 if array.dtype.kind == "i" else np.uint64
    members = _members(array, cell).astype(wide)
    if array.dtype.itemsize == 8:
        quotient, remainder = _split_sums(array, cell, members)
    else:
        total = np.zeros(_out_shape(array, cell), wide)
        for view, where in _phases(array, cell):
            total[where] += view
        quotient, remainder = np.divmod(total, members)
    twice = remainder * 2
    up = (twice > members) | ((twice == members) & (quotient % 2 == 1))
    quotient += up
    return quotient.astype(array.dtype)


def _split_sums(
    array: npt.NDArray[Any], cell: Triple, members: npt.NDArray[Any]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Mean and remainder of 64-bit values, whose plain sums would overflow."""
    shape = _out_shape(array, cell)
    full = np.broadcast_to(members, shape)
    quotient, remainder = np.zeros(shape, array.dtype), np.zeros(shape, array.dtype)
    for view, where in _phases(array, cell):
        whole, rest = np.divmod(view, full[where])
        quotient[where] += whole
        remainder[where] += rest
    return quotient + remainder // members, remainder % members


def _members(array: npt.NDArray[Any], cell: Triple) -> npt.NDArray[np.int64]:
    """Count the voxels of every cell; smaller at the far end of odd extents."""
    per_axis = []
    for n, f in zip(array.shape, cell, strict=True):
        count = np.full(-(-n // f), f, np.int64)
        count[-1] = n - (len(count) - 1) * f
        per_axis.append(count)
    z, y, x = per_axis
    return z[:, None, None] * y[None, :, None] * x[None, None, :]


def longest_side(shape: Sequence[int], working_size: int) -> int:
    """Longest side that the working level of a volume of `shape` should have, voxels.

    It is `working_size`, and more where the shortest side would keep less than half of that.
    """
    wanted = _LEAST_WIDTH * working_size * max(shape) / min(shape)
    return round(min(max(working_size, wanted), _MOST_LENGTH * working_size))
