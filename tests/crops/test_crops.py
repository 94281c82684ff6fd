"""Crops of random volumes: every level a copy, every voxel at its place."""

from __future__ import annotations

import uuid
from pathlib import Path

import fsspec
import numpy as np
import ome_zarr_models
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from ome_zarr_models.v04.image import Image as Image04
from ome_zarr_models.v05.image import Image as Image05

from ctray.core.errors import GeometryError, OutputExistsError
from ctray.core.geometry import Box, VoxelSize
from ctray.core.grid import ShardGrid
from ctray.crops.cutting import write_crop
from ctray.storage import store
from ctray.volumes.manifest import stored_checksum
from ctray.volumes.multiscale import downsample_mean
from ctray.volumes.volume import Volume, open_volume
from ctray.volumes.writer import create_volume


def place(volume: Volume, level: int) -> tuple[np.ndarray, np.ndarray]:
    """Physical centre of a level's first voxel and its edge, as the OME metadata say."""
    if volume.ome_version == "0.5":
        ome = store.read_json(store.join(volume.url, "zarr.json"))["attributes"]["ome"]
    else:
        ome = store.read_json(store.join(volume.url, ".zattrs"))
    transforms = ome["multiscales"][0]["datasets"][level]["coordinateTransformations"]
    assert [t["type"] for t in transforms] == ["scale", "translation"]
    return np.array(transforms[1]["translation"]), np.array(transforms[0]["scale"])


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, Box, str, int, VoxelSize | None]:
    shape = draw(st.tuples(*[st.integers(1, 40)] * 3))
    dtype = draw(st.sampled_from(["uint8", "uint16", "float32"]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    array = (rng.random(shape) * 250).astype(dtype)
    start, stop = [], []
    for n in shape:
        a, b = sorted((draw(st.integers(0, n - 1)), draw(st.integers(0, n - 1))))
        start.append(a)
        stop.append(b + 1)
    size = draw(st.sampled_from([None, VoxelSize.of((4.0, 2.0, 0.5))]))
    version = draw(st.sampled_from(["0.4", "0.5"]))
    return array, Box(start=tuple(start), stop=tuple(stop)), version, draw(st.integers(1, 4)), size


@settings(max_examples=25)
@given(cases())
def test_every_level_is_a_copy_at_its_place(
    case: tuple[np.ndarray, Box, str, int, VoxelSize | None],
) -> None:
    array, box, version, num_levels, size = case
    base = f"memory://{uuid.uuid4().hex}"
    writer = create_volume(
        store.join(base, "source"),
        shape=array.shape,
        dtype=array.dtype,
        voxel_size=size,
        origin_um=(100.0, -7.0, 0.25),
        num_levels=num_levels,
        grid=ShardGrid.choose(array.shape, chunk=(8, 8, 8), shard=(16, 16, 16)),
        ome_version=version,
    )
    writer.write(Box.whole(array.shape), array)
    writer.build_pyramid()
    writer.commit({})
    source = open_volume(store.join(base, "source"))
    result = write_crop(
        source, box, store.join(base, "crop"), provenance={}, max_stride=4, ome_version=version
    )
    crop = open_volume(result.url)
    assert result.box.contains(box)
    assert result.bytes_written == sum(
        int(np.prod(level.shape)) * array.itemsize for level in crop.levels
    )
    np.testing.assert_array_equal(crop.read_level(0), array[result.box.slices])
    if num_levels > 1:
        # Stride 4 keeps levels of factor 1, 2 and 4.
        assert len(crop.levels) == min(num_levels, 3)
    for n, level in enumerate(crop.levels):
        centre, edge = place(crop, n)
        if n < num_levels:
            start = np.array(result.box.start) // level.factors
            stop = start + level.shape
            region = Box(start=tuple(start), stop=tuple(stop), level=n)
            np.testing.assert_array_equal(crop.read_level(n), source.read(region))
            source_centre, source_edge = place(source, n)
            np.testing.assert_array_equal(edge, source_edge)
            np.testing.assert_allclose(centre, source_centre + start * source_edge, rtol=1e-12)
    fsspec.filesystem("memory").rm(f"/{base.removeprefix('memory://')}", recursive=True)


def source_of(url: str, shape: tuple[int, int, int], num_levels: int, version: str) -> np.ndarray:
    array = np.random.default_rng(3).integers(0, 255, shape, dtype=np.uint8)
    writer = create_volume(
        url,
        shape=shape,
        dtype=np.uint8,
        voxel_size=VoxelSize.of((1.5,)),
        num_levels=num_levels,
        grid=ShardGrid.choose(shape, chunk=(16, 16, 16), shard=(32, 32, 32)),
        ome_version=version,
    )
    writer.write(Box.whole(shape), array)
    writer.build_pyramid()
    writer.commit({})
    return array


@pytest.mark.parametrize(("version", "image"), [("0.4", Image04), ("0.5", Image05)])
def test_others_accept_what_is_written(tmp_path: Path, version: str, image: type) -> None:
    array = source_of(str(tmp_path / "v"), (70, 50, 66), 3, version)
    source = open_volume(str(tmp_path / "v"))
    box = Box(start=(11, 20, 30), stop=(60, 41, 50))
    crop = write_crop(source, box, str(tmp_path / "c"), provenance={}, ome_version=version)
    for name in ("v", "c"):
        group = zarr.open_group(str(tmp_path / name), mode="r", use_consolidated=False)
        accepted = ome_zarr_models.open_ome_zarr(group, version=version)
        assert isinstance(accepted, image)
        assert sorted(group.array_keys()) == ["0", "1", "2"]
        if version == "0.5":
            assert group["0"].metadata.dimension_names == ("z", "y", "x")
            codecs = [codec.to_dict()["name"] for codec in group["0"].metadata.codecs[0].codecs]
            assert codecs == ["bytes", "zstd", "crc32c"]
            axes = group.attrs["ome"]["multiscales"][0]["axes"]
        else:
            assert group["0"].metadata.dimension_separator == "/"
            axes = group.attrs["multiscales"][0]["axes"]
        assert {axis["unit"] for axis in axes} == {"micrometer"}
    reopened = zarr.open_array(str(tmp_path / "c" / "0"), mode="r")
    np.testing.assert_array_equal(reopened[:], array[crop.box.slices])


def test_a_bare_array_gives_a_crop_with_a_pyramid(tmp_path: Path) -> None:
    array = np.random.default_rng(2).random((90, 80, 70)).astype(np.float32)
    zarr.create_array(tmp_path / "bare", data=array, chunks=(32, 32, 32))
    source = open_volume(str(tmp_path / "bare"))
    box = Box(start=(3, 5, 1), stop=(80, 76, 69))
    result = write_crop(source, box, str(tmp_path / "crop"), provenance={})
    # Nothing to copy but level 0, so nothing to snap to.
    assert result.box == box
    crop = open_volume(result.url)
    assert [level.factors[0] for level in crop.levels] == [1, 2]
    np.testing.assert_array_equal(crop.read_level(1), downsample_mean(array[box.slices]))
    # No unit is known: the place is counted in voxels.
    assert crop.voxel_size is None
    assert crop.origin_um == (3.0, 5.0, 1.0)
    twice = write_crop(
        crop, Box(start=(2, 2, 2), stop=(9, 9, 9)), str(tmp_path / "2"), provenance={}
    )
    assert open_volume(twice.url).origin_um == (5.0, 7.0, 3.0)


def test_a_box_of_a_coarser_level_is_refined(tmp_path: Path) -> None:
    source_of(str(tmp_path / "v"), (70, 50, 66), 3, "0.5")
    source = open_volume(str(tmp_path / "v"))
    box = Box(start=(2, 3, 4), stop=(18, 9, 10), level=2)
    result = write_crop(source, box, str(tmp_path / "c"), provenance={})
    assert result.box == Box(start=(8, 12, 16), stop=(70, 36, 40))
    assert open_volume(result.url).attributes["asked_box"] == [[8, 70], [12, 36], [16, 40]]


def test_a_pyramid_that_rounds_down_is_copied_as_it_is(tmp_path: Path) -> None:
    """Others drop the last odd voxel; the copied level must not reach past the source's."""
    url = str(tmp_path / "floor")
    arrays = [np.arange(n**3, dtype=np.uint16).reshape(n, n, n) for n in (21, 10)]
    group = zarr.open_group(url, mode="w", zarr_format=3)
    datasets = []
    for i, array in enumerate(arrays):
        group.create_array(str(i), data=array, chunks=(8, 8, 8))
        scale = {"type": "scale", "scale": [2.0**i] * 3}
        datasets.append({"path": str(i), "coordinateTransformations": [scale]})
    axes = [{"name": n, "type": "space", "unit": "millimeter"} for n in "zyx"]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    source = open_volume(url)
    assert [level.offset for level in source.levels] == [(0.0, 0.0, 0.0)] * 2
    result = write_crop(
        source, Box(start=(13, 0, 0), stop=(21, 5, 20)), str(tmp_path / "c"), provenance={}
    )
    crop = open_volume(result.url)
    assert result.box == Box(start=(12, 0, 0), stop=(21, 6, 20))
    np.testing.assert_array_equal(crop.read_level(1), arrays[1][6:10, 0:3, 0:10])
    assert place(crop, 1)[0].tolist() == [12_000.0, 0.0, 0.0]
    # At the very end the coarse level has no voxel left: the crop makes its own levels.
    end = write_crop(
        source, Box(start=(20, 0, 0), stop=(21, 5, 5)), str(tmp_path / "e"), provenance={}
    )
    np.testing.assert_array_equal(open_volume(end.url).read_level(0), arrays[0][end.box.slices])


def test_memory_bound_changes_nothing(tmp_path: Path) -> None:
    source_of(str(tmp_path / "v"), (70, 50, 66), 2, "0.5")
    source = open_volume(str(tmp_path / "v"))
    box = Box(start=(0, 0, 0), stop=(70, 40, 60))
    one = write_crop(source, box, str(tmp_path / "1"), provenance={}, bytes_in_flight=1)
    many = write_crop(source, box, str(tmp_path / "n"), provenance={}, bytes_in_flight=2**30)
    assert one.checksum == many.checksum == stored_checksum(one.url)
    np.testing.assert_array_equal(
        open_volume(one.url).read_level(1), open_volume(many.url).read_level(1)
    )


def test_the_checksum_sees_a_changed_voxel(tmp_path: Path) -> None:
    source_of(str(tmp_path / "v"), (40, 40, 40), 1, "0.5")
    source = open_volume(str(tmp_path / "v"))
    whole = Box.whole((40, 40, 40))
    result = write_crop(source, whole, str(tmp_path / "c"), provenance={})
    array = zarr.open_array(str(tmp_path / "c" / "0"), mode="r+")
    array[7, 7, 7] = int(array[7, 7, 7]) ^ 1
    assert stored_checksum(result.url) != result.checksum


def test_an_interrupted_crop_does_not_exist_and_is_redone(tmp_path: Path) -> None:
    source_of(str(tmp_path / "v"), (70, 50, 66), 3, "0.5")
    # One shard of the source is damaged: the crop breaks off in the middle.
    shard = tmp_path / "v" / "0" / "c" / "1" / "0" / "0"
    kept = shard.read_bytes()
    shard.write_bytes(kept[:50])
    source = open_volume(str(tmp_path / "v"))
    box = Box(start=(0, 0, 0), stop=(70, 40, 60))
    with pytest.raises(Exception, match="damaged"):
        write_crop(source, box, str(tmp_path / "c"), provenance={})
    assert not (tmp_path / "c" / "zarr.json").exists()
    shard.write_bytes(kept)
    result = write_crop(source, box, str(tmp_path / "c"), provenance={})
    assert stored_checksum(result.url) == result.checksum
    with pytest.raises(OutputExistsError):
        write_crop(source, box, str(tmp_path / "c"), provenance={})


def test_boxes_that_do_not_fit(tmp_path: Path) -> None:
    source_of(str(tmp_path / "v"), (40, 40, 40), 1, "0.5")
    source = open_volume(str(tmp_path / "v"))
    outside = Box(start=(0, 0, 0), stop=(41, 4, 4))
    with pytest.raises(GeometryError, match="z=41 exceeds extent 40"):
        write_crop(source, outside, str(tmp_path / "c"), provenance={})
    with pytest.raises(GeometryError, match="not level 1"):
        write_crop(
            source,
            Box(start=(0, 0, 0), stop=(1, 1, 1), level=1),
            str(tmp_path / "c"),
            provenance={},
        )
    assert not (tmp_path / "c").exists()
