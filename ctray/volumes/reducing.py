"""Averaging a level to a coarser one in a single pass, tile by tile."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ctray.core.geometry import Box, Triple, as_triple, tiles
from ctray.core.parallel import bounded_map
from ctray.volumes.multiscale import downsample_mean
from ctray.volumes.volume import Level, Volume


def reduce_level(volume: Volume, level: int, halvings: int, *, max_bytes: int) -> npt.NDArray[Any]:
    """Level `level` of `volume` after `halvings` (1 or more) further 2x means, read once.

    The result equals the means taken level by level, including their rounding: every tile consists
    of whole cells of 2**halvings voxels, except at the far ends.

    Parameters
    ----------
    volume, level
        Level to read.
    halvings
        Number of times that each axis is halved; odd extents round up.
    max_bytes
        Limit on voxel bytes in memory.

    Returns
    -------
    numpy.ndarray
        (z, y, x), dtype of the volume.
    """
    info, cell = volume.levels[level], 2**halvings
    shape = as_triple([-(-n // cell) for n in info.shape], "shape")
    out = np.empty(shape, volume.dtype)
    # Memory holds the tile, the chunks that it is decoded from, and the sums of its first mean.
    held = 3 * volume.dtype.itemsize
    tile = tile_of(info, cell, max_bytes // held)

    def pool(region: Box) -> None:
        voxels = volume.read(Box(start=region.start, stop=region.stop, level=level))
        for _ in range(halvings):
            voxels = downsample_mean(voxels)
        start = [a // cell for a in region.start]
        where = tuple(slice(a, a + n) for a, n in zip(start, voxels.shape, strict=True))
        out[where] = voxels

    done = bounded_map(
        pool,
        tiles(info.shape, tile),
        bytes_per_item=held * math.prod(tile),
        bytes_in_flight=max_bytes,
    )
    for _ in done:
        pass
    return out


def tile_of(level: Level, multiple: int, max_voxels: int) -> Triple:
    """Tile of whole cells of `multiple` with at most `max_voxels`, if that is possible.

    The tile consists of whole shards or chunks, unless a single chunk is too large.
    """
    limit = [-(-n // multiple) * multiple for n in level.shape]
    for unit in (level.shard, level.chunk):
        tile = [min(math.lcm(u, multiple), n) for u, n in zip(unit, limit, strict=True)]
        if math.prod(tile) <= max_voxels:
            return as_triple(tile, "tile")
    for axis in itertools.cycle(range(3)):
        if math.prod(tile) <= max_voxels or max(tile) == multiple:
            break
        tile[axis] = max(multiple, tile[axis] // 2 // multiple * multiple)
    return as_triple(tile, "tile")
