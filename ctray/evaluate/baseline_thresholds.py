"""Boxes of thresholded maps, for one threshold or many.

Foreground is all voxels strictly above a threshold. Boxes of many thresholds are int64 arrays
``faces_T6`` (thresholds by z0, z1, y0, y1, x0, x1). All six are -1 if no voxel is above the
threshold.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.filters import threshold_otsu

from ctray.core.geometry import Box

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
Profiles = tuple[FloatArray, FloatArray, FloatArray]

# Quantiles are dense in the upper tail, where one bright speck moves a face.
_QUANTILES = np.concatenate([np.linspace(0.05, 0.95, 13), 1 - np.logspace(-1.5, -4.5, 19)])


def axis_maxima(values: FloatArray) -> Profiles:
    """Largest value of every slice along z, y and x, which determine boxes of all foreground."""
    z, y, x = values.max(axis=(1, 2)), values.max(axis=(0, 2)), values.max(axis=(0, 1))
    return (z, y, x)


def foreground_faces(profiles: Profiles, thresholds: npt.ArrayLike) -> IntArray:
    """Exact boxes ``faces_T6`` of all voxels above each threshold, from `axis_maxima`."""
    limits = np.asarray(thresholds, dtype=np.float32)
    faces_T6 = np.empty((len(limits), 6), dtype=np.int64)
    for axis, profile in enumerate(profiles):
        # Running maxima are sorted, so a binary search finds the first slice above a threshold.
        faces_T6[:, 2 * axis] = np.searchsorted(np.maximum.accumulate(profile), limits, "right")
        from_end = np.maximum.accumulate(profile[::-1])
        faces_T6[:, 2 * axis + 1] = len(profile) - np.searchsorted(from_end, limits, "right")
    faces_T6[limits >= profiles[0].max()] = -1
    return faces_T6


def component_faces(values: FloatArray, thresholds: npt.ArrayLike) -> IntArray:
    """Boxes of the largest connected component (6 neighbours) above each threshold, ``faces_T6``.

    If components have equal size, the first in (z, y, x) order is used.
    """
    limits = np.asarray(thresholds, dtype=np.float32)
    faces_T6 = foreground_faces(axis_maxima(values), limits)
    for row, limit in zip(faces_T6, limits, strict=True):
        if row[0] < 0:
            continue
        # High thresholds leave little foreground, so label only the box around it.
        box = Box.from_ranges(row.reshape(3, 2).tolist())
        labels, count = ndimage.label(values[box.slices] > limit)
        if count == 1:
            continue
        sizes = np.bincount(labels.ravel())
        sizes[0] = 0
        largest = labels == int(sizes.argmax())
        for axis in range(3):
            others = tuple(a for a in range(3) if a != axis)
            hit = np.flatnonzero(largest.any(axis=others))
            first = box.start[axis]
            row[2 * axis : 2 * axis + 2] = first + hit[0], first + hit[-1] + 1
    return faces_T6


def otsu_threshold(values: FloatArray) -> float | None:
    """Otsu's threshold of the finite values; None if all are equal or there are none.

    scikit-image returns the centre of the last bin of the lower class, which cuts that bin in two.
    This function returns the largest value of the lower class instead, so all values above it are
    the upper class.
    """
    # Use float64, because 256 bins may not fit between two float32 values far from 0.
    finite = values[np.isfinite(values)].astype(np.float64)
    if finite.size == 0 or finite.min() == finite.max():
        return None
    counts, edges = np.histogram(finite, bins=256)
    centres = (edges[:-1] + edges[1:]) / 2
    chosen = int(np.searchsorted(centres, threshold_otsu(hist=(counts, centres))))
    split = edges[chosen + 1]
    return float(finite[finite < split].max())


def nonzero_faces(values: FloatArray) -> IntArray:
    """Box of all voxels above 0, ``faces_T6`` of one row.

    This is the rule of MONAI's CropForeground with its default ``select_fn`` and no margin.
    """
    return foreground_faces(axis_maxima(values), [0.0])


def candidate_quantiles(values: FloatArray) -> FloatArray:
    """32 ascending quantiles of the finite values, dense in the upper tail; empty without any."""
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return np.empty(0, dtype=np.float32)
    quantiles: FloatArray = np.quantile(finite, _QUANTILES).astype(np.float32)
    return quantiles


def thin(candidates: FloatArray, count: int) -> FloatArray:
    """At most `count` distinct candidates in ascending order, evenly spaced by rank."""
    distinct = np.unique(candidates)
    if len(distinct) <= count:
        return distinct
    picked: FloatArray = distinct[np.linspace(0, len(distinct) - 1, count).round().astype(int)]
    return picked


def between(thresholds: FloatArray, best: int, count: int) -> FloatArray:
    """`count` thresholds, evenly spaced between both neighbours of the one at index `best`."""
    low = thresholds[max(best - 1, 0)]
    high = thresholds[min(best + 1, len(thresholds) - 1)]
    return np.linspace(low, high, count + 2, dtype=np.float32)[1:-1]
