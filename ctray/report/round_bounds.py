"""What is round in a scan, drawn over its pictures: circle, container and column of medium."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.patches import Ellipse

from ctray.preprocess.cylinder import Cylinder
from ctray.preprocess.field_of_view import FieldOfView

COLOR = "#22b8e6"
# Length of strokes and gaps, in widths of the line.
BOUND_DASH, EDGE_DASH = (1, 1.5), (4, 2, 1, 2)
_WIDTHS = {BOUND_DASH: 1.2, EDGE_DASH: 0.9}


def draw_bounds(
    axes: Axes,
    field_of_view: FieldOfView,
    axis: int,
    factors: tuple[int, ...],
    *,
    num_slices: int,
    middle: int | None,
) -> None:
    """Ellipses as seen along z; from the other axes the two sides, in projections alone.

    Parameters
    ----------
    axes
        In voxels of level 0.
    axis
        Along which the picture looks: 0, 1, 2 for z, y, x.
    factors, num_slices
        Level-0 voxels per voxel of the working level (z, y, x), and its slices along z.
    middle
        Slice along z that the picture shows, None for a projection.
    """
    drawn = {
        "circle": (field_of_view.circle, BOUND_DASH),
        "container": (field_of_view.container, BOUND_DASH),
        # Not a bound: samples may reach out of their medium.
        "edge of medium": (field_of_view.column, EDGE_DASH),
    }
    for label, (cylinder, dash) in drawn.items():
        if cylinder is None:
            continue
        style: dict[str, Any] = {"linewidth": _WIDTHS[dash], "linestyle": (0, dash)}
        if axis == 0:
            z = (num_slices - 1) / 2 if middle is None else middle
            ellipse = _ellipse(cylinder, z, factors)
            ellipse.set(fill=False, edgecolor=COLOR, label=label, **style)
            axes.add_patch(ellipse)
        elif middle is None:
            ends = np.array([-0.5, num_slices - 0.5])
            centers = cylinder.centers(ends)[1 if axis == 1 else 0]
            for side in (-cylinder.radius, cylinder.radius):
                across = (centers + side + 0.5) * factors[3 - axis]
                axes.plot(across, (ends + 0.5) * factors[0], color=COLOR, **style)


def _ellipse(cylinder: Cylinder, z: float, factors: tuple[int, ...]) -> Ellipse:
    cy, cx = cylinder.centers(z)
    centre = ((float(cx) + 0.5) * factors[2], (float(cy) + 0.5) * factors[1])
    return Ellipse(centre, 2 * cylinder.radius * factors[2], 2 * cylinder.radius * factors[1])


def pixels_inside(
    shape: tuple[int, ...], field_of_view: FieldOfView, axis: int, num_slices: int
) -> npt.NDArray[np.bool_]:
    """Pixels (`shape`) within circle and container, as seen from the middle of the volume."""
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
