"""Finding the container: a tube whose wall is brighter than what lies on both its sides.

The wall is a circle in every slice, its centre moves along a straight line over z (tilt), its
radius stays. It is searched where a sample cannot imitate it: a ring that is brighter than inside
and outside at most angles, in most slabs of the volume, on one line and with one radius.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage, optimize

FloatArray = npt.NDArray[np.float32]

_PLANE = 96  # pixels per side of the reduced slabs that the search runs on
_SLABS = 12
# Centres are searched on a grid of this many pixels, up to this many steps from the middle; the
# axis may move by twice _MAX_TILT steps between the first slab and the last.
_GRID = 2.0
_REACH = 9
_MAX_TILT = 8
_ANGLES = 64
# Distances over which the wall is compared with its two sides, as parts of the plane: from thin
# to thick walls.
_SIDES = (0.03, 0.06, 0.1)
# Score of a wall, see `_ring_score`: noise alone scores about -0.3, a faint thin wall with gaps
# 0.4 and more, a clear one nearly 1.
_MIN_SCORE = 0.3
# Smallest radius of a container, as part of the slice's side: bones and organs draw smaller rings.
_MIN_RADIUS = 0.26
_MIN_INLIERS = 0.6
# A centred wall rises above the ring artefacts' spread at least this often.
_RING_SPREADS = 6.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Cylinder:
    """Round region around a straight, possibly tilted axis, in voxels of one pyramid level.

    Parameters
    ----------
    center_y, center_x
        Centre in the slice z = 0.
    slope_y, slope_x
        Movement of the centre per slice.
    radius
        Radius in a slice.
    """

    center_y: float
    center_x: float
    slope_y: float = 0.0
    slope_x: float = 0.0
    radius: float

    def centers(self, z: npt.ArrayLike) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Centre (y, x) in slices `z`."""
        z_array = np.asarray(z, dtype=float)
        return self.center_y + self.slope_y * z_array, self.center_x + self.slope_x * z_array

    def mask(self, shape: tuple[int, int, int]) -> npt.NDArray[np.bool_]:
        """Voxels inside, bool, `shape` (z, y, x)."""
        cy, cx = self.centers(np.arange(shape[0]))
        dy = np.arange(shape[1])[None, :] - cy[:, None]
        dx = np.arange(shape[2])[None, :] - cx[:, None]
        inside: npt.NDArray[np.bool_] = dy[:, :, None] ** 2 + dx[:, None, :] ** 2 <= self.radius**2
        return inside


@dataclass(frozen=True, kw_only=True, slots=True)
class _Slabs:
    """Means of consecutive slices, reduced to `_PLANE` pixels, with the z of their middles."""

    planes: list[FloatArray]
    z: npt.NDArray[np.float64]
    factor: float
    noise: float
    limit: float

    @property
    def num_radii(self) -> int:
        return int(0.62 * max(self.planes[0].shape))


def find_container(volume: FloatArray, within: Cylinder | None = None) -> Cylinder | None:
    """Inside of the container wall, or None where there is no container.

    Parameters
    ----------
    volume
        Working level, float32, (z, y, x), finite.
    within
        Region that is known to hold the data (the reconstruction circle).
    """
    slabs = _reduced_slabs(volume, within)
    score, wall = _refine(_best_line(slabs), slabs)
    if score < _MIN_SCORE or not _in_most_slabs(wall, slabs):
        return None
    found = _to_volume(wall, slabs.factor)
    if _is_ring_artefact(volume, found):
        return None
    return _inner_edge(volume, found)


def _is_ring_artefact(volume: FloatArray, wall: Cylinder) -> bool:
    """Whether a ring around the rotation axis stands out no more than the rings beside it.

    Ring artefacts are as constant along z as a wall, but are centred on the middle of the slices
    and come in numbers.
    """
    ends = wall.centers([0, volume.shape[0] - 1])
    middle = [(n - 1) / 2 for n in volume.shape[1:]]
    off = max(abs(c - m) for part, m in zip(ends, middle, strict=True) for c in part)
    if off > 0.02 * max(volume.shape[1:]) + 0.5:
        return False
    profile = radial_profile(volume, wall, int(min(volume.shape[1:]) / 2) - 1)
    known = np.isfinite(profile)
    profile = np.interp(np.arange(len(profile)), np.flatnonzero(known), profile[known])
    fine = profile - ndimage.gaussian_filter1d(profile, 3.0, mode="nearest")
    at = round(wall.radius)
    peak = float(fine[max(0, at - 2) : at + 3].max(initial=0.0))
    elsewhere = np.delete(fine, np.s_[max(0, at - 6) : at + 7])[len(fine) // 8 :]
    spread = 1.4826 * float(np.median(np.abs(elsewhere))) if elsewhere.size else 0.0
    return peak < _RING_SPREADS * spread


def _to_volume(small: Cylinder, factor: float) -> Cylinder:
    """From pixels of the reduced plane to voxels; slopes are per slice in both."""
    return Cylinder(
        center_y=(small.center_y + 0.5) / factor - 0.5,
        center_x=(small.center_x + 0.5) / factor - 0.5,
        slope_y=small.slope_y / factor,
        slope_x=small.slope_x / factor,
        radius=small.radius / factor,
    )


def _reduced_slabs(volume: FloatArray, within: Cylinder | None) -> _Slabs:
    factor = _PLANE / max(volume.shape[1:])
    edges = np.linspace(0, volume.shape[0], min(_SLABS, volume.shape[0]) + 1).astype(int)
    planes = []
    for a, b in itertools.pairwise(edges):
        plane = volume[a:b].mean(axis=0)
        if factor < 1:
            plane = ndimage.gaussian_filter(plane, 0.4 / factor)
        # grid_mode keeps pixel areas, so that (c + 0.5) * factor - 0.5 maps centres.
        small = ndimage.zoom(plane, factor, order=1, grid_mode=True, mode="nearest")
        planes.append(ndimage.gaussian_filter(small, 0.8).astype(np.float32))
    stack = np.stack(planes)
    gap = round(_SIDES[0] * _PLANE)
    # Air that was clipped to 0 has no noise at all: a small part of the contrast takes its place.
    contrast = float(np.subtract(*np.percentile(stack, [99, 1])))
    # A low percentile, scaled to a normal distribution's median, keeps the sample's edges out.
    steps = np.abs(stack[:, gap:] - stack[:, :-gap])
    noise = float(np.percentile(steps, 20)) * (0.674 / 0.253)
    radius = within.radius if within else math.hypot(*volume.shape[1:]) / 2
    return _Slabs(
        planes=planes,
        z=(edges[:-1] + edges[1:] - 1) / 2,
        factor=factor,
        noise=max(noise, 0.001 * contrast, 1e-12),
        limit=radius * factor,
    )


def _polar(
    plane: FloatArray,
    cy: npt.NDArray[np.float64],
    cx: npt.NDArray[np.float64],
    num_radii: int,
    angles: int = _ANGLES,
) -> FloatArray:
    """Plane around centres (N,), as (N, radii, angles); NaN outside the plane."""
    angle = np.arange(angles) * (2 * np.pi / angles)
    radius = np.arange(num_radii)
    y = cy[:, None, None] + radius[None, :, None] * np.sin(angle)
    x = cx[:, None, None] + radius[None, :, None] * np.cos(angle)
    sampled = ndimage.map_coordinates(plane, [y, x], order=1, mode="constant", cval=np.nan)
    result: FloatArray = sampled.astype(np.float32)
    return result


def _ring_score(polar: FloatArray, slabs: _Slabs) -> FloatArray:
    """How surely each radius is brighter than both its sides, (N, radii), in [-1, 1].

    Every angle votes between -1 and 1, in units of the noise, so that a few bright bones weigh
    no more than as many angles of a faint wall.
    """
    best = np.full(polar.shape[:2], -1.0, dtype=np.float32)
    for part in _SIDES:
        gap = max(2, round(part * _PLANE))
        if 2 * gap >= polar.shape[1]:
            continue
        rise = polar[:, gap:-gap] - np.maximum(polar[:, : -2 * gap], polar[:, 2 * gap :])
        # What lies outside the view does not vote.
        votes = np.where(np.isfinite(rise), np.clip(rise / slabs.noise, -1, 1), 0)
        best[:, gap:-gap] = np.maximum(best[:, gap:-gap], votes.mean(axis=2))
    best[:, int(slabs.limit) + 1 :] = -1
    # A container is there to hold a sample: smaller rings are parts of the sample.
    best[:, : int(_MIN_RADIUS * _PLANE)] = -1
    return best


def _score_along(wall: Cylinder, slabs: _Slabs) -> FloatArray:
    """Ring score of every slab around `wall`'s axis, (slabs, radii)."""
    cy, cx = wall.centers(slabs.z)
    polar = [
        _polar(plane, np.array([y]), np.array([x]), slabs.num_radii)
        for plane, y, x in zip(slabs.planes, cy, cx, strict=True)
    ]
    return _ring_score(np.concatenate(polar), slabs)


def _in_most_slabs(wall: Cylinder, slabs: _Slabs) -> bool:
    """Whether the wall stands out in single slabs: a round sample does so in a few only."""
    radius = round(wall.radius)
    scores = _score_along(wall, slabs)[:, max(0, radius - 1) : radius + 2].max(axis=1)
    return bool((scores > _MIN_SCORE / 2).mean() >= _MIN_INLIERS)


def _best_line(slabs: _Slabs) -> Cylinder:
    """Straight axis and radius with the surest ring over all slabs, on a grid of centres.

    Every slab is scored once at every centre; a line then only adds up scores of the centres
    that it passes.
    """
    shape = slabs.planes[0].shape
    offset = np.arange(-_REACH, _REACH + 1)
    cy, cx = (g.ravel() for g in np.meshgrid(offset, offset, indexing="ij"))
    mid_y, mid_x = (shape[0] - 1) / 2, (shape[1] - 1) / 2
    scores = np.stack(
        [
            # Blurred, since a centre on the grid is up to 1.4 pixels off.
            _ring_score(
                _polar(
                    ndimage.gaussian_filter(plane, 1.0),
                    mid_y + _GRID * cy,
                    mid_x + _GRID * cx,
                    slabs.num_radii,
                    angles=_ANGLES // 2,
                ),
                slabs,
            )
            for plane in slabs.planes
        ]
    ).reshape(len(slabs.planes), len(offset), len(offset), -1)
    share = np.linspace(-0.5, 0.5, len(slabs.planes))
    best = (-np.inf, Cylinder(center_y=mid_y, center_x=mid_x, radius=0.0))
    for tilt_y in range(-_MAX_TILT, _MAX_TILT + 1):
        for tilt_x in range(-_MAX_TILT, _MAX_TILT + 1):
            total = np.zeros(scores.shape[1:])
            for slab, part in zip(scores, share, strict=True):
                move = (-round(part * tilt_y), -round(part * tilt_x), 0)
                total += ndimage.shift(slab, move, order=0, mode="nearest", prefilter=False)
            i, j, radius = np.unravel_index(int(total.argmax()), total.shape)
            if total[i, j, radius] > best[0]:
                span = max(1.0, slabs.z[-1] - slabs.z[0])
                slope_y, slope_x = _GRID * tilt_y / span, _GRID * tilt_x / span
                middle = (slabs.z[-1] + slabs.z[0]) / 2
                line = Cylinder(
                    center_y=float(mid_y + _GRID * offset[i] - slope_y * middle),
                    center_x=float(mid_x + _GRID * offset[j] - slope_x * middle),
                    slope_y=slope_y,
                    slope_x=slope_x,
                    radius=float(radius),
                )
                best = (float(total[i, j, radius]), line)
    return best[1]


def _refine(wall: Cylinder, slabs: _Slabs) -> tuple[float, Cylinder]:
    """Line with the surest ring over all slabs, in pixels, with its score."""
    ends = np.array([slabs.z[0], slabs.z[-1]])
    span = max(1.0, ends[1] - ends[0])

    def cylinder(p: npt.NDArray[np.float64]) -> Cylinder:
        slope_y, slope_x = (p[1] - p[0]) / span, (p[3] - p[2]) / span
        return Cylinder(
            center_y=float(p[0] - slope_y * ends[0]),
            center_x=float(p[2] - slope_x * ends[0]),
            slope_y=float(slope_y),
            slope_x=float(slope_x),
            radius=wall.radius,
        )

    def evaluate(p: npt.NDArray[np.float64]) -> FloatArray:
        score: FloatArray = _score_along(cylinder(p), slabs).mean(axis=0)
        return score

    start = np.concatenate(wall.centers(ends))
    # Steps of one and a half pixels around the start; the score has no useful gradient.
    simplex = np.vstack([start, start + np.eye(4) * 1.5])

    def loss(p: npt.NDArray[np.float64]) -> float:
        return -float(evaluate(p).max())

    best = optimize.fmin(
        loss,
        start,
        xtol=0.05,
        maxfun=120,
        initial_simplex=simplex,
        disp=False,
    )
    score = evaluate(best)
    radius = int(score.argmax())
    return float(score[radius]), dataclasses.replace(cylinder(best), radius=float(radius))


def radial_profile(volume: FloatArray, axis: Cylinder, num_radii: int) -> npt.NDArray[np.float64]:
    """Median over angles of the mean over slices, at whole radii around `axis`."""
    total = np.zeros((num_radii, _ANGLES))
    seen = np.zeros((num_radii, _ANGLES))
    for z in range(0, volume.shape[0], max(1, volume.shape[0] // 64)):
        cy, cx = axis.centers([z])
        polar = _polar(volume[z], cy, cx, num_radii)[0]
        known = np.isfinite(polar)
        total += np.where(known, polar, 0)
        seen += known
    with np.errstate(invalid="ignore"):
        mean = np.where(seen > 0, total / np.maximum(seen, 1), np.nan)
    known_rows = np.isfinite(mean).any(axis=1)
    profile = np.full(num_radii, np.nan)
    profile[known_rows] = np.nanmedian(mean[known_rows], axis=1)
    return profile


def _inner_edge(volume: FloatArray, wall: Cylinder) -> Cylinder:
    """Cylinder that ends where the wall begins to rise, seen from inside."""
    profile = radial_profile(volume, wall, int(wall.radius * 1.1) + 3)
    near = slice(max(0, round(wall.radius) - 2), round(wall.radius) + 3)
    peak_at = near.start + int(np.nanargmax(profile[near]))
    inside = profile[int(0.6 * wall.radius) : int(0.9 * wall.radius)]
    base = float(np.nanmedian(inside))
    level = base + 0.2 * (profile[peak_at] - base)
    edge = peak_at
    while edge > 0.7 * wall.radius and profile[edge] > level:
        edge -= 1
    return Cylinder(
        center_y=wall.center_y,
        center_x=wall.center_x,
        slope_y=wall.slope_y,
        slope_x=wall.slope_x,
        # One voxel inward: the wall's blur must not draw a circle on every slice.
        radius=float(edge - 1),
    )
