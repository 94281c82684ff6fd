"""The chunk and shard grid of an array: units of compression, and of safe concurrent writing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ctray.core.errors import GeometryError
from ctray.core.geometry import AXES, Box, Triple, as_triple, tiles

DEFAULT_CHUNK: Triple = (64, 64, 64)
DEFAULT_SHARD: Triple = (256, 256, 256)


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardGrid:
    """Chunks of a shape, grouped in shards.

    Parameters
    ----------
    shape
        Voxels of the array, (z, y, x).
    chunk
        Unit of compression, voxels.
    shard
        Unit of safe concurrent write, a multiple of the chunk on every axis.

    Raises
    ------
    GeometryError
        If an extent is not positive or a shard is no multiple of the chunk.
    """

    shape: Triple
    chunk: Triple
    shard: Triple

    def __post_init__(self) -> None:
        for axis, n, c, s in zip(AXES, self.shape, self.chunk, self.shard, strict=True):
            if n < 1 or c < 1:
                raise GeometryError(f"grid {axis}: extent {n} and chunk {c} must be positive")
            if s < c or s % c:
                raise GeometryError(
                    f"grid {axis}: shard {s} is no multiple of chunk {c}; "
                    "two tasks would write one object"
                )

    @classmethod
    def choose(
        cls,
        shape: Sequence[int],
        *,
        chunk: Sequence[int] = DEFAULT_CHUNK,
        shard: Sequence[int] = DEFAULT_SHARD,
    ) -> ShardGrid:
        """Grid for `shape`: the given chunk, and shards no larger than the array needs."""
        shape_zyx = as_triple(shape, "shape")
        chunk_zyx = as_triple(chunk, "chunk")
        fitted = [
            min(s // c * c or c, -(-n // c) * c)
            for n, c, s in zip(shape_zyx, chunk_zyx, as_triple(shard, "shard"), strict=True)
        ]
        return cls(shape=shape_zyx, chunk=chunk_zyx, shard=as_triple(fitted, "shard"))

    @property
    def num_shards(self) -> int:
        """Number of shards that cover the array."""
        return math.prod(-(-n // s) for n, s in zip(self.shape, self.shard, strict=True))

    def shards(self) -> Iterator[Box]:
        """Box of every shard, clipped to the array, z slowest."""
        return tiles(self.shape, self.shard)

    def is_aligned(self, box: Box) -> bool:
        """Whether `box` covers whole shards, so that writing it rewrites no other task's object."""
        return all(
            a % s == 0 and (b % s == 0 or b == n)
            for a, b, s, n in zip(box.start, box.stop, self.shard, self.shape, strict=True)
        )
