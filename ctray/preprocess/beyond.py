"""A look beyond a supposed wall, for voxels of the sample.

A ring of bone can look like the wall of a container, and a sample can touch its wall or lie across
it. The wall and the surroundings of a container look the same at all angles. Voxels beyond the
inside are sample if they differ from this pattern and are connected to the sample inside. They stay
in view. If there are many such voxels, there is no container.
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
# A voxel stands out if it differs from the usual grey value at its radius by more than this many
# deviations of the surroundings and by more than this fraction of the largest contrast inside.
_DEVIATIONS = 6.0
_MIN_CONTRAST = 0.02
# Voxels by which the wall may deviate from its cylinder because it is bent or not quite round.
_MISFIT = 0.5
# The medium inside is the lower quartile of the grey values next to the wall.
_NEAR_WALL = 0.8
_MEDIUM_PERCENTILE = 25
# Voxels from the middle of a wall to its outside.
_WALL = 3.0
# A wall ends where its profile falls by less than this fraction of its height per voxel. A ring
# counts only if more than this fraction of it is in view.
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
        Number of these voxels, as a fraction of those that stand out inside.
    far_fraction
        Number of these voxels outside the wall, as the same fraction.
    change
        Largest difference of the usual grey values beyond the wall, as a fraction of the largest
        contrast. Air and medium have the same grey value at all distances; flesh around bone does
        not.
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
        Middle of the wall, and its inside, around nearly the same axis.
    known
        Whether voxels hold data, bool, same shape; voxels outside the reconstruction circle do not.
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
    """Range of a radial profile beyond a wall, relative to wall height or `largest` if larger."""
    first = max(0, round(wall.radius) - 2)
    ridge = first + int(np.argmax(profile[first : first + 5]))
    height = float(profile[ridge] - profile[ridge:].min())
    falls = profile[ridge:-1] - profile[ridge + 1 :] > _ENDS * height
    beyond = profile[ridge + int(np.argmin(falls)) + 1 :] if falls.size else profile[:0]
    return float(np.ptp(beyond)) / max(height, largest, 1e-12) if beyond.size else 0.0


def _steepest(profile: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Largest change of a radial profile within a voxel of each radius, grey values per voxel."""
    steps = np.abs(np.diff(profile, append=profile[-1:]))
    steepest: npt.NDArray[np.float64] = ndimage.maximum_filter1d(steps, 3)
    return steepest
