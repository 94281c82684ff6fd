"""The maps of one volume to which baselines apply thresholds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ctray.core.errors import GeometryError
from ctray.preprocess.grey_maps import as_float, less_z_median, local_deviation, smoothed

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class BaselineArrays:
    """Input of the baselines for one volume at its working level, all of shape (z, y, x).

    Parameters
    ----------
    raw
        Grey values as stored, any real dtype.
    filled
        Grey values after ctray's preprocessing, with matched noise beyond the field of view. None
        uses `raw`.
    inside
        Field of view found by ctray, bool. None means the whole volume.
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


def baseline_maps(
    arrays: BaselineArrays, *, sigma: float, deviation_sigma: float, radius: int
) -> Iterator[tuple[str, FloatArray]]:
    """Yield the maps of one volume in turn: name, float32 (z, y, x), -inf where invalid.

    The maps are ``raw``; ``smoothed``; ``zmedian`` (smoothed minus its median along z) and
    ``zmedian-absolute``; ``localstd`` (local standard deviation in ctray's field of view).
    """
    yield "raw", as_float(arrays.raw)
    smooth = smoothed(arrays.raw, sigma)
    yield "smoothed", smooth
    difference = less_z_median(smooth)
    yield "zmedian", difference
    yield "zmedian-absolute", np.abs(difference)
    filled = arrays.raw if arrays.filled is None else arrays.filled
    yield "localstd", local_deviation(filled, arrays.inside, sigma=deviation_sigma, radius=radius)
