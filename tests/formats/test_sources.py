"""Readers of TIFF, TIFF folders and HDF5: what they find, and what they say of bad files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import fsspec
import h5py
import numpy as np
import pytest
import tifffile

from ctray.core.errors import (
    AccessError,
    CtrayError,
    InvalidVolumeError,
    NotFoundError,
    NoVolumeError,
)
from ctray.core.geometry import VoxelSize
from ctray.formats.opening import open_source
from ctray.formats.slices.stacks import group_numbered, natural_key
from ctray.formats.source import VolumeSource
from ctray.volumes.voxel_metadata import from_mapping

SHAPE = (7, 11, 13)


def ramp(shape: tuple[int, ...] = SHAPE, dtype: Any = np.uint16) -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def whole(source: VolumeSource) -> np.ndarray:
    """Every slice, in two unequal slabs."""
    depth = source.shape[0]
    cut = depth // 2
    parts = [source.read(a, b) for a, b in ((0, cut), (cut, depth)) if b > a]
    return np.concatenate(parts)


def check_equal(path: Path | str, expected: np.ndarray, kind: str) -> None:
    with open_source(str(path)) as source:
        assert source.kind == kind
        assert source.shape == expected.shape
        voxels = whole(source)
        assert voxels.dtype == source.dtype == expected.dtype
        np.testing.assert_array_equal(voxels, expected)
        assert source.bytes_read > 0


def error_of(path: Path | str, dataset: str | None = None) -> str:
    """The one line that opening and reading gives."""
    with pytest.raises(CtrayError) as caught, open_source(str(path), dataset=dataset) as source:
        whole(source)
    assert isinstance(caught.value, InvalidVolumeError)
    message = str(caught.value)
    assert "\n" not in message
    assert Path(path).name in message
    return message


# --- multi-page TIFF ------------------------------------------------------------------------


@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "zstd"])
@pytest.mark.parametrize("bigtiff", [False, True])
def test_multi_page(tmp_path: Path, compression: str | None, bigtiff: bool) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, ramp(), compression=compression, bigtiff=bigtiff)
    check_equal(path, ramp(), "tiff")


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("dtype", ["u1", "i2", "u4", "f4", "f8"])
def test_byte_order_becomes_native(tmp_path: Path, byteorder: str, dtype: str) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, ramp(dtype=dtype), byteorder=byteorder)
    check_equal(path, ramp(dtype=dtype), "tiff")
    with open_source(str(path)) as source:
        assert source.read(0, 1).dtype.isnative


def test_float16_widens(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", ramp((3, 4, 5), np.float16), photometric="minisblack")
    check_equal(tmp_path / "a.tif", ramp((3, 4, 5), np.float32), "tiff")


def test_pages_without_any_metadata(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        for page in ramp():
            writer.write(page, metadata=None, contiguous=False)
    check_equal(path, ramp(), "tiff")


def test_tiled_pages(tmp_path: Path) -> None:
    volume = ramp((5, 40, 50))
    tifffile.imwrite(tmp_path / "a.tif", volume, tile=(16, 16), compression="zlib")
    check_equal(tmp_path / "a.tif", volume, "tiff")


def test_volumetric_page(tmp_path: Path) -> None:
    volume = ramp((32, 40, 50))
    tifffile.imwrite(tmp_path / "a.tif", volume, tile=(16, 16, 16), volumetric=True)
    check_equal(tmp_path / "a.tif", volume, "tiff")


def test_imagej_hyperstack_with_spacing(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path,
        ramp(),
        imagej=True,
        resolution=(1 / 3.0, 1 / 2.0),
        metadata={"spacing": 5.0, "unit": "um", "axes": "ZYX"},
    )
    check_equal(path, ramp(), "tiff")
    with open_source(str(path)) as source:
        assert source.voxel_size is not None
        assert source.voxel_size.um == pytest.approx((5, 2, 3))
        assert source.voxel_size_source == "ImageJ metadata"


@pytest.mark.parametrize(
    ("unit", "um"), [("micron", 2.5), ("\\u00B5m", 2.5), ("mm", 2500.0), ("pixel", None)]
)
def test_imagej_units(tmp_path: Path, unit: str, um: float | None) -> None:
    path = tmp_path / "a.tif"
    metadata = {"spacing": 2.5, "unit": unit, "axes": "ZYX"}
    tifffile.imwrite(path, ramp(), imagej=True, resolution=(0.4, 0.4), metadata=metadata)
    with open_source(str(path)) as source:
        found = source.voxel_size and source.voxel_size.um
    assert found == (None if um is None else pytest.approx((um, um, um)))


def test_imagej_virtual_stack_behind_one_page(tmp_path: Path) -> None:
    """ImageJ writes stacks beyond 4 GB as one page with the voxels of all behind it."""
    path = tmp_path / "a.tif"
    volume = ramp((6, 10, 12))
    description = "ImageJ=1.54f\nimages=6\nslices=6\nunit=um\nspacing=2.0\n"
    tifffile.imwrite(path, volume[0], description=description, metadata=None)
    with path.open("ab") as file:
        file.write(volume[1:].tobytes())
    check_equal(path, volume, "tiff")
    os.truncate(path, path.stat().st_size - 100)
    assert "unreadable TIFF" in error_of(path)


def test_ome_tiff(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    metadata = {
        "axes": "ZYX",
        "PhysicalSizeX": 650.0,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 0.65,
        "PhysicalSizeZ": 2.0,
    }
    tifffile.imwrite(path, ramp(), ome=True, metadata=metadata)
    check_equal(path, ramp(), "tiff")
    with open_source(str(path)) as source:
        assert source.voxel_size is not None
        assert source.voxel_size.um == pytest.approx((2.0, 0.65, 0.65))


def test_largest_series_wins(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(ramp((3, 5, 5)), photometric="minisblack")
        writer.write(ramp(), photometric="minisblack")
        writer.write(ramp((100, 100)))
    check_equal(path, ramp(), "tiff")


@pytest.mark.parametrize(
    ("resolution", "unit", "um"),
    [
        ((2000.0, 2000.0), "CENTIMETER", 5.0),
        ((25400.0, 25400.0), "INCH", 1.0),
        ((1.0, 1.0), "INCH", None),
        ((72.0, 72.0), "INCH", None),
        ((300.0, 300.0), "INCH", None),
        ((2000.0, 2000.0), "NONE", None),
        ((2000.0, 1000.0), "CENTIMETER", None),
    ],
)
def test_resolution_tags(
    tmp_path: Path, resolution: tuple[float, float], unit: str, um: float | None
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, ramp(), resolution=resolution, resolutionunit=unit)
    with open_source(str(path)) as source:
        found = source.voxel_size and source.voxel_size.um
    assert found == (None if um is None else pytest.approx((um, um, um)))


def test_sidecar_overrules_resolution_tags_but_not_imagej(tmp_path: Path) -> None:
    sidecar = {"voxel_size_mm_zyx": [0.003, 0.002, 0.001]}
    (tmp_path / "meta.json").write_text(json.dumps(sidecar))
    weak = tmp_path / "weak.tif"
    tifffile.imwrite(weak, ramp(), resolution=(2000, 2000), resolutionunit="CENTIMETER")
    strong = tmp_path / "strong.tif"
    metadata = {"spacing": 9.0, "unit": "um", "axes": "ZYX"}
    tifffile.imwrite(strong, ramp(), imagej=True, resolution=(1 / 9, 1 / 9), metadata=metadata)
    with open_source(str(weak)) as source:
        assert source.voxel_size is not None
        assert source.voxel_size.um == pytest.approx((3, 2, 1))
        assert source.voxel_size_source == "voxel_size_mm_zyx of meta.json"
    with open_source(str(strong)) as source:
        assert source.voxel_size is not None
        assert source.voxel_size.um == pytest.approx((9, 9, 9))


@pytest.mark.parametrize(
    "text", ["{not json", "[1, 2]", '{"voxel_size_um": "unknown"}', '{"voxel_size_um": [1, -2, 3]}']
)
def test_bad_sidecar_costs_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    tifffile.imwrite(tmp_path / "a.tif", ramp())
    with open_source(str(tmp_path / "a.tif")) as source:
        assert source.voxel_size is None


def test_sidecar_of_another_file_is_not_ours(tmp_path: Path) -> None:
    sidecar = {"file": "b.tif", "voxel_size_um": 4}
    (tmp_path / "meta.json").write_text(json.dumps(sidecar))
    for name in ("a.tif", "b.tif"):
        tifffile.imwrite(tmp_path / name, ramp())
    with open_source(str(tmp_path / "a.tif")) as source:
        assert source.voxel_size is None
    with open_source(str(tmp_path / "b.tif")) as source:
        assert source.voxel_size == VoxelSize.of([4.0])


@pytest.mark.parametrize(
    ("values", "um"),
    [
        ({"voxel_size_um": 3}, (3, 3, 3)),
        ({"voxel_size_um_xyz": [1, 2, 3]}, (3, 2, 1)),
        ({"pixel_size": 0.5, "units": "mm"}, (500, 500, 500)),
        ({"pixel_size": [1.5], "unit": b"micron"}, (1.5, 1.5, 1.5)),
        ({"element_size_um": np.array([4.0, 2.0, 1.0])}, (4, 2, 1)),
        ({"voxel_size_nm": {"z": 3000, "y": 2000, "x": 1000}}, (3, 2, 1)),
        ({"voxel_size": 2.5}, (2.5, 2.5, 2.5)),
        ({"voxel_size": 1e-6}, None),
        ({"voxel_size": 2.5, "unit": "furlong"}, None),
        ({"voxel_size_um": [1, 2]}, None),
        ({"voxel_size_um": 0}, None),
        ({"voxels": 3}, None),
    ],
)
def test_names_and_units_of_attributes(
    values: dict[str, Any], um: tuple[float, float, float] | None
) -> None:
    found = from_mapping(values, "here")
    assert (found and found.size.um) == (None if um is None else pytest.approx(um))


def test_assumed_unit_is_told() -> None:
    found = from_mapping({"voxel_size": 2.5}, "here")
    assert found is not None
    assert "micrometres assumed" in found.source


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("keep", [0.02, 0.3, 0.6, 0.97, 0.999])
def test_truncated_at_any_place(tmp_path: Path, compression: str | None, keep: float) -> None:
    path = tmp_path / "a.tif"
    noise = np.random.default_rng(0).integers(0, 255, (20, 30, 30), np.uint8)
    with tifffile.TiffWriter(path) as writer:
        for page in noise:
            writer.write(page, compression=compression, metadata=None, contiguous=False)
    os.truncate(path, int(path.stat().st_size * keep))
    assert "unreadable TIFF" in error_of(path)


@pytest.mark.parametrize("keep", [0.05, 0.5, 0.97])
def test_truncated_contiguous(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, ramp((20, 30, 30)))
    os.truncate(path, int(path.stat().st_size * keep))
    assert "unreadable TIFF" in error_of(path)


def test_damaged_compressed_data(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, ramp((5, 30, 30)), compression="zlib")
    with tifffile.TiffFile(path) as tif:
        offset = tif.pages[3].dataoffsets[0]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * 40)
    assert "unreadable TIFF" in error_of(path)


@pytest.mark.parametrize(
    "content", [b"", b"II", b"no tiff at all, but words", b"II*\0\xff\xff\xff\x7f"]
)
def test_no_tiff_inside(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(content)
    message = error_of(path)
    assert "unreadable TIFF" in message or "empty (0 bytes)" in message


def test_colour_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, ramp((5, 11, 13, 3), np.uint8), photometric="rgb")
    message = error_of(path)
    assert "colour image (3 samples per pixel)" in message
    assert "greyscale" in message


def test_channels_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, ramp((2, 11, 13)), imagej=True, metadata={"axes": "CYX"})
    assert "2 channels" in error_of(path)


def test_two_dimensions_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", ramp((11, 13)))
    message = error_of(tmp_path / "a.tif")
    assert "2D array of shape 11 x 13" in message
    with pytest.raises(NoVolumeError):
        open_source(str(tmp_path / "a.tif"))


def test_four_dimensions_are_refused_unless_singleton(tmp_path: Path) -> None:
    time_series = tmp_path / "t.tif"
    tifffile.imwrite(time_series, ramp((2, 5, 11, 13)), imagej=True, metadata={"axes": "TZYX"})
    message = error_of(time_series)
    assert "4D array of shape 2 x 5 x 11 x 13 (TZYX)" in message
    assert "own volume" in message
    single = tmp_path / "s.tif"
    tifffile.imwrite(single, ramp((1, 5, 1, 11, 13)), imagej=True, metadata={"axes": "TZCYX"})
    check_equal(single, ramp((5, 11, 13)), "tiff")


@pytest.mark.parametrize(("dtype", "word"), [(np.complex64, "complex64"), (np.bool_, "mask")])
def test_no_grey_values(tmp_path: Path, dtype: Any, word: str) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, ramp(dtype=dtype))
    assert word in error_of(path)


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="nothing"):
        open_source(str(tmp_path / "none.tif"))
    (tmp_path / "a.txt").write_text("words")
    assert "its format is unknown" in error_of(tmp_path / "a.txt")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, ramp())
    path.chmod(0)
    with pytest.raises(AccessError):
        open_source(str(path))


def test_suffix_does_not_matter(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", ramp())
    (tmp_path / "a.tif").rename(tmp_path / "a.dat")
    check_equal(tmp_path / "a.dat", ramp(), "tiff")


def test_range_outside(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", ramp())
    with open_source(str(tmp_path / "a.tif")) as source, pytest.raises(InvalidVolumeError):
        source.read(5, 8)


def test_remote_tiff_and_hdf5(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    tifffile.imwrite(tmp_path / "a.tif", ramp(), compression="zlib")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"] = ramp()
    for name in ("a.tif", "a.h5"):
        memory.pipe_file(f"/sources/{name}", (tmp_path / name).read_bytes())
    check_equal("memory://sources/a.tif", ramp(), "tiff")
    check_equal("memory://sources/a.h5", ramp(), "hdf5")


# --- folders --------------------------------------------------------------------------------


def write_slices(folder: Path, volume: np.ndarray, name: str = "s_{:d}.tif", **kwargs: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i, page in enumerate(volume):
        tifffile.imwrite(folder / name.format(i), page, **kwargs)


def test_folder_in_natural_order(tmp_path: Path) -> None:
    volume = ramp((12, 5, 6))
    write_slices(tmp_path / "scan", volume, compression="zlib")
    (tmp_path / "scan" / "readme.txt").write_text("not a slice")
    (tmp_path / "scan" / "._s_3.tif").write_bytes(b"left by another system")
    check_equal(tmp_path / "scan", volume, "tiff-folder")


def test_folder_gaps_are_reported(tmp_path: Path) -> None:
    write_slices(tmp_path / "scan", ramp((12, 5, 6)))
    for i in (3, 7, 8):
        (tmp_path / "scan" / f"s_{i}.tif").unlink()
    with open_source(str(tmp_path / "scan")) as source:
        assert source.shape == (9, 5, 6)
        assert source.notes == ("3 slices missing in the numbering (3, 7 to 8)",)


def test_folder_of_different_shape_names_the_file(tmp_path: Path) -> None:
    write_slices(tmp_path / "scan", ramp((12, 5, 6)))
    tifffile.imwrite(tmp_path / "scan" / "s_4.tif", ramp((5, 7)))
    with pytest.raises(InvalidVolumeError, match=r"s_4\.tif: 5 x 7 voxels, not 5 x 6 as in"):
        open_source(str(tmp_path / "scan"))


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_folder_of_different_dtype_names_the_file(tmp_path: Path, compression: str | None) -> None:
    write_slices(tmp_path / "scan", ramp((12, 5, 6)), compression=compression)
    tifffile.imwrite(tmp_path / "scan" / "s_4.tif", ramp((5, 6), np.uint8))
    with (
        pytest.raises(InvalidVolumeError, match=r"s_4\.tif: uint8 values, not uint16 as in"),
        open_source(str(tmp_path / "scan")) as source,
    ):
        whole(source)


def test_folder_with_broken_files(tmp_path: Path) -> None:
    write_slices(tmp_path / "scan", ramp((12, 50, 60)))
    os.truncate(tmp_path / "scan" / "s_9.tif", 3000)
    with pytest.raises(InvalidVolumeError, match=r"s_9\.tif: unreadable TIFF \(truncated"):
        open_source(str(tmp_path / "scan"))
    os.truncate(tmp_path / "scan" / "s_9.tif", 0)
    with pytest.raises(InvalidVolumeError, match=r"s_9\.tif: file is empty"):
        open_source(str(tmp_path / "scan"))


def test_folder_of_several_stacks_wants_a_pattern(tmp_path: Path) -> None:
    left, right = ramp((4, 5, 6)), ramp((5, 5, 6)) + 100
    write_slices(tmp_path / "scan", left, "left_{:03d}.tif")
    write_slices(tmp_path / "scan", right, "right_{:03d}.tif")
    assert "left_*.tif (4 files), right_*.tif (5 files)" in error_of(tmp_path / "scan")
    check_equal(tmp_path / "scan" / "left_*.tif", left, "tiff-folder")
    check_equal(tmp_path / "scan" / "right_*.tif", right, "tiff-folder")
    with pytest.raises(NotFoundError, match=r"none_\*"):
        open_source(str(tmp_path / "scan" / "none_*.tif"))


def test_folder_without_a_stack(tmp_path: Path) -> None:
    (tmp_path / "scan").mkdir()
    assert "no slices in this folder" in error_of(tmp_path / "scan")
    for name in ("a.tif", "b.tif", "c.tif"):
        tifffile.imwrite(tmp_path / "scan" / name, ramp((5, 6)))
    assert "do not form a numbered stack" in error_of(tmp_path / "scan")


def test_folder_of_colour(tmp_path: Path) -> None:
    write_slices(tmp_path / "scan", ramp((4, 5, 6, 3), np.uint8), photometric="rgb")
    with pytest.raises(InvalidVolumeError, match=r"s_0\.tif: colour image"):
        open_source(str(tmp_path / "scan"))


def test_folder_sidecar(tmp_path: Path) -> None:
    write_slices(tmp_path / "scan", ramp((4, 5, 6)))
    (tmp_path / "scan" / "meta.json").write_text('{"voxel_size_um": 1.5}')
    with open_source(str(tmp_path / "scan")) as source:
        assert source.voxel_size == VoxelSize.of([1.5])


def test_grouping_of_names() -> None:
    names = ["t1_z2.tif", "t1_z10.tif", "t2_z2.tif", "t2_z10.tif", "log.tif", "a_8bit.tif"]
    stacks = {stack.pattern: stack.names for stack in group_numbered(names)}
    assert stacks == {
        "t1_z*.tif": ("t1_z2.tif", "t1_z10.tif"),
        "t2_z*.tif": ("t2_z2.tif", "t2_z10.tif"),
        "log.tif": ("log.tif",),
        "a_8bit.tif": ("a_8bit.tif",),
    }
    eight_bit = [f"s_{i:03d}_8bit.tif" for i in range(3)]
    assert [stack.pattern for stack in group_numbered(eight_bit)] == ["s_*_8bit.tif"]
    assert sorted(["s10", "s9", "s1"], key=natural_key) == ["s1", "s9", "s10"]


def test_regular_steps_are_no_gaps() -> None:
    (even,) = group_numbered([f"s{i}.tif" for i in range(0, 20, 2)])
    assert even.notes == ()
    (odd,) = group_numbered([f"s{i}.tif" for i in (0, 2, 4, 8, 10)])
    assert odd.notes == ("1 slices missing in the numbering (6)",)


# --- HDF5 -----------------------------------------------------------------------------------


def test_only_dataset_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("entry/rec", data=ramp().astype(">u2"), chunks=(3, 4, 5))
        data.attrs["element_size_um"] = [3.0, 2.0, 1.0]
        file["entry/angles"] = np.linspace(0, 180, 50)
        file["entry/title"] = "a scan"
    check_equal(path, ramp(), "hdf5")
    with open_source(str(path)) as source:
        assert source.dataset == "/entry/rec"
        assert source.slab_depth == 3
        assert source.voxel_size == VoxelSize.of([3.0, 2.0, 1.0])


def test_volume_beside_a_mask_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["exchange/data"] = ramp()
        file["exchange/mask"] = ramp(dtype=np.uint8)
    with open_source(str(path)) as source:
        assert source.dataset == "/exchange/data"


def test_ambiguous_datasets_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["a"], file["b"] = ramp(), ramp()
    message = error_of(path)
    assert "/a (7 x 11 x 13 uint16), /b (7 x 11 x 13 uint16)" in message
    assert "--dataset" in message
    with open_source(str(path), dataset="b") as source:
        assert source.dataset == "/b"


def test_nexus_default_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "a.nxs"
    with h5py.File(path, "w") as file:
        file.attrs["default"] = "entry"
        file["entry/raw"] = ramp((70, 11, 13))
        nxdata = file.create_group("entry/result")
        file["entry"].attrs["default"] = "result"
        nxdata.attrs.update({"signal": "volume", "axes": ["z", "y", "x"]})
        nxdata["volume"] = ramp()
        for axis, n, step in zip("zyx", SHAPE, (0.003, 0.002, 0.001), strict=True):
            nxdata[axis] = np.arange(n) * step
            nxdata[axis].attrs["units"] = "mm"
    with open_source(str(path)) as source:
        assert source.dataset == "/entry/result/volume"
        assert source.voxel_size is not None
        assert source.voxel_size.um == pytest.approx((3, 2, 1))


def test_voxel_size_from_group_and_small_dataset(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["entry/data"] = ramp()
        file.attrs["pixel_size"] = 3.25
        file.attrs["unit"] = "um"
    with open_source(str(tmp_path / "a.h5")) as source:
        assert source.voxel_size == VoxelSize.of([3.25])
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["entry/data"] = ramp()
        file["entry/voxel_size"] = 2e-6
        file["entry/voxel_size"].attrs["units"] = "m"
    with open_source(str(tmp_path / "b.h5")) as source:
        assert source.voxel_size is not None
        assert source.voxel_size.um == pytest.approx((2, 2, 2))


def test_missing_dataset_lists_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["entry/data"] = ramp()
    message = error_of(path, dataset="entry/nothing")
    assert "'entry/nothing' does not exist" in message
    assert "/entry/data (7 x 11 x 13 uint16)" in message
    assert "is a group" in error_of(path, dataset="entry")


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((11, 13), "2D array"),
        ((2, 7, 11, 13), "4D array of shape 2 x 7 x 11 x 13"),
        ((0, 11, 13), "axis z of shape 0 x 11 x 13 has length 0"),
        ((7, 11, 0), "axis x of shape 7 x 11 x 0 has length 0"),
    ],
)
def test_wrong_shapes(tmp_path: Path, shape: tuple[int, ...], words: str) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("data", shape=shape, dtype="u2")
    assert words in error_of(path, dataset="data")


@pytest.mark.parametrize("shape", [(1, 7, 11, 13), (7, 1, 11, 13), (7, 11, 13, 1)])
def test_singleton_axes_are_dropped(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("data", data=ramp().reshape(shape), chunks=True)
    check_equal(tmp_path / "a.h5", ramp(), "hdf5")


@pytest.mark.parametrize(
    ("dtype", "word"), [(np.complex64, "complex64"), (np.bool_, "mask"), ("S4", "S4")]
)
def test_hdf5_without_grey_values(tmp_path: Path, dtype: Any, word: str) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["data"] = np.zeros(SHAPE, dtype)
    assert word in error_of(path, dataset="data")
    with pytest.raises(NoVolumeError, match="no 3D dataset"):
        open_source(str(path))


@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.9])
def test_truncated_hdf5(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=ramp((20, 30, 30)), chunks=(5, 30, 30))
    os.truncate(path, int(path.stat().st_size * keep))
    message = error_of(path)
    assert "unreadable HDF5" in message or "empty" in message


def test_hdf5_with_a_damaged_chunk(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("data", data=ramp(), chunks=(7, 11, 13), compression="gzip")
        offset = data.id.get_chunk_info(0).byte_offset
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * 30)
    assert "unreadable HDF5" in error_of(path)


def test_dataset_of_a_tiff_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", ramp())
    assert "remove --dataset x" in error_of(tmp_path / "a.tif", dataset="x")
