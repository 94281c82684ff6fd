"""Copying the voxels of each level into a crop, as stored bytes where possible.

Bytes can be copied if crop and source share encoding and chunk grid, and the crop begins where a
chunk begins. Then whole shards are copied as objects, and other shards are assembled from the
source's chunks. Only chunks that the crop's far faces cut are decoded and encoded again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from ctray.core.geometry import Box, Triple, as_triple
from ctray.core.grid import DEFAULT_SHARD, ShardGrid
from ctray.core.parallel import bounded_map
from ctray.storage import store
from ctray.volumes.encoding import default_encoding, v2_compressor
from ctray.volumes.level_layout import LevelLayout
from ctray.volumes.stored_chunks import StoredChunks
from ctray.volumes.volume import Volume
from ctray.volumes.writer import VolumeWriter

# The crop does not adopt larger shards of a source: a worker holds several of them at a time.
_MAX_SHARD_BYTES = 64 * 2**20
# A crop adopts the source's encoding if at least this fraction of its voxels lies in whole chunks.
_LEAST_WHOLE = 0.25
_MAX_THREADS = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class LevelCopy:
    """One level of a crop and its source.

    Parameters
    ----------
    number, source
        Level of the crop, level of the source.
    region
        Kept region of the source's level, in its voxels.
    layout
        Grid and encoding of the crop's level.
    chunks
        Reader of stored chunks; None if all voxels are encoded again.
    """

    number: int
    source: int
    region: Box
    layout: LevelLayout
    chunks: StoredChunks | None


def whole_chunk_voxels(chunks: StoredChunks | None, region: Box) -> int:
    """Count the voxels of `region`, in the chunks' level, that lie in chunks that can be copied."""
    if chunks is None:
        return 0
    voxels = 1
    for a, b, c, n in zip(
        region.start, region.stop, chunks.encoding.chunk, chunks.shape, strict=True
    ):
        if a % c:
            return 0
        voxels *= (b if b == n else b // c * c) - a if b // c * c > a or b == n else 0
    return voxels


def plan_copies(
    volume: Volume, sources: list[int], regions: list[Box], ome_version: str
) -> list[LevelCopy]:
    """Decide how each level of a crop is copied.

    The crop adopts the source's chunks and encoding if a quarter or more of level 0 can then be
    copied. A crop in Zarr v3 has shards even if its source has none.
    """
    readers = [usable_chunks(volume, n, ome_version) for n in sources]
    worth = whole_chunk_voxels(readers[0], regions[0]) >= _LEAST_WHOLE * regions[0].num_voxels
    copies = []
    for number, (source, region, found) in enumerate(zip(sources, regions, readers, strict=True)):
        chunks = found if worth else None
        copies.append(
            LevelCopy(
                number=number,
                source=source,
                region=region,
                layout=_layout(volume, region, chunks, ome_version),
                chunks=chunks if whole_chunk_voxels(chunks, region) else None,
            )
        )
    return copies


def usable_chunks(volume: Volume, level: int, ome_version: str) -> StoredChunks | None:
    """Reader of a level's stored chunks; None if a crop of `ome_version` cannot hold them."""
    chunks = volume.stored_chunks(level)
    if chunks is None or (ome_version == "0.4" and v2_compressor(chunks.encoding) is None):
        return None
    return chunks


def copy_levels(
    volume: Volume, copies: list[LevelCopy], writer: VolumeWriter, bytes_in_flight: int
) -> int:
    """Write the levels of a crop shard by shard; return how many voxels were copied as bytes."""

    def move(item: tuple[LevelCopy, Box]) -> int:
        copy, shard = item
        return _move(volume, copy, writer, shard)

    # All levels in one pass: the few shards of a coarse level would leave threads idle.
    items = ((copy, shard) for copy in copies for shard in copy.layout.grid.shards())
    return sum(
        bounded_map(
            move,
            items,
            bytes_per_item=max(_held(volume, copy) for copy in copies),
            bytes_in_flight=bytes_in_flight,
            max_threads=_MAX_THREADS if copies[0].chunks is not None else None,
        )
    )


def _held(volume: Volume, copy: LevelCopy) -> int:
    """Bytes of memory that copying one shard of a level takes."""
    shard_bytes = math.prod(copy.layout.grid.shard) * volume.dtype.itemsize
    if copy.chunks is None:
        # The voxels, the source chunks they come from, and the encoded shard.
        return 3 * shard_bytes
    first = next(copy.layout.grid.shards()).shift(copy.region.start)
    # The object alone, or its chunks and the shard assembled from them.
    return shard_bytes * (1 if _is_whole_shard(copy.chunks, copy.layout.grid, first) else 2)


def _layout(
    volume: Volume, region: Box, chunks: StoredChunks | None, ome_version: str
) -> LevelLayout:
    if chunks is None:
        grid = ShardGrid.choose(region.shape)
        if ome_version == "0.4":
            grid = ShardGrid.choose(region.shape, shard=grid.chunk)
        encoding = default_encoding(grid.chunk, volume.dtype, ome_version)
        return LevelLayout(grid=grid, encoding=encoding)
    chunk, shard = chunks.encoding.chunk, chunks.shard
    too_large = math.prod(shard) * volume.dtype.itemsize > _MAX_SHARD_BYTES
    if ome_version == "0.4":
        shard = chunk
    elif not chunks.is_sharded or too_large:
        shard = as_triple([max(c, s) for c, s in zip(chunk, DEFAULT_SHARD, strict=True)], "shard")
    grid = ShardGrid.choose(region.shape, chunk=chunk, shard=shard)
    return LevelLayout(grid=grid, encoding=chunks.encoding)


def _move(volume: Volume, copy: LevelCopy, writer: VolumeWriter, shard: Box) -> int:
    wanted = shard.shift(copy.region.start)
    chunks = copy.chunks
    if chunks is None:
        voxels = volume.read(Box(start=wanted.start, stop=wanted.stop, level=copy.source))
        writer.put_shard(copy.number, shard, writer.encode_shard(copy.number, voxels))
        return 0
    if writer.ome_version == "0.5" and _is_whole_shard(chunks, copy.layout.grid, wanted):
        home = as_triple([a // s for a, s in zip(wanted.start, chunks.shard, strict=True)], "shard")
        found = chunks.whole_object(home)
        writer.put_shard(copy.number, shard, None if found is None else [found])
        return shard.num_voxels
    cells = list(copy.layout.cells(shard.shape))
    inside = [cell.shift(wanted.start) for cell in cells if cell is not None]
    parts = _stored(chunks, inside)
    present = iter(parts)
    filled = [next(present)[0] if cell is not None else None for cell in cells]
    writer.put_shard(copy.number, shard, writer.assemble(filled))
    return sum(
        box.num_voxels for box, (_, is_copied) in zip(inside, parts, strict=True) if is_copied
    )


def _stored(chunks: StoredChunks, boxes: list[Box]) -> list[tuple[bytes | memoryview | None, bool]]:
    """Stored chunks of `boxes`, and whether each is the source's; cut chunks are encoded again."""
    chunk = chunks.encoding.chunk
    cells = [
        as_triple([a // c for a, c in zip(box.start, chunk, strict=True)], "cell") for box in boxes
    ]
    found: list[tuple[bytes | memoryview | None, bool]] = []
    for box, cell, data in zip(boxes, cells, chunks.fetch(cells), strict=True):
        whole = _is_whole(box, chunk, chunks.shape)
        if data is None:
            found.append((None, True))
            continue
        with store.mapped_errors(f"{chunks.object_url(chunks.home(cell))}, chunk {cell}", "read"):
            if whole:
                chunks.encoding.check(data)
                found.append((data, True))
            else:
                kept = chunks.encoding.decode(data)[tuple(slice(0, n) for n in box.shape)]
                found.append((chunks.encoding.encode(kept), False))
    return found


def _is_whole(box: Box, unit: Triple, shape: Triple) -> bool:
    """Whether `box` is a whole cell of the grid `unit`, clipped to an array of `shape`."""
    return all(
        b == min(a + u, n) for a, b, u, n in zip(box.start, box.stop, unit, shape, strict=True)
    )


def _is_whole_shard(chunks: StoredChunks, grid: ShardGrid, wanted: Box) -> bool:
    return (
        chunks.is_sharded
        and not chunks.index_at_start
        and grid.shard == chunks.shard
        and not any(a % s for a, s in zip(wanted.start, chunks.shard, strict=True))
        and _is_whole(wanted, chunks.shard, chunks.shape)
    )


def snapped_to_chunks(
    volume: Volume, box: Box, sources: list[int], budget: float, ome_version: str
) -> Box:
    """Grow a box to chunks of the source if more chunks can then be copied at little cost.

    Parameters
    ----------
    volume
        Source.
    box
        Region to keep, at level 0.
    sources
        Levels of the source that the crop keeps.
    budget
        Largest growth, as a fraction of the box's voxels.
    ome_version
        Version of OME-Zarr of the crop.

    Returns
    -------
    Box
        Among all growths within the budget, the one that leaves the fewest voxels to encode; the
        smallest one if several do.
    """
    readers = [usable_chunks(volume, n, ome_version) for n in sources]
    if budget == 0 or readers[0] is None:
        return box

    def cost(candidate: Box) -> tuple[int, int]:
        encoded = 0
        for source, chunks in zip(sources, readers, strict=True):
            level = volume.levels[source]
            region = candidate.to_level(source, level.factors, level.shape)
            encoded += region.num_voxels - whole_chunk_voxels(chunks, region)
        return encoded, candidate.num_voxels

    allowed = [
        candidate
        for candidate in _grown(volume, box, sources, readers)
        if candidate.num_voxels <= (1 + budget) * box.num_voxels
    ]
    return min([box, *allowed], key=cost)


def _grown(
    volume: Volume, box: Box, sources: list[int], readers: list[StoredChunks | None]
) -> Iterator[Box]:
    """Boxes that begin, or begin and end, at chunks of the first levels."""
    stride: Triple = (1, 1, 1)
    for source, chunks in zip(sources, readers, strict=True):
        factors = volume.levels[source].factors
        # Always a multiple of the level's own stride: the box keeps whole voxels of the level.
        unit = (1, 1, 1) if chunks is None else chunks.encoding.chunk
        cell = [u * f for u, f in zip(unit, factors, strict=True)]
        stride = as_triple([math.lcm(s, c) for s, c in zip(stride, cell, strict=True)], "stride")
        both = box.snap_outward(stride, volume.shape)
        yield both
        for axes in range(7):
            stop = [
                b if axes >> axis & 1 else old
                for axis, (b, old) in enumerate(zip(both.stop, box.stop, strict=True))
            ]
            yield Box(start=both.start, stop=as_triple(stop, "stop"))
