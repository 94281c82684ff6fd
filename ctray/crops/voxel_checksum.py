"""The checksum that crops of earlier versions carry: of voxels, however they are stored."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ctray.core.geometry import Box, as_triple
from ctray.core.grid import ShardGrid
from ctray.core.parallel import BYTES_IN_FLIGHT, bounded_map
from ctray.volumes.volume import Volume


def voxel_checksum(volume: Volume, bytes_in_flight: int = BYTES_IN_FLIGHT) -> str:
    """Compute the checksum of level 0's voxels as the store now holds them.

    Every shard's voxels (C order, native little-endian bytes, clipped to the volume) give a
    SHA-256; the checksum is the SHA-256 of those digests in shard order, z slowest. It depends
    on the shards, which are kept beside it in the ``ctray`` attributes.
    """
    shard = volume.attributes.get("checksum_shard", volume.levels[0].shard)
    grid = ShardGrid(shape=volume.shape, chunk=as_triple(shard, "shard"), shard=tuple(shard))
    size = math.prod(grid.shard) * volume.dtype.itemsize

    def digest(region: Box) -> bytes:
        return _digest(volume.read(region))

    whole = hashlib.sha256()
    for found in bounded_map(
        digest, grid.shards(), bytes_per_item=2 * size, bytes_in_flight=bytes_in_flight
    ):
        whole.update(found)
    return f"sha256:{whole.hexdigest()}"


def _digest(voxels: npt.NDArray[Any]) -> bytes:
    little = np.ascontiguousarray(voxels, dtype=voxels.dtype.newbyteorder("<"))
    return hashlib.sha256(little.view(np.uint8).data).digest()
