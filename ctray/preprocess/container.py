"""Finding the container: a tube whose wall is brighter than both its sides.

The wall is a circle in every slice. Its centre moves along a straight line over z (tilt), and its
radius is constant. The search uses criteria that a sample rarely meets: a ring that is brighter
than its inside and its outside at most angles, in most slabs of the volume, with its centres on one
line and with one radius.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ctray.preprocess.beyond import look_beyond
from ctray.preprocess.cylinder import Cylinder, radial_profile, whole_radial_profile
from ctray.preprocess.deviation import robust_deviation
from ctray.preprocess.round_search import PLANE, Slabs, find_round
from ctray.preprocess.wall_fit import fit_inside

FloatArray = npt.NDArray[np.float32]

# Distances over which the wall is compared with its two sides, as fractions of the plane, for thin
# to thick walls.
_SIDES = (0.03, 0.06, 0.1)
# Minimum height of a centred wall, in deviations of the ring artefacts.
_RING_DEVIATIONS = 6.0
# A wall with a lower score is faint, and the outline of a sample may score as much along some axis.
# A faint wall counts only if the region this many voxels beyond it is uniform: its deviation is
# less than this fraction of the deviation inside. The fraction is at most 0.015 around tubes of
# real scans and at least 0.2 around outlines of samples.
_STRONG_SCORE = 0.7
_BEYOND = 4
_PLAIN = 0.1
# Limits on the voxels beyond a wall that are connected to the sample, as a fraction of those that
# stand out inside: all such voxels, and those outside the wall. Above a limit, the wall is part of
# the sample. In scans of heads that touch their tube (turned, shifted and cut) the first fraction
# is at most 0.08 and the second is 0. If the outline of a head is mistaken for a wall, they are at
# least 0.37 and 0.02.
_MAX_BEYOND = 0.16
_MAX_FAR = 0.02
# Limit on the change of the grey value beyond a wall. The surroundings of a container have one grey
# value, except for cupping and rings. In phantoms they change by at most 0.08.
_MAX_CHANGE = 0.12
# Voxels from half the height of the wall to the inner end of its blur. The blur must not leave a
# circle in every slice.
_BLUR = 1.25


@dataclass(frozen=True, kw_only=True, slots=True)
class Container:
    """A container, and the voxels of the sample that extend into its wall or across it.

    Parameters
    ----------
    inside
        Inside of the wall.
    kept
        Voxels beyond the inside that are connected to the sample, bool, (z, y, x).
    kept_fraction
        Number of kept voxels, as a fraction of the voxels that stand out inside.
    """

    inside: Cylinder
    kept: npt.NDArray[np.bool_]
    kept_fraction: float


def find_container(volume: FloatArray, within: Cylinder | None = None) -> Container | None:
    """Container of a volume; None if there is none or if it may be part of the sample.

    Parameters
    ----------
    volume
        Working level, float32, (z, y, x), finite.
    within
        Region that is known to contain all data (the reconstruction circle).
    """
    wall = find_round(volume, within, _ring_votes)
    if not wall.stands_out or _is_ring_artefact(volume, wall.cylinder):
        return None
    faint = wall.score < _STRONG_SCORE
    if faint and not _is_plain_beyond(volume, wall.cylinder, within):
        return None
    fitted = None if faint else fit_inside(volume, wall.cylinder)
    inside = (
        _inner_edge(volume, wall.cylinder)
        if fitted is None
        else replace(fitted, radius=fitted.radius - _BLUR)
    )
    known = within.mask(volume.shape) if within else np.ones(volume.shape, dtype=bool)
    middle = replace(inside, radius=max(wall.cylinder.radius, inside.radius + 1))
    beyond = look_beyond(volume, middle, inside, known)
    much = beyond.fraction > _MAX_BEYOND or beyond.far_fraction > _MAX_FAR
    if much or beyond.change > _MAX_CHANGE:
        return None
    return Container(inside=inside, kept=beyond.voxels, kept_fraction=beyond.fraction)


def _is_plain_beyond(volume: FloatArray, wall: Cylinder, within: Cylinder | None) -> bool:
    """Whether the deviation beyond a wall is small compared with the deviation inside.

    The deviation beyond the outline of a sample is not small.
    """
    smooth = ndimage.gaussian_filter(volume, 1.0)
    inside = replace(wall, radius=wall.radius - _BEYOND).mask(volume.shape)
    beyond = ~replace(wall, radius=wall.radius + _BEYOND).mask(volume.shape)
    if within is not None:
        beyond &= within.mask(volume.shape)
    if not inside.any() or not beyond.any():
        return False
    return bool(smooth[beyond].std() < _PLAIN * smooth[inside].std())


def _is_ring_artefact(volume: FloatArray, wall: Cylinder) -> bool:
    """Whether a ring around the rotation axis does not stand out from the other rings.

    Ring artefacts are as constant along z as a wall. But they are centred on the middle of the
    slices, and there are many of them.
    """
    ends = wall.centers([0, volume.shape[0] - 1])
    middle = [(n - 1) / 2 for n in volume.shape[1:]]
    off = max(abs(c - m) for part, m in zip(ends, middle, strict=True) for c in part)
    if off > 0.02 * max(volume.shape[1:]) + 0.5:
        return False
    profile = whole_radial_profile(volume, wall, int(min(volume.shape[1:]) / 2) - 1)
    fine = profile - ndimage.gaussian_filter1d(profile, 3.0, mode="nearest")
    at = round(wall.radius)
    peak = float(fine[max(0, at - 2) : at + 3].max(initial=0.0))
    elsewhere = np.delete(fine, np.s_[max(0, at - 6) : at + 7])[len(fine) // 8 :]
    usual = robust_deviation(np.abs(elsewhere)) if elsewhere.size else 0.0
    return peak < _RING_DEVIATIONS * usual


def _ring_votes(polar: FloatArray, slabs: Slabs) -> FloatArray:
    """Score of each radius for being brighter than both its sides, (N, radii), in [-1, 1].

    Every angle has a vote between -1 and 1, in units of the noise. So a few angles with bright bone
    count no more than the same number of angles with a faint wall.
    """
    best = np.full(polar.shape[:2], -1.0, dtype=np.float32)
    for fraction in _SIDES:
        gap = max(2, round(fraction * PLANE))
        if 2 * gap >= polar.shape[1]:
            continue
        rise = polar[:, gap:-gap] - np.maximum(polar[:, : -2 * gap], polar[:, 2 * gap :])
        # Angles outside the view have a vote of 0.
        votes = np.where(np.isfinite(rise), np.clip(rise / slabs.noise, -1, 1), 0)
        best[:, gap:-gap] = np.maximum(best[:, gap:-gap], votes.mean(axis=2))
    best[:, int(slabs.limit) + 1 :] = -1
    return best


def _inner_edge(volume: FloatArray, wall: Cylinder) -> Cylinder:
    """Cylinder whose surface is where the wall begins to rise, seen from inside."""
    profile = radial_profile(volume, wall, int(wall.radius * 1.1) + 3)
    near = slice(max(0, round(wall.radius) - 2), round(wall.radius) + 3)
    peak_at = near.start + int(np.nanargmax(profile[near]))
    inside = profile[int(0.6 * wall.radius) : int(0.9 * wall.radius)]
    base = float(np.nanmedian(inside))
    level = base + 0.2 * (profile[peak_at] - base)
    edge = peak_at
    while edge > 0.7 * wall.radius and profile[edge] > level:
        edge -= 1
    # Move one voxel inward: the wall's blur must not leave a circle in every slice.
    return replace(wall, radius=float(edge - 1))
