"""Search for a circle in every slice, around one straight axis and with one radius.

The caller defines the appearance of the circle by votes: a score in [-1, 1] for every radius around
a centre, from a plane in polar coordinates.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage, optimize

from ctray.preprocess.cylinder import ANGLES, Cylinder, polar_along, polar_planes

FloatArray = npt.NDArray[np.float32]

PLANE = 96  # pixels per side of the reduced slabs that the search runs on
# Smallest radius of a container, as a fraction of the slice's side. Bones and organs form smaller
# rings.
_MIN_RADIUS = 0.26
_SLABS = 12
# Centres are searched on a grid with this spacing in pixels, up to this many steps from the middle.
# Between the first slab and the last, the axis may move by up to _MAX_TILT steps.
_GRID = 2.0
_REACH = 9
_MAX_TILT = 8
# Distance in pixels of the grey values whose differences measure the noise.
_NOISE_GAP = 3
# Minimum score, and minimum fraction of the slabs in which the circle is visible. For a wall, noise
# alone scores about -0.3, a faint thin wall with gaps at least 0.4, a strong wall nearly 1.
_MIN_SCORE = 0.3
_MIN_INLIERS = 0.6


@dataclass(frozen=True, kw_only=True, slots=True)
class Slabs:
    """Means of consecutive slices, reduced to `PLANE` pixels, with the z of their middles.

    Parameters
    ----------
    planes, z
        Means, and the z of their middles.
    factor
        Pixels per voxel of the volume.
    noise
        Median difference between grey values a few pixels apart in empty places.
    limit
        Largest radius, pixels.
    """

    planes: list[FloatArray]
    z: npt.NDArray[np.float64]
    factor: float
    noise: float
    limit: float

    @property
    def radii(self) -> npt.NDArray[np.int64]:
        """Radii that are searched, pixels."""
        return np.arange(int(0.62 * max(self.planes[0].shape)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """The best circle, and its evidence.

    Parameters
    ----------
    cylinder
        Axis and radius, in voxels of the volume.
    score
        Mean score of the slabs.
    fraction
        Fraction of the slabs in which the circle is visible on its own. A round sample is visible
        in only a few.
    """

    cylinder: Cylinder
    score: float
    fraction: float

    @property
    def stands_out(self) -> bool:
        """Whether the evidence for the circle is sufficient."""
        return self.score >= _MIN_SCORE and self.fraction >= _MIN_INLIERS


# From planes in polar coordinates, (N, radii, angles), to scores (N, radii).
Votes = Callable[[FloatArray, Slabs], FloatArray]


def find_round(volume: FloatArray, within: Cylinder | None, votes: Votes) -> Finding:
    """Axis and radius with the highest votes in a volume.

    Parameters
    ----------
    volume
        Working level, float32, (z, y, x), finite.
    within
        Region that is known to contain all data (the reconstruction circle).
    votes
        Function that scores the circle.
    """
    slabs = _reduced_slabs(volume, within)
    score, found = _improved(_best_line(slabs, votes), slabs, votes)
    fraction = _fraction_of_slabs(found, slabs, votes)
    return Finding(cylinder=_to_volume(found, slabs.factor), score=score, fraction=fraction)


def _to_volume(small: Cylinder, factor: float) -> Cylinder:
    """Convert pixels of the reduced plane to voxels; slopes are per slice in both."""
    return Cylinder(
        center_y=(small.center_y + 0.5) / factor - 0.5,
        center_x=(small.center_x + 0.5) / factor - 0.5,
        slope_y=small.slope_y / factor,
        slope_x=small.slope_x / factor,
        radius=small.radius / factor,
    )


def mean_planes(volume: FloatArray) -> tuple[list[FloatArray], npt.NDArray[np.float64]]:
    """Means of a dozen slabs along z, and the z of their middles."""
    edges = np.linspace(0, volume.shape[0], min(_SLABS, volume.shape[0]) + 1).astype(int)
    planes = [volume[a:b].mean(axis=0) for a, b in itertools.pairwise(edges)]
    return planes, (edges[:-1] + edges[1:] - 1) / 2


def _reduced_slabs(volume: FloatArray, within: Cylinder | None) -> Slabs:
    factor = PLANE / max(volume.shape[1:])
    means, middles = mean_planes(volume)
    planes = []
    for plane in means:
        if factor < 1:
            plane = ndimage.gaussian_filter(plane, 0.4 / factor)
        # grid_mode keeps pixel areas, so centres map by (c + 0.5) * factor - 0.5.
        small = ndimage.zoom(plane, factor, order=1, grid_mode=True, mode="nearest")
        planes.append(ndimage.gaussian_filter(small, 0.8).astype(np.float32))
    stack = np.stack(planes)
    gap = _NOISE_GAP
    # Air that was clipped to 0 has no noise; a small fraction of the contrast replaces it below.
    contrast = float(np.subtract(*np.percentile(stack, [99, 1])))
    # A low percentile, scaled to a normal distribution's median, keeps the sample's edges out.
    steps = np.abs(stack[:, gap:] - stack[:, :-gap])
    noise = float(np.percentile(steps, 20)) * (0.674 / 0.253)
    radius = within.radius if within else math.hypot(*volume.shape[1:]) / 2
    return Slabs(
        planes=planes,
        z=middles,
        factor=factor,
        noise=max(noise, 0.001 * contrast, 1e-12),
        limit=radius * factor,
    )


def _scores(polar: FloatArray, slabs: Slabs, votes: Votes) -> FloatArray:
    """Votes for radii that may hold a sample, -1 for smaller radii, (N, radii)."""
    scores = votes(polar, slabs)
    scores[:, : int(_MIN_RADIUS * PLANE)] = -1
    return scores


def _score_along(wall: Cylinder, slabs: Slabs, votes: Votes) -> FloatArray:
    """Score of every slab around an axis, (slabs, radii)."""
    return _scores(polar_along(slabs.planes, slabs.z, wall, slabs.radii), slabs, votes)


def _fraction_of_slabs(found: Cylinder, slabs: Slabs, votes: Votes) -> float:
    """Fraction of the slabs in which the circle scores more than half of the minimum score."""
    radius = round(found.radius)
    scores = _score_along(found, slabs, votes)[:, max(0, radius - 1) : radius + 2].max(axis=1)
    return float((scores > _MIN_SCORE / 2).mean())


def _best_line(slabs: Slabs, votes: Votes) -> Cylinder:
    """Straight axis and radius with the highest score over all slabs, on a grid of centres.

    Every slab is scored once at every centre. The score of a line is the sum over the centres that
    it passes.
    """
    shape = slabs.planes[0].shape
    offset = np.arange(-_REACH, _REACH + 1)
    cy, cx = (g.ravel() for g in np.meshgrid(offset, offset, indexing="ij"))
    mid_y, mid_x = (shape[0] - 1) / 2, (shape[1] - 1) / 2
    scores = np.stack(
        [
            # Blurred, because a centre on the grid is up to 1.4 pixels off.
            _scores(
                polar_planes(
                    ndimage.gaussian_filter(plane, 1.0),
                    mid_y + _GRID * cy,
                    mid_x + _GRID * cx,
                    slabs.radii,
                    angles=ANGLES // 2,
                ),
                slabs,
                votes,
            )
            for plane in slabs.planes
        ]
    ).reshape(len(slabs.planes), len(offset), len(offset), -1)
    places = np.linspace(-0.5, 0.5, len(slabs.planes))
    steps = np.arange(len(offset))
    best = (-np.inf, Cylinder(center_y=mid_y, center_x=mid_x, radius=0.0))
    for tilt_y in range(-_MAX_TILT, _MAX_TILT + 1):
        for tilt_x in range(-_MAX_TILT, _MAX_TILT + 1):
            total = np.zeros(scores.shape[1:])
            for slab, place in zip(scores, places, strict=True):
                # Beyond the grid, the outermost centres are used.
                rows = np.clip(steps + round(place * tilt_y), 0, len(steps) - 1)
                columns = np.clip(steps + round(place * tilt_x), 0, len(steps) - 1)
                total += slab[rows[:, None], columns]
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


def _improved(wall: Cylinder, slabs: Slabs, votes: Votes) -> tuple[float, Cylinder]:
    """Line with the highest score over all slabs, in pixels, with its score."""
    ends = np.array([slabs.z[0], slabs.z[-1]])
    high = ends[0] + max(1.0, ends[1] - ends[0])

    def cylinder(p: npt.NDArray[np.float64]) -> Cylinder:
        return Cylinder.through(p, ends[0], high, wall.radius)

    def evaluate(p: npt.NDArray[np.float64]) -> FloatArray:
        score: FloatArray = _score_along(cylinder(p), slabs, votes).mean(axis=0)
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
