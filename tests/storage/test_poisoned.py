"""Broken volumes: one line with the reason, soon, and without the memory that they ask for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
from numcodecs.abc import Codec
from poison import BOMB_BYTES, POISONS, READERS, confinement, write_poisoned, zstd_bomb
from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec, ZstdCodec

from ctray.core.errors import InvalidVolumeError
from ctray.core.geometry import Box
from ctray.localization.python_crop import crop
from ctray.storage import store
from ctray.volumes.sharding import crc32c
from ctray.volumes.volume import open_volume

SIDE = 32
# What every message must say beside the volume's name.
TELLING = {
    "truncated_shard": "checksum|cut off|ends before|bytes of a",
    "truncated_chunk": "damaged",
    "absurd_shape": r"shape \(1000000000, 1000000000, 1000000000\) is larger than any volume",
    "absurd_chunk": r"chunk of shape \(1000000000, 1000000000, 1000000000\).*smaller chunks",
    "absurd_shard": r"1,000,000,000,000,000,000,000,000 chunks.*smaller shards",
    "unknown_codec": "quantum",
    "bomb_that_tells": f"unpacks to {BOMB_BYTES} bytes; it has",
    "bomb_that_hides": "unpacks to more than",
    "cut_metadata": "damaged",
    "wrong_dtype": "damaged",
    "missing_level": r"name level '\d', which is not there",
}


def noise(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (SIDE,) * 3, dtype=np.uint8)


@pytest.fixture
def confined() -> Iterator[None]:
    """At most 2 GiB more than now, and 20 s."""
    with confinement(2 * 2**30, 20):
        yield


@pytest.mark.parametrize("name", POISONS)
def test_poison_is_one_line_soon_and_in_little_memory(
    base_url: str, confined: None, name: str
) -> None:
    for seed in (0, 1):
        url = store.join(base_url, f"{seed}.zarr")
        write_poisoned(url, name, noise(), seed)
        for read in READERS.values():
            began = time.monotonic()
            with pytest.raises(InvalidVolumeError, match=TELLING[name]) as caught:
                read(url)
            assert time.monotonic() - began < 5
            text = str(caught.value)
            assert text.startswith(url)
            assert "\n" not in text
            assert len(text) < 600


COMPRESSORS_V2 = [
    numcodecs.Zstd(),
    numcodecs.Blosc(),
    numcodecs.GZip(),
    numcodecs.Zlib(),
    numcodecs.BZ2(),
    numcodecs.LZMA(),
    numcodecs.LZ4(),
    None,
]


@pytest.mark.parametrize("compressor", COMPRESSORS_V2, ids=lambda c: getattr(c, "codec_id", "none"))
def test_v2_is_read_and_its_bombs_are_not(
    tmp_path: Path, confined: None, compressor: Codec | None
) -> None:
    url = str(tmp_path / "v.zarr")
    voxels = noise().astype(np.uint16)
    array = zarr.create_array(
        url,
        shape=voxels.shape,
        chunks=(16, 32, 32),
        dtype="u2",
        zarr_format=2,
        compressors=compressor,
    )
    array[:] = voxels
    np.testing.assert_array_equal(open_volume(url).read_level(0), voxels)
    if compressor is None:
        return
    # 64 MiB for a chunk of 32 KiB.
    (tmp_path / "v.zarr" / "1.0.0").write_bytes(bytes(compressor.encode(bytes(2**26))))
    volume = open_volume(url)
    np.testing.assert_array_equal(volume.read(Box(start=(0, 0, 0), stop=(16, 32, 32))), voxels[:16])
    with pytest.raises(InvalidVolumeError, match=r"unpacks to|holds .* bytes, more than"):
        volume.read_level(0)


@pytest.mark.parametrize("shards", [None, (32, 32, 32)], ids=["chunks", "shards"])
@pytest.mark.parametrize(
    "compressors",
    [[ZstdCodec()], [BloscCodec()], [GzipCodec()], [ZstdCodec(), Crc32cCodec()], []],
    ids=["zstd", "blosc", "gzip", "zstd-crc", "none"],
)
def test_v3_is_read_as_before(
    tmp_path: Path, compressors: list[Any], shards: tuple[int, ...] | None
) -> None:
    url = str(tmp_path / "v.zarr")
    voxels = noise().astype(np.float32)
    array = zarr.create_array(
        url,
        shape=voxels.shape,
        chunks=(16, 16, 32),
        shards=shards,
        dtype="f4",
        compressors=compressors or None,
    )
    array[:] = voxels
    np.testing.assert_array_equal(open_volume(url).read_level(0), voxels)


def test_zstd_frame_that_hides_its_size_is_read(tmp_path: Path) -> None:
    """Streaming writers do not know it beforehand."""
    url = str(tmp_path / "v.zarr")
    shape = (64, 64, 32)
    zarr.create_array(
        url, shape=shape, chunks=shape, dtype="u1", zarr_format=2, compressors=numcodecs.Zstd()
    )
    # The frame is of 128 KiB of zeros; nothing but it says so, since the fill value is 7.
    metadata = store.read_json(url + "/.zarray")
    store.write_json(url + "/.zarray", {**metadata, "fill_value": 7})
    store.write_bytes(url + "/0.0.0", zstd_bomb(2**17, tells=False))
    volume = open_volume(url)
    assert not volume.read_level(0).any()
    crop(volume, Box.whole(shape), str(tmp_path / "crop.zarr"))
    assert not open_volume(str(tmp_path / "crop.zarr")).read_level(0).any()


def test_bomb_with_a_sound_checksum_is_not_copied(tmp_path: Path) -> None:
    """Chunks with a checksum are copied without being unpacked."""
    url = str(tmp_path / "v.zarr")
    array = zarr.create_array(
        url,
        shape=(64, 64, 64),
        chunks=(32, 32, 32),
        dtype="u1",
        compressors=[ZstdCodec(), Crc32cCodec()],
    )
    array[:] = np.random.default_rng(0).integers(0, 256, (64,) * 3, dtype=np.uint8)
    bomb = zstd_bomb(2**30, tells=True)
    store.write_bytes(url + "/c/0/0/0", bomb + crc32c(bomb))
    with pytest.raises(InvalidVolumeError, match=f"unpacks to {2**30} bytes"):
        crop(open_volume(url), Box.whole((64,) * 3), str(tmp_path / "crop.zarr"))
