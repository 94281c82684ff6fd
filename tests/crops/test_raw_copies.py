"""Crops of volumes that others wrote: chunks copied as they are stored, voxels the same."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numcodecs import LZ4, Blosc, GZip, Zlib, Zstd
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, ZstdCodec

from ctray.core.errors import InvalidVolumeError
from ctray.core.geometry import Box
from ctray.crops.cutting import write_crop
from ctray.storage import store
from ctray.volumes.manifest import MANIFEST, differences, stored_checksum
from ctray.volumes.volume import open_volume

V3: dict[str, Any] = {
    "zstd": [ZstdCodec(level=1)],
    "zstd checked": [ZstdCodec(level=-1, checksum=True)],
    "zstd crc32c": [ZstdCodec(level=3), Crc32cCodec()],
    "crc32c zstd": [Crc32cCodec(), ZstdCodec(level=3)],
    "blosc": [BloscCodec(cname="lz4", shuffle="bitshuffle")],
    "blosc zstd": [BloscCodec(cname="zstd", clevel=3, shuffle="shuffle")],
    "gzip": [GzipCodec(level=2)],
    "crc32c": [Crc32cCodec()],
    "none": None,
}
V2: dict[str, Any] = {
    "zstd": Zstd(level=5),
    "blosc": Blosc(),
    "blosc zstd": Blosc(cname="zstd", shuffle=-1),
    "gzip": GZip(level=1),
    "zlib": Zlib(1),
    "lz4": LZ4(),
    "none": None,
}
KEPT = {"zstd", "zstd checked", "zstd crc32c", "crc32c zstd", "blosc", "blosc zstd", "gzip"}


def write_source(
    folder: Path,
    arrays: list[np.ndarray],
    *,
    codec: str,
    zarr_format: Any,
    chunk: tuple[int, ...],
    shard: tuple[int, ...] | None = None,
    fill_value: Any = 0,
    order: Any = "C",
    lead: int = 0,
    index_at_start: bool = False,
) -> str:
    """An OME-Zarr pyramid written with zarr alone; `lead` singleton axes come before z, y, x."""
    group = zarr.open_group(folder, mode="w", zarr_format=zarr_format)
    ones = (1,) * lead
    datasets = []
    for n, array in enumerate(arrays):
        options: dict[str, Any] = {"chunks": (*ones, *chunk), "fill_value": fill_value}
        if zarr_format == 2:
            options |= {"compressors": V2[codec], "order": order, "dtype": array.dtype}
        else:
            big = array.dtype.byteorder == ">"
            options |= {"compressors": V3[codec], "dtype": array.dtype.newbyteorder("=")}
            if array.dtype.itemsize > 1:
                options["serializer"] = BytesCodec(endian="big" if big else "little")
            if shard is not None:
                options["shards"] = (*ones, *shard)
                if index_at_start:
                    config = {"shape": (*ones, *shard), "index_location": "start"}
                    options["shards"] = config
        made = group.create_array(str(n), shape=(*ones, *array.shape), **options)
        made[...] = array.reshape(*ones, *array.shape)
        scale = [1.0] * lead + [2.0**n] * 3
        shift = [0.0] * lead + [(2.0**n - 1) / 2] * 3
        datasets.append(
            {
                "path": str(n),
                "coordinateTransformations": [
                    {"type": "scale", "scale": scale},
                    {"type": "translation", "translation": shift},
                ],
            }
        )
    kinds = [{"name": c, "type": "channel"} for c in "tc"[2 - lead :]]
    axes = [*kinds, *({"name": a, "type": "space", "unit": "micrometer"} for a in "zyx")]
    entry = {"axes": axes, "datasets": datasets}
    if zarr_format == 3:
        group.attrs["ome"] = {"version": "0.5", "multiscales": [entry]}
    else:
        group.attrs["multiscales"] = [{"version": "0.4", **entry}]
    return str(folder)


@st.composite
def sources(draw: st.DrawFn) -> tuple[dict[str, Any], Box, str, float]:
    """Arguments of `write_source`, a box, the crop's version and what it may grow."""
    zarr_format = draw(st.sampled_from([2, 3]))
    codec = draw(st.sampled_from(sorted(V2 if zarr_format == 2 else V3)))
    chunk = draw(st.tuples(*[st.integers(1, 7)] * 3))
    shape = draw(st.tuples(*[st.integers(1, 30)] * 3))
    dtype = np.dtype(draw(st.sampled_from(["u1", "<u2", ">u2", ">i4", "<f4", ">f8", "?"])))
    fills: list[Any] = [0, 1] if dtype.kind == "b" else [0, 1, 5]
    if dtype.kind == "f":
        fills.append(float("nan"))
    if zarr_format == 2:
        fills.append(None)
    fill = draw(st.sampled_from(fills))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    array = (rng.random(shape) * 9).astype(dtype)
    # Whole chunks of the fill value are not stored.
    blocks = rng.random([-(-n // c) for n, c in zip(shape, chunk, strict=True)]) < 0.4
    hole = np.kron(blocks, np.ones(chunk, bool))[tuple(slice(n) for n in shape)]
    array[hole] = 0 if fill is None else fill
    arrays = [array]
    if draw(st.booleans()):
        arrays.append(np.ascontiguousarray(array[::2, ::2, ::2]))
    shard = None
    if zarr_format == 3 and draw(st.booleans()):
        shard = tuple(c * draw(st.integers(1, 3)) for c in chunk)
    start, stop = [], []
    for n, c in zip(shape, chunk, strict=True):
        # At chunks half of the time: else hardly anything would be copied as it is.
        a = draw(st.integers(0, (n - 1) // (2 * c))) * 2 * c
        if draw(st.integers(0, 3)) == 0:
            a = draw(st.integers(0, n - 1))
        b = draw(st.one_of(st.just(n), st.integers(a + 1, n)))
        start.append(a)
        stop.append(b)
    arguments = {
        "arrays": arrays,
        "codec": codec,
        "zarr_format": zarr_format,
        "chunk": chunk,
        "shard": shard,
        "fill_value": fill,
        "order": draw(st.sampled_from(["C", "C", "F"])),
        "lead": draw(st.sampled_from([0, 0, 1, 2])),
    }
    box = Box(start=tuple(start), stop=tuple(stop))
    version = draw(st.sampled_from(["0.4", "0.5", "0.5"]))
    return arguments, box, version, draw(st.sampled_from([0.0, 0.05, 1.0]))


@settings(max_examples=80)
@given(sources())
def test_crops_are_their_sources(case: tuple[dict[str, Any], Box, str, float]) -> None:
    arguments, box, version, snap = case
    with tempfile.TemporaryDirectory() as folder:
        source = open_volume(write_source(Path(folder) / "v", **arguments))
        result = write_crop(
            source,
            box,
            str(Path(folder) / "c"),
            provenance={},
            ome_version=version,
            snap_chunks=snap,
        )
        assert result.box.contains(box)
        crop = open_volume(result.url)
        # In voxels, by zarr alone; fill values and NaN included.
        for n, level in enumerate(crop.levels):
            region = result.box.to_level(n, level.factors, source.levels[n].shape) if n else None
            if n >= len(source.levels):
                break
            expected = source.read(region or result.box)
            stored = zarr.open_array(Path(folder) / "c" / str(n), mode="r")[:]
            np.testing.assert_array_equal(stored, expected)
            np.testing.assert_array_equal(crop.read_level(n), expected)
        assert crop.dtype == source.dtype
        assert stored_checksum(crop.url) == result.checksum
        assert list(differences(crop.url, result.checksum)) == []
        if arguments["codec"] not in KEPT:
            assert result.copied_part == 0


@settings(max_examples=25)
@given(
    st.sampled_from(sorted(KEPT)),
    st.sampled_from([None, (8, 8, 8), (16, 16, 16)]),
    st.sampled_from(["0.4", "0.5"]),
    st.booleans(),
)
def test_aligned_chunks_keep_their_bytes(
    codec: str, shard: tuple[int, ...] | None, version: str, missing: bool
) -> None:
    zarr_format = 2 if shard is None and codec in V2 else 3
    assume(version == "0.5" or "crc32c" not in codec)
    array = np.random.default_rng(1).integers(1, 900, (32, 24, 32)).astype(">u2")
    if missing:
        array[16:24, 8:16, 8:16] = 0
    with tempfile.TemporaryDirectory() as folder:
        url = write_source(
            Path(folder) / "v",
            [array],
            codec=codec,
            zarr_format=zarr_format,
            chunk=(8, 8, 8),
            shard=shard,
        )
        source = open_volume(url)
        box = Box(start=(16, 8, 8), stop=(32, 24, 30))
        result = write_crop(
            source, box, str(Path(folder) / "c"), provenance={}, ome_version=version, snap_chunks=0
        )
        # Three of eight chunks along x are cut by the box: 6 of 22 voxels.
        assert result.copied_part == pytest.approx(
            16 / 22 + (6 / 22 / 8 if missing else 0), abs=0.1
        )
        before, after = source.stored_chunks(0), open_volume(result.url).stored_chunks(0)
        assert before is not None
        assert after is not None
        cells = [(z, y, x) for z in (0, 1) for y in (0, 1) for x in (0, 1)]
        old = before.fetch([(z + 2, y + 1, x + 1) for z, y, x in cells])
        new = after.fetch(cells)
        assert [None if d is None else bytes(d) for d in old] == [
            None if d is None else bytes(d) for d in new
        ]
        assert (old.count(None) == 1) is missing


def test_whole_shards_are_the_same_objects(tmp_path: Path) -> None:
    array = np.random.default_rng(1).integers(1, 900, (40, 32, 32)).astype("<u2")
    for name, start in (("end", False), ("start", True)):
        url = write_source(
            tmp_path / name,
            [array],
            codec="zstd",
            zarr_format=3,
            chunk=(8, 8, 8),
            shard=(16, 16, 16),
            index_at_start=start,
        )
        # To the very end of z, where the last shard reaches beyond the volume.
        box = Box(start=(16, 0, 16), stop=(40, 32, 32))
        result = write_crop(open_volume(url), box, f"{url}-crop", provenance={}, snap_chunks=0)
        assert result.copied_part == 1
        np.testing.assert_array_equal(open_volume(result.url).read_level(0), array[box.slices])
        same = [
            Path(url, "0/c", *map(str, (z + 1, y, 1))).read_bytes()
            == Path(result.url, "0/c", *map(str, (z, y, 0))).read_bytes()
            for z in (0, 1)
            for y in (0, 1)
        ]
        assert all(same) or start


def test_a_crop_grows_to_chunks_where_that_is_cheap(tmp_path: Path) -> None:
    array = np.random.default_rng(1).integers(1, 900, (96, 64, 64)).astype("<u2")
    url = write_source(tmp_path / "v", [array], codec="blosc", zarr_format=2, chunk=(8, 8, 8))
    source = open_volume(url)

    def crop(box: Box, **options: Any) -> tuple[Box, float]:
        target = str(tmp_path / "c")
        shutil.rmtree(target, ignore_errors=True)
        result = write_crop(source, box, target, provenance={}, **options)
        return result.box, result.copied_part

    box = Box(start=(2, 0, 0), stop=(95, 64, 64))
    assert crop(box) == (Box.whole((96, 64, 64)), 1.0)
    assert crop(box, snap_chunks=0) == (box, 0.0)
    # Growing the starts alone is within 5% here, the far face of z is not: its chunks are cut.
    tight = Box(start=(1, 0, 0), stop=(45, 64, 64))
    grown, part = crop(tight, snap_chunks=0.03)
    assert (grown, part) == (Box(start=(0, 0, 0), stop=(45, 64, 64)), pytest.approx(40 / 45))
    # A small box would double.
    small = Box(start=(5, 5, 5), stop=(12, 12, 12))
    assert crop(small) == (small, 0.0)


@pytest.mark.parametrize("codec", ["zstd", "zstd crc32c", "blosc", "gzip"])
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("damage", ["cut", "zeroed", "index", "swapped"])
def test_no_broken_chunk_is_carried_over(
    tmp_path: Path, codec: str, whole: bool, damage: str
) -> None:
    array = np.random.default_rng(1).integers(1, 900, (32, 32, 32)).astype("<u2")
    array[8:16] += 5
    url = write_source(
        tmp_path / "v", [array], codec=codec, zarr_format=3, chunk=(8, 8, 8), shard=(16, 16, 16)
    )
    shard = Path(url, "0/c/0/0/0")
    data = bytearray(shard.read_bytes())
    size = 16 * 8 + 4
    if damage == "cut":
        data = data[: len(data) // 2]
    elif damage == "zeroed":
        data[0:40] = bytes(40)
    elif damage == "index":
        data[-size + 3] ^= 1
    else:
        # An index whose checksum fits and that leads beyond the object.
        from ctray.volumes.sharding import crc32c

        table = np.frombuffer(bytes(data[-size:-4]), "<u8").copy().reshape(8, 2)
        table[7] = (len(data) - 50, 400)
        data[-size:] = table.tobytes() + crc32c(table.tobytes())
    shard.write_bytes(bytes(data))
    # All of it, or a part that is put together from its chunks.
    box = Box.whole((32, 32, 32)) if whole else Box(start=(0, 0, 0), stop=(24, 24, 24))
    with pytest.raises(InvalidVolumeError, match="damaged") as caught:
        write_crop(open_volume(url), box, str(tmp_path / "c"), provenance={})
    assert "\n" not in str(caught.value)
    assert "0/c/0/0/0" in str(caught.value)
    assert not (tmp_path / "c" / "zarr.json").exists()


def test_a_flipped_bit_is_seen_where_chunks_carry_a_checksum(tmp_path: Path) -> None:
    array = np.random.default_rng(1).integers(1, 60_000, (16, 16, 16)).astype("<u2")
    for codec in ("zstd crc32c", "zstd checked", "gzip"):
        url = write_source(tmp_path / codec, [array], codec=codec, zarr_format=3, chunk=(8, 8, 8))
        chunk = Path(url, "0/c/1/0/1")
        data = bytearray(chunk.read_bytes())
        data[len(data) // 2] ^= 16
        chunk.write_bytes(bytes(data))
        with pytest.raises(InvalidVolumeError, match="damaged"):
            write_crop(open_volume(url), Box.whole((16, 16, 16)), f"{url}-c", provenance={})


def test_chunks_of_another_size_than_told_are_refused(tmp_path: Path) -> None:
    array = np.random.default_rng(1).integers(1, 900, (16, 16, 16)).astype("<u2")
    for codec, pack in (("zstd", Zstd(1)), ("blosc", Blosc()), ("gzip", GZip(1))):
        url = write_source(tmp_path / codec, [array], codec=codec, zarr_format=2, chunk=(8, 8, 8))
        for size in (8 * 8 * 8, 100 * 2**20):
            # A bomb: a hundred megabytes of nothing in a few kilobytes.
            Path(url, "0/1.0.1").write_bytes(pack.encode(bytes(size)))
            with pytest.raises(InvalidVolumeError, match="damaged"):
                write_crop(
                    open_volume(url), Box.whole((16, 16, 16)), f"{url}-{size}", provenance={}
                )


def test_the_manifest_is_what_sha256sum_reads(tmp_path: Path) -> None:
    import subprocess

    array = np.random.default_rng(1).integers(1, 900, (16, 16, 16)).astype("<u2")
    url = write_source(tmp_path / "v", [array], codec="zstd", zarr_format=2, chunk=(8, 8, 8))
    result = write_crop(
        open_volume(url), Box.whole((16, 16, 16)), str(tmp_path / "c"), provenance={}
    )
    command = ["sha256sum", "--check", "--strict", "--quiet", MANIFEST]
    subprocess.run(command, cwd=result.url, check=True)
    shard = Path(result.url, "0/c/0/0/0")
    shard.write_bytes(shard.read_bytes()[:-1])
    assert subprocess.run(command, cwd=result.url, capture_output=True).returncode == 1
    assert list(differences(result.url, result.checksum)) == ["0/c/0/0/0 has changed"]
    Path(result.url, "0/c/7").write_bytes(b"")
    shard.unlink()
    assert list(differences(result.url, result.checksum)) == [
        "0/c/7 does not belong to it",
        "0/c/0/0/0 is missing",
    ]
    store.delete_file(store.join(result.url, MANIFEST))
    assert list(differences(result.url, result.checksum)) == [f"{MANIFEST} is missing"]
