"""The working level: a volume at the size that networks work at, and the level next finer.

Both are small parts of a large volume: a stored pyramid gives them for the price of their own
voxels, else one streaming pass over the volume averages them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ctray.core.errors import GeometryError
from ctray.core.geometry import Triple, as_triple
from ctray.core.parallel import BYTES_IN_FLIGHT
from ctray.volumes.multiscale import downsample_mean
from ctray.volumes.reducing import reduce_level
from ctray.volumes.volume import Level, Volume

# A level this small (as float32) is read whole to average it without rounding, if it is little
# beside level 0, or the volume itself is small.
_SMALL_LEVEL_BYTES = 64 * 2**20
_SMALL_VOLUME_BYTES = 256 * 2**20
_LITTLE = 0.018


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkingLevel:
    """A volume at working size.

    Parameters
    ----------
    voxels
        (z, y, x), dtype of the volume; float32 where the next finer level is small enough to
        average it anew: rounded integers lose what is fainter than half a grey value.
    factors
        Level-0 voxels per voxel, (z, y, x).
    finer
        Next finer level, dtype of the volume, where it is small or little beside level 0; None
        where it is not, or was not asked for, or there is none.
    ratio
        Voxels of `finer` per voxel, (z, y, x).
    """

    voxels: npt.NDArray[Any]
    factors: Triple
    finer: npt.NDArray[Any] | None = None
    ratio: Triple = (1, 1, 1)


def read_working_level(
    volume: Volume, working_size: int, max_bytes: int = BYTES_IN_FLIGHT, *, finer: bool = False
) -> WorkingLevel:
    """Read the volume at the size nearest to `working_size` that halving can reach.

    A stored level is taken as it is. Where a further 2x would be nearer, a level is averaged in
    one streaming pass that holds about `max_bytes`, or taken from levels that were kept from an
    earlier one (`ctray.volumes.pyramids`).

    Parameters
    ----------
    volume
        What to read.
    working_size
        Longest side, voxels.
    max_bytes
        Bound of the voxels in flight.
    finer
        Whether the next finer level is wanted too.

    Raises
    ------
    GeometryError
        If `working_size` is below 1.
    InvalidVolumeError
        If a chunk does not decode.
    """
    level, halvings = _nearest(volume, working_size)
    factors = _halved(volume, level, halvings)
    if halvings == 0:
        found = _mean_of_finer(volume, level, wanted=finer)
        return found or WorkingLevel(voxels=volume.read_level(level), factors=factors)
    if volume.coarse is not None:
        coarse, base = volume.coarse
        kept = read_working_level(coarse, working_size, max_bytes, finer=finer)
        if factors == tuple(b * m for b, m in zip(base, kept.factors, strict=True)):
            return replace(kept, factors=factors)
    if not _is_small(volume, level, halvings - 1):
        voxels = reduce_level(volume, level, halvings, max_bytes=max_bytes)
        return WorkingLevel(voxels=voxels, factors=factors)
    if halvings == 1:
        last = volume.read_level(level)
    else:
        last = reduce_level(volume, level, halvings - 1, max_bytes=max_bytes)
    return WorkingLevel(
        voxels=_precise_mean(last, (2, 2, 2)),
        factors=factors,
        finer=last if finer else None,
        ratio=(2, 2, 2),
    )


def read_working(
    volume: Volume, working_size: int, max_bytes: int = BYTES_IN_FLIGHT
) -> tuple[npt.NDArray[Any], Triple]:
    """Voxels of `read_working_level`, and level-0 voxels per voxel, both (z, y, x)."""
    found = read_working_level(volume, working_size, max_bytes)
    return found.voxels, found.factors


def is_reduced_to(volume: Volume, working_size: int) -> bool:
    """Whether `read_working_level` makes do without reading 64 times the voxels that it gives."""
    return _nearest(volume, working_size)[1] < 2


def read_reduced(
    volume: Volume, working_size: int, max_bytes: int = BYTES_IN_FLIGHT
) -> tuple[npt.NDArray[Any], Triple]:
    """Return what `read_working_level` would average last, or that level itself if it is large.

    Kept, it spares the pass over the finer levels; see `ctray.volumes.pyramids`.
    """
    level, halvings = _nearest(volume, working_size)
    halvings -= _is_small(volume, level, halvings - 1)
    voxels = reduce_level(volume, level, halvings, max_bytes=max_bytes)
    return voxels, _halved(volume, level, halvings)


def _nearest(volume: Volume, working_size: int) -> tuple[int, int]:
    """Level and further halvings that come nearest to `working_size`; least work on a tie."""
    if working_size < 1:
        raise GeometryError(f"working size {working_size} must be at least 1 voxel")
    found = []
    for n, level in enumerate(volume.levels):
        side = max(level.shape)
        for halvings in range(side.bit_length() + 1):
            away = abs(-(-side // 2**halvings) - working_size)
            found.append((away, halvings, -n))
    _, halvings, n = min(found)
    return -n, halvings


def _mean_of_finer(volume: Volume, level: int, *, wanted: bool) -> WorkingLevel | None:
    """Level with the next finer one, of which it is the float mean; None where that is large.

    Stored integer levels are rounded, which wipes out what is fainter than half a grey value,
    such as the thin wall of a tube in clipped air.
    """
    if level == 0 or (volume.dtype.kind == "f" and not wanted):
        return None
    fine, coarse = volume.levels[level - 1], volume.levels[level]
    pairs = list(zip(coarse.factors, fine.factors, strict=True))
    if any(c % f for c, f in pairs):
        return None
    ratio = as_triple([c // f for c, f in pairs], "ratio")
    shape = tuple(-(-n // r) for n, r in zip(fine.shape, ratio, strict=True))
    if shape != coarse.shape or not _is_small(volume, level - 1, 0):
        return None
    if volume.num_bytes > _SMALL_VOLUME_BYTES and not _is_little(volume, fine):
        return None
    finer = volume.read_level(level - 1)
    own = volume.dtype.kind == "f"
    return WorkingLevel(
        voxels=volume.read_level(level) if own else _precise_mean(finer, ratio),
        factors=coarse.factors,
        finer=finer if wanted else None,
        ratio=ratio,
    )


def _precise_mean(voxels: npt.NDArray[Any], ratio: Triple) -> npt.NDArray[Any]:
    """Mean over cells of `ratio` voxels; of integers as float32."""
    if voxels.dtype.kind != "f":
        voxels = voxels.astype(np.float32)
    return downsample_mean(voxels, ratio)


def _is_small(volume: Volume, level: int, halvings: int) -> bool:
    """Whether a level, after some halvings, may be held whole as float32."""
    shape = (-(-n // 2**halvings) for n in volume.levels[level].shape)
    return bool(math.prod(shape) * 4 <= _SMALL_LEVEL_BYTES)


def _is_little(volume: Volume, level: Level) -> bool:
    """Whether reading a level is little beside level 0."""
    return math.prod(level.shape) <= _LITTLE * math.prod(volume.shape)


def _halved(volume: Volume, level: int, halvings: int) -> Triple:
    return as_triple([n * 2**halvings for n in volume.levels[level].factors], "factors")
