"""Smooth random fields and the distance to an ellipsoid: what specimens and scenes are made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ctray.core.geometry import Box, Triple

Floats = npt.NDArray[np.float32]
Vector = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class SmoothField:
    """Random cubic B-spline: white coefficients on a lattice, so band-limited by construction.

    It can be evaluated on any part of the volume, so large volumes render slab by slab.

    Parameters
    ----------
    coefficients
        Lattice of shape (nz, ny, nx), float32, unit variance.
    period
        Voxels between lattice points, one per axis.
    """

    coefficients: Floats
    period: tuple[float, float, float]

    @classmethod
    def draw(cls, rng: np.random.Generator, shape: Triple, period: float) -> SmoothField:
        """Field over `shape` voxels with features of about `period` voxels."""
        counts = [int(np.ceil(n / period)) + 4 for n in shape]
        return cls(coefficients=rng.standard_normal(counts, dtype=np.float32), period=(period,) * 3)

    def values(self, box: Box) -> Floats:
        """Values in `box`, float32 of its shape, standard deviation about 1."""
        out = self.coefficients
        for axis in range(3):
            basis = _spline_basis(
                np.arange(box.start[axis], box.stop[axis]) / self.period[axis],
                self.coefficients.shape[axis],
            )
            out = np.moveaxis(np.tensordot(basis, out, axes=(1, axis)), 0, axis)
        return np.ascontiguousarray(out)


def _spline_basis(positions: Vector, count: int) -> Floats:
    """Weights (positions, lattice points) of a cubic B-spline, rows scaled to unit power."""
    offset = positions[:, None] + 1.5 - np.arange(count)[None, :]
    t = np.abs(offset)
    weights = np.where(t < 1, 2 / 3 - t**2 + t**3 / 2, np.where(t < 2, (2 - t) ** 3 / 6, 0.0))
    weights /= np.sqrt((weights**2).sum(axis=1, keepdims=True))
    return weights.astype(np.float32)


@dataclass(frozen=True, kw_only=True, slots=True)
class Blob:
    """Ellipsoid: centre and radii (3,) in (z, y, x), rotation (3, 3) with its axes as columns."""

    centre: Vector
    radii: Vector
    rotation: Vector

    def posed(self, rotation: Vector, scale: float, shift: Vector, min_radius: float) -> Blob:
        """Return the blob turned, scaled and moved into voxels, no radius below `min_radius`."""
        return Blob(
            centre=rotation @ self.centre * scale + shift,
            radii=np.maximum(self.radii * scale, min_radius),
            rotation=rotation @ self.rotation,
        )

    def half_extent(self) -> Vector:
        """Half the size of the axis-aligned box around it, (3,)."""
        half: Vector = np.sqrt(((self.rotation * self.radii) ** 2).sum(axis=1))
        return half

    def surface(self, directions: Vector) -> Vector:
        """Points (n, 3) on its surface, one per unit vector of `directions` (n, 3)."""
        points: Vector = self.centre + (directions * self.radii) @ self.rotation.T
        return points

    def distance(self, box: Box) -> Floats:
        """Signed distance to the surface in voxels (negative inside), first order, over `box`."""
        matrix = (self.rotation / self.radii).astype(np.float32)
        axes = [
            np.arange(a, b, dtype=np.float32) - np.float32(c)
            for a, b, c in zip(box.start, box.stop, self.centre, strict=True)
        ]
        z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
        norm = np.zeros(box.shape, np.float32)
        slope = np.zeros(box.shape, np.float32)
        for k in range(3):
            q = z * matrix[0, k] + y * matrix[1, k] + x * matrix[2, k]
            q *= q
            norm += q
            slope += q * np.float32(1 / self.radii[k] ** 2)
        np.sqrt(norm, out=norm)
        np.sqrt(slope, out=slope)
        # At the centre both vanish; there the distance is the smallest radius.
        inner = slope < 1e-12
        slope[inner] = 1.0
        distance: Floats = norm * (norm - 1) / slope
        distance[inner] = -np.float32(self.radii.min())
        return distance

    def bounds(self, margin: float, within: Box) -> Box | None:
        """Box around it with `margin` voxels more, inside `within`; None if nothing is there."""
        half = self.half_extent() + margin
        start = np.maximum(np.floor(self.centre - half), within.start).astype(int)
        stop = np.minimum(np.ceil(self.centre + half) + 1, within.stop).astype(int)
        if (stop <= start).any():
            return None
        return Box(
            start=(int(start[0]), int(start[1]), int(start[2])),
            stop=(int(stop[0]), int(stop[1]), int(stop[2])),
        )


def local_slices(box: Box, origin: Triple) -> tuple[slice, slice, slice]:
    """Slices of `box` in an array whose first voxel is `origin`."""
    z, y, x = (slice(a - o, b - o) for a, b, o in zip(box.start, box.stop, origin, strict=True))
    return (z, y, x)


def random_rotation(rng: np.random.Generator) -> Vector:
    """Rotation matrix (3, 3), uniform over all orientations (a normalised normal quaternion)."""
    q = rng.standard_normal(4)
    w, a, b, c = q / np.linalg.norm(q)
    return np.array(
        [
            [1 - 2 * (b * b + c * c), 2 * (a * b - c * w), 2 * (a * c + b * w)],
            [2 * (a * b + c * w), 1 - 2 * (a * a + c * c), 2 * (b * c - a * w)],
            [2 * (a * c - b * w), 2 * (b * c + a * w), 1 - 2 * (a * a + b * b)],
        ]
    )


def frame_along(direction: Vector, up: Vector) -> Vector:
    """Rotation whose columns are `direction`, the part of `up` across it, and their normal."""
    first = direction / np.linalg.norm(direction)
    second = up - first * (first @ up)
    second /= np.linalg.norm(second)
    return np.stack([first, second, np.cross(first, second)], axis=1)


def sphere_directions(count: int) -> Vector:
    """Return unit vectors (count, 3), evenly spread (golden spiral)."""
    i = np.arange(count) + 0.5
    z = 1 - 2 * i / count
    angle = np.pi * (1 + 5**0.5) * i
    r = np.sqrt(1 - z**2)
    return np.stack([z, r * np.cos(angle), r * np.sin(angle)], axis=1)
