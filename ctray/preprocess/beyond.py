"""A look beyond a wall: at air and the wall itself, or at more of the sample.

A ring of bone can pass for the wall of a container, and a sample can touch its wall or lie across
it. A wall and the surroundings of a container look the same at all angles. Voxels that differ from
that, and are connected to the sample inside, are sample. They stay in view. Where there are many of
them there is no container.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ctray.preprocess.cylinder import Cylinder, whole_radial_profile
from ctray.preprocess.deviation import robust_deviation

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

# Gaussian against noise, voxels.
_SIGMA = 0.8
# A voxel stands out where it differs from the usual grey value at its radius by this many
# deviations of the surroundings, and by this fraction of the largest contrast inside.
_DEVIATIONS = 6.0
_MIN_CONTRAST = 0.02
# Voxels by which the wall may lie elsewhere than its cylinder: bent, or not quite round.
_MISFIT = 0.5
# The medium inside: the lower quarter of the grey values next to the wall.
_NEAR_WALL = 0.8
_MEDIUM_PERCENTILE = 25
# Voxels from the middle of a wall to where it has ended.
_WALL = 3.0
# A wall ends where its profile falls by less than this fraction of its height in a voxel. Rings
# count where this fraction of them is in view.
_ENDS = 0.08
_IN_VIEW = 1 / 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Beyond:
    """Voxels that stand out beyond a wall and are connected to those that stand out inside.

    Parameters
    ----------
    voxels
        The voxels, bool, (z, y, x).
    fraction
        Their number, as a fraction of those that stand out inside.
    far_fraction
        The same of the voxels beyond the outside of the wall.
    change
        Largest difference of the usual grey values beyond the wall, as a fraction of the largest
        contrast: air and medium are the same at all distances, flesh around bone is not.
    """

    voxels: BoolArray
    fraction: float
    far_fraction: float
    change: float


def look_beyond(volume: FloatArray, wall: Cylinder, inner: Cylinder, known: BoolArray) -> Beyond:
    """Voxels of the sample beyond the inside of a wall.

    Parameters
    ----------
    volume
        Working level, float32, (z, y, x), finite.
    wall, inner
        Middle of the wall, and its inside; both around the same axis or nearly so.
    known
        Voxels that hold data, bool, same shape; those outside the reconstruction circle do not.
    """
    smooth = ndimage.gaussian_filter(volume, _SIGMA)
    distance = wall.distances(volume.shape)
    radii = np.arange(math.ceil(math.hypot(*volume.shape[1:])) + 1)
    seen = np.where(known, smooth, np.float32(np.nan))
    profile = whole_radial_profile(seen, wall, len(radii), least_fraction=_IN_VIEW)
    usual = np.interp(distance, radii, profile).astype(np.float32)
    slack = np.interp(distance, radii, _MISFIT * _steepest(profile)).astype(np.float32)
    slack[distance > wall.radius + _WALL] = 0
    differs = np.abs(smooth - usual)
    inside = inner.mask(volume.shape) & known
    outside = ~inside & known
    if not inside.any() or not outside.any():
        return Beyond(voxels=np.zeros_like(known), fraction=0.0, far_fraction=0.0, change=0.0)
    near_wall = inside & (distance > _NEAR_WALL * inner.radius)
    medium = np.percentile(smooth[near_wall if near_wall.any() else inside], _MEDIUM_PERCENTILE)
    contrast = np.abs(smooth - np.float32(medium))
    largest = float(np.percentile(contrast[inside], 99))
    usual_difference = robust_deviation(differs[outside])
    threshold = max(_DEVIATIONS * usual_difference, _MIN_CONTRAST * largest)
    sample = inside & (contrast > threshold)
    labels, _ = ndimage.label(outside & (differs - slack > threshold))
    touching = np.unique(labels[ndimage.binary_dilation(sample)])
    voxels = np.isin(labels, touching[touching > 0])
    far = voxels & (distance > wall.radius + _WALL)
    total = max(1, int(np.count_nonzero(sample)))
    return Beyond(
        voxels=voxels,
        fraction=int(np.count_nonzero(voxels)) / total,
        far_fraction=int(np.count_nonzero(far)) / total,
        change=_change_beyond(profile, wall, largest),
    )


def _change_beyond(profile: npt.NDArray[np.float64], wall: Cylinder, largest: float) -> float:
    """Range of a radial profile beyond a wall, over the wall's height or `largest`, if higher."""
    first = max(0, round(wall.radius) - 2)
    ridge = first + int(np.argmax(profile[first : first + 5]))
    height = float(profile[ridge] - profile[ridge:].min())
    falls = profile[ridge:-1] - profile[ridge + 1 :] > _ENDS * height
    beyond = profile[ridge + int(np.argmin(falls)) + 1 :] if falls.size else profile[:0]
    return float(np.ptp(beyond)) / max(height, largest, 1e-12) if beyond.size else 0.0


def _steepest(profile: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Largest change of a radial profile within a voxel of each radius, grey values a voxel."""
    steps = np.abs(np.diff(profile, append=profile[-1:]))
    steepest: npt.NDArray[np.float64] = ndimage.maximum_filter1d(steps, 3)
    return steepest
