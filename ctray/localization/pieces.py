"""Pieces that stand out from the medium, and the choice of those that are the sample.

Specks, bubbles and pieces elsewhere also stand out. Three criteria identify the sample: the
network's box, the size of a piece, and whether the piece is brighter or darker than its medium.
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
    """Find the sample's voxels at the lowest threshold that almost no voxel of medium exceeds.

    Parameters
    ----------
    difference
        Difference of the grey value from the medium's, float32, (z, y, x); 0 outside.
    inside, boxed
        Whether voxels lie in the field of view, and in the box of the network, bool, same shape.

    Returns
    -------
    Voxels of the sample, bool, same shape, and the threshold in grey values. None if the scan is
    not clear: no threshold separates the sample from the medium.
    """
    contrast = np.abs(difference)
    medium = inside & ~boxed
    top = float(np.percentile(contrast[inside & boxed], _PARAMS.top_percentile))
    # `last_look` and `ctray.preprocess.beyond` use the same rule with other numbers. They use one
    # threshold and do not search for the lowest.
    usual = robust_deviation(contrast[medium])
    low = max(_PARAMS.min_contrast * top, _PARAMS.deviations * usual, _PARAMS.least)
    high = _PARAMS.max_contrast * top
    if low > high:
        return None
    outside = np.sort(contrast[medium])
    for threshold in np.geomspace(low, high, _PARAMS.num_thresholds):
        over = contrast > threshold
        stray = len(outside) - int(np.searchsorted(outside, threshold, side="right"))
        # Too much stands out even if the largest allowed spill is sample; labelling is not needed.
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
    """Connected pieces with at least the fraction `least` in the box, without specks and bubbles.

    Parameters
    ----------
    over
        Whether voxels stand out, bool, (z, y, x).
    boxed
        Whether voxels lie in the box, bool, same shape.
    least
        Minimum fraction of a piece's voxels that lie in the box.
    difference
        Difference of the grey value from the medium's, float32, same shape.

    Returns
    -------
    Voxels of these pieces, bool, same shape; None if there is no such piece.
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
    """Whether each piece, of `total` voxels, is small and has the opposite sign of the largest.

    A piece is dark or bright by the sum of its differences from the medium. Bubbles are dark in a
    medium, although their rims are bright. If the largest piece is neither clearly dark nor clearly
    bright, no piece counts as a bubble.
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
