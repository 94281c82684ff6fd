"""Arrays in any order of axes: the volume is z, y, x, voxel for voxel, in crops and imports too."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr_makers import axes_of, halved, scale, translation, write_array, write_image

from ctray.archive.importing import import_volume
from ctray.core.errors import InvalidVolumeError, NoVolumeError
from ctray.core.geometry import Box
from ctray.crops.cutting import write_crop
from ctray.formats.opening import open_source
from ctray.storage import store
from ctray.volumes.axes import spatial_axes
from ctray.volumes.volume import open_volume

ORDERS = ["".join(order) for order in itertools.permutations("zyx")]
BOX = Box(start=(3, 5, 7), stop=(11, 16, 20))


def noise(shape: tuple[int, ...] = (14, 18, 22)) -> np.ndarray:
    return np.random.default_rng(41).integers(0, 60000, shape, dtype=np.uint16)


def turned(voxels: np.ndarray, order: str) -> np.ndarray:
    """`voxels`, (z, y, x), with their axes in another order."""
    return np.ascontiguousarray(voxels.transpose(["zyx".index(axis) for axis in order]))


def by_axis(values: dict[str, float], order: str) -> list[float]:
    return [values[axis] for axis in order]


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("order", ORDERS)
def test_images_in_any_order(tmp_path: Path, order: str, version: str) -> None:
    voxels = noise()
    size = {"z": 3.0, "y": 2.0, "x": 1.0}
    place = {"z": 30.0, "y": 20.0, "x": 10.0}
    coarse = {axis: 2 * edge for axis, edge in size.items()}
    moved = {axis: place[axis] + size[axis] / 2 for axis in place}
    url = write_image(
        tmp_path / "image",
        [turned(voxels, order), turned(halved(voxels), order)],
        [
            [scale(*by_axis(size, order)), translation(*by_axis(place, order))],
            [scale(*by_axis(coarse, order)), translation(*by_axis(moved, order))],
        ],
        axes=axes_of(order),
        version=version,
        chunks=tuple({"z": 4, "y": 8, "x": 16}[axis] for axis in order),
    )
    volume = open_volume(url)
    assert volume.shape == voxels.shape
    assert volume.voxel_size is not None
    assert volume.voxel_size.um == (3.0, 2.0, 1.0)
    assert volume.origin_um == (30.0, 20.0, 10.0)
    assert [level.chunk for level in volume.levels] == [(4, 8, 16)] * 2
    assert [level.factors for level in volume.levels] == [(1, 1, 1), (2, 2, 2)]
    assert volume.levels[1].offset == (0.5, 0.5, 0.5)
    np.testing.assert_array_equal(volume.read_level(0), voxels)
    np.testing.assert_array_equal(volume.read_level(1), halved(voxels))
    np.testing.assert_array_equal(volume.read(BOX), voxels[BOX.slices])

    crop = write_crop(volume, BOX, str(tmp_path / "crop"), provenance={})
    cut = open_volume(crop.url)
    np.testing.assert_array_equal(cut.read_level(0), voxels[crop.box.slices])
    assert cut.voxel_size == volume.voxel_size
    assert cut.origin_um == tuple(
        o + a * e for o, a, e in zip((30, 20, 10), crop.box.start, (3, 2, 1), strict=True)
    )
    written = json.loads((tmp_path / "crop" / "zarr.json").read_text())
    axes = written["attributes"]["ome"]["multiscales"][0]["axes"]
    assert [axis["name"] for axis in axes] == ["z", "y", "x"]
    if order != "zyx":
        assert crop.copied_part == 0.0
        assert volume.stored_chunks(0) is None


@pytest.mark.parametrize("order", ["xyz", "yzx"])
@pytest.mark.parametrize("named_by", ["dimension_names", "_ARRAY_DIMENSIONS", "dimension_names, c"])
def test_bare_arrays_by_the_names_of_their_axes(tmp_path: Path, order: str, named_by: str) -> None:
    voxels = noise()
    stored = turned(voxels, order)
    names = list(order)
    if named_by.endswith("c"):
        stored, names = stored[..., None], [*names, "c"]
    path = tmp_path / "array"
    if named_by == "_ARRAY_DIMENSIONS":
        write_array(path, stored, zarr_format=2)
        (path / ".zattrs").write_text(json.dumps({"_ARRAY_DIMENSIONS": names}))
    else:
        write_array(path, stored, dimension_names=names, shards=None)
    np.testing.assert_array_equal(open_volume(str(path)).read_level(0), voxels)
    result = import_volume(str(path), str(tmp_path / "import"))
    assert result.shape == voxels.shape
    np.testing.assert_array_equal(open_volume(result.url).read_level(0), voxels)


def test_sharded_array_in_another_order(tmp_path: Path) -> None:
    voxels = noise((16, 24, 32))
    stored = turned(voxels, "xyz")
    url = write_array(
        tmp_path / "array",
        stored,
        chunks=(8, 4, 4),
        shards=(16, 12, 8),
        dimension_names=("x", "y", "z"),
    )
    volume = open_volume(url)
    assert (volume.levels[0].chunk, volume.levels[0].shard) == ((4, 4, 8), (8, 12, 16))
    slabs = np.concatenate([slab for _, slab in volume.iter_slabs(max_bytes=24 * 32 * 2 * 5)])
    np.testing.assert_array_equal(slabs, voxels)
    box = Box(start=(8, 12, 16), stop=(16, 24, 32))
    crop = write_crop(volume, box, str(tmp_path / "crop"), provenance={}, snap_chunks=0)
    assert (crop.box, crop.copied_part) == (box, 0.0)
    cut = open_volume(crop.url)
    np.testing.assert_array_equal(cut.read_level(0), voxels[box.slices])


@pytest.mark.parametrize(
    ("shape", "names", "axes"),
    [
        ((5, 6, 7), None, (0, 1, 2)),
        ((1, 5, 6, 7), None, (1, 2, 3)),
        ((5, 6, 7, 1), None, (0, 1, 2)),
        ((1, 1, 5, 6, 7), None, (2, 3, 4)),
        ((5, 6, 7), ["dim_0", "dim_1", "dim_2"], (0, 1, 2)),
        ((5, 6, 7), [None, None, None], (0, 1, 2)),
        ((5, 6, 7), ["X", "Y", "Z"], (2, 1, 0)),
        ((5, 6, 7), ["col", "row", "plane"], (2, 1, 0)),
        ((5, 6, 7), ["width", None, "depth"], (2, 1, 0)),
        ((5, 6, 7), [None, "y", "x"], (0, 1, 2)),
        ((5, 1, 6, 7), ["z", "channel", "y", "x"], (0, 2, 3)),
        ((5, 6, 7, 1), ["x", "y", "z", "energy"], (2, 1, 0)),
        ((100, 120, 4), ["z", "y", "x"], (0, 1, 2)),
    ],
)
def test_axes_are_told_by_name_then_by_place(
    shape: tuple[int, ...], names: Any, axes: tuple[int, int, int]
) -> None:
    assert spatial_axes("u", shape, names) == axes


@pytest.mark.parametrize(
    ("shape", "names", "coloured", "message"),
    [
        ((), None, False, "0D array"),
        ((50,), None, False, "1D array of shape \\(50,\\)"),
        ((50, 60), ["y", "x"], False, "2D array"),
        ((120, 160, 3), None, False, "looks like colours"),
        ((16, 20, 24, 3), None, False, "looks like colours"),
        ((16, 20, 24, 4), None, False, "looks like colours"),
        ((16, 20, 24, 3), ["z", "y", "x", "c"], False, "a colour image"),
        ((16, 20, 24, 3), ["z", "y", "x", "rgb"], False, "a colour image"),
        ((3, 16, 20, 24), ["c", "z", "y", "x"], True, "a colour image"),
        ((3, 40, 50), ["c", "y", "x"], False, "no z axis"),
        ((700, 40, 50), ["t", "y", "x"], False, "no z axis"),
        ((721, 40, 50), ["angle", "y", "x"], False, "projections, not reconstructed"),
        ((40, 721, 50), ["row", "theta", "col"], False, "projections, not reconstructed"),
    ],
)
def test_sound_arrays_that_are_no_volumes(
    shape: tuple[int, ...], names: Any, coloured: bool, message: str
) -> None:
    with pytest.raises(NoVolumeError, match=message) as caught:
        spatial_axes("the/array", shape, names, coloured=coloured)
    assert str(caught.value).startswith("the/array: ")


@pytest.mark.parametrize(
    ("shape", "names", "message"),
    [
        ((2, 5, 6, 7), ["c", "z", "y", "x"], "axis c has length 2; ctray reads one time and one"),
        ((5, 6, 7, 9), ["x", "y", "z", "t"], "axis t has length 9"),
        ((5, 6, 0), ["x", "y", "z"], r"axis z of shape \(5, 6, 0\) has no voxels"),
        ((5, 6, 7), ["z", "y"], "name 2 axes, and the array .* has 3"),
        ((5, 6, 7), ["z", "z", "x"], "two axes .* are named z"),
        ((5, 6, 7), ["p", "q", "r"], "none is named z or y or x"),
        ((5, 6, 7, 8), [None, None, "y", "x"], "leave open which are z"),
        ((5, 6, 7, 8), None, "has 4 axes longer than 1, without names"),
        ((5, 6, 7), ["z\x1b[2J", "y", "x"], r"axes z\\x1b\[2j, y, x"),
    ],
)
def test_arrays_whose_axes_are_not_read(shape: tuple[int, ...], names: Any, message: str) -> None:
    with pytest.raises(InvalidVolumeError, match=message) as caught:
        spatial_axes("the/array", shape, names)
    assert not isinstance(caught.value, NoVolumeError)


def test_group_and_array_that_contradict_each_other(tmp_path: Path) -> None:
    voxels = noise((8, 8, 8))
    url = write_image(
        tmp_path / "v", [voxels], [[scale(1, 1, 1)]], axes=axes_of("zyx"), version="0.5"
    )
    path = tmp_path / "v" / "0" / "zarr.json"
    document = json.loads(path.read_text())
    for names, is_read in ((["x", "y", "z"], False), (["Z", "Y", "X"], True), ([None] * 3, True)):
        path.write_text(json.dumps({**document, "dimension_names": names}))
        if is_read:
            np.testing.assert_array_equal(open_volume(url).read_level(0), voxels)
        else:
            with pytest.raises(InvalidVolumeError, match="z, y, x, and its own metadata x, y, z"):
                open_volume(url)


@pytest.mark.parametrize("shards", [None, (8, 8, 8)])
def test_another_order_on_every_store(base_url: str, shards: Any) -> None:
    voxels = noise((12, 16, 20))
    url = store.join(base_url, "array")
    array = zarr.create_array(
        store.zarr_store(url, read_only=False),
        shape=(20, 16, 12),
        chunks=(4, 4, 4),
        shards=shards,
        dtype=voxels.dtype,
        dimension_names=("x", "y", "z"),
    )
    array[...] = turned(voxels, "xyz")
    volume = open_volume(url)
    np.testing.assert_array_equal(volume.read_level(0), voxels)
    np.testing.assert_array_equal(volume.read(BOX.clip(voxels.shape)), voxels[BOX.slices])
    with open_source(url) as source:
        assert source.notes == ()
    # A chunk that is larger than any can be, and one that is not there.
    first, second = sorted(k for k, _ in store.list_tree(url) if k.startswith("c/"))[:2]
    store.write_bytes(store.join(url, first), bytes(10**6))
    store.delete_file(store.join(url, second))
    with pytest.raises(InvalidVolumeError, match=r"more than|checksum|bytes"):
        open_volume(url).read_level(0)
    with open_source(url) as source:
        total = 3 * 2 * 2 if shards else 5 * 4 * 3
        assert source.notes[0].startswith(
            f"only {total - 1} of {total} chunks of level 0 are stored"
        )
