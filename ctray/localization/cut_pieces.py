"""A last look at the grey values around a box, for pieces of the sample that go on beyond it.

It rests on nothing that led to the box: neither on a network nor on a profile. What stands out
from the medium around the box, and hangs together with what stands out in it, is sample, unless it
is the same in all slices along z, as a tube or a bed is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ctray.core.geometry import Box, Triple
from ctray.localization.clear_faces import GreyLevel

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
Ranges = list[list[int]]

# Gaussian that calms the noise, voxels, and how far it carries a sharp edge over the threshold.
_SIGMA = 0.8
_BLUR = 1
# What stands out differs from the medium by this many of its spreads, and by this fraction of the
# sample's largest contrast.
_SPREADS = 6.0
_LEAST_FRACTION = 0.02
# What stands out at one place of this fraction of the slices is the same in all of them.
_LASTING = 0.8
# A piece beyond the box counts from this many voxels on, and from this fraction of the sample.
_MIN_VOXELS = 8
_MIN_FRACTION = 5e-4
# Medium that is needed to know what it looks like, voxels.
_MIN_MEDIUM = 1000
# Margin where no face tells how open it is, as a fraction of the axis.
_PLAIN_MARGIN = 0.02
# A box may grow to hold such pieces to this multiple of the crop's voxels; one that would have to
# grow more does not fit the sample, and a person has to look. Boxes of real heads after a short
# training, one of which had lost 3% of its head, grew to 1.6 times and then held them.
_MOST_GROWTH = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class CutPieces:
    """What goes on beyond a box.

    Parameters
    ----------
    fraction
        Voxels beyond the box that hang together with what stands out in it, as a fraction of those.
    ranges
        Box that holds them too, [start, stop) for z, y, x, voxels of the level looked at.
    """

    fraction: float
    ranges: Ranges


def find_cut_pieces(level: GreyLevel, ranges: Ranges) -> CutPieces | None:
    """Pieces of the sample that a box cuts; None where nothing goes on beyond it.

    Parameters
    ----------
    level
        Grey values, and where the field of view is.
    ranges
        The box with its margins, [start, stop) for z, y, x, voxels of that level.
    """
    inside = level.inside
    boxed = np.zeros(inside.shape, dtype=bool)
    boxed[tuple(slice(max(0, start - _BLUR), stop + _BLUR) for start, stop in ranges)] = True
    medium = inside & ~boxed
    if np.count_nonzero(medium) < _MIN_MEDIUM or not (inside & boxed).any():
        return None
    smooth = ndimage.gaussian_filter(level.grey, _SIGMA)
    contrast = np.abs(smooth - np.median(smooth[medium]))
    threshold = max(
        _SPREADS * 1.4826 * float(np.median(contrast[medium])),
        _LEAST_FRACTION * float(np.percentile(contrast[inside & boxed], 99)),
        1.0,
    )
    over = (contrast > threshold) & inside
    sample = over & boxed
    total = np.count_nonzero(sample)
    beyond = over & ~boxed
    # A tube or a bed shows in nearly all slices of the scan, wherever the box lets it be seen.
    lasting = beyond.sum(axis=0) > _LASTING * (medium.sum(axis=0))
    labels, count = ndimage.label(beyond & ~lasting)
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
    return CutPieces(fraction=int(sizes[cut].sum()) / int(total), ranges=grown)


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    """A box after that look.

    Parameters
    ----------
    box
        At level 0, grown where it cut a piece.
    cut_fraction
        What the box as it was found would have cut with its margins, as a fraction of what stands
        out in it.
    doubt
        Why the box is not to be trusted, in one line; None where it is.
    """

    box: Box
    cut_fraction: float = 0.0
    doubt: str | None = None

    def to_json(self) -> dict[str, float | bool]:
        """Receipt form."""
        return {"cut_fraction": round(self.cut_fraction, 5), "doubt": self.doubt is not None}


def checked(
    level: GreyLevel,
    factors: Triple,
    box: Box,
    scales: Sequence[float] | None,
    shape: Triple,
) -> Checked:
    """A box that holds the pieces that it would have cut, or the doubt about it.

    Parameters
    ----------
    level
        The finest level that is at hand.
    factors
        Level-0 voxels per voxel of that level, (z, y, x).
    box
        At level 0.
    scales
        How open the faces z0, z1, y0, y1, x0, x1 are, level-0 voxels: least margins of the crop.
        None takes a plain margin.
    shape
        Of level 0.
    """
    margins = scales or [_PLAIN_MARGIN * n for n in shape for _ in range(2)]
    ranges = [
        [
            max(0, math.floor((start - margins[2 * axis]) / factor)),
            min(extent, math.ceil((stop + margins[2 * axis + 1]) / factor)),
        ]
        for axis, ((start, stop), factor, extent) in enumerate(
            zip(box.ranges, factors, level.grey.shape, strict=True)
        )
    ]
    cut = find_cut_pieces(level, ranges)
    if cut is None:
        return Checked(box=box)
    growth = _num_voxels(cut.ranges) / _num_voxels(ranges)
    if growth > _MOST_GROWTH:
        doubt = (
            "what the box holds goes on beyond it: pieces of "
            f"{cut.fraction:.1%} of its voxels, too far away for the box to grow by"
        )
        return Checked(box=box, cut_fraction=cut.fraction, doubt=doubt)
    grown = [
        [
            min(start, low * factor) if low < first else start,
            min(extent, max(stop, high * factor)) if high > last else stop,
        ]
        for (start, stop), (first, last), (low, high), factor, extent in zip(
            box.ranges, ranges, cut.ranges, factors, shape, strict=True
        )
    ]
    return Checked(box=Box.from_ranges(grown), cut_fraction=cut.fraction)


def _num_voxels(ranges: Ranges) -> int:
    return math.prod(stop - start for start, stop in ranges)
