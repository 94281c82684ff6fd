"""The container tube and the reconstruction circle."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ctray.phantom.fields import Vector
from ctray.phantom.spec import PhantomSpec

# Fractions of the smaller of the sides y and x.
CIRCLE_RADIUS = 0.485
WALL_THICKNESS = 0.022
_GAP = 0.015
_LEAST_OFFSET = 0.03
_LEAST_LEAN = 0.02
_TRIES = 400


@dataclass(frozen=True, kw_only=True, slots=True)
class Tube:
    """Container: a straight tube through the volume.

    Parameters
    ----------
    centre
        Axis (y, x) in voxels at the middle of z.
    slope
        Shift of the axis (y, x) per voxel of z.
    inner, outer
        Radii of the wall in voxels, measured in the slice.
    """

    centre: Vector
    slope: Vector
    inner: float
    outer: float

    def axis(self, z: Vector, middle: float) -> Vector:
        """Axis (n, 2) at the heights `z` (n,)."""
        axis: Vector = self.centre + (z - middle)[:, None] * self.slope
        return axis

    def carried(self, shift_z: float) -> Tube:
        """Return the tube moved along z together with what is in it."""
        return replace(self, centre=self.centre - shift_z * self.slope)


def choose_tube(spec: PhantomSpec, points: Vector, shift_z: float) -> Tube | None:
    """Container of the scene around the specimen's surface `points` (n, 3), in voxels.

    The points are those before the specimen was moved by `shift_z` out of the volume.

    It is derived from the specimen, and not the other way round: the specimen stays the same
    whatever container it lies in. None for a scene without container.
    """
    kind = spec.scene.container
    if kind == "none":
        return None
    if kind == "centred":
        return _centred_tube(spec, points)
    tilted = kind == "tilted"
    moved = find_tube(spec, points + np.array([shift_z, 0.0, 0.0]), tilted=tilted)
    if moved is not None:
        return moved
    tube = find_tube(spec, points, tilted=tilted)
    assert tube is not None, "place() leaves room for a tube"
    return tube.carried(shift_z)


def _centred_tube(spec: PhantomSpec, points: Vector) -> Tube:
    side = min(spec.shape[1:])
    middle = (np.array(spec.shape) - 1) / 2
    wall = WALL_THICKNESS * side
    need = float(np.hypot(*(points[:, 1:] - middle[1:]).T).max()) + _GAP * side
    inner = max(need, spec.rng("container").uniform(0.40, 0.44) * side)
    inner = min(inner, CIRCLE_RADIUS * side - wall)
    return Tube(centre=middle[1:], slope=np.zeros(2), inner=inner, outer=inner + wall)


def find_tube(spec: PhantomSpec, points: Vector, *, tilted: bool) -> Tube | None:
    """Off-centre tube, tilted or not, that holds the `points` and lies in the circle.

    Of many random tubes the one farthest off; None if none holds them.
    """
    side = min(spec.shape[1:])
    middle = (np.array(spec.shape) - 1) / 2
    rng = spec.rng("container")
    inner = rng.uniform(0.28, 0.42, _TRIES)
    angle, towards = rng.uniform(0, 2 * np.pi, (2, _TRIES))
    offset = rng.uniform(_LEAST_OFFSET, 0.14, _TRIES)
    lean = rng.uniform(_LEAST_LEAN, 0.12, _TRIES) * tilted
    centre = np.stack([np.sin(angle), np.cos(angle)], axis=1) * offset[:, None]
    half = np.stack([np.sin(towards), np.cos(towards)], axis=1) * lean[:, None]
    ends = np.hypot(*np.stack([centre + half, centre - half]).transpose(2, 0, 1)).max(axis=0)
    inside = np.flatnonzero(ends + inner + WALL_THICKNESS <= CIRCLE_RADIUS)
    away = np.minimum(offset, 1.5 * lean) if tilted else offset
    relative = (points - middle) / np.array([spec.shape[0] / 2, side, side])
    for i in inside[np.argsort(-away[inside], kind="stable")]:
        axis = centre[i] + relative[:, :1] * half[i]
        if np.hypot(*(relative[:, 1:] - axis).T).max() + _GAP <= inner[i]:
            return Tube(
                centre=middle[1:] + centre[i] * side,
                slope=half[i] * side / (spec.shape[0] / 2),
                inner=inner[i] * side,
                outer=(inner[i] + WALL_THICKNESS) * side,
            )
    return None
