"""Import: any readable volume, slab by slab, into a committed multiscale OME-Zarr."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ctray.archive.source_record import SlabChecksums, SourceRecord
from ctray.archive.source_stamp import stamp_of_open, what_changed
from ctray.archive.time_limit import within_limit
from ctray.core.errors import InvalidVolumeError, OutputExistsError
from ctray.core.geometry import Box, Triple, VoxelSize, as_triple
from ctray.core.grid import DEFAULT_CHUNK, DEFAULT_SHARD, ShardGrid
from ctray.core.parallel import bounded_map
from ctray.formats.opening import open_source
from ctray.formats.source import VolumeSource
from ctray.storage import store
from ctray.storage.urls import is_inside
from ctray.volumes.writer import VolumeWriter, create_volume

# Memory for one row of shards: whole slices come in, whole shards go out.
ROW_BYTES = 512 * 2**20
# Thinner chunks would compress badly and need too many objects. A row may then exceed ROW_BYTES.
_MIN_CHUNK_DEPTH = 8
# Memory for one decoded slab beside the row.
_SLAB_BYTES = 64 * 2**20

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportResult:
    """Result of an import.

    Parameters
    ----------
    url
        The committed OME-Zarr group.
    shape, dtype
        Voxels (z, y, x) and type as written.
    bytes_read
        Stored bytes fetched from the source (compressed size, from its metadata).
    bytes_written
        Bytes of voxels written, all levels, before compression.
    seconds
        Wall time.
    voxel_size, voxel_size_source
        Edge lengths and the metadata that state them; None if nothing states them.
    notes
        Oddities of the source that are no error, such as gaps in the slice numbers.
    """

    url: str
    shape: Triple
    dtype: str
    bytes_read: int
    bytes_written: int
    seconds: float
    voxel_size: VoxelSize | None = None
    voxel_size_source: str | None = None
    notes: tuple[str, ...] = ()


def import_volume(
    src: str,
    dst: str,
    *,
    dataset: str | None = None,
    voxel_size: VoxelSize | None = None,
    ome_version: str = "0.5",
    within: str | None = None,
    progress: Progress | None = None,
) -> ImportResult:
    """Copy the volume at `src` into a multiscale OME-Zarr at `dst`.

    Voxel values do not change, NaN included; only float16 becomes float32, and the byte order
    becomes native. Peak memory is about one row of shards (at most 0.5 GiB, unless eight slices
    need more) plus one slab of the source; wider slices lead to thinner shards. The metadata of
    the group are written last, so the next import redoes an interrupted one. The ``ctray``
    attributes hold a `ctray.archive.source_record.SourceRecord` of the source.

    Parameters
    ----------
    src
        Anything that `ctray.formats.opening.open_source` opens.
    dst
        URL of the new group; nothing finished may be there.
    dataset
        Path inside an HDF5 file or Zarr group.
    voxel_size
        Replaces the voxel size in the metadata of the source.
    ome_version
        "0.5" or "0.4".
    within
        Folder or prefix that links of the source must not leave; see `open_source`.
    progress
        Called after every slab with the bytes of voxels done and the total (level 0,
        uncompressed).

    Raises
    ------
    InvalidVolumeError
        If the source holds no usable volume, or if it changed during the import.
    OutputExistsError
        If `dst` holds a finished volume or foreign data.
    StorageError
        If a store fails: no space, no access, no answer.
    """
    began = time.monotonic()
    src, dst = store.normalize(src), store.normalize(dst)
    if is_inside(dst, src):
        raise OutputExistsError(f"{dst} lies inside the source {src}; choose another output")
    with within_limit(src, lambda: open_source(src, dataset=dataset, within=within)) as source:
        stamp = stamp_of_open(source)
        size = voxel_size or source.voxel_size
        size_source = "given" if voxel_size is not None else source.voxel_size_source
        writer = create_volume(
            dst,
            shape=source.shape,
            dtype=source.dtype,
            voxel_size=size,
            origin_um=source.origin_with(size),
            grid=choose_grid(source.shape, source.dtype),
            ome_version=ome_version,
            plain_scale=source.plain_scale,
        )
        checksums = _copy(source, writer, progress)
        record = SourceRecord(
            kind=source.kind,
            dataset=source.dataset,
            within=within,
            stamp=stamp,
            slab_depth=checksums.depth,
            slabs=checksums.finish(),
        )
        writer.build_pyramid()
        if (now := stamp_of_open(source)) != stamp:
            raise InvalidVolumeError(
                f"{src} changed during the import ({what_changed(stamp, now)}); import it again "
                "when it is complete"
            )
        writer.commit(_provenance(source, size_source) | {"source": record.to_json()})
        return ImportResult(
            url=dst,
            shape=source.shape,
            dtype=str(source.dtype),
            bytes_read=source.bytes_read,
            bytes_written=writer.bytes_written,
            seconds=time.monotonic() - began,
            voxel_size=size,
            voxel_size_source=size_source,
            notes=source.notes,
        )


def choose_grid(shape: Triple, dtype: np.dtype[Any], *, row_bytes: int | None = None) -> ShardGrid:
    """Grid with rows of shards (all of y and x) within `row_bytes` (0.5 GiB).

    Shards get thinner first, then chunks, down to 8 slices.
    """
    slice_bytes = math.prod(shape[1:]) * dtype.itemsize
    fit = max(1, (row_bytes or ROW_BYTES) // slice_bytes)
    chunk_z, shard_z = DEFAULT_CHUNK[0], DEFAULT_SHARD[0]
    while chunk_z > max(fit, _MIN_CHUNK_DEPTH):
        chunk_z //= 2
    shard_z = max(chunk_z, min(shard_z, fit // chunk_z * chunk_z))
    return ShardGrid.choose(
        shape, chunk=(chunk_z, *DEFAULT_CHUNK[1:]), shard=(shard_z, *DEFAULT_SHARD[1:])
    )


def _copy(source: VolumeSource, writer: VolumeWriter, progress: Progress | None) -> SlabChecksums:
    """Fill level 0: read slabs into a row of shards, write the row's shards in parallel."""
    checksums = SlabChecksums(source.shape[0])
    depth = writer.grid.shard[0]
    _, y, x = source.shape
    row = np.empty((min(depth, source.shape[0]), y, x), source.dtype)
    shard_bytes = math.prod(writer.grid.shard) * source.dtype.itemsize
    slice_bytes = y * x * source.dtype.itemsize
    for z in range(0, source.shape[0], depth):
        end = min(z + depth, source.shape[0])
        for start, stop in slabs(source, z, end):
            slab = source.read(start, stop)
            checksums.update(slab)
            row[start - z : stop - z] = slab
            if progress is not None:
                progress(stop * slice_bytes, source.num_bytes)

        def write(shard: Box, z: int = z) -> None:
            writer.write(shard, row[shard.shift((-z, 0, 0)).slices])

        for _ in bounded_map(
            write, _row_shards(writer.grid, z, end), bytes_per_item=2 * shard_bytes
        ):
            pass
    return checksums


def _row_shards(grid: ShardGrid, start: int, stop: int) -> Iterator[Box]:
    """Shards of the slices [start, stop), one row."""
    _, step_y, step_x = grid.shard
    _, y, x = grid.shape
    for y0 in range(0, y, step_y):
        for x0 in range(0, x, step_x):
            yield Box(
                start=(start, y0, x0),
                stop=as_triple((stop, min(y, y0 + step_y), min(x, x0 + step_x)), "stop"),
            )


def slabs(source: VolumeSource, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Ranges that cover [start, stop), aligned to the slices that the source stores together.

    Each has up to 64 MiB of voxels, and at least one unit of the source.
    """
    slice_bytes = math.prod(source.shape[1:]) * source.dtype.itemsize
    fit = max(1, _SLAB_BYTES // slice_bytes)
    # Whole units at a time. A unit beyond the bound is read at once, too, because each smaller
    # read would decompress all of it.
    depth = max(1, fit // source.slab_depth) * source.slab_depth
    while start < stop:
        end = min(stop, (start // depth + 1) * depth)
        yield start, end
        start = end


def _provenance(source: VolumeSource, voxel_size_source: str | None) -> dict[str, Any]:
    return {
        "operation": "import",
        "source_url": source.url,
        "source_kind": source.kind,
        "dataset": source.dataset,
        "voxel_size_source": voxel_size_source,
        "notes": list(source.notes),
    }
