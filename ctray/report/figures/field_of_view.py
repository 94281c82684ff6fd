"""Drawing of the field of view: reconstruction circle, container and column of medium."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.patches import Ellipse

from ctray.preprocess.cylinder import Cylinder
from ctray.preprocess.field_of_view import FieldOfView
from ctray.report.figures.lines import BOUND, MEDIUM, Line


def draw_bounds(
    axes: Axes,
    field_of_view: FieldOfView,
    axis: int,
    factors: tuple[int, ...],
    *,
    num_slices: int,
    middle: int | None,
) -> None:
    """Draw ellipses in views along z, and in other projections the two sides.

    Parameters
    ----------
    axes
        Axes in level-0 voxels.
    axis
        Viewing axis: 0, 1, 2 for z, y, x.
    factors
        Level-0 voxels per voxel of the working level, (z, y, x).
    num_slices
        Slices of the working level along z.
    middle
        Index of the slice along z that the picture shows; None for a projection.
    """
    drawn: dict[str, tuple[Cylinder | None, Line]] = {
        "circle": (field_of_view.circle, BOUND),
        "container": (field_of_view.container, BOUND),
        # Not a bound: a sample may reach out of its medium.
        "edge of medium": (field_of_view.column, MEDIUM),
    }
    for label, (cylinder, line) in drawn.items():
        if cylinder is None:
            continue
        if axis == 0:
            z = (num_slices - 1) / 2 if middle is None else middle
            ellipse = _ellipse(cylinder, z, factors)
            ellipse.set(fill=False, label=label, **line.style())
            axes.add_patch(ellipse)
        elif middle is None:
            ends = np.array([-0.5, num_slices - 0.5])
            centers = cylinder.centers(ends)[1 if axis == 1 else 0]
            for side in (-cylinder.radius, cylinder.radius):
                across = (centers + side + 0.5) * factors[3 - axis]
                axes.plot(across, (ends + 0.5) * factors[0], **line.style())


def _ellipse(cylinder: Cylinder, z: float, factors: tuple[int, ...]) -> Ellipse:
    cy, cx = cylinder.centers(z)
    centre = ((float(cx) + 0.5) * factors[2], (float(cy) + 0.5) * factors[1])
    return Ellipse(centre, 2 * cylinder.radius * factors[2], 2 * cylinder.radius * factors[1])


def pixels_inside(
    shape: tuple[int, ...], field_of_view: FieldOfView, axis: int, num_slices: int
) -> npt.NDArray[np.bool_]:
    """Mask of `shape`: pixels inside circle and container at the middle of the volume."""
    inside = np.ones(shape, dtype=bool)
    for bound in (field_of_view.circle, field_of_view.container):
        if bound is None:
            continue
        center = [float(c) for c in bound.centers(num_slices / 2)]
        down, right = np.arange(shape[0])[:, None], np.arange(shape[1])[None, :]
        if axis == 0:
            inside &= (down - center[0]) ** 2 + (right - center[1]) ** 2 <= bound.radius**2
        else:
            inside &= np.abs(right - center[2 - axis]) <= bound.radius
    return inside
