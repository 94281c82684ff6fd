"""Cutting a box out of a volume, level by level, without touching a voxel's value."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ctray.core.errors import GeometryError
from ctray.core.geometry import Box, Triple, as_triple
from ctray.core.parallel import BYTES_IN_FLIGHT
from ctray.crops.copying import copy_levels, plan_copies, snapped_to_chunks
from ctray.crops.restoring import keep_surround, told_of_source
from ctray.crops.voxel_checksum import voxel_checksum
from ctray.volumes.group import is_committed
from ctray.volumes.level_layout import LevelLayout, grid_of
from ctray.volumes.manifest import MANIFEST, stored_checksum
from ctray.volumes.multiscale import LevelPlan, plan_levels
from ctray.volumes.volume import Level, Volume
from ctray.volumes.writer import create_volume

MAX_STRIDE = 32
SNAP_CHUNKS = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class CropResult:
    """What `write_crop` wrote.

    Parameters
    ----------
    url
        The crop's group.
    box
        Region of the source's level 0 that the crop holds: `asked_box`, snapped outward.
    asked_box
        Region that was asked for, at level 0.
    bytes_written
        Voxel bytes of all levels, before compression.
    checksum
        "sha256:..." of what is stored, see `volume_checksum`.
    copied_part
        Part of the voxels whose chunks were copied as they are, in [0, 1].
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
    """Write the voxels of `box` as a volume of its own at its physical place.

    Levels of the source whose voxels are at most `max_stride` level-0 voxels long are copied, not
    computed anew; for that the box grows to their common stride. A source without such levels
    gives its crop a pyramid of means of level 0, and so does one whose levels do not line up with
    an `exact` box.

    Chunks of a source that is compressed with zstd, blosc or gzip are copied as they are stored,
    from OME-Zarr 0.4 into the shards of 0.5 too, where the crop begins at a chunk; for that the
    box grows a little more where `snap_chunks` allows it. Each is checked before: by the checksum
    that its bytes carry, and else by unpacking it. Chunks that a face cuts, and all of other
    sources, are encoded anew.

    Parameters
    ----------
    volume
        Source.
    box
        Region to keep, at any level of `volume`; a coarser one is refined to level 0.
    url
        Where the crop goes.
    provenance
        JSON values for the ``ctray`` attributes: method, model digest, and so on. Source (unless
        they name it), `asked_box`, `crop_box` and checksum are added; see docs/data-contract.md.
    ome_version
        "0.5" or "0.4".
    max_stride
        Longest voxel of a level that is kept, in level-0 voxels.
    snap_chunks
        Largest growth of the box to whole chunks, as part of its voxels: it is worth little
        storage, since encoding takes ten times longer than copying. 0 never grows it.
    surround_size
        Keep the whole source too, at about this many voxels along its longest side, for
        `ctray.crops.restoring.restore`; None keeps nothing of what is cut away.
    exact
        Cut the box as it is: it does not grow.
    bytes_in_flight
        Bound of the voxels held in memory.

    Raises
    ------
    OutputExistsError
        If a finished crop, or anything that ctray did not begin, is at `url`.
    GeometryError
        If the box leaves the volume.
    InvalidVolumeError
        If a chunk of the source is damaged.
    """
    asked = _at_level0(volume, box)
    kept, written = _keep_levels(volume, asked, max_stride)
    if exact and written != asked:
        kept, written = [volume.levels[0]], asked
    sources = [volume.levels.index(level) for level in kept]
    if not exact:
        written = snapped_to_chunks(volume, written, sources, snap_chunks, ome_version)
    regions = [
        written.to_level(n, level.factors, level.shape)
        for n, level in zip(sources, kept, strict=True)
    ]
    copies = plan_copies(volume, sources, regions, ome_version)
    plans = _plan(kept, written)
    layouts = [copy.layout for copy in copies]
    for plan in plans[len(copies) :]:
        grid = grid_of(plan.shape, layouts[0].grid, ome_version)
        layouts.append(LevelLayout(grid=grid, encoding=layouts[0].encoding))
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
        layouts=layouts,
        plain_scale=volume.plain_scale,
    )
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
            **_source_urls(volume),
            **provenance,
            "crop_box": written.ranges,
            "asked_box": asked.ranges,
            "copied_part": round(copied_part, 4),
            **told_of_source(volume),
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


def crop_exists(url: str) -> bool:
    """Whether a finished crop is at `url`."""
    return is_committed(url)


def volume_checksum(volume: Volume, bytes_in_flight: int = BYTES_IN_FLIGHT) -> str:
    """Compute the checksum of a crop as the store now holds it.

    It is that of the manifest of stored objects (`ctray.volumes.manifest`), or for crops of
    earlier versions, which have none, that of level 0's voxels (`voxel_checksum`).
    """
    if volume.attributes.get("checksum_of") == MANIFEST:
        return stored_checksum(volume.url)
    return voxel_checksum(volume, bytes_in_flight)


def _source_urls(volume: Volume) -> dict[str, Any]:
    """The archive's own file, and the Zarr that was made of it if that is what was cut."""
    told = volume.attributes
    if told.get("operation") == "import":
        return {"source_url": told["source_url"], "imported_url": volume.url}
    return {"source_url": volume.url, "imported_url": None}


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
