"""A last look at the grey values around a box, for pieces of the sample that extend beyond it.

The last look uses neither a network nor a profile, so it does not depend on the steps that led to
the box. A piece beyond the box is sample if it stands out from the medium and is connected to
voxels that stand out in the box. A structure that is the same in nearly all slices along z, such as
a tube or a bed, is not sample.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ctray.core.geometry import AxisFaces, Box, Triple
from ctray.localization.grey_levels import GreyLevel
from ctray.localization.params import PARAMS
from ctray.preprocess.deviation import robust_deviation

BoolArray = npt.NDArray[np.bool_]

_PARAMS = PARAMS.last_look


@dataclass(frozen=True, kw_only=True, slots=True)
class CutPieces:
    """Pieces of the sample beyond a box.

    Parameters
    ----------
    fraction
        Number of voxels in these pieces, as a fraction of the voxels that stand out in the box.
    box
        The box grown to include the pieces, in voxels of the level that was searched.
    """

    fraction: float
    box: Box


def find_cut_pieces(level: GreyLevel, box: Box) -> CutPieces | None:
    """Pieces of the sample that a box cuts; None if the box cuts no piece.

    Parameters
    ----------
    level
        Grey values and field of view.
    box
        Box with its margins, in voxels of that level.
    """
    inside = level.inside
    boxed = np.zeros(inside.shape, dtype=bool)
    boxed[box.expand(_PARAMS.blur, inside.shape).slices] = True
    medium = inside & ~boxed
    if np.count_nonzero(medium) < _PARAMS.min_medium or not (inside & boxed).any():
        return None
    smooth = ndimage.gaussian_filter(level.grey, _PARAMS.sigma)
    contrast = np.abs(smooth - np.median(smooth[medium]))
    top = float(np.percentile(contrast[inside & boxed], _PARAMS.top_percentile))
    threshold = max(
        robust_deviation(contrast[medium], _PARAMS.deviations),
        _PARAMS.min_contrast * top,
        _PARAMS.least,
    )
    over = (contrast > threshold) & inside
    sample = over & boxed
    total = np.count_nonzero(sample)
    beyond = over & ~boxed
    # A tube or a bed is visible in nearly all slices in which the box does not cover it.
    lasting = beyond.sum(axis=0) > _PARAMS.lasting * (medium.sum(axis=0))
    labels, count = ndimage.label(beyond & ~lasting)
    touching = np.unique(labels[ndimage.binary_dilation(sample)])
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    least = max(_PARAMS.min_voxels, math.ceil(_PARAMS.min_size * total))
    cut = [int(n) for n in touching if n > 0 and sizes[n] >= least]
    if not cut:
        return None
    places = ndimage.find_objects(labels)
    grown = box
    for piece in cut:
        grown = grown.union(Box.from_ranges([(p.start, p.stop) for p in places[piece - 1]]))
    return CutPieces(fraction=int(sizes[cut].sum()) / int(total), box=grown)


@dataclass(frozen=True, kw_only=True, slots=True)
class LastLook:
    """A box after the last look.

    Parameters
    ----------
    box
        Box at level 0, grown if the original box cut a piece.
    cut_fraction
        Number of voxels that the original box with its margins would have cut, as a fraction of the
        voxels that stand out in it.
    doubt
        Reason not to trust the box, in one line; None if there is no such reason.
    """

    box: Box
    cut_fraction: float = 0.0
    doubt: str | None = None

    def to_json(self) -> dict[str, float | bool]:
        """Receipt form."""
        return {"cut_fraction": round(self.cut_fraction, 5), "doubt": self.doubt is not None}


def take_last_look(
    level: GreyLevel, factors: Triple, box: Box, scales: AxisFaces[float] | None, shape: Triple
) -> LastLook:
    """Grow a box to include the pieces that it would cut, or doubt it if it would grow too much.

    Parameters
    ----------
    level
        Finest available level.
    factors
        Level-0 voxels per voxel of that level, (z, y, x).
    box
        Box at level 0.
    scales
        Scales of the faces in level-0 voxels, used as the smallest margins of the crop. None uses
        `plain_margin` instead.
    shape
        Shape of level 0, (z, y, x).
    """
    margins = scales or AxisFaces.both_sides([_PARAMS.plain_margin * n for n in shape])
    kept = Box.from_ranges(
        [
            (
                # A writer may round a level's shape down and drop the last level-0 voxels.
                min(n - 1, max(0, math.floor((start - low) / factor))),
                min(n, math.ceil((stop + high) / factor)),
            )
            for (start, stop), (low, high), factor, n in zip(
                box.ranges, margins.pairs, factors, level.grey.shape, strict=True
            )
        ]
    )
    cut = find_cut_pieces(level, kept)
    if cut is None:
        return LastLook(box=box)
    if cut.box.num_voxels / kept.num_voxels > _PARAMS.max_growth:
        doubt = (
            "what the box holds goes on beyond it: pieces of "
            f"{cut.fraction:.1%} of its voxels, too far away for the box to grow by"
        )
        return LastLook(box=box, cut_fraction=cut.fraction, doubt=doubt)
    grown = [
        (
            min(start, low * factor) if low < first else start,
            min(extent, max(stop, high * factor)) if high > last else stop,
        )
        for (start, stop), (first, last), (low, high), factor, extent in zip(
            box.ranges, kept.ranges, cut.box.ranges, factors, shape, strict=True
        )
    ]
    return LastLook(box=Box.from_ranges(grown), cut_fraction=cut.fraction)
