"""Finding a column of medium without a wall: agarose or resin in darker surroundings.

The edge of a column is a circle in every slice, with one straight axis and one radius. The grey
value falls sharply at the edge. A sample, such as a drill core, may also be round. So a column
counts only if the inside of its edge is about as uniform as the outside.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import optimize

from ctray.preprocess.cylinder import Cylinder, polar_along, polar_planes, whole_radial_profile
from ctray.preprocess.round_search import Slabs, find_round, mean_planes

FloatArray = npt.NDArray[np.float32]

# Pixels of the reduced plane over which the fall is measured, and distance to the falls that it is
# compared with. A slow drift, such as cupping, falls as much there.
_GAP = 3
_DRIFT = 6
# Round samples at the border of their volume score up to 0.3, strong rings 0.46, a faint column
# 0.55.
_MIN_SCORE = 0.5
# Rings on both sides of the edge: their distance from the edge in voxels, and their width as a
# fraction of the radius.
_APART = 3
_RING = 0.15
# Largest allowed ratio of the roughness inside to the roughness outside.
_ROUGHER = 1.5
_SECTORS = 16
# Fraction of an edge's fall that must lie within a small gap for the fall to be measured there.
_SHARP = 0.5


def find_column(volume: FloatArray, within: Cylinder | None = None) -> Cylinder | None:
    """Edge of a column of medium, or None if there is no column.

    Parameters
    ----------
    volume
        Working level, float32, (z, y, x), finite.
    within
        Region that is known to contain all data (the reconstruction circle).
    """
    edge = find_round(volume, within, _edge_votes)
    found = edge.stands_out and edge.score >= _MIN_SCORE
    # A column this narrow has no room for a ring and a sample.
    narrow = round(edge.cylinder.radius) <= _ring_width(edge.cylinder)
    if not found or narrow or not _is_plain(volume, edge.cylinder):
        return None
    return _fitted(volume, edge.cylinder)


def _edge_votes(polar: FloatArray, slabs: Slabs) -> FloatArray:
    """Score of each radius for a fall of the grey value only there, (N, radii), in [-1, 1]."""
    best = np.full(polar.shape[:2], -1.0, dtype=np.float32)
    reach = _GAP + _DRIFT
    if polar.shape[1] <= 2 * reach:
        return best
    fall = polar[:, : -2 * _GAP] - polar[:, 2 * _GAP :]
    beside = np.fmax(np.abs(fall[:, : -2 * _DRIFT]), np.abs(fall[:, 2 * _DRIFT :]))
    sharp = fall[:, _DRIFT:-_DRIFT] - beside
    votes = np.where(np.isfinite(sharp), np.clip(sharp / slabs.noise, -1, 1), 0)
    best[:, reach:-reach] = votes.mean(axis=2)
    # The edge of the reconstruction circle is not the edge of a column.
    best[:, max(0, int(slabs.limit) - reach) :] = -1
    return best


def _is_plain(volume: FloatArray, edge: Cylinder) -> bool:
    """Whether the median roughness just inside the edge is about as low as just outside."""
    radius, width = round(edge.radius), _ring_width(edge)
    inner, outer = [], []
    for z in range(0, volume.shape[0], max(1, volume.shape[0] // 32)):
        cy, cx = edge.centers([z])
        polar = polar_planes(volume[z], cy, cx, np.arange(radius + width))[0]
        inner.append(_roughness(polar[radius - width : radius - _APART]))
        outer.append(_roughness(polar[radius + _APART :]))
    within, beyond = np.concatenate(inner), np.concatenate(outer)
    if not within.size or not beyond.size:
        return False
    return bool(0 < np.median(within) <= _ROUGHER * np.median(beyond))


def _ring_width(edge: Cylinder) -> int:
    """Width of the ring on each side of an edge, voxels."""
    return max(2 * _APART, round(_RING * edge.radius))


def _roughness(ring: FloatArray) -> npt.NDArray[np.float64]:
    """Standard deviation in each sector of a ring (radii, angles) that is entirely in view."""
    sectors = ring.reshape(len(ring), _SECTORS, -1).transpose(1, 0, 2).reshape(_SECTORS, -1)
    seen = sectors[np.isfinite(sectors).all(axis=1)]
    deviation: npt.NDArray[np.float64] = seen.std(axis=1, dtype=np.float64)
    return deviation


def _fitted(volume: FloatArray, edge: Cylinder) -> Cylinder:
    """Cylinder with the largest fall of the grey value over all slices and angles, to subvoxels.

    The fall at each place is limited to twice the usual fall, so that a bright sample at the edge
    does not shift the result. Later rounds measure the fall closer to the edge. If the edge is too
    soft for that, these rounds are skipped, because noise would decide.
    """
    planes, middles = mean_planes(volume)

    def cylinder(p: npt.NDArray[np.float64]) -> Cylinder:
        return Cylinder.through(p[:4], 0, volume.shape[0], float(p[4]))

    def falls(p: npt.NDArray[np.float64], gap: float) -> npt.NDArray[np.float64]:
        sides = polar_along(planes, middles, cylinder(p), [p[4] - gap, p[4] + gap])
        return np.asarray(sides[:, 0] - sides[:, 1], dtype=np.float64)

    best = np.array([*np.concatenate(edge.centers([0, volume.shape[0]])), edge.radius])
    for gap in (_APART, _APART / 2, _APART / 4):
        usual = float(np.nanmedian(falls(best, _APART)))
        most = 2 * usual

        def loss(p: npt.NDArray[np.float64], gap: float = gap, most: float = most) -> float:
            return -float(np.nanmean(np.clip(falls(p, gap), -most, most)))

        simplex = np.vstack([best, best + np.eye(5) * gap])
        closer = optimize.fmin(loss, best, maxfun=300, initial_simplex=simplex, disp=False)
        # Check after the step, because the step before may have stopped anywhere within its gap.
        if np.nanmedian(falls(closer, gap)) < _SHARP * usual:
            break
        best = closer
    return cylinder(best)


def level_column(volume: FloatArray, column: Cylinder) -> FloatArray:
    """Volume whose surroundings are as bright as the medium of `column`, so that its edge vanishes.

    Nothing is cut away, because a sample may extend out of its medium.

    Parameters
    ----------
    volume
        Working level, float32, (z, y, x), finite.
    column
        Result of `find_column`.
    """
    num_radii = int(math.hypot(*volume.shape[1:])) + 1
    profile = whole_radial_profile(volume, column, num_radii)
    radius, width = round(column.radius), _ring_width(column)
    level = float(np.median(profile[max(0, radius - width) : radius - _APART]))
    missing = level - profile
    missing[: radius - _APART] = 0
    levelled = np.empty_like(volume)
    y, x = np.arange(volume.shape[1])[:, None], np.arange(volume.shape[2])[None, :]
    for z, plane in enumerate(volume):
        cy, cx = column.centers(z)
        distance = np.hypot(y - cy, x - cx)
        levelled[z] = plane + np.interp(distance, np.arange(num_radii), missing)
    return levelled
