"""Maps of a working level for classical thresholding: smoothed, local deviation, difference."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]


def as_float(volume: npt.NDArray[Any]) -> FloatArray:
    """`volume` as float32; voxels that are not finite get the lowest finite grey value."""
    values = volume.astype(np.float32)
    finite = np.isfinite(values)
    if not finite.all():
        values[~finite] = values[finite].min() if finite.any() else 0.0
    return values


def smoothed(volume: npt.NDArray[Any], sigma: float) -> FloatArray:
    """Volume after a Gaussian of `sigma` voxels, float32, same shape."""
    return ndimage.gaussian_filter(as_float(volume), sigma, mode="nearest")


def less_z_median(volume: FloatArray) -> FloatArray:
    """Volume minus the median along z at every (y, x).

    This removes a straight container, rings and cupping. It also removes a sample at places where
    the sample fills more than half of the slices.
    """
    difference: FloatArray = volume - np.median(volume, axis=0, keepdims=True)
    return difference


def local_deviation(
    volume: npt.NDArray[Any], inside: BoolArray | None, *, sigma: float, radius: int
) -> FloatArray:
    """Local standard deviation of the smoothed volume, for windows within the field of view.

    Parameters
    ----------
    volume
        Working level, (z, y, x), any real dtype.
    inside
        Field of view; None means the whole volume. The volume's own border does not bound it.
    sigma
        Standard deviation of the Gaussian, voxels.
    radius
        The window is a cube of 2 `radius` + 1 voxels.

    Returns
    -------
    float32, same shape, in grey values; -inf where the window extends beyond the field of view,
    because the step at that edge does not belong to the sample.
    """
    smooth = smoothed(volume, sigma)
    # Subtract the mean first: in float32, a large offset would drown the variance.
    smooth -= smooth.mean()
    size = 2 * radius + 1
    mean = ndimage.uniform_filter(smooth, size, mode="nearest")
    mean_of_squares = ndimage.uniform_filter(smooth * smooth, size, mode="nearest")
    deviation: FloatArray = np.sqrt(np.maximum(mean_of_squares - mean * mean, 0.0))
    if inside is not None:
        core = ndimage.minimum_filter(inside.astype(np.uint8), size, mode="nearest")
        deviation[core == 0] = -np.inf
    return deviation
