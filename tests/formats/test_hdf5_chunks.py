"""Chunks of HDF5 datasets: unpacked right, within their size, and none that was never written."""

from __future__ import annotations

import resource
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import imagecodecs
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ctray.archive.catalog import build_catalog
from ctray.core.errors import InvalidVolumeError
from ctray.formats.hdf5.chunks import pipeline_of, unpack
from ctray.formats.opening import open_source

SHAPE = (12, 18, 20)
CHUNK = (4, 7, 20)


def voxels(dtype: Any = np.uint16) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 200, SHAPE).astype(dtype)


def read(path: Path, dataset: str | None = None) -> np.ndarray:
    with open_source(str(path), dataset=dataset) as source:
        return np.concatenate([source.read(0, 5), source.read(5, 12)])


def reason(path: Path) -> str:
    with pytest.raises(InvalidVolumeError) as caught:
        read(path)
    assert path.name in str(caught.value)
    return str(caught.value)


PIPELINES: dict[str, dict[str, Any]] = {
    "plain": {},
    "deflate": {"compression": "gzip"},
    "shuffle": {"compression": "gzip", "shuffle": True},
    "lzf": {"compression": "lzf"},
    "shuffle-lzf": {"compression": "lzf", "shuffle": True},
    "checksum": {"compression": "gzip", "shuffle": True, "fletcher32": True},
    "checksum-lzf": {"compression": "lzf", "fletcher32": True},
    "checksum-alone": {"fletcher32": True},
    "scaleoffset": {"scaleoffset": 8},
}


@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2", "<i4", ">f4", "f8", "f2"])
@pytest.mark.parametrize("name", PIPELINES)
def test_every_pipeline_gives_the_voxels(tmp_path: Path, name: str, dtype: str) -> None:
    if name == "scaleoffset" and np.dtype(dtype).kind == "f":
        pytest.skip("lossy")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("data", data=voxels(dtype), chunks=CHUNK, **PIPELINES[name])
    np.testing.assert_array_equal(read(tmp_path / "a.h5"), voxels(dtype))


def test_filters_of_hdf5plugin(tmp_path: Path) -> None:
    plugin = pytest.importorskip("hdf5plugin")
    packers = {
        "bitshuffle": plugin.Bitshuffle(),
        "blosc": plugin.Blosc(),
        "blosc2": plugin.Blosc2(),
        "bzip2": plugin.BZip2(),
        "lz4": plugin.LZ4(),
        "zstd": plugin.Zstd(),
    }
    for name, packer in packers.items():
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file.create_dataset("data", data=voxels(), chunks=CHUNK, compression=packer)
        np.testing.assert_array_equal(read(tmp_path / f"{name}.h5"), voxels(), name)


def test_chunks_that_were_left_unpacked(tmp_path: Path) -> None:
    """Writers may leave filters out chunk by chunk: the mask says which."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset(
            "data", SHAPE, "<u2", chunks=(4, 18, 20), compression="gzip", shuffle=True
        )
        for z in (0, 4, 8):
            part = voxels("<u2")[z : z + 4].tobytes()
            mask = {0: 0b11, 4: 0b01, 8: 0b10}[z]
            if mask == 0b10:
                part = np.frombuffer(part, "u1").reshape(-1, 2).T.tobytes()
            packed = zlib.compress(part) if mask == 0b01 else part
            data.id.write_direct_chunk((z, 0, 0), packed, mask)
    np.testing.assert_array_equal(read(tmp_path / "a.h5"), voxels())


def test_integers_of_fewer_bits_are_unpacked_by_hdf5(tmp_path: Path) -> None:
    """Twelve bits, shifted: what lies in the file is not what NumPy calls a number."""
    kind = h5py.h5t.STD_U16LE.copy()
    kind.set_precision(12)
    kind.set_offset(4)
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk(CHUNK)
    plan.set_deflate(4)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        space = h5py.h5s.create_simple(SHAPE)
        data = h5py.Dataset(h5py.h5d.create(file.id, b"data", kind, space, plan))
        data[...] = voxels()
        assert not pipeline_of(data).plain
    np.testing.assert_array_equal(read(tmp_path / "a.h5"), voxels())


# --- chunks that unpack to more than they should ------------------------------------------------

_BOMB = 256 << 20


def bomb() -> bytes:
    packer = zlib.compressobj(9)
    block = bytes(1 << 20)
    return b"".join(packer.compress(block) for _ in range(_BOMB >> 20)) + packer.flush()


def lzf_bomb() -> bytes:
    packed: bytes = imagecodecs.lzf_encode(bytes(_BOMB // 4))
    return packed


def with_chunks(path: Path, packed: bytes, **options: Any) -> Path:
    with h5py.File(path, "w") as file:
        data = file.create_dataset("data", SHAPE, "<u2", chunks=SHAPE, **options)
        if options.get("fletcher32"):
            packed += bytes(4)
        data.id.write_direct_chunk((0, 0, 0), packed)
    return path


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (bomb, {"compression": "gzip"}),
        (bomb, {"compression": "gzip", "shuffle": True}),
        (bomb, {"compression": "gzip", "fletcher32": True}),
        (lzf_bomb, {"compression": "lzf"}),
        (lzf_bomb, {"compression": "lzf", "fletcher32": True}),
    ],
)
def test_bombs_are_refused_before_they_go_off(
    tmp_path: Path, make: Callable[[], bytes], options: dict[str, Any]
) -> None:
    path = with_chunks(tmp_path / "a.h5", make(), **options)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    message = reason(path)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    assert "chunk at (0, 0, 0)" in message
    assert grown < _BOMB / 4


def test_claims_of_other_packers_are_refused(tmp_path: Path) -> None:
    plugin = pytest.importorskip("hdf5plugin")
    huge = (1 << 40).to_bytes(8, "big")
    for name, packer, packed in (
        ("bitshuffle", plugin.Bitshuffle(), huge + bytes(64)),
        ("lz4", plugin.LZ4(), huge + bytes(64)),
        ("blosc", plugin.Blosc(), bytes(4) + (1 << 30).to_bytes(4, "little") + bytes(64)),
        ("zstd", plugin.Zstd(), b"\x28\xb5\x2f\xfd\xc0\x00" + (1 << 40).to_bytes(8, "little") * 3),
    ):
        path = with_chunks(tmp_path / f"{name}.h5", packed, compression=packer)
        assert "chunk at (0, 0, 0)" in reason(path), name


def test_values_beside_the_volume_are_no_bombs_either(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"] = voxels()
        file.create_dataset("voxel_size", (3,), "f8", chunks=(3,), compression="gzip")
        file["voxel_size"].id.write_direct_chunk((0,), bomb())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with open_source(str(tmp_path / "a.h5")) as source:
        assert source.voxel_size is None
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10 < _BOMB / 4


def test_sizes_that_no_scan_has(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "chunk.h5", "w") as file:
        file.create_dataset("data", (4096, 4096, 4096), "u2", chunks=(512, 2048, 1024))
    with h5py.File(tmp_path / "shape.h5", "w") as file:
        file.create_dataset("data", (2**20, 2**20, 2**20), "u2", chunks=(1, 32, 32))
    assert "2.0 GiB" in reason(tmp_path / "chunk.h5") or "written" in reason(tmp_path / "chunk.h5")
    assert "is too large" in reason(tmp_path / "shape.h5")


@settings(max_examples=60, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(noise=st.binary(max_size=200), at=st.integers(0, 100), keep=st.integers(0, 4000))
def test_damaged_chunks_are_refused(tmp_path: Path, noise: bytes, at: int, keep: int) -> None:
    packed = bytearray(zlib.compress(voxels("<u2").tobytes()))
    packed[at : at + len(noise)] = noise
    with h5py.File(tmp_path / "p.h5", "w") as file:
        pipeline = pipeline_of(
            file.create_dataset("data", SHAPE, "<u2", chunks=SHAPE, compression="gzip")
        )
    try:
        found = unpack(bytes(packed[:keep]), 0, pipeline)
    except ValueError:
        return
    np.testing.assert_array_equal(found, voxels())


# --- voxels that were never written -------------------------------------------------------------


@pytest.mark.parametrize("fillvalue", [None, 0, 7])
def test_unfinished_file_is_refused(tmp_path: Path, fillvalue: int | None) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset(
            "recon", SHAPE, "u2", chunks=(2, 18, 20), compression="gzip", fillvalue=fillvalue
        )
        data[:4], data[6:8] = voxels()[:4], voxels()[6:8]
    message = reason(tmp_path / "a.h5")
    assert "3 of 6 chunks were never written (all of 4 to 5, 8 to 11 along its" in message
    (entry,) = build_catalog(str(tmp_path))
    assert (entry.status, entry.reason) == ("failed", message)


def test_unfinished_slices_are_counted_by_chunks(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("recon", SHAPE, "u2", chunks=(12, 9, 10))
        data[:, :9] = voxels()[:, :9]
    assert "2 of 4 chunks were never written;" in reason(tmp_path / "a.h5")


@pytest.mark.parametrize("chunks", [None, (4, 18, 20)])
def test_voxels_that_were_announced_only(tmp_path: Path, chunks: Any) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("recon", SHAPE, "u2", chunks=chunks)
    assert "never written" in reason(tmp_path / "a.h5")


def test_zeros_that_were_written_are_voxels(tmp_path: Path) -> None:
    for name, options in (("packed", {"chunks": CHUNK, "compression": "gzip"}), ("plain", {})):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file.create_dataset("recon", data=np.zeros(SHAPE, "u2"), **options)
        np.testing.assert_array_equal(read(tmp_path / f"{name}.h5"), np.zeros(SHAPE))


def test_tiny_volume_in_the_object_header(tmp_path: Path) -> None:
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_layout(h5py.h5d.COMPACT)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        space = h5py.h5s.create_simple(SHAPE)
        data = h5py.h5d.create(file.id, b"data", h5py.h5t.STD_U8LE, space, plan)
        h5py.Dataset(data)[...] = voxels("u1")
    np.testing.assert_array_equal(read(tmp_path / "a.h5"), voxels("u1"))


# --- filters that are not installed -------------------------------------------------------------


@pytest.mark.parametrize(("code", "name"), [(32099, "of unknown name"), (32013, "ZFP")])
def test_missing_filter_is_named_in_the_catalog(tmp_path: Path, code: int, name: str) -> None:
    if h5py.h5z.filter_avail(code):
        pytest.skip("is installed here")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_chunk(SHAPE)
        plan.set_filter(code, h5py.h5z.FLAG_OPTIONAL, (0, 2))
        space = h5py.h5s.create_simple(SHAPE)
        data = h5py.h5d.create(file.id, b"data", h5py.h5t.STD_U16LE, space, plan)
        data.write_direct_chunk((0, 0, 0), bytes(100))
    (entry,) = build_catalog(str(tmp_path))
    assert entry.status == "failed"
    assert entry.reason is not None
    assert f"filter {code} ({name})" in entry.reason
    assert "pip install hdf5plugin" in entry.reason


def test_chunks_packed_twice_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_chunk(SHAPE)
        plan.set_deflate(1)
        plan.set_deflate(1)
        space = h5py.h5s.create_simple(SHAPE)
        data = h5py.Dataset(h5py.h5d.create(file.id, b"data", h5py.h5t.STD_U16LE, space, plan))
        data[...] = voxels()
    assert "compressed by 2 filters" in reason(tmp_path / "a.h5")


@pytest.mark.parametrize("maxshape", [None, (None, 18, 20), (None, None, 20), (None, None, None)])
@pytest.mark.parametrize("chunks", [(2, 18, 20), SHAPE])
@pytest.mark.parametrize("compression", [None, "gzip"])
def test_every_index_of_chunks(
    tmp_path: Path, maxshape: Any, chunks: Any, compression: str | None
) -> None:
    """New files index their chunks in five ways; all tell what was written."""
    options = {"chunks": chunks, "compression": compression, "maxshape": maxshape}
    with h5py.File(tmp_path / "a.h5", "w", libver="latest") as file:
        file.create_dataset("recon", data=voxels(), **options)
    np.testing.assert_array_equal(read(tmp_path / "a.h5"), voxels())
    with h5py.File(tmp_path / "b.h5", "w", libver="latest") as file:
        data = file.create_dataset("recon", SHAPE, "u2", **options)
        if chunks != SHAPE:
            data[:2] = voxels()[:2]
    assert "never written" in reason(tmp_path / "b.h5")


def test_dataset_that_was_made_smaller_or_larger(tmp_path: Path) -> None:
    for name, before, after in (("smaller", (20, 18, 20), SHAPE), ("larger", (6, 18, 20), SHAPE)):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            data = file.create_dataset(
                "recon", before, "u2", chunks=(2, 18, 20), maxshape=(None,) * 3
            )
            data[:12] = voxels()[: before[0]]
            data.resize(after)
    np.testing.assert_array_equal(read(tmp_path / "smaller.h5"), voxels())
    assert "3 of 6 chunks were never written" in reason(tmp_path / "larger.h5")
