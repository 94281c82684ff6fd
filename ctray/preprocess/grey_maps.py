"""Maps that classical pipelines threshold: each turns a working level into "how much sample"."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ctray.core.errors import GeometryError

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class BaselineArrays:
    """What the baselines see of one volume at its working level, all of shape (z, y, x).

    Parameters
    ----------
    raw
        Grey values as stored, any real dtype.
    filled
        The same after our own preprocessing: beyond the field of view matched noise. None: `raw`.
    inside
        Our own field of view, bool. None: everything.
    """

    raw: npt.NDArray[Any]
    filled: npt.NDArray[Any] | None = None
    inside: BoolArray | None = None

    def __post_init__(self) -> None:
        for name, array in (("filled", self.filled), ("inside", self.inside)):
            if array is not None and array.shape != self.raw.shape:
                raise GeometryError(
                    f"baseline array {name!r} has shape {array.shape}, the raw one "
                    f"{self.raw.shape}; they must be of the same level"
                )


def as_float(volume: npt.NDArray[Any]) -> FloatArray:
    """`volume` as float32, what is not finite at the lowest finite grey value (never sample)."""
    values = volume.astype(np.float32)
    finite = np.isfinite(values)
    if not finite.all():
        values[~finite] = values[finite].min() if finite.any() else 0.0
    return values


def smoothed(volume: npt.NDArray[Any], sigma: float) -> FloatArray:
    """Volume after a Gaussian of `sigma` voxels, float32, same shape."""
    return ndimage.gaussian_filter(as_float(volume), sigma, mode="nearest")


def less_z_median(volume: FloatArray) -> FloatArray:
    """Volume less the median along z of every (y, x): what is the same in all slices goes.

    A straight container, rings and cupping go with it; so does a sample that fills more than
    half of the slices at a place.
    """
    difference: FloatArray = volume - np.median(volume, axis=0, keepdims=True)
    return difference


def local_deviation(
    volume: npt.NDArray[Any], inside: BoolArray | None, *, sigma: float, radius: int
) -> FloatArray:
    """Local standard deviation of the smoothed volume, where the window lies in the field of view.

    Parameters
    ----------
    volume
        Working level, (z, y, x), any real dtype.
    inside
        Field of view; None: everything. The volume's own border does not bound it.
    sigma
        Standard deviation of the Gaussian, voxels.
    radius
        The window is a cube of 2 `radius` + 1 voxels.

    Returns
    -------
    float32, same shape, in grey values; -inf where the window leaves the field of view, since
    the step at its edge is not the sample's.
    """
    smooth = smoothed(volume, sigma)
    # Centred first: in float32 a large offset would drown the variance.
    smooth -= smooth.mean()
    size = 2 * radius + 1
    mean = ndimage.uniform_filter(smooth, size, mode="nearest")
    mean_of_squares = ndimage.uniform_filter(smooth * smooth, size, mode="nearest")
    deviation: FloatArray = np.sqrt(np.maximum(mean_of_squares - mean * mean, 0.0))
    if inside is not None:
        core = ndimage.minimum_filter(inside.astype(np.uint8), size, mode="nearest")
        deviation[core == 0] = -np.inf
    return deviation


def baseline_maps(
    arrays: BaselineArrays, *, sigma: float, deviation_sigma: float, radius: int
) -> Iterator[tuple[str, FloatArray]]:
    """Yield the maps of one volume in turn: name, float32 (z, y, x), -inf where invalid.

    ``raw``; ``smoothed``; ``zmedian`` (smoothed less its median along z) and
    ``zmedian-absolute``; ``localstd`` (local standard deviation in our own field of view).
    """
    yield "raw", as_float(arrays.raw)
    smooth = smoothed(arrays.raw, sigma)
    yield "smoothed", smooth
    difference = less_z_median(smooth)
    yield "zmedian", difference
    yield "zmedian-absolute", np.abs(difference)
    filled = arrays.raw if arrays.filled is None else arrays.filled
    yield "localstd", local_deviation(filled, arrays.inside, sigma=deviation_sigma, radius=radius)
