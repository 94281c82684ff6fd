"""A last look at the grey values around a box, for pieces of the sample that go on beyond it.

It uses nothing that led to the box: neither a network nor a profile. A piece beyond the box is
sample where it stands out from the medium and is connected to what stands out in the box. What is
the same in all slices along z is no sample: a tube or a bed.
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
    """What goes on beyond a box.

    Parameters
    ----------
    fraction
        Voxels beyond the box that are connected to what stands out in it, as a fraction of those.
    box
        Box that also holds them, in voxels of the level looked at.
    """

    fraction: float
    box: Box


def find_cut_pieces(level: GreyLevel, box: Box) -> CutPieces | None:
    """Pieces of the sample that a box cuts; None where nothing goes on beyond it.

    Parameters
    ----------
    level
        Grey values, and where the field of view is.
    box
        With its margins, in voxels of that level.
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
    # A tube or a bed shows in nearly all slices of the scan, wherever the box lets it be seen.
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


def take_last_look(
    level: GreyLevel, factors: Triple, box: Box, scales: AxisFaces[float] | None, shape: Triple
) -> LastLook:
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
        Of the faces, level-0 voxels: the least margins of the crop. None takes a plain margin.
    shape
        Of level 0.
    """
    margins = scales or AxisFaces.both_sides([_PARAMS.plain_margin * n for n in shape])
    kept = Box.from_ranges(
        [
            (
                # Writers that round a level's shape down leave no voxel for the last ones.
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
