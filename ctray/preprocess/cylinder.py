"""Round regions around a straight axis, and radial profiles of a volume around such an axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

FloatArray = npt.NDArray[np.float32]

ANGLES = 64


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

    @classmethod
    def through(
        cls, ends: npt.NDArray[np.float64], low: float, high: float, radius: float
    ) -> Cylinder:
        """Cylinder whose centre is (y, x) at the heights `low` and `high`.

        `ends` holds y at `low`, y at `high`, x at `low`, x at `high`.
        """
        slope_y, slope_x = (ends[1] - ends[0]) / (high - low), (ends[3] - ends[2]) / (high - low)
        return cls(
            center_y=float(ends[0] - slope_y * low),
            center_x=float(ends[2] - slope_x * low),
            slope_y=float(slope_y),
            slope_x=float(slope_x),
            radius=radius,
        )

    def centers(self, z: npt.ArrayLike) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Centre (y, x) in slices `z`."""
        z_array = np.asarray(z, dtype=float)
        return self.center_y + self.slope_y * z_array, self.center_x + self.slope_x * z_array

    def mask(self, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
        """Voxels inside, bool, `shape` (z, y, x)."""
        inside: npt.NDArray[np.bool_] = self._squares(shape) <= self.radius**2
        return inside

    def distances(self, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """Distance of every voxel from the axis within its slice, voxels, `shape` (z, y, x)."""
        return np.sqrt(self._squares(shape)).astype(np.float32)

    def _squares(self, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
        cy, cx = self.centers(np.arange(shape[0]))
        dy = np.arange(shape[1])[None, :] - cy[:, None]
        dx = np.arange(shape[2])[None, :] - cx[:, None]
        squares: npt.NDArray[np.float64] = dy[:, :, None] ** 2 + dx[:, None, :] ** 2
        return squares


def polar_planes(
    plane: FloatArray,
    cy: npt.NDArray[np.float64],
    cx: npt.NDArray[np.float64],
    radii: npt.ArrayLike,
    angles: int = ANGLES,
) -> FloatArray:
    """Polar samples of a plane around N centres, (N, radii, angles); NaN outside the plane."""
    angle = np.arange(angles) * (2 * np.pi / angles)
    radius = np.asarray(radii)
    y = cy[:, None, None] + radius[None, :, None] * np.sin(angle)
    x = cx[:, None, None] + radius[None, :, None] * np.cos(angle)
    sampled = ndimage.map_coordinates(plane, [y, x], order=1, mode="constant", cval=np.nan)
    result: FloatArray = sampled.astype(np.float32)
    return result


def polar_along(
    planes: Sequence[FloatArray],
    z: npt.ArrayLike,
    axis: Cylinder,
    radii: npt.ArrayLike,
) -> FloatArray:
    """Polar samples of planes at the heights `z` around an axis, (planes, radii, angles).

    See `polar_planes`.
    """
    cy, cx = axis.centers(z)
    polar = [
        polar_planes(plane, np.array([y]), np.array([x]), radii)
        for plane, y, x in zip(planes, cy, cx, strict=True)
    ]
    return np.concatenate(polar)


def radial_profile(
    volume: FloatArray, axis: Cylinder, num_radii: int, *, least_fraction: float = 0.0
) -> npt.NDArray[np.float64]:
    """Median over angles of the mean over slices, at integer radii around `axis`.

    A radius is NaN unless more than `least_fraction` of its angles are in view and finite in at
    least one slice.
    """
    total = np.zeros((num_radii, ANGLES))
    seen = np.zeros((num_radii, ANGLES))
    for z in range(0, volume.shape[0], max(1, volume.shape[0] // 64)):
        cy, cx = axis.centers([z])
        polar = polar_planes(volume[z], cy, cx, np.arange(num_radii))[0]
        known = np.isfinite(polar)
        total += np.where(known, polar, 0)
        seen += known
    with np.errstate(invalid="ignore"):
        mean = np.where(seen > 0, total / np.maximum(seen, 1), np.nan)
    known_rows = np.isfinite(mean).mean(axis=1) > least_fraction
    profile = np.full(num_radii, np.nan)
    profile[known_rows] = np.nanmedian(mean[known_rows], axis=1)
    return profile


def whole_radial_profile(
    volume: FloatArray, axis: Cylinder, num_radii: int, *, least_fraction: float = 0.0
) -> npt.NDArray[np.float64]:
    """`radial_profile`, interpolated at radii that are not in view; all 0 if none is in view."""
    profile = radial_profile(volume, axis, num_radii, least_fraction=least_fraction)
    known = np.isfinite(profile)
    if not known.any():
        return np.zeros(num_radii)
    return np.interp(np.arange(num_radii), np.flatnonzero(known), profile[known])
