"""Fitting the inside of a container's wall to subvoxels, from the places where rays meet it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ctray.preprocess.cylinder import ANGLES, Cylinder, polar_along
from ctray.preprocess.deviation import robust_deviation
from ctray.preprocess.round_search import mean_planes

FloatArray = npt.NDArray[np.float32]
Vector = npt.NDArray[np.float64]

# The wall is searched within this many voxels of the current radius. The same number of voxels
# further inside gives the grey value inside.
_REACH = 3.0
_STEP = 0.25
# Minimum rise of a ray, as a fraction of the usual rise. The rise is smaller where the sample
# touches the wall.
_MIN_RISE = 0.5
# Minimum fraction of the rays that show the wall, and largest median distance from the fit, voxels.
_MIN_RAYS = 0.5
_MAX_OFF = 0.5
# Rounds of the fit, and deviations beyond which a round leaves out a ray.
_ROUNDS = 4
_OUTLIER = 3


def fit_inside(volume: FloatArray, wall: Cylinder) -> Cylinder | None:
    """Cylinder at which the grey value is half way up the wall, seen from inside.

    None if too few rays show the wall, or if the rays do not agree to half a voxel.

    Parameters
    ----------
    volume
        Working level, float32, (z, y, x), finite.
    wall
        Axis and radius of the wall, accurate to about a voxel.
    """
    planes, z = mean_planes(volume)
    found = wall
    for _ in range(2):
        if found.radius <= 2 * _REACH:
            return None
        fitted = _fit(planes, z, found)
        if fitted is None:
            return None
        found = fitted
    return found


def _fit(planes: list[FloatArray], z: Vector, near: Cylinder) -> Cylinder | None:
    places = _edges(planes, z, near)
    known = np.isfinite(places)
    if known.mean() < _MIN_RAYS:
        return None
    angle = np.broadcast_to(np.arange(ANGLES) * (2 * np.pi / ANGLES), places.shape)[known]
    height = np.broadcast_to(z[:, None], places.shape)[known]
    sine, cosine = np.sin(angle), np.cos(angle)
    # A small shift of the axis moves the edge along each ray by its component in that direction.
    columns = np.stack([np.ones_like(sine), sine, sine * height, cosine, cosine * height], axis=1)
    edges, used = places[known], np.ones(int(known.sum()), bool)
    for _ in range(_ROUNDS):
        factors, *_ = np.linalg.lstsq(columns[used], edges[used], rcond=None)
        off = np.abs(edges - columns @ factors)
        used = off <= max(robust_deviation(off, _OUTLIER), 0.1)
    if np.median(off) > _MAX_OFF:
        return None
    radius, y, slope_y, x, slope_x = (float(f) for f in factors)
    return Cylinder(
        center_y=near.center_y + y,
        center_x=near.center_x + x,
        slope_y=near.slope_y + slope_y,
        slope_x=near.slope_x + slope_x,
        radius=radius,
    )


def _edges(planes: list[FloatArray], z: Vector, near: Cylinder) -> Vector:
    """Radius at which each ray is half way up the wall, (planes, angles); NaN if it shows no wall.

    Rays start at the axis of `near`.
    """
    radii = np.arange(near.radius - 2 * _REACH, near.radius + _REACH, _STEP)
    rays = polar_along(planes, z, near, radii).transpose(0, 2, 1)
    rays = np.where(np.isfinite(rays).all(axis=2, keepdims=True), rays, np.nan)
    wall_from = int(np.searchsorted(radii, near.radius - _REACH))
    base = np.median(rays[:, :, :wall_from], axis=2)
    at = wall_from + np.where(np.isfinite(rays), rays, -np.inf)[:, :, wall_from:].argmax(axis=2)
    rise = np.take_along_axis(rays, at[:, :, None], axis=2)[:, :, 0] - base
    with np.errstate(invalid="ignore"):
        shown = rise > _MIN_RISE * np.nanmedian(rise) if np.isfinite(rise).any() else rise > 0
        above = rays >= (base + rise / 2)[:, :, None]
    # Find the last place before the wall's ridge that is below half of its rise.
    below = ~above & (np.arange(len(radii)) < at[:, :, None])
    last = below.shape[2] - 1 - below[:, :, ::-1].argmax(axis=2)
    inner, outer = (
        np.take_along_axis(rays, np.minimum(last + d, len(radii) - 1)[:, :, None], axis=2)[:, :, 0]
        for d in (0, 1)
    )
    fraction = (base + rise / 2 - inner) / np.where(outer > inner, outer - inner, np.inf)
    places: Vector = radii[0] + _STEP * (last + fraction)
    return np.where(shown & below.any(axis=2), places, np.nan)
