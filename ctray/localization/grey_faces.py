"""Faces in clear scans, where grey values alone separate the sample from its surroundings.

The self-trained network places a face to within a slice or two. In a clear scan, the edge of the
sample is sharper: the grey value there is half way between the medium and the adjacent sample. No
single threshold finds such an edge, because bone is many times as bright as skin. So a face lies at
half of the highest contrast within one voxel. The network's box shows which of the pieces that
stand out are the sample, and whether the scan is clear enough.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ctray.core.geometry import AxisFaces, Triple
from ctray.localization.grey_levels import GreyLevel
from ctray.localization.params import PARAMS
from ctray.localization.pieces import find_sample, pieces_inside

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
Region = tuple[slice, slice, slice]

_PARAMS = PARAMS.grey


@dataclass(frozen=True, kw_only=True, slots=True)
class GreyFaces:
    """Faces of a sample in a clear scan, in voxels of the working level.

    Parameters
    ----------
    places
        Positions of the faces, between the voxels.
    widths
        Voxels over which the contrast rises from a quarter to three quarters of the sample's
        contrast. None if the field of view cuts the sample, so that grey values show no edge.
    """

    places: AxisFaces[float]
    widths: AxisFaces[float | None]


def find_grey_faces(
    level: GreyLevel, guesses: Sequence[AxisFaces[float]]
) -> list[GreyFaces | None]:
    """Faces of specimens by their grey values; None for a specimen without clear faces.

    Parameters
    ----------
    level
        Grey values to search.
    guesses
        Boxes of the network, one per specimen, in voxels of the working level.
    """
    nothing: list[GreyFaces | None] = [None] * len(guesses)
    own = [_scaled(guess, level.ratio) for guess in guesses]
    region = _around(own, level.grey.shape)
    grey, inside = level.grey[region], level.inside[region]
    origin = [part.start for part in region]
    slack = [_PARAMS.agrees * ratio for ratio in level.ratio]
    boxes = [_filled(guess, origin, grey.shape, slack) for guess in own]
    boxed = np.logical_or.reduce(boxes)
    medium = inside & ~boxed
    if np.count_nonzero(medium) < _PARAMS.min_medium or not (inside & boxed).any():
        return nothing
    smooth = ndimage.gaussian_filter(grey, _PARAMS.sigma, mode="nearest")
    difference: FloatArray = smooth - np.median(smooth[medium])
    difference[~inside] = 0
    found = find_sample(difference, inside, boxed)
    if found is None:
        return nothing
    sample, threshold = found
    contrast = np.abs(difference)
    faces: list[GreyFaces | None] = []
    for guess, box in zip(own, boxes, strict=True):
        piece = sample if len(own) == 1 else pieces_inside(sample, box, _PARAMS.min_own, difference)
        if piece is None:
            faces.append(None)
            continue
        sharp = _half_maximum(contrast, piece, threshold)
        sharp = _not_cut(sharp, piece, inside, _shifted(guess, origin))
        faces.append(_agreeing(sharp, guess, region, level))
    return faces


def _not_cut(
    sharp: GreyFaces, sample: BoolArray, inside: BoolArray, guess: AxisFaces[float]
) -> GreyFaces:
    """Move a face out to the network's if the field of view cuts the sample there.

    If the next voxel along the axis is outside, grey values do not show how far the sample extends.
    """
    places: list[float] = []
    widths: list[float | None] = []
    pairs = zip(sharp.places.pairs, sharp.widths.pairs, guess.pairs, strict=True)
    for axis, ((low, high), (low_width, high_width), (first, last)) in enumerate(pairs):
        across = np.moveaxis(sample, axis, 0)
        outside = np.moveaxis(~inside, axis, 0)
        # Compare slices within about a voxel of the face.
        start = math.floor(low)
        if _meets(across[1:], outside[:-1], start - 2, start + 1):
            low, low_width = min(low, first), None
        stop = math.ceil(high)
        if _meets(across[:-1], outside[1:], stop - 2, stop + 1):
            high, high_width = max(high, last), None
        places += (low, high)
        widths += (low_width, high_width)
    return GreyFaces(places=AxisFaces.of(places), widths=AxisFaces.of(widths))


def _meets(sample: BoolArray, outside: BoolArray, start: int, stop: int) -> bool:
    near = slice(max(0, start), max(0, stop))
    return bool((sample[near] & outside[near]).any())


def _agreeing(
    sharp: GreyFaces, guess: AxisFaces[float], region: Region, level: GreyLevel
) -> GreyFaces | None:
    """Faces found in a region, in voxels of the working level; None if they do not fit the box."""
    agreeing, places = 0, []
    for axis, part in enumerate(region):
        ratio = level.ratio[axis]
        low, high = (place + part.start for place in sharp.places.pairs[axis])
        # A piece that extends beyond the region does not belong to this box.
        if low == part.start > 0 or high == part.stop < level.grey.shape[axis]:
            return None
        first, last = guess.pairs[axis]
        agreeing += abs(low - first) <= _PARAMS.agrees * ratio
        agreeing += abs(high - last) <= _PARAMS.agrees * ratio
        places += [low / ratio, high / ratio]
    if agreeing < _PARAMS.min_agreeing:
        return None
    ratios = AxisFaces.both_sides(level.ratio)
    widths = [None if w is None else w / r for w, r in zip(sharp.widths, ratios, strict=True)]
    return GreyFaces(places=AxisFaces.of(places), widths=AxisFaces.of(widths))


def _scaled(guess: AxisFaces[float], ratio: Triple) -> AxisFaces[float]:
    """Faces of the working level in voxels of a finer one."""
    return AxisFaces(*(g * r for g, r in zip(guess, AxisFaces.both_sides(ratio), strict=True)))


def _shifted(guess: AxisFaces[float], origin: Sequence[int]) -> AxisFaces[float]:
    """Faces in voxels of a region that begins at `origin`."""
    return AxisFaces(*(g - o for g, o in zip(guess, AxisFaces.both_sides(origin), strict=True)))


def _around(guesses: Sequence[AxisFaces[float]], shape: Sequence[int]) -> Region:
    """Region that contains all boxes and some medium around them."""
    region = []
    for axis, extent in enumerate(shape):
        low = min(guess.pairs[axis][0] for guess in guesses)
        high = max(guess.pairs[axis][1] for guess in guesses)
        room = max(_PARAMS.min_around, _PARAMS.around * (high - low))
        region.append(slice(max(0, math.floor(low - room)), min(extent, math.ceil(high + room))))
    return (region[0], region[1], region[2])


def _filled(
    guess: AxisFaces[float],
    origin: Sequence[int],
    shape: Sequence[int],
    slack: Sequence[float],
) -> BoolArray:
    """Whether voxels of a region lie in a box that is `slack` larger on all sides."""
    boxed = np.zeros(shape, dtype=bool)
    boxed[
        tuple(
            slice(max(0, math.floor(low - more) - first), max(0, math.ceil(high + more) - first))
            for (low, high), first, more in zip(guess.pairs, origin, slack, strict=True)
        )
    ] = True
    return boxed


def _half_maximum(contrast: FloatArray, sample: BoolArray, threshold: float) -> GreyFaces:
    """Faces where a voxel first reaches half of the highest contrast next to it."""
    near = ndimage.binary_dilation(sample)
    usual = np.float32(np.median(contrast[_core(sample)]))
    capped = np.where(near, np.minimum(contrast, usual), np.float32(0))
    highest = ndimage.maximum_filter(capped, size=_PARAMS.window)
    fraction = capped / np.maximum(highest, np.float32(threshold / _PARAMS.half))
    places, widths = [], []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        outward = fraction.max(axis=others)
        low, low_width = _face(outward)
        high, high_width = _face(outward[::-1])
        places += [low, len(outward) - high]
        widths += [low_width, high_width]
    return GreyFaces(places=AxisFaces.of(places), widths=AxisFaces.of(widths))


def _core(sample: BoolArray) -> BoolArray:
    """Sample without its blurred edge, if enough voxels are left; otherwise the whole sample."""
    for depth in (_PARAMS.edge, 1):
        core: BoolArray = ndimage.binary_erosion(sample, iterations=depth)
        if np.count_nonzero(core) >= PARAMS.piece.min_voxels:
            return core
    return sample


def _face(inward: FloatArray) -> tuple[float, float]:
    """Position where a profile that runs inwards first reaches half, and the width of its rise."""
    first = int(np.argmax(inward >= _PARAMS.half))
    place = _crossing(inward, first, _PARAMS.half)
    # The rise begins after the last voxel before `first` that is below a quarter.
    below = np.flatnonzero(inward[:first] < _PARAMS.loose)
    loose = _crossing(inward, int(below[-1]) + 1 if below.size else 0, _PARAMS.loose)
    after = first + int(np.argmax(inward[first:] >= _PARAMS.tight))
    tight = _crossing(inward, after, _PARAMS.tight)
    return place, max(0.0, tight - loose)


def _crossing(inward: FloatArray, index: int, level: float) -> float:
    """Place just before voxel `index` at which the profile reaches `level`; 0 at the border."""
    if index == 0:
        return 0.0
    above, before = float(inward[index]), float(inward[index - 1])
    rise = above - before
    return index + 0.5 - (min(1.0, max(0.0, (above - level) / rise)) if rise > 0 else 0.0)
