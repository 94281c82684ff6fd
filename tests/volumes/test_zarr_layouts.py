"""Bare arrays in layouts that are legal and rare: read, imported and cropped voxel for voxel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
import zarr.codecs.numcodecs as v3_numcodecs
from zarr.codecs import BloscCodec, BytesCodec, GzipCodec, ShardingCodec, TransposeCodec, ZstdCodec
from zarr.errors import ZarrUserWarning

from ctray.archive.importing import import_volume
from ctray.core.geometry import Box
from ctray.crops.cutting import write_crop
from ctray.volumes.volume import open_volume

CHUNK, SHARD = (8, 16, 16), (16, 32, 32)
BOX = Box(start=(5, 9, 17), stop=(18, 33, 40))
DOT: Any = {"name": "default", "separator": "."}
SLASH: Any = {"name": "v2", "separator": "/"}
# Layout: options of `zarr.create_array`, type of the voxels, fill value of missing chunks.
V2: dict[str, tuple[dict[str, Any], str]] = {
    "fortran": ({"order": "F", "compressors": numcodecs.Blosc()}, "<u2"),
    "fortran, plain, nested": (
        {"order": "F", "compressors": None, "chunk_key_encoding": SLASH},
        "<u2",
    ),
    "big endian": ({"compressors": numcodecs.Zstd()}, ">u2"),
    "big endian, fortran": ({"order": "F", "compressors": numcodecs.Zstd()}, ">f4"),
    "delta": ({"filters": [numcodecs.Delta("<u2")], "compressors": numcodecs.Blosc()}, "<u2"),
    "shuffle": ({"filters": [numcodecs.Shuffle(2)], "compressors": numcodecs.Zlib()}, "<i2"),
    "astype": (
        {"filters": [numcodecs.AsType("<u2", "<f8")], "compressors": numcodecs.LZ4()},
        "<f8",
    ),
    "widened": (
        {"filters": [numcodecs.Delta("<u2", "<i8"), numcodecs.CRC32()], "compressors": None},
        "<u2",
    ),
    "filter that packs": (
        {"filters": [numcodecs.Zlib(), numcodecs.BZ2()], "compressors": numcodecs.LZMA()},
        "<u2",
    ),
    "raw lzma": (
        {"compressors": numcodecs.LZMA(format=3, filters=[{"id": 33, "preset": 1}])},
        "<u2",
    ),
    "doubles": ({"compressors": numcodecs.GZip()}, "<f8"),
    "fill 7": ({"fill_value": 7, "compressors": numcodecs.Zlib()}, "<u2"),
    "fill nan": ({"fill_value": np.nan, "compressors": numcodecs.LZ4()}, "<f4"),
}
V3: dict[str, tuple[dict[str, Any], str]] = {
    "transposed": (
        {"filters": [TransposeCodec(order=(2, 0, 1))], "compressors": [ZstdCodec()]},
        "<u2",
    ),
    "transposed, plain": (
        {"filters": [TransposeCodec(order=(2, 1, 0))], "compressors": None},
        "<u2",
    ),
    "transposed twice": (
        {"filters": [TransposeCodec(order=(1, 2, 0)), TransposeCodec(order=(1, 0, 2))]},
        "<u2",
    ),
    "big endian": ({"serializer": BytesCodec(endian="big"), "compressors": [GzipCodec()]}, "<u2"),
    "fill 7": ({"fill_value": 7, "compressors": [BloscCodec()]}, "<u2"),
    "fill nan": ({"fill_value": np.nan}, "<f4"),
    "dots": ({"chunk_key_encoding": DOT}, "<u2"),
    "shards": ({"shards": SHARD}, "<i2"),
    "shards, transposed": (
        {"shards": SHARD, "filters": [TransposeCodec(order=(1, 2, 0))]},
        "<u2",
    ),
    "shards in shards": (
        {
            "chunks": SHARD,
            "serializer": ShardingCodec(
                chunk_shape=CHUNK,
                codecs=[ShardingCodec(chunk_shape=(4, 8, 8), codecs=[BytesCodec(), ZstdCodec()])],
            ),
            "compressors": None,
        },
        "<u2",
    ),
}
V3_NUMCODECS: dict[str, Any] = {
    "zlib": lambda: {"compressors": [v3_numcodecs.Zlib()]},
    "lz4, sharded": lambda: {"shards": SHARD, "compressors": [v3_numcodecs.LZ4()]},
    "bz2 of lzma": lambda: {"compressors": [v3_numcodecs.LZMA(), v3_numcodecs.BZ2()]},
    "blosc": lambda: {"compressors": [v3_numcodecs.Blosc()]},
    "delta": lambda: {"filters": [v3_numcodecs.Delta(dtype="<u2")]},
    "shuffle, crc": lambda: {
        "compressors": [v3_numcodecs.Shuffle(), v3_numcodecs.Zstd(), v3_numcodecs.CRC32()]
    },
}


def voxels_of(dtype: str) -> np.ndarray:
    rng = np.random.default_rng(43)
    return rng.integers(0, 4096, (20, 34, 46)).astype(np.dtype(dtype).newbyteorder("="))


def check(folder: Path, options: dict[str, Any], dtype: str, zarr_format: Any) -> None:
    """Write voxels, lose the chunks of planes 8 to 16 where a fill value says what they were."""
    voxels, path = voxels_of(dtype), folder / "v.zarr"
    fill = options.get("fill_value")
    if fill is not None:
        voxels[8:16] = fill
    chunks = options.pop("chunks", CHUNK)
    array = zarr.create_array(
        path,
        shape=voxels.shape,
        chunks=chunks,
        dtype=dtype,
        zarr_format=zarr_format,
        config={"write_empty_chunks": True},
        **options,
    )
    array[:] = voxels
    if fill is not None:
        lost = [p for p in path.rglob("*") if p.is_file() and _plane_of(path, p) == "1"]
        assert len(lost) == 9
        for chunk in lost:
            chunk.unlink()
    volume = open_volume(str(path))
    assert volume.dtype == voxels.dtype
    np.testing.assert_array_equal(volume.read_level(0), voxels)
    imported = import_volume(str(path), str(folder / "import"))
    np.testing.assert_array_equal(open_volume(imported.url).read_level(0), voxels)
    crop = write_crop(volume, BOX, str(folder / "crop"), provenance={})
    cut = open_volume(crop.url)
    assert cut.dtype == voxels.dtype
    np.testing.assert_array_equal(cut.read_level(0), voxels[crop.box.slices])


def _plane_of(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix().removeprefix("c/").replace("/", ".").split(".")[0]


@pytest.mark.parametrize("name", V2)
def test_zarr_2(tmp_path: Path, name: str) -> None:
    options, dtype = V2[name]
    check(tmp_path, dict(options), dtype, 2)


@pytest.mark.parametrize("name", V3)
def test_zarr_3(tmp_path: Path, name: str) -> None:
    options, dtype = V3[name]
    check(tmp_path, dict(options), dtype, 3)


@pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr version 3")
@pytest.mark.parametrize("name", V3_NUMCODECS)
def test_zarr_3_with_codecs_of_numcodecs(tmp_path: Path, name: str) -> None:
    with pytest.warns(ZarrUserWarning):
        options = V3_NUMCODECS[name]()
    check(tmp_path, options, "<u2", 3)
