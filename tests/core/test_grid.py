"""The shard grid: every voxel in one shard, no shard of two tasks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctray.core.errors import GeometryError
from ctray.core.geometry import Box
from ctray.core.grid import ShardGrid

SHAPES = st.tuples(*[st.integers(1, 20)] * 3)
CHUNKS = st.tuples(*[st.integers(1, 6)] * 3)


@given(SHAPES, CHUNKS, st.tuples(*[st.integers(1, 24)] * 3))
def test_chosen_grids_cover_once_and_are_no_larger_than_needed(
    shape: tuple[int, int, int], chunk: tuple[int, int, int], shard: tuple[int, int, int]
) -> None:
    grid = ShardGrid.choose(shape, chunk=chunk, shard=shard)
    assert grid.chunk == chunk
    for n, c, s, asked in zip(shape, chunk, grid.shard, shard, strict=True):
        assert s % c == 0
        assert s <= max(asked, c)
        assert s - c < n
    count = np.zeros(shape, int)
    boxes = list(grid.shards())
    for box in boxes:
        assert grid.is_aligned(box)
        count[box.slices] += 1
    assert (count == 1).all()
    assert len(boxes) == grid.num_shards


@given(SHAPES, CHUNKS, st.data())
def test_a_box_is_aligned_when_it_splits_no_shard(
    shape: tuple[int, int, int], chunk: tuple[int, int, int], data: st.DataObject
) -> None:
    grid = ShardGrid.choose(shape, chunk=chunk, shard=chunk)
    pairs = [
        sorted(data.draw(st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True)))
        for n in shape
    ]
    box = Box.from_ranges(pairs)
    splits = any(box.intersection(shard) not in (None, shard) for shard in grid.shards())
    assert grid.is_aligned(box) == (not splits)


def test_defaults() -> None:
    assert ShardGrid.choose((2016, 2016, 2016)).shard == (256, 256, 256)
    assert ShardGrid.choose((100, 300, 20)).shard == (128, 256, 64)
    assert ShardGrid.choose((100, 300, 20)).chunk == (64, 64, 64)


@pytest.mark.parametrize(
    ("shape", "chunk", "shard", "message"),
    [
        ((0, 1, 1), (1, 1, 1), (1, 1, 1), "z: extent 0"),
        ((1, 1, 1), (1, 0, 1), (1, 1, 1), "chunk 0"),
        ((9, 9, 9), (4, 4, 4), (4, 6, 4), "y: shard 6 is no multiple of chunk 4"),
        ((9, 9, 9), (4, 4, 4), (4, 4, 2), "x: shard 2 is no multiple of chunk 4"),
    ],
)
def test_grids_that_cannot_be(
    shape: tuple[int, int, int],
    chunk: tuple[int, int, int],
    shard: tuple[int, int, int],
    message: str,
) -> None:
    with pytest.raises(GeometryError, match=message):
        ShardGrid(shape=shape, chunk=chunk, shard=shard)
