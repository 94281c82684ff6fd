"""The contract of every store: small objects, listings, volumes, commit, errors."""

from __future__ import annotations

import numpy as np
import pytest
import zarr

from ctray.core.errors import (
    ConfigError,
    InvalidVolumeError,
    NotFoundError,
    OutputExistsError,
    StorageError,
)
from ctray.core.geometry import Box, VoxelSize
from ctray.core.grid import ShardGrid
from ctray.crops.cutting import write_crop
from ctray.storage import store
from ctray.volumes.group import is_committed
from ctray.volumes.manifest import stored_checksum
from ctray.volumes.volume import open_volume
from ctray.volumes.writer import VolumeWriter, create_volume

SHAPE = (23, 13, 29)
SMALL = {"chunk": (8, 8, 8), "shard": (16, 16, 16)}


def voxels(shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    return np.random.default_rng(5).integers(1, 60_000, shape, dtype=np.uint16)


def begin(url: str, *, ome_version: str = "0.5") -> tuple[VolumeWriter, np.ndarray]:
    array = voxels()
    writer = create_volume(
        url,
        shape=SHAPE,
        dtype=array.dtype,
        voxel_size=VoxelSize.of((3.0, 2.0, 2.0)),
        origin_um=(10.0, 20.0, 30.0),
        num_levels=3,
        grid=ShardGrid.choose(SHAPE, **SMALL),
        ome_version=ome_version,
    )
    for shard in writer.grid.shards():
        writer.write(shard, array[shard.slices])
    return writer, array


def finish(url: str, *, ome_version: str = "0.5") -> np.ndarray:
    writer, array = begin(url, ome_version=ome_version)
    writer.build_pyramid()
    writer.commit({"method": "none"})
    return array


def test_objects_round_trip_and_list(base_url: str) -> None:
    store.write_json(store.join(base_url, "a", "one.json"), {"n": 1})
    store.write_bytes(store.join(base_url, "a", "two.bin"), b"12")
    store.write_bytes(store.join(base_url, "a", "two.bin"), b"345")
    store.write_bytes(store.join(base_url, "a", "deep", "three"), b"")
    assert store.read_json(store.join(base_url, "a", "one.json")) == {"n": 1}
    assert store.read_bytes(store.join(base_url, "a", "two.bin")) == b"345"
    found = [(e.name, e.is_dir, e.size) for e in store.list_dir(store.join(base_url, "a"))]
    one_size = len(store.read_bytes(store.join(base_url, "a/one.json")))
    assert found == [("deep", True, None), ("one.json", False, one_size), ("two.bin", False, 3)]
    urls = [e.url for e in store.list_dir(store.join(base_url, "a"))]
    assert urls[2] == store.join(base_url, "a", "two.bin")
    assert store.tree_bytes(base_url) == one_size + 3


def test_an_object_of_parts_is_one_object(base_url: str) -> None:
    url = store.join(base_url, "parts")
    store.write_parts(url, [b"01", memoryview(b"x23x")[1:3], b"", b"4"])
    assert store.read_bytes(url) == bytes(store.read_view(url)) == b"01234"


def test_parts_of_objects(base_url: str) -> None:
    url = store.join(base_url, "parts")
    store.write_bytes(url, b"0123456789")
    assert store.read_ranges(url, [(7, 9), (0, 3), (2, 4)]) == [b"78", b"012", b"23"]
    assert store.read_ranges(url, [(8, 20)]) == [b"89"]
    assert store.read_suffix(url, 4) == b"6789"
    assert store.read_suffix(url, 40) == b"0123456789"
    assert sorted(store.list_tree(base_url)) == [("parts", 10)]
    # Beyond the end: nothing, or one clear error where the server refuses to answer.
    store.write_bytes(url, b"")
    for read in (lambda: store.read_ranges(url, [(5, 7)])[0], lambda: store.read_suffix(url, 4)):
        try:
            assert read() == b""
        except InvalidVolumeError as error:
            assert "ends before the requested range" in str(error)  # noqa: PT017
    for read in (store.read_ranges, store.read_suffix):
        with pytest.raises(NotFoundError):
            read(store.join(base_url, "gone"), [(0, 1)] if read is store.read_ranges else 1)


def test_existence_and_removal(base_url: str) -> None:
    url = store.join(base_url, "a", "one")
    assert not store.exists(url)
    store.write_bytes(url, b"1")
    assert store.exists(url)
    assert store.exists(store.join(base_url, "a"))
    assert not store.exists(store.join(base_url, "a", "on"))
    store.delete_file(url)
    store.delete_file(url)
    assert not store.exists(url)
    store.delete_tree(store.join(base_url, "never"))


@pytest.mark.parametrize("call", [store.read_bytes, store.list_dir, open_volume])
def test_nothing_there_is_a_clear_error(base_url: str, call: object) -> None:
    with pytest.raises(NotFoundError, match="nowhere") as caught:
        call(store.join(base_url, "nowhere"))  # type: ignore[operator]
    assert "\n" not in str(caught.value)


def test_listing_a_file_says_so(base_url: str) -> None:
    url = store.join(base_url, "one")
    store.write_bytes(url, b"1")
    with pytest.raises(NotFoundError, match="one"):
        store.list_dir(url)


def test_json_that_is_none_or_cannot_be(base_url: str) -> None:
    url = store.join(base_url, "bad.json")
    store.write_bytes(url, b"{oops")
    with pytest.raises(StorageError, match=r"no valid JSON.*remove or repair"):
        store.read_json(url)
    with pytest.raises(ConfigError, match="cannot be written as JSON"):
        store.write_json(url, {"x": float("nan")})
    assert store.read_bytes(url) == b"{oops"


@pytest.mark.parametrize("ome_version", ["0.5", "0.4"])
def test_a_volume_is_what_was_written(base_url: str, ome_version: str) -> None:
    url = store.join(base_url, "v.zarr")
    array = finish(url, ome_version=ome_version)
    volume = open_volume(url)
    assert volume.shape == SHAPE
    assert volume.dtype == np.uint16
    assert volume.voxel_size == VoxelSize.of((3.0, 2.0, 2.0))
    assert volume.origin_um == (10.0, 20.0, 30.0)
    assert volume.ome_version == ome_version
    assert volume.attributes["method"] == "none"
    assert [level.shape for level in volume.levels] == [SHAPE, (12, 7, 15), (6, 4, 8)]
    assert [level.factors[0] for level in volume.levels] == [1, 2, 4]
    assert volume.levels[2].offset == (1.5, 1.5, 1.5)
    box = Box(start=(5, 0, 17), stop=(23, 11, 28))
    np.testing.assert_array_equal(volume.read(box), array[box.slices])
    np.testing.assert_array_equal(volume.read_level(0), array)
    np.testing.assert_array_equal(
        zarr.open_array(store.zarr_store(store.join(url, "0"), read_only=True), mode="r")[:], array
    )
    assert not store.exists(store.join(url, "ctray.unfinished.json"))


def test_bytes_read_are_the_bytes_fetched(base_url: str) -> None:
    url = store.join(base_url, "v.zarr")
    finish(url)
    volume = open_volume(url)
    opened = volume.bytes_read
    metadata = [store.read_bytes(store.join(url, n, "zarr.json")) for n in ("", "0", "1", "2")]
    assert opened == sum(len(data) for data in metadata)
    volume.read_level(0)
    stored = volume.bytes_stored(level=0)
    assert stored is not None
    # Every shard once, without the array's metadata.
    assert volume.bytes_read - opened == stored - len(metadata[1])
    assert volume.bytes_stored() == store.tree_bytes(url)


def test_before_the_commit_there_is_no_volume(base_url: str) -> None:
    url = store.join(base_url, "v.zarr")
    writer, array = begin(url)
    for name in ("zarr.json", ".zgroup", ".zattrs"):
        assert not store.exists(store.join(url, name))
    with pytest.raises(NotFoundError, match="unfinished"):
        open_volume(url)
    assert not is_committed(url)
    writer.commit({})
    assert is_committed(url)
    np.testing.assert_array_equal(open_volume(url).read_level(0), array)


@pytest.mark.parametrize("ome_version", ["0.5", "0.4"])
def test_a_leftover_is_written_anew(base_url: str, ome_version: str) -> None:
    url = store.join(base_url, "v.zarr")
    begin(url, ome_version="0.5")
    begin(url, ome_version="0.4")
    # Another shape and no voxels at all: whatever still came from the leftovers would show.
    writer = create_volume(
        url, shape=(20, 20, 20), dtype=np.uint8, voxel_size=None, ome_version=ome_version
    )
    writer.commit({})
    volume = open_volume(url)
    assert volume.shape == (20, 20, 20)
    assert volume.voxel_size is None
    assert not volume.read_level(0).any()
    assert [e.name for e in store.list_dir(url) if e.is_dir] == ["0"]


def test_a_finished_volume_is_never_overwritten(base_url: str) -> None:
    url = store.join(base_url, "v.zarr")
    array = finish(url)
    with pytest.raises(OutputExistsError, match="finished volume"):
        create_volume(url, shape=(4, 4, 4), dtype=np.uint8, voxel_size=None)
    np.testing.assert_array_equal(open_volume(url).read_level(0), array)


def test_what_others_wrote_is_never_overwritten(base_url: str) -> None:
    url = store.join(base_url, "photos")
    store.write_bytes(store.join(url, "me.jpg"), b"precious")
    with pytest.raises(OutputExistsError, match=r"me\.jpg"):
        create_volume(url, shape=(4, 4, 4), dtype=np.uint8, voxel_size=None)
    assert store.read_bytes(store.join(url, "me.jpg")) == b"precious"


def test_a_crop_is_its_source(base_url: str) -> None:
    array = finish(store.join(base_url, "v.zarr"))
    source = open_volume(store.join(base_url, "v.zarr"))
    url = store.join(base_url, "crops", "v.zarr")
    result = write_crop(
        source, Box(start=(9, 3, 14), stop=(19, 11, 27)), url, provenance={"model": "m1"}
    )
    assert result.box == Box(start=(8, 0, 12), stop=(20, 12, 28))
    crop = open_volume(url)
    np.testing.assert_array_equal(crop.read_level(0), array[result.box.slices])
    assert crop.origin_um == (10 + 8 * 3.0, 20.0, 30 + 12 * 2.0)
    assert crop.attributes["source_url"] == source.url
    assert crop.attributes["crop_box"] == [[8, 20], [0, 12], [12, 28]]
    assert crop.attributes["model"] == "m1"
    assert result.checksum == crop.attributes["checksum"] == stored_checksum(crop.url)
    with pytest.raises(OutputExistsError):
        write_crop(source, Box(start=(0, 0, 0), stop=(4, 4, 4)), url, provenance={})


def test_damaged_voxels_are_named(base_url: str) -> None:
    url = store.join(base_url, "v.zarr")
    finish(url)
    shard = store.join(url, "0", "c", "0", "0", "0")
    store.write_bytes(shard, store.read_bytes(shard)[:100])
    with pytest.raises(InvalidVolumeError, match="damaged") as caught:
        open_volume(url).read_level(0)
    assert "\n" not in str(caught.value)


def test_damaged_metadata_are_named(base_url: str) -> None:
    url = store.join(base_url, "v.zarr")
    finish(url)
    store.write_bytes(store.join(url, "1", "zarr.json"), b'{"zarr_format": 3, "node_type"')
    with pytest.raises(InvalidVolumeError, match=r"v\.zarr/1"):
        open_volume(url)
    store.write_bytes(store.join(url, "zarr.json"), b"[1")
    with pytest.raises(InvalidVolumeError, match="no JSON"):
        open_volume(url)
