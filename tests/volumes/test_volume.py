"""Volumes that others wrote: what is read, how it is placed, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr_makers import axes_of, scale, translation

from ctray.core.errors import GeometryError, InvalidVolumeError, NotFoundError
from ctray.core.geometry import Box, VoxelSize
from ctray.core.grid import ShardGrid
from ctray.storage import store
from ctray.volumes.multiscale import downsample_mean
from ctray.volumes.volume import Volume, open_volume
from ctray.volumes.working import read_working
from ctray.volumes.writer import create_volume

RNG = np.random.default_rng(11)


def image(
    folder: Path,
    arrays: list[np.ndarray],
    transforms: list[list[dict[str, Any]]],
    *,
    axes: list[dict[str, str]],
    zarr_format: Any = 3,
    version: str | None = None,
    **more: Any,
) -> str:
    """Write an OME-Zarr group with zarr alone and return its path."""
    group = zarr.open_group(folder, mode="w", zarr_format=zarr_format)
    datasets = []
    for i, (array, steps) in enumerate(zip(arrays, transforms, strict=True)):
        group.create_array(f"s{i}", data=array, chunks=(8,) * array.ndim)
        datasets.append({"path": f"s{i}", "coordinateTransformations": steps})
    entry: dict[str, Any] = {"axes": axes, "datasets": datasets, **more}
    if zarr_format == 3:
        group.attrs["ome"] = {"version": version or "0.5", "multiscales": [entry]}
    else:
        group.attrs["multiscales"] = [entry | ({"version": version} if version else {})]
    return str(folder)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("dtype", ["uint8", ">u2", "int16", "float32", "bool"])
@pytest.mark.parametrize("lead", [(), (1,), (1, 1)])
def test_bare_arrays(tmp_path: Path, zarr_format: Any, dtype: str, lead: tuple[int, ...]) -> None:
    array = (RNG.random((*lead, 9, 7, 5)) * 100).astype(dtype)
    zarr.create_array(tmp_path / "a", data=array, zarr_format=zarr_format)
    volume = open_volume(str(tmp_path / "a"))
    assert volume.shape == (9, 7, 5)
    assert volume.dtype == np.dtype(dtype).newbyteorder("=")
    assert volume.voxel_size is None
    assert volume.ome_version is None
    assert volume.attributes == {}
    assert volume.num_bytes == 9 * 7 * 5 * volume.dtype.itemsize
    read = volume.read(Box(start=(1, 2, 0), stop=(9, 6, 5)))
    np.testing.assert_array_equal(read, array.reshape(9, 7, 5)[1:9, 2:6])
    assert read.dtype == volume.dtype


@pytest.mark.parametrize(
    ("names", "shape"),
    [("zyx", (9, 8, 7)), ("czyx", (1, 9, 8, 7)), ("tczyx", (1, 1, 9, 8, 7))],
)
@pytest.mark.parametrize(("zarr_format", "version"), [(2, "0.4"), (2, None), (3, "0.5")])
def test_images_with_singleton_axes(
    tmp_path: Path, names: str, shape: tuple[int, ...], zarr_format: int, version: str | None
) -> None:
    array = RNG.integers(0, 99, shape, dtype=np.uint8)
    ones = [1.0] * (len(names) - 3)
    url = image(
        tmp_path / "v",
        [array],
        [[scale(*ones, 0.004, 0.002, 0.001), translation(*[0.0] * len(ones), 1.0, 2.0, 3.0)]],
        axes=axes_of(names, "millimeter"),
        zarr_format=zarr_format,
        version=version,
    )
    volume = open_volume(url)
    assert volume.shape == (9, 8, 7)
    assert volume.voxel_size is not None
    assert volume.voxel_size.um == pytest.approx((4.0, 2.0, 1.0))
    assert volume.origin_um == pytest.approx((1000.0, 2000.0, 3000.0))
    assert volume.ome_version == ("0.4" if zarr_format == 2 else "0.5")
    np.testing.assert_array_equal(volume.read_level(0), array.reshape(9, 8, 7))


def test_mixed_units_and_an_outer_transform(tmp_path: Path) -> None:
    axes = axes_of("zyx")
    axes[0]["unit"] = "nanometer"
    url = image(
        tmp_path / "v",
        [np.zeros((8, 8, 8), np.uint8), np.zeros((4, 4, 4), np.uint8)],
        [
            [scale(1, 1, 1), translation(10, 10, 10)],
            [scale(2, 2, 2), translation(10.5, 10.5, 10.5)],
        ],
        axes=axes,
        coordinateTransformations=[scale(500, 3, 3), translation(1000, 0, 0)],
    )
    volume = open_volume(url)
    assert volume.voxel_size == VoxelSize.of((0.5, 3.0, 3.0))
    assert volume.origin_um == pytest.approx((6.0, 30.0, 30.0))
    assert volume.levels[1].factors == (2, 2, 2)
    assert volume.levels[1].offset == pytest.approx((0.5, 0.5, 0.5))


@pytest.mark.parametrize("unit", [None, "pixel"])
def test_without_a_length_places_count_voxels(tmp_path: Path, unit: str | None) -> None:
    url = image(
        tmp_path / "v",
        [np.zeros((4, 4, 4), np.uint8)],
        [[scale(2, 2, 2), translation(6, 8, 10)]],
        axes=axes_of("zyx", unit),
    )
    volume = open_volume(url)
    assert volume.voxel_size is None
    assert volume.origin_um == (3.0, 4.0, 5.0)


def test_factors_come_from_scales_then_shapes(tmp_path: Path) -> None:
    arrays = [np.zeros(s, np.uint8) for s in ((33, 30, 1), (17, 15, 1), (8, 8, 1), (20, 20, 1))]
    steps = [[scale(1, 1, 1)], [scale(2, 2, 1)], [], [scale(1.5, 1.5, 1)]]
    url = image(tmp_path / "v", arrays, steps, axes=axes_of("zyx"))
    volume = open_volume(url)
    # The last is no whole multiple of level 0 and is left out.
    assert [level.factors for level in volume.levels] == [(1, 1, 1), (2, 2, 1), (4, 4, 1)]
    assert volume.levels[2].offset == (1.5, 1.5, 0.0)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((5, 5), "2D array of shape"),
        ((2, 5, 5, 5), r"shape \(2, 5, 5, 5\) has 4 axes longer than 1, without names"),
        ((3, 1, 5, 5, 5), r"shape \(3, 1, 5, 5, 5\) has 4 axes longer than 1, without names"),
        ((1, 1, 1, 5, 5, 5), "ctray reads z, y, x"),
        ((5, 0, 5), "axis y of shape .* has no voxels"),
    ],
)
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_arrays_that_are_no_volume(
    tmp_path: Path, shape: tuple[int, ...], message: str, zarr_format: Any
) -> None:
    zarr.create_array(tmp_path / "a", shape=shape, dtype="u1", zarr_format=zarr_format)
    with pytest.raises(InvalidVolumeError, match=message):
        open_volume(str(tmp_path / "a"))


def test_other_things_that_are_no_volume(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "complex", shape=(3, 3, 3), dtype="complex64")
    with pytest.raises(InvalidVolumeError, match="complex64 is no grey value"):
        open_volume(str(tmp_path / "complex"))
    for zarr_format in (2, 3):
        zarr.open_group(tmp_path / f"g{zarr_format}", mode="w", zarr_format=zarr_format)
        with pytest.raises(InvalidVolumeError, match="without multiscales"):
            open_volume(str(tmp_path / f"g{zarr_format}"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(InvalidVolumeError, match="no Zarr volume"):
        open_volume(str(tmp_path / "folder"))
    (tmp_path / "file.tif").write_bytes(b"II")
    with pytest.raises(InvalidVolumeError, match="no Zarr volume"):
        open_volume(str(tmp_path / "file.tif"))
    with pytest.raises(NotFoundError):
        open_volume(str(tmp_path / "file.tif" / "deeper"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"datasets": []}, "damaged OME metadata"),
        ({"datasets": [{"path": "gone"}]}, "gone"),
        ({"axes": None}, "damaged OME metadata"),
        ({"axes": axes_of("yx")}, "damaged OME metadata"),
    ],
)
def test_damaged_multiscales(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    url = image(
        tmp_path / "v", [np.zeros((4, 4, 4), np.uint8)], [[scale(1, 1, 1)]], axes=axes_of("zyx")
    )
    ome = store.read_json(url + "/zarr.json")
    ome["attributes"]["ome"]["multiscales"][0].update(change)
    store.write_json(url + "/zarr.json", ome)
    with pytest.raises((InvalidVolumeError, NotFoundError), match=message) as caught:
        open_volume(url)
    assert "\n" not in str(caught.value)


def test_a_flat_image_is_no_volume(tmp_path: Path) -> None:
    url = image(tmp_path / "v", [np.zeros((4, 4), np.uint8)], [[scale(1, 1)]], axes=axes_of("yx"))
    with pytest.raises(InvalidVolumeError, match=r"2D array of shape \(4, 4\)"):
        open_volume(url)


@pytest.mark.parametrize("bad", [scale(0, 1, 1), scale(1, 1), {"type": "affine", "affine": []}])
def test_transforms_that_make_no_sense(tmp_path: Path, bad: dict[str, Any]) -> None:
    url = image(tmp_path / "v", [np.zeros((4, 4, 4), np.uint8)], [[bad]], axes=axes_of("zyx"))
    with pytest.raises(InvalidVolumeError, match="damaged OME metadata"):
        open_volume(url)


def test_versions_that_are_not_read(tmp_path: Path) -> None:
    url = image(
        tmp_path / "v",
        [np.zeros((4, 4, 4), np.uint8)],
        [[scale(1, 1, 1)]],
        axes=axes_of("zyx"),
        zarr_format=2,
        version="0.1",
    )
    with pytest.raises(InvalidVolumeError, match=r"does not read OME-Zarr 0\.1"):
        open_volume(url)


def stored(url: str, array: np.ndarray, num_levels: int, *, chunk: int = 8) -> Volume:
    writer = create_volume(
        url,
        shape=array.shape,
        dtype=array.dtype,
        voxel_size=None,
        num_levels=num_levels,
        grid=ShardGrid.choose(array.shape, chunk=(chunk,) * 3, shard=(2 * chunk,) * 3),
    )
    writer.write(Box.whole(array.shape), array)
    writer.build_pyramid()
    writer.commit({})
    return open_volume(url)


@pytest.mark.parametrize(
    ("max_bytes", "depth"),
    [(10**9, 40), (16 * 30 * 20 * 2, 16), (15 * 30 * 20 * 2, 8), (3 * 30 * 20 * 2, 3), (1, 1)],
)
def test_slabs_cover_a_level_in_order(tmp_path: Path, max_bytes: int, depth: int) -> None:
    array = RNG.integers(0, 2**16, (40, 30, 20), dtype=np.uint16)
    volume = stored(str(tmp_path / "v"), array, 1)
    slabs = list(volume.iter_slabs(max_bytes=max_bytes))
    assert [box.start[0] for box, _ in slabs] == list(range(0, 40, depth))
    assert all(voxels.nbytes <= max(max_bytes, 30 * 20 * 2) for _, voxels in slabs)
    np.testing.assert_array_equal(np.concatenate([voxels for _, voxels in slabs]), array)


@pytest.mark.parametrize("max_bytes", [10**9, 16**3 * 2, 2000])
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_working_volume_by_further_halves(tmp_path: Path, dtype: str, max_bytes: int) -> None:
    array = (RNG.random((100, 57, 52)) * 1000).astype(dtype)
    volume = stored(str(tmp_path / "v"), array, 2)
    levels = [array]
    for working_size, factor in ((100, 1), (50, 2), (25, 4), (13, 8), (7, 16)):
        working, factors = read_working(volume, working_size, max_bytes=max_bytes)
        assert factors == (factor,) * 3
        if factor == 1:
            np.testing.assert_array_equal(working, array)
            continue
        # The last mean is not rounded, be it of a stored level or of one that is none.
        assert working.dtype == np.float32
        np.testing.assert_array_equal(working, downsample_mean(levels[-1].astype(np.float32)))
        levels.append(downsample_mean(levels[-1]))
    assert read_working(volume, 1000)[1] == (1, 1, 1)


def test_working_volume_takes_a_stored_level(tmp_path: Path) -> None:
    volume = stored(str(tmp_path / "v"), np.ones((64, 64, 64), np.uint8), 3, chunk=32)
    before = volume.bytes_read
    read_working(volume, 16)
    small = volume.bytes_read - before
    read_working(volume, 64)
    assert small < volume.bytes_read - before - small


def test_levels_and_boxes_that_are_not_there(tmp_path: Path) -> None:
    volume = stored(str(tmp_path / "v"), np.zeros((10, 10, 10), np.uint8), 2)
    with pytest.raises(GeometryError, match="levels 0 to 1, not level 2"):
        volume.read(Box.whole((1, 1, 1), level=2))
    with pytest.raises(GeometryError, match="exceeds extent 5 at level 1"):
        volume.read(Box.whole((6, 5, 5), level=1))
    with pytest.raises(GeometryError, match="working size 0"):
        read_working(volume, 0)
    assert "v" in repr(volume)


def test_what_a_writer_refuses(tmp_path: Path) -> None:
    url = str(tmp_path / "v")
    with pytest.raises(InvalidVolumeError, match="no grey value"):
        create_volume(url, shape=(4, 4, 4), dtype="complex64", voxel_size=None)
    grid = ShardGrid.choose((5, 4, 4))
    with pytest.raises(GeometryError, match="does not fit volume shape"):
        create_volume(url, shape=(4, 4, 4), dtype="u1", voxel_size=None, grid=grid)
    writer = create_volume(url, shape=(4, 4, 4), dtype="u1", voxel_size=None)
    box = Box.whole((4, 4, 4))
    with pytest.raises(GeometryError, match="does not fill box"):
        writer.write(box, np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(InvalidVolumeError, match="uint16 voxels do not fit"):
        writer.write(box, np.zeros((4, 4, 4), np.uint16))
    with pytest.raises(GeometryError, match="exceeds extent 4"):
        writer.write(Box.whole((5, 4, 4)), np.zeros((5, 4, 4), np.uint8))
    writer.write(box, np.ones((4, 4, 4), np.uint8))
    assert writer.bytes_written == 64


def test_fill_value_is_what_was_never_written(tmp_path: Path) -> None:
    writer = create_volume(
        str(tmp_path / "v"), shape=(4, 4, 4), dtype="f4", voxel_size=None, fill_value=float("nan")
    )
    writer.write(Box(start=(0, 0, 0), stop=(1, 4, 4)), np.ones((1, 4, 4), np.float32))
    writer.commit({})
    read = open_volume(str(tmp_path / "v")).read_level(0)
    assert (read[0] == 1).all()
    assert np.isnan(read[1:]).all()
