"""Folders of TIFFs: slices, parts of a recording, sets, and what is no stack, as catalogued."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
from tiff_inputs import (
    catalog_of,
    described,
    noise,
    notes_of,
    ome_xml,
    read_all,
    write_ome_set,
    write_pages,
    write_slices,
)

from ctray.archive.catalog import CatalogEntry
from ctray.archive.importing import import_volume
from ctray.core.errors import InvalidVolumeError
from ctray.formats.opening import open_source

VOLUME = noise()


def only_entry(folder: Path) -> CatalogEntry:
    (entry,) = catalog_of(folder).entries
    return entry


def refusal(folder: Path) -> str:
    """The reason of a folder that is one failed entry."""
    entry = only_entry(folder)
    assert entry.status == "failed"
    return str(entry.reason)


# --- names ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["S001_z{z:03d}_ch{c:02d}.tif", "ch{c}_z{z:03d}.tif"])
def test_channel_number_behind_or_before_the_slice_number(tmp_path: Path, name: str) -> None:
    for z in range(8):
        for c in range(3):
            write_pages(tmp_path / name.format(z=z, c=c), [VOLUME[3 * z + c]])
    entries = catalog_of(tmp_path).ok
    assert [entry.shape for entry in entries] == [(8, 22, 26)] * 3
    for c, entry in enumerate(entries):
        np.testing.assert_array_equal(read_all(entry.url), VOLUME[c::3])


@pytest.mark.parametrize(
    "name",
    [
        "rec_{z:04d}_z{mm:.3f}mm.tif",
        "rec_{z}_z{below:.1f}mm.tif",
        "rec_{z:04d}_2023-05-11T{h:02d}{m:02d}{s:02d}.tif",
        "2023-05-11_{h:02d}-{m:02d}-{s:02d}_rec_{z:04d}.tif",
        "rec_{z:04d}_{h:02d}-{m:02d}-{s:02d}.tif",
        "rec_z{below:.1f}mm.tif",
        "2023-05-11T{h:02d}{m:02d}{s:02d}.tif",
    ],
)
def test_two_numbers_that_change_together(tmp_path: Path, name: str) -> None:
    for z, plane in enumerate(VOLUME):
        t = 3600 + 97 * z
        fields = {"h": t // 3600, "m": t // 60 % 60, "s": t % 60}
        text = name.format(z=z, mm=12.5 + 0.0065 * z, below=0.5 * (z - 10), **fields)
        write_pages(tmp_path / text, [plane])
    entry = only_entry(tmp_path)
    assert entry.shape == VOLUME.shape
    np.testing.assert_array_equal(read_all(entry.url), VOLUME)
    np.testing.assert_array_equal(read_all(tmp_path), VOLUME)
    told = "several numbers in the names change" in str(entry.notes)
    assert told == ("rec_{z" in name or "_rec_" in name)


def test_three_numbers(tmp_path: Path) -> None:
    for i in range(24):
        scan, energy, z = i // 12, i // 6 % 2, i % 6
        write_pages(tmp_path / f"scan{scan}_{z:04d}_{8900 + 79 * energy}eV.tif", [VOLUME[i]])
    entries = catalog_of(tmp_path).ok
    assert [e.volume_id for e in entries] == [
        f"scan{scan}_{energy}" for scan in (0, 1) for energy in (8900, 8979)
    ]
    for i, entry in enumerate(entries):
        np.testing.assert_array_equal(read_all(entry.url), VOLUME[6 * i : 6 * i + 6])


@pytest.mark.parametrize(
    "name",
    ["scan{a:03d}_{b:02d}.tif", "tile_x{a}_y{b}.tif", "t{a}_c{b}.tif"],
)
def test_names_that_cannot_be_ordered_are_refused(tmp_path: Path, name: str) -> None:
    for i in range(24):
        write_pages(tmp_path / name.format(a=i // 3, b=i % 3), [VOLUME[i]])
    assert "the names of 24 files hold several numbers" in refusal(tmp_path)
    with pytest.raises(InvalidVolumeError, match="rename the files so that one number"):
        open_source(str(tmp_path))


def test_messy_folder(tmp_path: Path) -> None:
    folder = tmp_path / "Köcherfliege Nr 3 (links)"
    write_slices(folder, VOLUME, "a slice {}.TIF")
    write_slices(folder, VOLUME[:, ::-1], "b slice {}.tif")
    (folder / "a slice 7.TIF").unlink()
    (folder / "a slice 11.TIF").rename(folder / "a slice 11.tiff")
    for junk in ("._a slice 1.TIF", "Thumbs.db", ".DS_Store", "recon.log"):
        (folder / junk).write_bytes(b"\0\5\x16\7")
    write_pages(folder / "overview.tif", [(np.zeros((9, 9, 3), "u1"), {"photometric": "rgb"})])
    write_pages(folder / "mosaic_2x2.tif", [noise(1, 60, 50)[0]])
    (tmp_path / "link").symlink_to(folder)
    catalog = catalog_of(tmp_path)
    assert [(e.volume_id, e.notes) for e in catalog.ok] == [
        ("Köcherfliege_Nr_3_links_a_slice", "1 slices missing in the numbering (7)"),
        ("Köcherfliege_Nr_3_links_b_slice", None),
    ]
    assert catalog.failed == ()
    assert len(catalog.without_volume) == 2
    first, second = (read_all(entry.url) for entry in catalog.ok)
    np.testing.assert_array_equal(first, np.delete(VOLUME, 7, axis=0))
    np.testing.assert_array_equal(second, VOLUME[:, ::-1])


def test_numbering_that_goes_on_in_the_folder_beside(tmp_path: Path) -> None:
    for start in (0, 8, 16):
        folder = tmp_path / f"{start:04d}-{start + 7:04d}"
        for z in range(start, start + 8):
            write_pages(folder / f"s_{z:04d}.tif", [VOLUME[z]])
    write_slices(tmp_path / "other", VOLUME, "t_{:04d}.tif")
    notes = {Path(entry.url).name: entry.notes for entry in catalog_of(tmp_path).ok}
    assert f"the numbering continues in {tmp_path}/0008-0015" in str(notes["0000-0007"])
    assert f"the numbering continues in {tmp_path}/0016-0023" in str(notes["0008-0015"])
    assert (notes["0016-0023"], notes["other"]) == (None, None)


# --- several pages in each file -------------------------------------------------------------


@pytest.mark.parametrize("axes", ["CYX", "ZYX"])
def test_one_stack_a_slice_file_is_refused(tmp_path: Path, axes: str) -> None:
    for z in range(12):
        path = tmp_path / f"s_{z:03d}.tif"
        tifffile.imwrite(path, VOLUME[z : z + 4], imagej=True, metadata={"axes": axes})
    assert "12 numbered files (s_*.tif) of 4 pages each" in refusal(tmp_path)


def test_thumbnail_in_each_slice_file(tmp_path: Path) -> None:
    for z, plane in enumerate(VOLUME):
        thumbnail = (plane[::4, ::4].copy(), {"subfiletype": 1})
        write_pages(tmp_path / f"s_{z:03d}.tif", [plane, thumbnail])
    np.testing.assert_array_equal(read_all(only_entry(tmp_path).url), VOLUME)


@pytest.mark.parametrize("parts", [2, 3])
def test_recording_that_a_camera_split(tmp_path: Path, parts: int) -> None:
    for i, part in enumerate(np.array_split(VOLUME, parts)):
        number = f"@{i:04d}" if i else ""
        write_pages(tmp_path / f"beetle{number}.tif", part)
    entry = only_entry(tmp_path)
    assert entry.shape == VOLUME.shape
    assert f"{parts} files of several pages joined" in str(entry.notes)
    np.testing.assert_array_equal(read_all(entry.url), VOLUME)


def test_numbered_multi_page_files_can_be_joined(tmp_path: Path) -> None:
    """Nobody knows whether they are scans or parts: a note says how to join them."""
    for i, part in enumerate(np.array_split(noise(32), 3)):
        write_pages(tmp_path / f"rec_{i:04d}.tif", part)
    entries = catalog_of(tmp_path).ok
    assert [entry.shape and entry.shape[0] for entry in entries] == [11, 11, 10]
    pattern = f"{tmp_path}/rec_*.tif"
    assert f"recording, give {pattern}" in str(entries[0].notes)
    assert [entry.notes for entry in entries[1:]] == [None, None]
    np.testing.assert_array_equal(read_all(pattern), noise(32))


@pytest.mark.parametrize("names", [["b.tif", "b_1.tif"], ["b.tif", "b_X2.tif", "b_X3.tif"]])
def test_files_that_may_be_parts_are_told(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        write_pages(tmp_path / name, VOLUME)
    first, *others = catalog_of(tmp_path).ok
    assert len(others) == len(names) - 1
    assert "may be parts of the same recording" in str(first.notes)


def test_overview_beside_slices_is_told_from_parts(tmp_path: Path) -> None:
    write_pages(tmp_path / "b.tif", [VOLUME[0]])
    write_slices(tmp_path, VOLUME, "b_{:04d}.tif")
    (entry,) = catalog_of(tmp_path).entries
    assert (entry.shape, entry.notes) == (VOLUME.shape, None)


def test_many_energies_a_slice_file(tmp_path: Path) -> None:
    for z in range(50):
        write_pages(tmp_path / f"s_{z:03d}.tif", VOLUME[:12])
    assert "50 numbered files (s_*.tif) of 12 pages each" in refusal(tmp_path)


def test_part_of_another_size_is_named(tmp_path: Path) -> None:
    write_pages(tmp_path / "a.tif", VOLUME)
    write_pages(tmp_path / "a@0001.tif", VOLUME[:, :-1])
    assert "a@0001.tif: 21 x 26 voxels, not 22 x 26 as in" in refusal(tmp_path)


def test_grid_of_multi_page_files_stays_volumes(tmp_path: Path) -> None:
    for i in range(6):
        write_pages(tmp_path / f"x{i % 3}_y{i // 3}.tif", VOLUME[:12])
    assert len(catalog_of(tmp_path).ok) == 6


# --- OME-TIFF sets --------------------------------------------------------------------------


@pytest.mark.parametrize(("unit", "edge"), [(None, "0.65"), ("nm", "650"), ("mm", "0.00065")])
def test_ome_set_in_the_order_of_its_xml(tmp_path: Path, unit: str | None, edge: str) -> None:
    backwards = [f"s_{99 - z:03d}.ome.tif" for z in range(24)]
    write_ome_set(tmp_path, VOLUME, backwards, unit=unit, edge=edge)
    entry = only_entry(tmp_path)
    assert entry.voxel_size is not None
    assert entry.voxel_size.um == pytest.approx((0.65, 0.65, 0.65))
    np.testing.assert_array_equal(read_all(tmp_path), VOLUME)


def test_ome_set_with_a_missing_file(tmp_path: Path) -> None:
    write_ome_set(tmp_path, VOLUME, [f"s_{z:03d}.ome.tif" for z in range(24)])
    (tmp_path / "s_005.ome.tif").unlink()
    assert "s_005.ome.tif of the OME-TIFF set is missing (1 of 24 files)" in refusal(tmp_path)


def test_ome_set_that_was_renamed(tmp_path: Path) -> None:
    write_ome_set(tmp_path, VOLUME, [f"s_{z:03d}.ome.tif" for z in range(24)])
    for z in range(24):
        (tmp_path / f"s_{z:03d}.ome.tif").rename(tmp_path / f"new_{z:03d}.tif")
    np.testing.assert_array_equal(read_all(tmp_path), VOLUME)
    assert "OME-XML names other files" in notes_of(tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        ["b_0.ome.tif", "b_1.ome.tif"],
        ["a_MMStack.ome.tif", "a_MMStack_1.ome.tif"],
        ["c_2.ome.tif", "c_1.ome.tif", "c_0.ome.tif"],
    ],
)
def test_ome_set_of_multi_page_files(tmp_path: Path, names: list[str]) -> None:
    write_ome_set(tmp_path, VOLUME, names, pages_each=24 // len(names))
    entry = only_entry(tmp_path)
    assert entry.shape == VOLUME.shape
    np.testing.assert_array_equal(read_all(entry.url), VOLUME)


@pytest.mark.parametrize(
    ("was", "now"),
    [
        # Channels in one file; every second slice in one file.
        ('SizeZ="24" SizeC="1"', 'SizeZ="12" SizeC="2"'),
        ('PlaneCount="12"', 'PlaneCount="1"'),
    ],
)
def test_ome_set_of_channels_or_mixed_slices_is_refused(tmp_path: Path, was: str, now: str) -> None:
    names = ["a_0.ome.tif", "a_1.ome.tif"]
    places = [(name, 12 * i) for i, name in enumerate(names)]
    if "PlaneCount" in was:
        places = [(names[z % 2], z) for z in range(24)]
    for name in names:
        xml = ome_xml(places, name, size=VOLUME.shape, pages_each=12).replace(was, now)  # type: ignore[arg-type]
        if "PlaneCount" in was:
            for z in range(24):
                xml = xml.replace(
                    f'FirstZ="{z}" FirstC="0" FirstT="0" IFD="0"', f'FirstZ="{z}" IFD="{z // 2}"'
                )
        else:
            xml = xml.replace('FirstZ="12"', 'FirstZ="6"').replace("XYZCT", "XYCZT")
        write_pages(tmp_path / name, described(VOLUME[:12], xml))
    catalog = catalog_of(tmp_path)
    assert catalog.ok == ()
    assert all("several channels or times, or with slices" in str(e.reason) for e in catalog.failed)


# --- bad slices -----------------------------------------------------------------------------


def spoil(folder: Path, at: int, how: str) -> Path:
    path = folder / f"s_{at:04d}.tif"
    plane = tifffile.imread(path)
    packed = {"compression": "zlib"} if how.endswith("zlib") else {}
    if how == "empty":
        path.write_bytes(b"")
    elif how.startswith("half"):
        os.truncate(path, path.stat().st_size // 2)
    elif how.startswith("wider"):
        write_pages(path, [plane.astype(np.uint32)], **packed)
    elif how.startswith("short"):
        write_pages(path, [plane[:-1]], **packed)
    elif how == "rgb":
        write_pages(path, [np.stack([plane] * 3, 2)], photometric="rgb")
    elif how == "pages":
        write_pages(path, [plane, plane])
    elif how == "white":
        write_pages(path, [plane], photometric="miniswhite")
    else:
        path.write_bytes(b"words")
    return path


@pytest.mark.parametrize(
    "how",
    [
        *("empty", "half", "half_zlib", "wider", "wider_zlib", "short", "short_zlib"),
        *("rgb", "pages", "white", "words"),
    ],
)
@pytest.mark.parametrize("at", [0, 12, 19, 39])
def test_bad_slice_is_named(tmp_path: Path, how: str, at: int) -> None:
    folder = tmp_path / "scan"
    packed = {"compression": "zlib"} if how.endswith("zlib") else {}
    write_slices(folder, noise(40), **packed)
    path = spoil(folder, at, how)
    # Where the bad one is the first, all others differ from it.
    named = path.name if at or how in ("empty", "half", "half_zlib", "words", "rgb") else "s_0000"
    with pytest.raises(InvalidVolumeError, match=named):
        import_volume(str(folder), str(tmp_path / "out"))
    entries = catalog_of(folder).entries
    assert len(entries) == 1
    assert entries[0].status == "failed" or how == "white"


def test_every_slice_is_compared_at_import(tmp_path: Path) -> None:
    """A catalog looks at some files of a folder; the import looks at all of them."""
    folder = write_slices(tmp_path / "scan", np.zeros((60, 8, 8), np.uint8))
    write_pages(folder / "s_0017.tif", [np.zeros((8, 8), np.int8)])
    with pytest.raises(InvalidVolumeError, match=r"s_0017\.tif: int8 values, not uint8 as in"):
        import_volume(str(folder), str(tmp_path / "out"))


def test_folder_of_imagej_slices_knows_its_size(tmp_path: Path) -> None:
    text = "ImageJ=1.54f\nunit=micron\n"
    for z, plane in enumerate(VOLUME):
        pages = described(plane[None], text, resolution=(2, 2), resolutionunit=1)
        write_pages(tmp_path / f"s_{z}.tif", pages)
    entry = only_entry(tmp_path)
    assert entry.voxel_size is not None
    assert entry.voxel_size.um == (0.5, 0.5, 0.5)
