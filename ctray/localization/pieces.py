"""Pieces that stand out from the medium, and which of them are the sample.

Specks, bubbles and what lies elsewhere stand out as well. What is sample is told by the network's
box, by size, and by whether a piece is brighter or darker than its medium.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

# What stands out differs from the medium by this many of its spreads; and by these parts of the
# sample's largest difference. Above the last, faint parts would be cut: the scan is not clear.
_SPREADS = 4.0
_LEAST_PART, _MOST_PART = 0.02, 0.25
_THRESHOLDS = 16
# Percentile that is the sample's largest difference.
_TOP = 99.5
# Of the medium, this part may stand out by chance.
_STRAY = 0.001
# A piece belongs to the sample if this part of it lies in the box, and is no speck: a paw that is
# more than a hundredth of the largest piece is none.
_MIN_INSIDE = 0.5
MIN_VOXELS = 8
_MIN_PART = 0.01
# Nor is it a bubble: a smaller piece than this part of the largest, dark where that is bright. The
# largest is bright or dark where its differences sum up to this part of their amounts.
_BUBBLE_PART = 0.1
_LEANS = 0.3
# This part of the sample may lie beyond the box: a tail that was missed, but no leak into a tube.
_SPILL = 0.02


def find_sample(
    contrast: FloatArray, inside: BoolArray, boxed: BoolArray
) -> tuple[BoolArray, float] | None:
    """Voxels of the sample at the lowest threshold that the medium stays below, and that one.

    Parameters
    ----------
    contrast
        Difference of the grey value from the medium's, float32, (z, y, x); 0 out of view.
    inside, boxed
        Whether voxels lie in the field of view, and in the box of the network, bool, same shape.

    Returns
    -------
    Bool, same shape, and grey values; None where the medium does not stay below any threshold: the
    scan is not clear.
    """
    apart = np.abs(contrast)
    medium = inside & ~boxed
    top = float(np.percentile(apart[inside & boxed], _TOP))
    usual = 1.4826 * float(np.median(apart[medium]))
    low, high = max(_LEAST_PART * top, _SPREADS * usual, 1.0), _MOST_PART * top
    if low > high:
        return None
    outside = np.sort(apart[medium])
    for threshold in np.geomspace(low, high, _THRESHOLDS):
        over = apart > threshold
        stray = len(outside) - int(np.searchsorted(outside, threshold, side="right"))
        # Even if as much as may be of what lies outside were sample: spare the labelling.
        if stray - _SPILL * np.count_nonzero(over) > _STRAY * len(outside):
            continue
        sample = pieces_inside(over, boxed, _MIN_INSIDE, contrast)
        if sample is None:
            continue
        spilled = int(np.count_nonzero(sample & medium))
        few = stray - spilled <= _STRAY * len(outside)
        if few and spilled <= _SPILL * np.count_nonzero(sample):
            return sample, float(threshold)
    return None


def pieces_inside(
    over: BoolArray, boxed: BoolArray, least: float, contrast: FloatArray
) -> BoolArray | None:
    """Connected pieces of which the part `least` is in the box, but specks and bubbles.

    Parameters
    ----------
    over
        What stands out, bool, (z, y, x).
    boxed
        Whether voxels lie in the box, bool, same shape.
    least
        Part of a piece, in voxels.
    contrast
        Difference of the grey value from the medium's, float32, same shape.

    Returns
    -------
    Bool, same shape; None without any piece.
    """
    labels, count = ndimage.label(over)
    total = np.bincount(labels.ravel(), minlength=count + 1)
    within = np.bincount(labels[boxed], minlength=count + 1)
    kept = (within >= least * total) & (total >= MIN_VOXELS)
    kept[0] = False
    if not kept.any():
        return None
    kept &= total >= _MIN_PART * total[kept].max()
    kept &= ~_bubbles(labels, contrast, np.where(kept, total, 0))
    sample: BoolArray = kept[labels]
    return sample


def _bubbles(
    labels: npt.NDArray[np.signedinteger], contrast: FloatArray, total: npt.NDArray[np.int64]
) -> BoolArray:
    """Which pieces, of `total` voxels each, are small and dark while the largest is bright.

    Or bright while it is dark. Bubbles are dark in a medium, for all their bright rims; where the
    largest piece is as dark as it is bright, nothing tells.
    """
    largest = int(total.argmax())
    small: BoolArray = (total > 0) & (total < _BUBBLE_PART * total[largest])
    if not small.any():
        return small
    pieces = labels > 0
    of_piece, difference = labels[pieces], contrast[pieces]
    summed = np.bincount(of_piece, difference)
    lean = summed / np.maximum(np.bincount(of_piece, np.abs(difference)), 1e-9)
    if abs(lean[largest]) < _LEANS:
        return np.zeros_like(small)
    opposite: BoolArray = small & (lean * np.sign(lean[largest]) < 0)
    return opposite
