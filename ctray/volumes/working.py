"""The working level: a volume at the size that the networks use, and the next finer level.

If there is a stored pyramid, only the voxels of these levels are read. Otherwise, one streaming
pass over the volume averages them.
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
from ctray.volumes.multiscale import downsample_mean, longest_side
from ctray.volumes.reducing import reduce_level
from ctray.volumes.volume import Level, Volume

# A level this small (as float32) is read whole, to average it without rounding, if the volume is
# small too, or the level holds at most this fraction of the voxels of level 0.
_SMALL_LEVEL_BYTES = 64 * 2**20
_SMALL_VOLUME_BYTES = 256 * 2**20
_LITTLE_FRACTION = 0.018


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkingLevel:
    """A volume at working size.

    Parameters
    ----------
    voxels
        (z, y, x), dtype of the volume. float32 if the next finer level is small enough to average
        it again, because rounded integers lose differences below half a grey value.
    factors
        Level-0 voxels per voxel, (z, y, x).
    finer
        Next finer level, dtype of the volume. None if it was not requested, does not exist, or is
        too large.
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
    """Read the volume at the size nearest to `longest_side` that halving can reach.

    A stored level is used unchanged. If halving a level comes nearer, one streaming pass that holds
    about `max_bytes` averages it, unless an earlier pass kept its levels
    (`ctray.volumes.pyramids`).

    Parameters
    ----------
    volume
        Volume to read.
    working_size
        Longest side, voxels.
    max_bytes
        Limit on voxel bytes in memory.
    finer
        Whether to return the next finer level too.

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
    """Whether `read_working_level` needs to read fewer than 64 times the voxels it returns."""
    return _nearest(volume, working_size)[1] < 2


def read_reduced(
    volume: Volume, working_size: int, max_bytes: int = BYTES_IN_FLIGHT
) -> tuple[npt.NDArray[Any], Triple]:
    """Return the level that `read_working_level` averages last, or the working level if large.

    Keeping it saves the pass over the finer levels; see `ctray.volumes.pyramids`.
    """
    level, halvings = _nearest(volume, working_size)
    halvings -= _is_small(volume, level, halvings - 1)
    voxels = reduce_level(volume, level, halvings, max_bytes=max_bytes)
    return voxels, _halved(volume, level, halvings)


def _nearest(volume: Volume, working_size: int) -> tuple[int, int]:
    """Level and number of halvings nearest to `working_size`; a tie takes the least work."""
    if working_size < 1:
        raise GeometryError(f"working size {working_size} must be at least 1 voxel")
    found, wanted = [], longest_side(volume.shape, working_size)
    for n, level in enumerate(volume.levels):
        side = max(level.shape)
        for halvings in range(side.bit_length() + 1):
            away = abs(-(-side // 2**halvings) - wanted)
            found.append((away, halvings, -n))
    _, halvings, n = min(found)
    return -n, halvings


def _mean_of_finer(volume: Volume, level: int, *, wanted: bool) -> WorkingLevel | None:
    """Level as the float mean of the next finer level; None if the finer level is not usable.

    Stored integer levels are rounded. Rounding loses differences below half a grey value, such as
    the thin wall of a tube in clipped air.
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
    """Mean over cells of `ratio` voxels; float32 for integers."""
    if voxels.dtype.kind != "f":
        voxels = voxels.astype(np.float32)
    return downsample_mean(voxels, ratio)


def _is_small(volume: Volume, level: int, halvings: int) -> bool:
    """Whether a level, after some halvings, is small enough to hold whole as float32."""
    shape = (-(-n // 2**halvings) for n in volume.levels[level].shape)
    return bool(math.prod(shape) * 4 <= _SMALL_LEVEL_BYTES)


def _is_little(volume: Volume, level: Level) -> bool:
    """Whether reading a level costs little compared with level 0."""
    return math.prod(level.shape) <= _LITTLE_FRACTION * math.prod(volume.shape)


def _halved(volume: Volume, level: int, halvings: int) -> Triple:
    return as_triple([n * 2**halvings for n in volume.levels[level].factors], "factors")
