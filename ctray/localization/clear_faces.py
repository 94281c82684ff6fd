"""Clear faces: where grey values alone tell the sample from what surrounds it.

A network that learned from boxes knows what is sample and where it is, to a slice or two. In a
clear scan the sample's edge is sharper than that: it lies where the grey value is half way from
the medium to the sample next to it. No single threshold finds it, since bone is many times as
bright as skin; half of what is highest within a voxel does. Which of all that stands out is the
sample, and whether the scan is clear enough, is told by the network's box.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ctray.core.geometry import Triple
from ctray.localization.pieces import MIN_VOXELS, find_sample, pieces_inside
from ctray.preprocess.prepare import Prepared

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
Ends = tuple[tuple[float, float], tuple[float, float], tuple[float, float]]
Spreads = tuple[tuple[float | None, float | None], ...]

# Gaussian that calms the noise, voxels: less than an edge is wide.
_SIGMA = 0.6
# Of several specimens, one's own pieces; two that touch are one piece, and nobody's.
_MIN_OWN = 0.8
# Half maximum, of the highest value within a voxel; nothing counts as higher than the usual sample
# so many voxels below its edge, so that bone does not hide the skin on it.
_HALF = 0.5
_EDGE = 2
_LOOSE, _TIGHT = 0.25, 0.75
_WINDOW = 3
# Medium that is needed to know what it looks like, voxels.
_MIN_MEDIUM = 1000
# So many of the six faces must lie where the network has them, to so many voxels of its own level.
_MIN_AGREEING = 3
_AGREES = 2.0
# Around the box, this part of its extent is looked at, and this many voxels at least.
_AROUND = 0.25
_LEAST_AROUND = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class GreyLevel:
    """A level of a volume as faces are looked for in it.

    Parameters
    ----------
    grey
        Grey values in 256 steps, float32, (z, y, x); drift, rings and container are gone.
    inside
        Field of view, bool, same shape.
    ratio
        Voxels per voxel of the working level, (z, y, x).
    """

    grey: FloatArray
    inside: BoolArray
    ratio: Triple

    @classmethod
    def of_working(cls, prepared: Prepared, working: npt.NDArray[Any]) -> GreyLevel:
        """The working level itself, prepared and as stored."""
        return cls(
            grey=prepared.voxels.astype(np.float32),
            inside=prepared.field_of_view.mask(prepared.shape) & np.isfinite(working),
            ratio=(1, 1, 1),
        )

    @classmethod
    def of_finer(
        cls, prepared: Prepared, working: npt.NDArray[Any], finer: npt.NDArray[Any], ratio: Triple
    ) -> GreyLevel:
        """The level next finer, less what was taken from the working level when it was prepared.

        Parameters
        ----------
        prepared
            Working level.
        working, finer
            The two levels as stored, any real dtype.
        ratio
            Voxels of `finer` per voxel of `working`, (z, y, x).
        """
        low, high = prepared.window

        def windowed(values: npt.NDArray[Any]) -> FloatArray:
            known = np.nan_to_num(values.astype(np.float32), nan=low, posinf=high, neginf=low)
            steps: FloatArray = (known - np.float32(low)) * np.float32(255 / (high - low))
            return steps

        taken = prepared.voxels.astype(np.float32) - windowed(working).clip(0, 255)
        grey = windowed(finer) + _repeated(taken, ratio, finer.shape)
        inside = prepared.field_of_view.mask(prepared.shape)
        return cls(
            grey=np.clip(grey, 0, 255),
            inside=_repeated(inside, ratio, finer.shape) & np.isfinite(finer),
            ratio=ratio,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ClearFaces:
    """Faces of a clear sample, in voxels of the working level.

    Parameters
    ----------
    ends
        Low and high face along z, y and x, between the voxels.
    spreads
        For either face, voxels between where a quarter and three quarters of the sample's grey
        value are reached; None where the field of view cuts the sample, and nothing tells.
    """

    ends: Ends
    spreads: Spreads


def find_clear_faces(level: GreyLevel, guesses: Sequence[Ends]) -> list[ClearFaces | None]:
    """Faces of specimens by their grey values; None where those do not tell them from the medium.

    Parameters
    ----------
    level
        Where to look.
    guesses
        Boxes of the network, one a specimen, in voxels of the working level.
    """
    nothing: list[ClearFaces | None] = [None] * len(guesses)
    own = [_scaled(guess, level.ratio) for guess in guesses]
    region = _around(own, level.grey.shape)
    grey, inside = level.grey[region], level.inside[region]
    origin = [part.start for part in region]
    slack = [_AGREES * ratio for ratio in level.ratio]
    boxes = [_filled(guess, origin, grey.shape, slack) for guess in own]
    boxed = np.logical_or.reduce(boxes)
    medium = inside & ~boxed
    if np.count_nonzero(medium) < _MIN_MEDIUM or not (inside & boxed).any():
        return nothing
    smooth = ndimage.gaussian_filter(grey, _SIGMA, mode="nearest")
    contrast: FloatArray = smooth - np.median(smooth[medium])
    contrast[~inside] = 0
    found = find_sample(contrast, inside, boxed)
    if found is None:
        return nothing
    sample, threshold = found
    apart = np.abs(contrast)
    faces: list[ClearFaces | None] = []
    for guess, box in zip(own, boxes, strict=True):
        piece = sample if len(own) == 1 else pieces_inside(sample, box, _MIN_OWN, contrast)
        if piece is None:
            faces.append(None)
            continue
        sharp = _half_maximum(apart, piece, threshold)
        sharp = _not_cut(sharp, piece, inside, _less(guess, origin))
        faces.append(_agreeing(sharp, guess, region, level))
    return faces


def _not_cut(sharp: ClearFaces, sample: BoolArray, inside: BoolArray, guess: Ends) -> ClearFaces:
    """Faces that lie no further in than the network's where the field of view cuts the sample.

    Where what comes next along the axis is outside, no grey value tells how far the sample goes.
    """
    ends, spreads = [], []
    for axis, ((low, high), (first, last)) in enumerate(zip(sharp.ends, guess, strict=True)):
        low_spread, high_spread = sharp.spreads[axis]
        across = np.moveaxis(sample, axis, 0)
        next_to = np.moveaxis(~inside, axis, 0)
        # Within a voxel of the face.
        start = math.floor(low)
        if _meets(across[1:], next_to[:-1], start - 2, start + 1):
            low, low_spread = min(low, first), None
        stop = math.ceil(high)
        if _meets(across[:-1], next_to[1:], stop - 2, stop + 1):
            high, high_spread = max(high, last), None
        ends.append((low, high))
        spreads.append((low_spread, high_spread))
    return ClearFaces(ends=(ends[0], ends[1], ends[2]), spreads=tuple(spreads))


def _meets(sample: BoolArray, outside: BoolArray, start: int, stop: int) -> bool:
    part = slice(max(0, start), max(0, stop))
    return bool((sample[part] & outside[part]).any())


def _less(guess: Ends, origin: Sequence[int]) -> Ends:
    """Box in voxels of a region that begins at `origin`."""
    (z0, z1), (y0, y1), (x0, x1) = guess
    z, y, x = origin
    return ((z0 - z, z1 - z), (y0 - y, y1 - y), (x0 - x, x1 - x))


def _agreeing(
    sharp: ClearFaces, guess: Ends, region: tuple[slice, ...], level: GreyLevel
) -> ClearFaces | None:
    """Faces found in a region, in voxels of the working level; None if they are others' faces."""
    agreeing, ends, spreads = 0, [], []
    for axis, part in enumerate(region):
        ratio = level.ratio[axis]
        low, high = (end + part.start for end in sharp.ends[axis])
        # What goes on beyond the region is no tail of this box.
        leaks = low == part.start > 0 or high == part.stop < level.grey.shape[axis]
        if leaks:
            return None
        agreeing += abs(low - guess[axis][0]) <= _AGREES * ratio
        agreeing += abs(high - guess[axis][1]) <= _AGREES * ratio
        ends.append((low / ratio, high / ratio))
        low_spread, high_spread = (None if s is None else s / ratio for s in sharp.spreads[axis])
        spreads.append((low_spread, high_spread))
    if agreeing < _MIN_AGREEING:
        return None
    return ClearFaces(ends=(ends[0], ends[1], ends[2]), spreads=tuple(spreads))


def _repeated(values: npt.NDArray[Any], ratio: Triple, shape: Sequence[int]) -> npt.NDArray[Any]:
    """Each value for all voxels of a finer level of `shape` that it is of."""
    for axis, count in enumerate(ratio):
        values = values.repeat(count, axis=axis)
    return values[tuple(slice(0, n) for n in shape)]


def _scaled(guess: Ends, ratio: Triple) -> Ends:
    (z0, z1), (y0, y1), (x0, x1) = guess
    z, y, x = ratio
    return ((z0 * z, z1 * z), (y0 * y, y1 * y), (x0 * x, x1 * x))


def _around(guesses: Sequence[Ends], shape: Sequence[int]) -> tuple[slice, ...]:
    """Region that holds all boxes and some medium around them."""
    region = []
    for axis, extent in enumerate(shape):
        low, high = min(g[axis][0] for g in guesses), max(g[axis][1] for g in guesses)
        room = max(_LEAST_AROUND, _AROUND * (high - low))
        region.append(slice(max(0, math.floor(low - room)), min(extent, math.ceil(high + room))))
    return tuple(region)


def _filled(
    guess: Ends, origin: Sequence[int], shape: Sequence[int], slack: Sequence[float]
) -> BoolArray:
    """Whether voxels of a region lie in a box that is `slack` larger on all sides."""
    boxed = np.zeros(shape, dtype=bool)
    boxed[
        tuple(
            slice(max(0, math.floor(low - more) - first), max(0, math.ceil(high + more) - first))
            for (low, high), first, more in zip(guess, origin, slack, strict=True)
        )
    ] = True
    return boxed


def _half_maximum(apart: FloatArray, sample: BoolArray, threshold: float) -> ClearFaces:
    """Faces where the outermost voxel of a slice reaches half of what is highest next to it."""
    near = ndimage.binary_dilation(sample)
    level = np.float32(np.median(apart[_core(sample)]))
    capped = np.where(near, np.minimum(apart, level), np.float32(0))
    highest = ndimage.maximum_filter(capped, size=_WINDOW)
    part = capped / np.maximum(highest, np.float32(threshold / _HALF))
    ends, spreads = [], []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        outward = part.max(axis=others)
        low, low_spread = _face(outward)
        high, high_spread = _face(outward[::-1])
        ends.append((low, len(outward) - high))
        spreads.append((low_spread, high_spread))
    return ClearFaces(ends=(ends[0], ends[1], ends[2]), spreads=tuple(spreads))


def _core(sample: BoolArray) -> BoolArray:
    """Sample less what may be its blurred edge, as far as that leaves some."""
    for depth in (_EDGE, 1):
        core: BoolArray = ndimage.binary_erosion(sample, iterations=depth)
        if np.count_nonzero(core) >= MIN_VOXELS:
            return core
    return sample


def _face(inward: FloatArray) -> tuple[float, float]:
    """Where a profile that runs inwards first reaches half, and how wide its rise is there."""
    first = int(np.argmax(inward >= _HALF))
    place = _crossing(inward, first, _HALF)
    # The voxel before is below half; on from the last one below a quarter, it rises.
    below = np.flatnonzero(inward[:first] < _LOOSE)
    loose = _crossing(inward, int(below[-1]) + 1 if below.size else 0, _LOOSE)
    tight = _crossing(inward, first + int(np.argmax(inward[first:] >= _TIGHT)), _TIGHT)
    return place, max(0.0, tight - loose)


def _crossing(inward: FloatArray, index: int, part: float) -> float:
    """Where between the voxel before `index` and this one `part` is reached; 0 at the border."""
    if index == 0:
        return 0.0
    above, before = float(inward[index]), float(inward[index - 1])
    rise = above - before
    return index + 0.5 - (min(1.0, max(0.0, (above - part) / rise)) if rise > 0 else 0.0)
