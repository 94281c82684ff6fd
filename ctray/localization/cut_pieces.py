"""A last look at the grey values around a box, for pieces of the sample that go on beyond it.

It rests on nothing that led to the box: neither on a network nor on a profile. What stands out
from the medium around the box, and hangs together with what stands out in it, is sample, unless it
is the same in all slices along z, as a tube or a bed is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ctray.preprocess.prepare import Prepared

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
Ranges = list[list[int]]

# Gaussian that calms the noise, voxels.
_SIGMA = 0.8
# What stands out differs from the medium by this many of its spreads, and by this fraction of the
# sample's largest contrast.
_SPREADS = 6.0
_LEAST_FRACTION = 0.02
# A piece beyond the box counts from this many voxels on, and from this fraction of the sample.
_MIN_VOXELS = 8
_MIN_FRACTION = 5e-4
# Medium that is needed to know what it looks like, voxels.
_MIN_MEDIUM = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class CutPieces:
    """What goes on beyond a box.

    Parameters
    ----------
    fraction
        Voxels beyond the box that hang together with what stands out in it, as a fraction of those.
    ranges
        Box that holds them too, [start, stop) for z, y, x, voxels of the working level.
    """

    fraction: float
    ranges: Ranges


def find_cut_pieces(prepared: Prepared, ranges: Ranges) -> CutPieces | None:
    """Pieces of the sample that a box cuts; None where nothing goes on beyond it.

    Parameters
    ----------
    prepared
        Working level.
    ranges
        The box with its margins, [start, stop) for z, y, x, voxels of the working level.
    """
    inside = prepared.field_of_view.mask(prepared.shape)
    boxed = np.zeros(prepared.shape, dtype=bool)
    boxed[tuple(slice(start, stop) for start, stop in ranges)] = True
    medium = inside & ~boxed
    if np.count_nonzero(medium) < _MIN_MEDIUM or not (inside & boxed).any():
        return None
    smooth = ndimage.gaussian_filter(prepared.voxels.astype(np.float32), _SIGMA)
    contrast = np.abs(smooth - np.median(smooth[medium]))
    threshold = max(
        _SPREADS * 1.4826 * float(np.median(contrast[medium])),
        _LEAST_FRACTION * float(np.percentile(contrast[inside & boxed], 99)),
        1.0,
    )
    over = (contrast > threshold) & inside
    sample = over & boxed
    total = np.count_nonzero(sample)
    changes = np.abs(smooth - np.median(smooth, axis=0)) > threshold
    labels, count = ndimage.label(over & ~boxed & changes)
    touching = np.unique(labels[ndimage.binary_dilation(sample)])
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    least = max(_MIN_VOXELS, math.ceil(_MIN_FRACTION * total))
    cut = [int(n) for n in touching if n > 0 and sizes[n] >= least]
    if not cut:
        return None
    places = ndimage.find_objects(labels)
    grown = [
        [
            min(start, *(places[n - 1][axis].start for n in cut)),
            max(stop, *(places[n - 1][axis].stop for n in cut)),
        ]
        for axis, (start, stop) in enumerate(ranges)
    ]
    return CutPieces(fraction=float(sizes[cut].sum()) / total, ranges=grown)
