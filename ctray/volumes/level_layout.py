"""How one level is laid out in its store: its grid, how its chunks are encoded, its empty array."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import zarr

from ctray.core.geometry import AXES, Box, Triple, as_triple
from ctray.core.grid import ShardGrid
from ctray.storage import store
from ctray.volumes.encoding import ChunkEncoding, v2_compressor, v3_codecs, v3_serializer


@dataclass(frozen=True, kw_only=True, slots=True)
class LevelLayout:
    """Grid and encoding of one level."""

    grid: ShardGrid
    encoding: ChunkEncoding

    def cells(self, extent: Triple) -> Iterator[Box | None]:
        """Chunks of a shard, clipped to `extent`, in C order; None for chunks outside of it."""
        for start in itertools.product(
            *(range(0, s, c) for s, c in zip(self.grid.shard, self.grid.chunk, strict=True))
        ):
            if any(a >= n for a, n in zip(start, extent, strict=True)):
                yield None
                continue
            stop = [min(a + c, n) for a, c, n in zip(start, self.grid.chunk, extent, strict=True)]
            yield Box(start=as_triple(start, "start"), stop=as_triple(stop, "stop"))


def grid_of(shape: Triple, level0: ShardGrid, ome_version: str) -> ShardGrid:
    """Grid with the chunks and shards of level 0, no larger than the level needs."""
    shard = level0.chunk if ome_version == "0.4" else level0.shard
    return ShardGrid.choose(shape, chunk=level0.chunk, shard=shard)


def create_array(url: str, layout: LevelLayout, ome_version: str) -> zarr.Array[Any]:
    """Create an empty array at `url`: Zarr v3 for OME-Zarr 0.5, v2 for 0.4."""
    encoding, grid = layout.encoding, layout.grid
    # A store rooted at the array itself: below a group's root, zarr would also write the group's
    # metadata, which are the commit marker.
    target = store.zarr_store(url, read_only=False)
    with store.mapped_errors(url, "write"):
        if ome_version == "0.4":
            return zarr.create_array(
                target,
                shape=grid.shape,
                chunks=grid.chunk,
                dtype=encoding.dtype,
                zarr_format=2,
                compressors=v2_compressor(encoding),
                fill_value=encoding.fill_value,
                # OME-NGFF 0.4, section "multiscales": level/z/y/x as nested folders.
                chunk_key_encoding={"name": "v2", "separator": "/"},
            )
        return zarr.create_array(
            target,
            shape=grid.shape,
            chunks=grid.chunk,
            shards=grid.shard,
            dtype=encoding.dtype.newbyteorder("="),
            serializer=v3_serializer(encoding),
            compressors=v3_codecs(encoding),
            fill_value=encoding.fill_value,
            dimension_names=AXES,
        )
