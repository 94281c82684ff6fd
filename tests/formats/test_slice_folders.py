"""Folders of PNG, JPEG 2000, EDF and DICOM slices, and zipped Zarr."""

from __future__ import annotations

import builtins
import importlib
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import zarr

from ctray.archive.catalog import build_catalog
from ctray.archive.importing import import_volume
from ctray.core.errors import InvalidVolumeError
from ctray.core.geometry import VoxelSize
from ctray.formats.opening import open_source
from ctray.volumes.volume import open_volume

SHAPE = (12, 9, 10)


def voxels(dtype: str = "u2") -> np.ndarray:
    high = np.iinfo(dtype).max
    return np.random.default_rng(4).integers(0, high, SHAPE, dtype=dtype, endpoint=True)


def write_png(path: Path, plane: np.ndarray) -> None:
    path.write_bytes(imagecodecs.png_encode(plane))


def write_jp2(path: Path, plane: np.ndarray) -> None:
    path.write_bytes(imagecodecs.jpeg2k_encode(plane, level=0, codecformat="jp2"))


def write_j2k(path: Path, plane: np.ndarray) -> None:
    path.write_bytes(imagecodecs.jpeg2k_encode(plane, level=0, codecformat="j2k"))


def write_edf(path: Path, plane: np.ndarray) -> None:
    fabio = pytest.importorskip("fabio")
    fabio.edfimage.EdfImage(data=plane, header={"title": "made up"}).write(str(path))


def write_slices(
    folder: Path, volume: np.ndarray, write: Callable[[Path, np.ndarray], None], name: str
) -> None:
    folder.mkdir(exist_ok=True)
    for z, plane in enumerate(volume):
        write(folder / name.format(z), plane)


def whole(url: str) -> np.ndarray:
    with open_source(url) as source:
        return source.read(0, source.shape[0])


@pytest.mark.parametrize("dtype", ["u1", "u2"])
@pytest.mark.parametrize(
    ("write", "name"),
    [
        (write_png, "s_{:d}.png"),
        (write_png, "s_{:04d}.PNG"),
        (write_jp2, "s_{:04d}.jp2"),
        (write_j2k, "s{:d}.j2k"),
        (write_edf, "s_{:d}.edf"),
    ],
)
def test_slices_are_one_volume(
    tmp_path: Path, dtype: str, write: Callable[[Path, np.ndarray], None], name: str
) -> None:
    volume = voxels(dtype)
    write_slices(tmp_path / "fish", volume, write, name)
    (tmp_path / "fish" / "meta.json").write_text(json.dumps({"voxel_size_um": 2.5}))
    (entry,) = build_catalog(str(tmp_path))
    assert (entry.status, entry.volume_id, entry.shape) == ("ok", "fish", SHAPE), entry.reason
    assert entry.voxel_size == VoxelSize.of([2.5])
    np.testing.assert_array_equal(whole(entry.url), volume)
    # The folder by itself is the same.
    np.testing.assert_array_equal(whole(str(tmp_path / "fish")), volume)
    result = import_volume(entry.url, str(tmp_path / "out.zarr"))
    np.testing.assert_array_equal(whole(result.url), volume)


def test_slices_beside_each_other(tmp_path: Path) -> None:
    write_slices(tmp_path / "scans", voxels(), write_png, "left_{:03d}.png")
    write_slices(tmp_path / "scans", voxels()[::-1], write_jp2, "right_{:03d}.jp2")
    catalog = {e.volume_id: e.url for e in build_catalog(str(tmp_path)).ok}
    assert catalog.keys() == {"scans_left", "scans_right"}
    np.testing.assert_array_equal(whole(catalog["scans_right"]), voxels()[::-1])


def test_a_gap_in_the_numbers_is_noted(tmp_path: Path) -> None:
    write_slices(tmp_path / "fish", voxels(), write_png, "s_{:03d}.png")
    (tmp_path / "fish" / "s_005.png").unlink()
    (entry,) = build_catalog(str(tmp_path))
    assert entry.notes == "1 slices missing in the numbering (5)"


def test_pictures_are_no_volumes(tmp_path: Path) -> None:
    """Figures are few or in colour: the first are nothing to speak of, the others are told."""
    write_slices(tmp_path / "fish", voxels(), write_png, "s_{:03d}.png")
    colour = np.zeros((12, 9, 10, 3), np.uint8)
    write_slices(tmp_path / "film", colour, write_png, "frame_{:03d}.png")
    write_slices(tmp_path / "figures", voxels()[:4], write_png, "figure_{:d}.png")
    catalog = build_catalog(str(tmp_path))
    assert [e.volume_id for e in catalog] == ["fish"]
    (left,) = catalog.without_volume
    assert "picture with colour" in left.reason
    assert "film" in left.reason


@pytest.mark.parametrize("odd", ["shape", "dtype", "cut", "empty", "words"])
@pytest.mark.parametrize("at", [0, 3, 11])
@pytest.mark.parametrize(
    ("write", "suffix"), [(write_png, "png"), (write_jp2, "jp2"), (write_edf, "edf")]
)
def test_one_odd_slice_is_named(
    tmp_path: Path, odd: str, at: int, write: Callable[[Path, np.ndarray], None], suffix: str
) -> None:
    """At the latest when it is read, wherever it is."""
    write_slices(tmp_path, voxels(), write, f"s_{{:02d}}.{suffix}")
    bad = tmp_path / f"s_{at:02d}.{suffix}"
    if odd == "shape":
        write(bad, voxels()[at, :-1])
    elif odd == "dtype":
        write(bad, voxels("u1")[at])
    else:
        content = {"cut": bad.read_bytes()[:-60], "empty": b"", "words": b"words"}
        bad.write_bytes(content[odd])
    with pytest.raises(InvalidVolumeError) as caught:
        whole(str(tmp_path))
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("s_1.png", "one slice; give its folder"),
        ("s_1.dcm", "one slice; give its folder"),
        ("v.raw", "give the header that describes them"),
        ("v.ims", r"does not read Imaris \(\.ims\)"),
        ("v.txt", "its format is unknown"),
    ],
)
def test_a_file_that_is_no_volume_says_what_to_give(
    tmp_path: Path, name: str, message: str
) -> None:
    (tmp_path / name).write_bytes(b"any bytes")
    with pytest.raises(InvalidVolumeError, match=message):
        open_source(str(tmp_path / name))


def test_a_png_that_claims_to_be_huge_is_not_decoded(tmp_path: Path) -> None:
    for z in range(12):
        head = struct.pack(">IIBBBBB", 15_000, 15_000, 8, 0, 0, 0, 0)
        chunk = b"IHDR" + head
        data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk
        (tmp_path / f"s_{z:02d}.png").write_bytes(data + struct.pack(">I", zlib.crc32(chunk)))
    with pytest.raises(InvalidVolumeError, match=r"s_00\.png.*bytes for a slice of"):
        open_source(str(tmp_path))


def test_packages_that_are_missing_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for suffix, package in (("edf", "fabio"), ("dcm", "pydicom")):
        folder = tmp_path / suffix
        folder.mkdir()
        for z in range(4):
            (folder / f"s_{z}.{suffix}").write_bytes(b"{\n")
        monkeypatch.setattr(importlib, "import_module", _not_installed)
        (entry,) = build_catalog(str(folder))
        assert f"needs the package {package}" in str(entry.reason)
        assert "pip install 'ctray[formats]'" in str(entry.reason)


def _not_installed(name: str) -> Any:
    raise builtins.ModuleNotFoundError(name)


# --- DICOM --------------------------------------------------------------------------------------


def write_dicom(folder: Path, volume: np.ndarray, **change: Any) -> None:
    """A series whose file names say nothing of its order; `change` sets further elements."""
    pydicom = pytest.importorskip("pydicom")
    folder.mkdir(exist_ok=True)
    for z, plane in enumerate(volume):
        data = pydicom.dataset.Dataset()
        data.SOPClassUID, data.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", f"1.2.3.{z + 1}"
        data.SeriesInstanceUID, data.InstanceNumber = "1.2.9", 100 - z
        data.Rows, data.Columns = plane.shape
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated = data.BitsStored = 16
        data.HighBit, data.PixelRepresentation = 15, 0
        data.PixelSpacing = [0.002, 0.001]
        data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        data.ImagePositionPatient = [0, 0, 0.003 * z]
        data.PixelData = plane.tobytes()
        for name, value in change.items():
            setattr(data, name, value(z) if callable(value) else value)
        data.file_meta = pydicom.dataset.FileMetaDataset()
        data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        path = folder / f"IM{(7 * z) % 97:04d}.dcm"
        data.save_as(path, enforce_file_format=True)


def test_dicom_slices_lie_in_the_order_of_their_positions(tmp_path: Path) -> None:
    volume = voxels()
    write_dicom(tmp_path / "fish", volume)
    (entry,) = build_catalog(str(tmp_path))
    assert (entry.status, entry.volume_id, entry.shape) == ("ok", "fish", SHAPE), entry.reason
    assert entry.voxel_size is not None
    assert entry.voxel_size.um == pytest.approx((3, 2, 1))
    np.testing.assert_array_equal(whole(entry.url), volume)
    result = import_volume(entry.url, str(tmp_path / "out.zarr"))
    imported = open_volume(result.url)
    assert imported.voxel_size is not None
    np.testing.assert_array_equal(whole(result.url), volume)


def test_a_pattern_of_dicom_slices_leaves_the_others_out(tmp_path: Path) -> None:
    left, right = voxels(), voxels()[:, ::-1].copy()
    for name, volume in (("left", left), ("right", right)):
        write_dicom(tmp_path / name, volume)
        for path in (tmp_path / name).iterdir():
            path.rename(tmp_path / f"{name}_{path.name}")
    np.testing.assert_array_equal(whole(f"{tmp_path}/left_*.dcm"), left)


def test_dicom_without_positions_goes_by_number(tmp_path: Path) -> None:
    write_dicom(tmp_path, voxels(), ImagePositionPatient=None)
    np.testing.assert_array_equal(whole(str(tmp_path)), voxels()[::-1])
    with open_source(str(tmp_path)) as source:
        assert source.voxel_size is None


def test_dicom_notes(tmp_path: Path) -> None:
    write_dicom(tmp_path, voxels(), RescaleSlope=2, RescaleIntercept=-1000)
    (tmp_path / "IM0035.dcm").unlink()  # slice 5
    with open_source(str(tmp_path)) as source:
        assert source.notes == (
            "1 gaps between slices that are 0.003 mm apart",
            "stored values are read without rescaling (slope 2, intercept -1000)",
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"SeriesInstanceUID": lambda z: f"1.2.{z % 2}"}, "several DICOM series"),
        ({"RescaleSlope": lambda z: z + 1}, "different rescale slopes"),
        (
            {"ImagePositionPatient": [0, 0, 0], "InstanceNumber": 1},
            "order of the DICOM slices is unknown",
        ),
        ({"NumberOfFrames": 2}, "several frames"),
        ({"SamplesPerPixel": 3}, "colour"),
        ({"BitsAllocated": 1}, "per pixel, not 1"),
    ],
)
def test_dicom_that_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    write_dicom(tmp_path, voxels(), **change)
    with pytest.raises(InvalidVolumeError, match=message):
        open_source(str(tmp_path))


# --- zipped Zarr --------------------------------------------------------------------------------


def zipped(folder: Path, path: Path, packed: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", packed) as file:
        for member in sorted(folder.rglob("*")):
            file.write(member, member.relative_to(folder))
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("name", ["v.ome.zarr.zip", "v.ZARR.ZIP", "v.ozx"])
def test_zipped_ome_zarr_is_read_in_place(tmp_path: Path, version: str, name: str) -> None:
    volume = voxels()
    write_slices(tmp_path / "fish", volume, write_png, "s_{:02d}.png")
    size = VoxelSize.of((3.0, 2.0, 1.0))
    image = import_volume(
        str(tmp_path / "fish"), str(tmp_path / "i.zarr"), voxel_size=size, ome_version=version
    )
    archive = tmp_path / "archive"
    archive.mkdir()
    path = zipped(Path(image.url), archive / name)
    (entry,) = build_catalog(str(archive))
    assert (entry.status, entry.kind, entry.volume_id) == ("ok", "ome-zarr", "v"), entry.reason
    assert entry.voxel_size == size
    np.testing.assert_array_equal(whole(entry.url), volume)
    np.testing.assert_array_equal(whole(str(path)), volume)
    # The archive may be that file.
    assert build_catalog(str(path)).entries[0].status == "ok"


@pytest.mark.parametrize("packed", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_zipped_bare_zarr(tmp_path: Path, packed: int, zarr_format: Any) -> None:
    array = zarr.create_array(
        str(tmp_path / "a.zarr"),
        shape=SHAPE,
        dtype="u2",
        chunks=(4, 9, 10),
        zarr_format=zarr_format,
    )
    array[...] = voxels()
    path = zipped(tmp_path / "a.zarr", tmp_path / "b.zarr.zip", packed)
    np.testing.assert_array_equal(whole(str(path)), voxels())


def test_a_zip_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    for volume in (voxels(), voxels()[::-1]):
        array = zarr.create_array(
            str(tmp_path / "a.zarr"), shape=SHAPE, dtype="u2", chunks=SHAPE, overwrite=True
        )
        array[...] = volume
        path = zipped(tmp_path / "a.zarr", tmp_path / "b.zarr.zip", zipfile.ZIP_DEFLATED)
        np.testing.assert_array_equal(whole(str(path)), volume)


def test_zipped_zarr_that_is_damaged(tmp_path: Path) -> None:
    array = zarr.create_array(str(tmp_path / "a.zarr"), shape=SHAPE, dtype="u2", chunks=SHAPE)
    array[...] = voxels()
    path = zipped(tmp_path / "a.zarr", tmp_path / "b.zarr.zip")
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InvalidVolumeError, match=r"b\.zarr\.zip: unreadable zip"):
        open_source(str(path))
