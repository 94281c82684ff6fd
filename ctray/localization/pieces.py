"""Pieces that stand out from the medium, and which of them are the sample.

Specks, bubbles and pieces elsewhere stand out as well. Three things tell the sample: the network's
box, the size of a piece, and whether it is brighter or darker than its medium.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ctray.localization.params import PARAMS
from ctray.preprocess.deviation import robust_deviation

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

_PARAMS = PARAMS.piece


def find_sample(
    difference: FloatArray, inside: BoolArray, boxed: BoolArray
) -> tuple[BoolArray, float] | None:
    """Voxels of the sample at the lowest threshold that the medium stays below, and that threshold.

    Parameters
    ----------
    difference
        Difference of the grey value from the medium's, float32, (z, y, x); 0 outside.
    inside, boxed
        Whether voxels lie in the field of view, and in the box of the network, bool, same shape.

    Returns
    -------
    Bool, same shape, and grey values. None where the medium stays below no threshold: the scan is
    not clear.
    """
    contrast = np.abs(difference)
    medium = inside & ~boxed
    top = float(np.percentile(contrast[inside & boxed], _PARAMS.top_percentile))
    # The last look and the look beyond a wall use the same rule with other numbers: they take one
    # threshold, and search no lowest one.
    usual = robust_deviation(contrast[medium])
    low = max(_PARAMS.min_contrast * top, _PARAMS.deviations * usual, _PARAMS.least)
    high = _PARAMS.max_contrast * top
    if low > high:
        return None
    outside = np.sort(contrast[medium])
    for threshold in np.geomspace(low, high, _PARAMS.num_thresholds):
        over = contrast > threshold
        stray = len(outside) - int(np.searchsorted(outside, threshold, side="right"))
        # Too much stands out, even if as much as may spill were sample: no need to label it.
        if stray - _PARAMS.spill * np.count_nonzero(over) > _PARAMS.stray * len(outside):
            continue
        sample = pieces_inside(over, boxed, _PARAMS.min_inside, difference)
        if sample is None:
            continue
        spilled = int(np.count_nonzero(sample & medium))
        few = stray - spilled <= _PARAMS.stray * len(outside)
        if few and spilled <= _PARAMS.spill * np.count_nonzero(sample):
            return sample, float(threshold)
    return None


def pieces_inside(
    over: BoolArray, boxed: BoolArray, least: float, difference: FloatArray
) -> BoolArray | None:
    """Connected pieces that lie in the box by the fraction `least`, but no specks and bubbles.

    Parameters
    ----------
    over
        What stands out, bool, (z, y, x).
    boxed
        Whether voxels lie in the box, bool, same shape.
    least
        Fraction of the voxels of a piece.
    difference
        Difference of the grey value from the medium's, float32, same shape.

    Returns
    -------
    Bool, same shape; None without any piece.
    """
    labels, count = ndimage.label(over)
    total = np.bincount(labels.ravel(), minlength=count + 1)
    within = np.bincount(labels[boxed], minlength=count + 1)
    kept = (within >= least * total) & (total >= _PARAMS.min_voxels)
    kept[0] = False
    if not kept.any():
        return None
    kept &= total >= _PARAMS.min_size * total[kept].max()
    kept &= ~_bubbles(labels, difference, np.where(kept, total, 0))
    sample: BoolArray = kept[labels]
    return sample


def _bubbles(
    labels: npt.NDArray[np.signedinteger], difference: FloatArray, total: npt.NDArray[np.int64]
) -> BoolArray:
    """Which pieces, of `total` voxels each, are small and dark while the largest is bright.

    Or bright while it is dark. Bubbles are dark in a medium, although their rims are bright. Where
    the largest piece is as dark as it is bright, nothing tells.
    """
    largest = int(total.argmax())
    small: BoolArray = (total > 0) & (total < _PARAMS.bubble_size * total[largest])
    if not small.any():
        return small
    pieces = labels > 0
    of_piece, values = labels[pieces], difference[pieces]
    summed = np.bincount(of_piece, values)
    lean = summed / np.maximum(np.bincount(of_piece, np.abs(values)), 1e-9)
    if abs(lean[largest]) < _PARAMS.bubble_lean:
        return np.zeros_like(small)
    opposite: BoolArray = small & (lean * np.sign(lean[largest]) < 0)
    return opposite
