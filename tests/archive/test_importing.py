"""Import into OME-Zarr: voxels arrive as they are, whatever they came in."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ctray.archive import importing
from ctray.archive.importing import choose_grid, import_volume
from ctray.core.errors import InvalidVolumeError, NotFoundError, OutputExistsError
from ctray.core.geometry import VoxelSize
from ctray.volumes.volume import open_volume

KINDS = ("tiff", "tiff-zlib", "tiff-folder", "hdf5", "zarr2", "zarr3")


def save(volume: np.ndarray, kind: str, folder: Path) -> Path:
    """Write `volume` in one of `KINDS` and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    if kind.startswith("tiff") and kind != "tiff-folder":
        path = folder / "a.tif"
        compression = "zlib" if kind == "tiff-zlib" else None
        tifffile.imwrite(path, volume, photometric="minisblack", compression=compression)
    elif kind == "tiff-folder":
        path = folder / "slices"
        path.mkdir()
        for i, page in enumerate(volume):
            tifffile.imwrite(path / f"{i}.tif", page, photometric="minisblack")
    elif kind == "hdf5":
        path = folder / "a.h5"
        with h5py.File(path, "w") as file:
            file.create_dataset("data", data=volume, chunks=True)
    else:
        path = folder / "a.zarr"
        array = zarr.create_array(
            str(path),
            shape=volume.shape,
            dtype=volume.dtype,
            chunks=tuple(-(-n // 3) for n in volume.shape),
            zarr_format=2 if kind == "zarr2" else 3,
        )
        array[...] = volume
    return path


@settings(
    max_examples=30,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
@given(
    # Two at least: readers take axes of one for singleton axes of something flat.
    shape=st.tuples(*[st.integers(2, 20)] * 3),
    dtype=st.sampled_from(["u1", "i2", ">u2", "<i4", "f4", ">f8"]),
    kind=st.sampled_from(KINDS),
    ome_version=st.sampled_from(["0.4", "0.5"]),
    row_bytes=st.sampled_from([1, 3000, 1 << 20]),
    slab_bytes=st.sampled_from([1, 5000]),
    seed=st.integers(0, 99),
)
def test_voxels_arrive_as_they_are(
    tmp_path_factory: pytest.TempPathFactory,
    shape: tuple[int, int, int],
    dtype: str,
    kind: str,
    ome_version: str,
    row_bytes: int,
    slab_bytes: int,
    seed: int,
) -> None:
    folder = tmp_path_factory.mktemp("import")
    volume = np.random.default_rng(seed).integers(0, 120, shape).astype(dtype)
    path = save(volume, kind, folder)
    # Small bounds make many rows and slabs out of a small volume.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importing, "ROW_BYTES", row_bytes)
        patch.setattr(importing, "_SLAB_BYTES", slab_bytes)
        result = import_volume(str(path), str(folder / "out.zarr"), ome_version=ome_version)
    opened = open_volume(result.url)
    assert opened.ome_version == ome_version
    assert opened.shape == result.shape == shape
    assert opened.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(opened.read_level(0), volume)


@pytest.mark.parametrize("kind", KINDS)
def test_result_and_provenance(tmp_path: Path, kind: str) -> None:
    volume = np.arange(100 * 70 * 80, dtype=np.uint16).reshape(100, 70, 80)
    path = save(volume, kind, tmp_path)
    steps: list[tuple[int, int]] = []
    result = import_volume(
        str(path),
        str(tmp_path / "out.zarr"),
        voxel_size=VoxelSize.of([2.0]),
        progress=lambda done, total: steps.append((done, total)),
    )
    opened = open_volume(result.url)
    assert opened.voxel_size == VoxelSize.of([2.0])
    assert opened.attributes["source_url"] == str(path)
    assert opened.attributes["voxel_size_source"] == "given"
    assert opened.attributes["dataset"] == ("/data" if kind == "hdf5" else None)
    assert opened.attributes["ctray_version"]
    assert [level.shape for level in opened.levels] == [(100, 70, 80), (50, 35, 40)]
    assert steps == sorted(steps)
    assert steps[-1] == (volume.nbytes, volume.nbytes)
    assert result.bytes_read > 0
    assert result.bytes_written >= volume.nbytes
    np.testing.assert_array_equal(opened.read_level(0), volume)


def test_voxel_size_is_carried_over(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    metadata = {"spacing": 3.0, "unit": "um", "axes": "ZYX"}
    volume = np.zeros((5, 6, 7), np.uint8)
    tifffile.imwrite(path, volume, imagej=True, resolution=(0.5, 0.5), metadata=metadata)
    result = import_volume(str(path), str(tmp_path / "out.zarr"))
    assert result.voxel_size_source == "ImageJ metadata"
    found = open_volume(result.url).voxel_size
    assert found is not None
    assert found.um == pytest.approx((3, 2, 2))


def test_nan_and_constant_volumes(tmp_path: Path) -> None:
    some = np.ones((5, 6, 7), np.float32)
    some[2, 3, 4] = np.nan
    for i, volume in enumerate([some, np.full((5, 6, 7), np.nan), np.zeros((5, 6, 7), np.uint8)]):
        path = save(volume, "tiff", tmp_path / str(i))
        result = import_volume(str(path), str(tmp_path / f"{i}.zarr"))
        np.testing.assert_array_equal(open_volume(result.url).read_level(0), volume)


def test_existing_output_is_kept(tmp_path: Path) -> None:
    volume = np.arange(210, dtype=np.uint8).reshape(5, 6, 7)
    path, out = save(volume, "tiff", tmp_path), str(tmp_path / "out.zarr")
    import_volume(str(path), out)
    with pytest.raises(OutputExistsError):
        import_volume(str(path), out)
    np.testing.assert_array_equal(open_volume(out).read_level(0), volume)


def test_source_is_never_the_output(tmp_path: Path) -> None:
    volume = np.arange(210, dtype=np.uint8).reshape(5, 6, 7)
    path = save(volume, "zarr3", tmp_path)
    for out in (path, path / "inside"):
        with pytest.raises(OutputExistsError):
            import_volume(str(path), str(out))
    np.testing.assert_array_equal(open_volume(str(path)).read_level(0), volume)


def test_interrupted_import_is_redone(tmp_path: Path) -> None:
    volume = np.arange(100 * 30 * 30, dtype=np.uint16).reshape(100, 30, 30)
    path, out = save(volume, "tiff-zlib", tmp_path), str(tmp_path / "out.zarr")

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_volume(str(path), out, progress=stop)
    with pytest.raises((NotFoundError, InvalidVolumeError)):
        open_volume(out)
    import_volume(str(path), out)
    np.testing.assert_array_equal(open_volume(out).read_level(0), volume)


def test_source_that_breaks_on_the_way_commits_nothing(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).integers(0, 9, (12, 50, 60)).astype(np.uint8)
    path = save(volume, "tiff-folder", tmp_path)
    tifffile.imwrite(path / "4.tif", volume[4, :, :50])
    tifffile.imwrite(path / "4.tif", volume[4, :25], compression="zlib")
    good = (path / "5.tif").stat().st_size
    with (path / "4.tif").open("ab") as file:
        file.write(bytes(good - (path / "4.tif").stat().st_size))
    out = str(tmp_path / "out.zarr")
    with pytest.raises(InvalidVolumeError, match=r"4\.tif"):
        import_volume(str(path), out)
    with pytest.raises((NotFoundError, InvalidVolumeError)):
        open_volume(out)


def test_missing_source_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        import_volume(str(tmp_path / "none.tif"), str(tmp_path / "out.zarr"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("shape", "dtype", "chunk_z", "shard_z"),
    [
        ((6100, 1000, 1000), "u1", 64, 256),
        ((6100, 2000, 2000), "u1", 64, 128),
        ((6100, 2000, 2000), "f4", 32, 32),
        ((6100, 8000, 8000), "f4", 8, 8),
        ((20, 8000, 8000), "u1", 8, 8),
        ((20, 100, 100), "u1", 64, 64),
    ],
)
def test_rows_of_shards_stay_small(
    shape: tuple[int, int, int], dtype: str, chunk_z: int, shard_z: int
) -> None:
    grid = choose_grid(shape, np.dtype(dtype))
    assert (grid.chunk[0], grid.shard[0]) == (chunk_z, shard_z)


@pytest.mark.parametrize("kind", ["tiff", "tiff-zlib", "hdf5"])
def test_memory_is_bounded_by_a_row(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A volume of 16 rows must not take much more than one of them."""
    volume: np.ndarray[Any, Any] = np.zeros((1024, 200, 200), np.uint8)
    volume[::7] = 3
    path = save(volume, kind, tmp_path)
    row_bytes = 64 * 200 * 200
    monkeypatch.setattr(importing, "ROW_BYTES", row_bytes)
    monkeypatch.setattr(importing, "_SLAB_BYTES", row_bytes // 4)
    del volume
    tracemalloc.start()
    try:
        import_volume(str(path), str(tmp_path / "out.zarr"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10 * row_bytes < 1024 * 200 * 200
