"""Cutting a box out of a volume, level by level, without changing the value of any voxel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ctray.core.errors import GeometryError
from ctray.core.geometry import Box, Triple, as_triple
from ctray.core.parallel import BYTES_IN_FLIGHT
from ctray.crops.copying import LevelCopy, copy_levels, plan_copies, snapped_to_chunks
from ctray.crops.restoring import attributes_of_source, keep_surround
from ctray.volumes.level_layout import LevelLayout, grid_of
from ctray.volumes.multiscale import LevelPlan, plan_levels
from ctray.volumes.volume import Level, Volume
from ctray.volumes.writer import VolumeWriter, create_volume

MAX_STRIDE = 32
SNAP_CHUNKS = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class CropResult:
    """Result of `write_crop`.

    Parameters
    ----------
    url
        URL of the crop's group.
    box
        Region of the source's level 0 that the crop holds: `asked_box`, grown outward.
    asked_box
        Requested region, at level 0.
    bytes_written
        Voxel bytes of all levels, before compression.
    checksum
        "sha256:..." of the stored objects, see `ctray.volumes.manifest`.
    copied_part
        Fraction of the voxels whose chunks were copied without decoding, in [0, 1].
    """

    url: str
    box: Box
    asked_box: Box
    bytes_written: int
    checksum: str
    copied_part: float


def write_crop(
    volume: Volume,
    box: Box,
    url: str,
    *,
    provenance: dict[str, Any],
    ome_version: str = "0.5",
    max_stride: int = MAX_STRIDE,
    snap_chunks: float = SNAP_CHUNKS,
    surround_size: int | None = None,
    exact: bool = False,
    bytes_in_flight: int = BYTES_IN_FLIGHT,
) -> CropResult:
    """Write the voxels of `box` as a separate volume that keeps its physical position.

    Levels of the source are copied, not computed again, if their voxels are at most `max_stride`
    level-0 voxels long. The box grows to their common stride for this. The crop gets a pyramid of
    means of level 0 instead if the source has no such levels, or if they do not align with an
    `exact` box.

    Stored chunks are copied without decoding if the source is compressed with zstd, blosc or gzip
    and the crop begins at a chunk border. This includes copying from OME-Zarr 0.4 into the shards
    of 0.5. The box may grow further for this, within `snap_chunks`. Each chunk is verified first,
    by its checksum or otherwise by decompressing it. All other chunks, such as those cut by a face,
    are encoded again.

    Parameters
    ----------
    volume
        Source.
    box
        Region to keep, at any level of `volume`; a coarser box is refined to level 0.
    url
        Path or URL of the crop.
    provenance
        JSON values for the ``ctray`` attributes, such as method and model digest. `asked_box`,
        `crop_box`, the checksum and, unless given, the source are added; see
        docs/data-contract.md.
    ome_version
        "0.5" or "0.4".
    max_stride
        Longest voxel of a kept level, in level-0 voxels.
    snap_chunks
        Largest growth of the box to whole chunks, as a fraction of its voxels. A little more
        storage is worthwhile because encoding takes ten times longer than copying. 0 prevents
        growth to chunks.
    surround_size
        Also keep the whole source, at about this many voxels along its longest side, for
        `ctray.crops.restoring.restore`; None keeps only the crop.
    exact
        Cut exactly this box, without growing it.
    bytes_in_flight
        Limit on voxel bytes in memory.

    Raises
    ------
    OutputExistsError
        If a finished crop, or anything that ctray did not create, exists at `url`.
    GeometryError
        If the box extends beyond the volume.
    InvalidVolumeError
        If a chunk of the source is damaged.
    """
    asked = _at_level0(volume, box)
    sources, written = _kept_levels(volume, asked, max_stride, exact=exact)
    if not exact:
        written = snapped_to_chunks(volume, written, sources, snap_chunks, ome_version)
    regions = [
        written.to_level(n, volume.levels[n].factors, volume.levels[n].shape) for n in sources
    ]
    copies = plan_copies(volume, sources, regions, ome_version)
    writer = _begin(volume, written, copies, url, ome_version)
    copied = copy_levels(volume, copies, writer, bytes_in_flight)
    if len(copies) == 1:
        writer.build_pyramid()
    extra = {}
    if surround_size is not None:
        extra["surround"] = keep_surround(volume, writer.url, surround_size, ome_version)
    checksum = writer.seal()
    copied_part = copied / sum(region.num_voxels for region in regions)
    writer.commit(
        {
            **source_urls(volume),
            **provenance,
            "crop_box": written.ranges,
            "asked_box": asked.ranges,
            "copied_part": round(copied_part, 4),
            **attributes_of_source(volume),
            **extra,
            **writer.sealed(checksum),
        }
    )
    return CropResult(
        url=writer.url,
        box=written,
        asked_box=asked,
        bytes_written=writer.bytes_written,
        checksum=checksum,
        copied_part=copied_part,
    )


def _begin(
    volume: Volume, box: Box, copies: list[LevelCopy], url: str, ome_version: str
) -> VolumeWriter:
    """Lay out the crop: the copied levels, or successive halves if only level 0 is copied."""
    if len(copies) == 1:
        plans = plan_levels(box.shape)
    else:
        levels = [volume.levels[copy.source] for copy in copies]
        plans = tuple(
            LevelPlan(shape=copy.region.shape, factors=level.factors, offset=level.offset)
            for copy, level in zip(copies, levels, strict=True)
        )
    layouts = [copy.layout for copy in copies]
    for plan in plans[len(copies) :]:
        grid = grid_of(plan.shape, layouts[0].grid, ome_version)
        layouts.append(LevelLayout(grid=grid, encoding=layouts[0].encoding))
    edge = (1.0, 1.0, 1.0) if volume.voxel_size is None else volume.voxel_size.um
    return create_volume(
        url,
        shape=box.shape,
        dtype=volume.dtype,
        voxel_size=volume.voxel_size,
        origin_um=[o + a * e for o, a, e in zip(volume.origin_um, box.start, edge, strict=True)],
        ome_version=ome_version,
        levels=plans,
        layouts=layouts,
        plain_scale=volume.plain_scale,
    )


def source_urls(volume: Volume) -> dict[str, Any]:
    """`source_url`, the archive's own file, and `imported_url`, the Zarr that was made from it."""
    attributes = volume.attributes
    if attributes.get("operation") == "import":
        return {"source_url": attributes["source_url"], "imported_url": volume.url}
    return {"source_url": volume.url, "imported_url": None}


def _at_level0(volume: Volume, box: Box) -> Box:
    if not box.level < len(volume.levels):
        raise GeometryError(
            f"{volume.url} has levels 0 to {len(volume.levels) - 1}, not level {box.level}"
        )
    level = volume.levels[box.level]
    box.check_inside(level.shape)
    return box.to_level(0, level.factors, volume.shape)


def _kept_levels(
    volume: Volume, box: Box, max_stride: int, *, exact: bool
) -> tuple[list[int], Box]:
    """Levels that a crop can copy, and the box grown to whole voxels of each of these levels.

    If an `exact` box would have to grow, only level 0 is copied.
    """
    kept: list[int] = []
    stride: Triple = (1, 1, 1)
    for n, level in enumerate(volume.levels):
        common = as_triple(
            [math.lcm(s, f) for s, f in zip(stride, level.factors, strict=True)], "stride"
        )
        is_repeated = bool(kept) and level.factors == volume.levels[kept[-1]].factors
        if kept and (max(common) > max_stride or is_repeated):
            continue
        kept, stride = [*kept, n], common
    grown = box.snap_outward(stride, volume.shape)
    if exact and grown != box:
        return [0], box
    # A level whose extent was rounded down may have no voxel for a box at the end of the volume.
    return [n for n in kept if _meets(volume.levels[n], grown)], grown


def _meets(level: Level, box: Box) -> bool:
    return all(a // f < n for a, f, n in zip(box.start, level.factors, level.shape, strict=True))
