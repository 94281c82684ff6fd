"""From an uncertainty map to a box: an unsupervised threshold and the largest region above it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ctray.config import UncertaintyConfig
from ctray.core.geometry import AXES, Triple
from ctray.localization.dropout_map import UncertaintyMap
from ctray.localization.stretches import Stretch, face_confidence
from ctray.preprocess.deviation import robust_deviation

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Region:
    """Region of an uncertainty map that holds the sample.

    Parameters
    ----------
    cells
        Whether each cell of the map is in the region, bool.
    stretches
        Range of working-level voxels, threshold and background level along each axis.
    """

    cells: npt.NDArray[np.bool_]
    stretches: dict[str, Stretch | None]


def smoothed(uncertainty: UncertaintyMap, config: UncertaintyConfig) -> FloatArray:
    """Values of the map, smoothed as configured; same shape."""
    if config.smooth == 0:
        return uncertainty.values
    smooth: FloatArray = ndimage.gaussian_filter(uncertainty.values, config.smooth)
    return smooth


def background_of_map(values: FloatArray) -> tuple[float, float]:
    """Level and robust deviation of the cells without sample, from the lower half of all cells.

    Most of a volume is not sample. Only values below the level count for the deviation, because the
    sample's values are higher.
    """
    level = float(np.median(values[values <= np.median(values)]))
    low = values[values <= level]
    return level, robust_deviation(level - low)


def choose_map_threshold(values: FloatArray, config: UncertaintyConfig) -> tuple[float, float]:
    """Minimum variance of a cell of the sample, and the background level."""
    level, deviation = background_of_map(values)
    if config.threshold == "top":
        count = max(1, round(config.top_fraction * values.size))
        return float(np.partition(values, -count, axis=None)[-count]), level
    # `min_fraction` of the cells exceed this value, so a few extreme cells do not set it.
    top = float(np.quantile(values, 1 - max(config.min_fraction, 1 / values.size)))
    rise = max(config.spreads * deviation, config.rise_fraction * (top - level))
    return level + rise, level


def find_region(
    uncertainty: UncertaintyMap, shape: Triple, config: UncertaintyConfig
) -> tuple[Region | None, dict[str, npt.NDArray[np.float64]]]:
    """Largest connected region of high variance (paper 3.1), and the map's profiles.

    Cells that share a corner are connected.

    Parameters
    ----------
    uncertainty
        Uncertainty map.
    shape
        Voxels of the working level, (z, y, x).
    config
        Smoothing and threshold.

    Returns
    -------
    Region or None
        None if no region is large enough or the threshold is not above the background.
    dict
        Largest smoothed variance per slice of the working level, by axis name.
    """
    values = smoothed(uncertainty, config)
    profiles = {name: _profile(values, uncertainty, axis, shape) for axis, name in enumerate(AXES)}
    threshold, level = choose_map_threshold(values, config)
    labels, count = ndimage.label(values >= threshold, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    if count == 0 or sizes.max() < config.min_fraction * values.size or threshold <= level:
        return None, profiles
    cells = labels == 1 + int(sizes.argmax())
    stretches: dict[str, Stretch | None] = {
        name: _stretch(cells, profiles[name], uncertainty, axis, shape, (threshold, level))
        for axis, name in enumerate(AXES)
    }
    return Region(cells=cells, stretches=stretches), profiles


def _profile(
    values: FloatArray, uncertainty: UncertaintyMap, axis: int, shape: Triple
) -> npt.NDArray[np.float64]:
    highest = values.max(axis=tuple(other for other in range(3) if other != axis))
    profile: npt.NDArray[np.float64] = highest[uncertainty.cell_of_voxel(axis, shape)]
    return profile.astype(np.float64)


def _stretch(
    cells: npt.NDArray[np.bool_],
    profile: npt.NDArray[np.float64],
    uncertainty: UncertaintyMap,
    axis: int,
    shape: Triple,
    levels: tuple[float, float],
) -> Stretch:
    hit = np.flatnonzero(cells.any(axis=tuple(other for other in range(3) if other != axis)))
    size, first = uncertainty.cell[axis], uncertainty.offset[axis]
    start = max(0, int(hit[0]) * size + first)
    stop = min(shape[axis], (int(hit[-1]) + 1) * size + first)
    threshold, level = levels
    return Stretch(
        start=start,
        stop=stop,
        threshold=threshold,
        background=level,
        confidence=face_confidence(profile[start:stop], threshold),
    )
