"""Cutting a box out of a volume, level by level, without touching a voxel's value."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ctray import __version__
from ctray.errors import GeometryError
from ctray.geometry import Box, Triple, as_triple
from ctray.grid import ShardGrid
from ctray.storage.multiscale import LevelPlan, plan_levels
from ctray.storage.parallel import BYTES_IN_FLIGHT, bounded_map
from ctray.storage.volume import Level, Volume
from ctray.storage.writer import VolumeWriter, create_volume, is_committed

MAX_STRIDE = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class CropResult:
    """What `write_crop` wrote.

    Parameters
    ----------
    url
        The crop's group.
    box
        Region of the source's level 0 that the crop holds; the box asked for, snapped outward.
    bytes_written
        Voxel bytes of all levels, before compression.
    checksum
        "sha256:..." of level 0, see `volume_checksum`.
    """

    url: str
    box: Box
    bytes_written: int
    checksum: str


def write_crop(
    volume: Volume,
    box: Box,
    url: str,
    *,
    provenance: dict[str, Any],
    ome_version: str = "0.5",
    max_stride: int = MAX_STRIDE,
    bytes_in_flight: int = BYTES_IN_FLIGHT,
) -> CropResult:
    """Write the voxels of `box` as a volume of its own at its physical place.

    Levels of the source whose voxels are at most `max_stride` level-0 voxels long are copied, not
    computed anew; for that the box grows to their common stride. A source without such levels
    gives its crop a pyramid of means of level 0.

    Parameters
    ----------
    volume
        Source.
    box
        Region to keep, at any level of `volume`; a coarser one is refined to level 0.
    url
        Where the crop goes.
    provenance
        JSON values for the ``ctray`` attributes: method, model digest, and so on. Source URL,
        box asked for, box written and checksum are added to them.
    ome_version
        "0.5" or "0.4".
    max_stride
        Longest voxel of a level that is kept, in level-0 voxels.
    bytes_in_flight
        Bound of the voxels held in memory.

    Raises
    ------
    OutputExistsError
        If a finished crop, or anything that ctray did not begin, is at `url`.
    GeometryError
        If the box leaves the volume.
    """
    asked = _at_level0(volume, box)
    kept, written = _keep_levels(volume, asked, max_stride)
    plans = _plan(kept, written)
    edge = (1.0, 1.0, 1.0) if volume.voxel_size is None else volume.voxel_size.um
    writer = create_volume(
        url,
        shape=written.shape,
        dtype=volume.dtype,
        voxel_size=volume.voxel_size,
        origin_um=[
            o + a * e for o, a, e in zip(volume.origin_um, written.start, edge, strict=True)
        ],
        ome_version=ome_version,
        levels=plans,
    )
    checksum = _copy(volume, kept, written, writer, bytes_in_flight)
    if len(kept) == 1:
        writer.build_pyramid()
    writer.commit(
        {
            **provenance,
            "source_url": volume.url,
            "box": written.ranges,
            "box_asked": asked.ranges,
            "checksum": checksum,
            "checksum_shard": list(writer.grid.shard),
        }
    )
    return CropResult(
        url=writer.url, box=written, bytes_written=writer.bytes_written, checksum=checksum
    )


def crop(volume: Volume, box: Box, url: str) -> CropResult:
    """Write the voxels of `box` as a volume of its own; see `write_crop`."""
    return write_crop(volume, box, url, provenance={"version": __version__})


def crop_exists(url: str) -> bool:
    """Whether a finished crop is at `url`."""
    return is_committed(url)


def volume_checksum(volume: Volume, bytes_in_flight: int = BYTES_IN_FLIGHT) -> str:
    """Compute the checksum of level 0 as the store now holds it.

    Every shard's voxels (C order, native little-endian bytes, clipped to the volume) give a
    SHA-256; the checksum is the SHA-256 of those digests in shard order, z slowest. It depends
    on the shards, which are kept beside it in the ``ctray`` attributes.
    """
    shard = volume.attributes.get("checksum_shard", volume.levels[0].shard)
    grid = ShardGrid(shape=volume.shape, chunk=as_triple(shard, "shard"), shard=tuple(shard))
    size = math.prod(grid.shard) * volume.dtype.itemsize

    def digest(region: Box) -> bytes:
        return _digest(volume.read(region))

    return _combined(
        bounded_map(digest, grid.shards(), bytes_per_item=2 * size, bytes_in_flight=bytes_in_flight)
    )


def _at_level0(volume: Volume, box: Box) -> Box:
    if not box.level < len(volume.levels):
        raise GeometryError(
            f"{volume.url} has levels 0 to {len(volume.levels) - 1}, not level {box.level}"
        )
    level = volume.levels[box.level]
    box.check_inside(level.shape)
    return box.to_level(0, level.factors, volume.shape)


def _keep_levels(volume: Volume, box: Box, max_stride: int) -> tuple[list[Level], Box]:
    """Levels that a crop can copy, and the box that holds whole voxels of each of them."""
    kept: list[Level] = []
    stride: Triple = (1, 1, 1)
    for level in volume.levels:
        common = as_triple(
            [math.lcm(s, f) for s, f in zip(stride, level.factors, strict=True)], "stride"
        )
        if kept and (max(common) > max_stride or level.factors == kept[-1].factors):
            continue
        kept, stride = [*kept, level], common
    box = box.snap_outward(stride, volume.shape)
    # A level that rounded its extent down has no voxel for a box at the very end of the volume.
    present = [
        level
        for level in kept
        if all(a // f < n for a, f, n in zip(box.start, level.factors, level.shape, strict=True))
    ]
    return present, box


def _plan(kept: list[Level], box: Box) -> tuple[LevelPlan, ...]:
    """Levels of the crop: those of the source, or halves where the source has level 0 alone."""
    if len(kept) == 1:
        return plan_levels(box.shape)
    return tuple(
        LevelPlan(
            shape=box.to_level(n, level.factors, level.shape).shape,
            factors=level.factors,
            offset=level.offset,
        )
        for n, level in enumerate(kept)
    )


def _copy(
    volume: Volume, kept: list[Level], box: Box, writer: VolumeWriter, bytes_in_flight: int
) -> str:
    """Copy the levels shard by shard and return the checksum of level 0."""
    checksums = []
    for number, level in enumerate(kept):
        source = volume.levels.index(level)
        region = box.to_level(source, level.factors, level.shape)
        grid = writer.grids[number]

        def move(
            shard: Box, number: int = number, source: int = source, region: Box = region
        ) -> bytes:
            wanted = shard.shift(region.start)
            voxels = volume.read(Box(start=wanted.start, stop=wanted.stop, level=source))
            writer.write_level(number, shard, voxels)
            return _digest(voxels)

        # The voxels read, the source chunks that they come from, and the encoded shard.
        held = 3 * math.prod(grid.shard) * volume.dtype.itemsize
        digests = bounded_map(
            move, grid.shards(), bytes_per_item=held, bytes_in_flight=bytes_in_flight
        )
        checksums.append(_combined(digests))
    return checksums[0]


def _digest(voxels: npt.NDArray[Any]) -> bytes:
    little = np.ascontiguousarray(voxels, dtype=voxels.dtype.newbyteorder("<"))
    return hashlib.sha256(little.view(np.uint8).data).digest()


def _combined(digests: Iterable[bytes]) -> str:
    whole = hashlib.sha256()
    for digest in digests:
        whole.update(digest)
    return f"sha256:{whole.hexdigest()}"
