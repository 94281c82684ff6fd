"""Volumes read from their stored chunks hold what zarr itself reads."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import BytesCodec, Crc32cCodec, GzipCodec, ZstdCodec

from ctray.core.geometry import Box
from ctray.volumes.volume import open_volume

FILL = 7


def written(url: str, draw: Any, *, sharded: bool, zarr_format: int) -> zarr.Array[Any]:
    """Array of any grid, of which some chunks are not stored and some hold the fill value."""
    shape = tuple(draw(st.integers(1, 13)) for _ in range(3))
    chunk = tuple(draw(st.integers(1, 5)) for _ in range(3))
    shard = tuple(c * draw(st.integers(1, 3)) for c in chunk)
    options: dict[str, Any] = {}
    if zarr_format == 3:
        options = {
            "shards": shard if sharded else None,
            "serializer": BytesCodec(endian=draw(st.sampled_from(["little", "big"]))),
            "compressors": draw(
                st.sampled_from([[ZstdCodec()], [ZstdCodec(), Crc32cCodec()], [GzipCodec()]])
            ),
        }
    array = zarr.create_array(
        url,
        shape=shape,
        chunks=chunk,
        dtype="u2",
        fill_value=FILL,
        zarr_format=zarr_format,
        **options,
    )
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    grown = [rng.integers(0, n + 1) for n in shape]
    array[tuple(slice(0, n) for n in grown)] = rng.integers(0, 9, grown, dtype=np.uint16)
    return array


@pytest.mark.parametrize(("sharded", "zarr_format"), [(True, 3), (False, 3), (False, 2)])
@settings(max_examples=25)
@given(data=st.data())
def test_any_box_of_any_grid(data: Any, sharded: bool, zarr_format: int) -> None:
    with tempfile.TemporaryDirectory() as url:
        array = written(f"{url}/v", data.draw, sharded=sharded, zarr_format=zarr_format)
        volume = open_volume(f"{url}/v")
        assert volume.stored_chunks(0) is not None
        start = [data.draw(st.integers(0, n - 1)) for n in array.shape]
        stop = [data.draw(st.integers(a + 1, n)) for a, n in zip(start, array.shape, strict=True)]
        box = Box(start=tuple(start), stop=tuple(stop))
        found = volume.read(box)
        np.testing.assert_array_equal(found, np.asarray(array[box.slices]))
        assert found.dtype == np.dtype("u2")


def test_threads_share_one_request_for_an_index(tmp_path: Any) -> None:
    voxels = np.random.default_rng(0).integers(0, 2**16, (8, 8, 8), dtype=np.uint16)
    array = zarr.create_array(
        str(tmp_path / "v"), shape=voxels.shape, chunks=(2, 2, 2), shards=(8, 8, 8), dtype="u2"
    )
    array[:] = voxels
    alone, shared = (open_volume(str(tmp_path / "v")) for _ in range(2))
    boxes = [Box(start=(a, 0, 0), stop=(a + 2, 8, 8)) for a in range(0, 8, 2)]
    for box in boxes:
        alone.read(box)
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(shared.read, boxes))
    np.testing.assert_array_equal(np.concatenate(parts), voxels)
    assert shared.bytes_read == alone.bytes_read
