"""A crop and its surround give back a volume of the source's shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import ome_zarr_models
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from ctray.core.errors import InvalidVolumeError, OutputExistsError
from ctray.core.geometry import Box, VoxelSize
from ctray.core.grid import ShardGrid
from ctray.crops.cutting import write_crop
from ctray.crops.restoring import restore
from ctray.storage import store
from ctray.volumes.manifest import stored_checksum
from ctray.volumes.volume import open_volume
from ctray.volumes.writer import create_volume

SHAPE = (45, 38, 51)


def source_at(
    url: str, *, dtype: str = "uint16", fill: Any = 0, levels: int = 3, version: str = "0.5"
) -> np.ndarray:
    array = (np.random.default_rng(3).random(SHAPE) * 200).astype(dtype)
    writer = create_volume(
        url,
        shape=SHAPE,
        dtype=dtype,
        voxel_size=VoxelSize.of((3.0, 2.0, 2.0)),
        origin_um=(10.0, 20.0, 30.0),
        num_levels=levels,
        grid=ShardGrid.choose(SHAPE, chunk=(8, 8, 8), shard=(16, 16, 16)),
        fill_value=fill,
        ome_version=version,
    )
    writer.write(Box.whole(SHAPE), array)
    writer.build_pyramid()
    writer.commit({})
    return array


BOX = Box(start=(8, 4, 12), stop=(32, 30, 45))


@pytest.mark.parametrize("ome_version", ["0.5", "0.4"])
def test_the_crop_is_in_it_and_the_rest_is_coarse(base_url: str, ome_version: str) -> None:
    array = source_at(store.join(base_url, "v"), version=ome_version)
    source = open_volume(store.join(base_url, "v"))
    crop = write_crop(
        source,
        BOX,
        store.join(base_url, "c"),
        provenance={"volume_id": "v"},
        ome_version=ome_version,
        surround_size=24,
    )
    assert stored_checksum(crop.url) == crop.checksum
    result = restore(crop.url, store.join(base_url, "r"), ome_version=ome_version)
    volume = open_volume(result.url)
    assert (result.shape, result.box, result.factors) == (SHAPE, crop.box, (2, 2, 2))
    assert (volume.shape, volume.dtype) == (SHAPE, source.dtype)
    assert (volume.voxel_size, volume.origin_um) == (source.voxel_size, source.origin_um)
    assert volume.ome_version == ome_version
    found = volume.read_level(0)
    np.testing.assert_array_equal(found[crop.box.slices], array[crop.box.slices])
    coarse = source.read_level(1)
    expected = np.kron(coarse, np.ones((2, 2, 2), coarse.dtype))[tuple(map(slice, SHAPE))]
    expected[crop.box.slices] = array[crop.box.slices]
    # The kept level is the mean in floating point, rounded once: at most one grey value away.
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1
    assert len(volume.levels) == 1
    assert volume.attributes["restored_from"] == crop.url
    assert volume.attributes["source_url"] == source.url
    assert stored_checksum(volume.url) == result.checksum
    with pytest.raises(OutputExistsError):
        restore(crop.url, result.url)
    with pytest.raises(OutputExistsError, match="lies in it"):
        restore(crop.url, store.join(crop.url, "again"))
    with pytest.raises(InvalidVolumeError, match="no crop"):
        restore(result.url, store.join(base_url, "x"))


@settings(max_examples=20)
@given(
    st.sampled_from(["uint8", "int16", "float32", "bool"]),
    st.sampled_from([None, 8, 13, 60]),
    st.integers(1, 3),
    st.tuples(*[st.integers(0, n - 1) for n in SHAPE]),
    st.tuples(*[st.integers(1, 40)] * 3),
)
def test_any_box_of_any_type_comes_back(
    dtype: str,
    size: int | None,
    levels: int,
    start: tuple[int, int, int],
    extent: tuple[int, int, int],
) -> None:
    import tempfile

    stop = tuple(min(n, a + e) for a, e, n in zip(start, extent, SHAPE, strict=True))
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        fill = 1
        array = source_at(str(base / "v"), dtype=dtype, fill=fill, levels=levels)
        box = Box(start=start, stop=stop)
        crop = write_crop(
            open_volume(str(base / "v")),
            box,
            str(base / "c"),
            provenance={},
            surround_size=size,
        )
        result = restore(crop.url, str(base / "r"), bytes_in_flight=1)
        found = open_volume(result.url).read_level(0)
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found[crop.box.slices], array[crop.box.slices])
        outside = np.ones(SHAPE, bool)
        outside[crop.box.slices] = False
        if size is None:
            assert (found[outside] == fill).all()
            assert open_volume(result.url).attributes["rest"] == {"fill_value": fill}
        elif size == 60:
            # Nothing is nearer to 60 voxels than the volume's own 51: all of it comes back.
            np.testing.assert_array_equal(found, array)


def test_readers_of_images_pass_over_the_surround(tmp_path: Path) -> None:
    source_at(str(tmp_path / "v"))
    crop = write_crop(
        open_volume(str(tmp_path / "v")),
        BOX,
        str(tmp_path / "c"),
        provenance={},
        surround_size=24,
    )
    group = zarr.open_group(crop.url, mode="r", use_consolidated=False)
    image = ome_zarr_models.open_ome_zarr(group, version="0.5")
    datasets = image.attributes.ome.multiscales[0].datasets
    assert [d.path for d in datasets] == [str(n) for n in range(len(open_volume(crop.url).levels))]
    kept = group["surround"]
    assert max(kept.shape) == 26
    assert kept.size < 0.1 * np.prod(SHAPE) * 2


def test_an_interrupted_restore_is_done_anew(tmp_path: Path) -> None:
    source_at(str(tmp_path / "v"))
    crop = write_crop(open_volume(str(tmp_path / "v")), BOX, str(tmp_path / "c"), provenance={})
    shard = tmp_path / "c" / "0" / "c" / "0" / "0" / "0"
    kept = shard.read_bytes()
    shard.write_bytes(kept[:50])
    with pytest.raises(InvalidVolumeError, match="damaged"):
        restore(crop.url, str(tmp_path / "r"))
    assert not (tmp_path / "r" / "zarr.json").exists()
    shard.write_bytes(kept)
    restore(crop.url, str(tmp_path / "r"))
    assert (tmp_path / "r" / "zarr.json").exists()
