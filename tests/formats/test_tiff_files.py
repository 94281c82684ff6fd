"""Multi-page TIFFs: every page by its own tags, every slice there or refused by number."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import fsspec
import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image
from tiff_inputs import (
    described,
    imagej_in_one_piece,
    noise,
    notes_of,
    ome_xml,
    one_strip_file,
    read_all,
    write_pages,
)

from ctray.core.errors import InvalidVolumeError, NoVolumeError
from ctray.formats.opening import open_source

VOLUME = noise()
IMAGEJ = "ImageJ=1.54f\nimages={0}\nslices={0}\nloop=false\n"


def with_page(page: np.ndarray, at: int = 10, **how: Any) -> list[Any]:
    """The volume's pages with one replaced."""
    pages: list[Any] = list(VOLUME)
    pages[at] = (page, how)
    return pages


# --- one page unlike the others -------------------------------------------------------------

PACKINGS: list[dict[str, Any]] = [
    {},
    {"compression": "zlib", "predictor": True},
    {"compression": "lzw"},
    {"tile": (16, 16)},
    {"compression": "zstd", "rowsperstrip": 5},
    {"compression": "jpeg2000", "compressionargs": {"level": 0}},
    {"rowsperstrip": 7},
    {"compression": "packbits", "tile": (16, 32)},
]


@pytest.mark.parametrize("how", PACKINGS[1:])
@pytest.mark.parametrize("at", [0, 10, 23])
def test_page_of_another_packing(tmp_path: Path, how: dict[str, Any], at: int) -> None:
    path = write_pages(tmp_path / "a.tif", with_page(VOLUME[at], at, **how))
    np.testing.assert_array_equal(read_all(path), VOLUME)


def test_every_page_of_its_own_packing(tmp_path: Path) -> None:
    pages = [(plane, PACKINGS[z % len(PACKINGS)]) for z, plane in enumerate(VOLUME)]
    path = write_pages(tmp_path / "a.tif", pages)
    np.testing.assert_array_equal(read_all(path), VOLUME)


@pytest.mark.parametrize(
    ("page", "how", "what"),
    [
        (VOLUME[10][:-2], {}, "20 x 26 voxels, not 22 x 26"),
        ((VOLUME[10] // 256).astype(np.uint8), {}, "uint8 values, not uint16"),
        (VOLUME[10].astype(np.int16), {}, "int16 values, not uint16"),
        (VOLUME[10] // 16, {"bitspersample": 12}, "12 bit values, not uint16"),
        (VOLUME[10], {"photometric": "miniswhite"}, "photometric interpretation 0, not 1"),
        (np.stack([VOLUME[10]] * 3, 2), {"photometric": "rgb"}, "3 samples per pixel, not 1"),
    ],
)
@pytest.mark.parametrize("at", [0, 10, 23])
def test_page_of_another_form_is_named(
    tmp_path: Path, page: np.ndarray, how: dict[str, Any], what: str, at: int
) -> None:
    path = write_pages(tmp_path / "a.tif", with_page(page, at, **how))
    with pytest.raises(InvalidVolumeError, match=f"page {at + 1} of 24 has {what}"):
        open_source(str(path))


@pytest.mark.parametrize("text", [IMAGEJ.format(24), '{"shape": [24, 22, 26]}'])
def test_description_does_not_hide_an_odd_page(tmp_path: Path, text: str) -> None:
    pages = with_page(VOLUME[10][:-1])
    pages[0] = (VOLUME[0], {"description": text})
    with pytest.raises(InvalidVolumeError, match="page 11 of 24 has 21 x 26 voxels"):
        open_source(str(write_pages(tmp_path / "a.tif", pages)))


def test_ome_xml_does_not_hide_an_odd_page(tmp_path: Path) -> None:
    xml = ome_xml([("a.tif", 0)], "a.tif", size=(24, 22, 26), pages_each=24)
    pages = with_page(VOLUME[10].astype(np.uint8))
    pages[0] = (VOLUME[0], {"description": xml})
    with pytest.raises(InvalidVolumeError, match="page 11 of 24 has uint8 values"):
        open_source(str(write_pages(tmp_path / "a.tif", pages)))


def test_other_images_beside_a_volume_are_told(tmp_path: Path) -> None:
    macro = (np.zeros((200, 300, 3), np.uint8), {"photometric": "rgb"})
    first = write_pages(tmp_path / "first.tif", [macro, *VOLUME])
    np.testing.assert_array_equal(read_all(first), VOLUME)
    assert notes_of(first) == "1 page of 200 x 300 left out: other images"
    thumbnails = [(plane[::4, ::4].copy(), {"subfiletype": 1}) for plane in VOLUME[:3]]
    behind = write_pages(tmp_path / "behind.tif", [*VOLUME, *thumbnails])
    np.testing.assert_array_equal(read_all(behind), VOLUME)
    assert notes_of(behind) == "3 pages of 6 x 7 left out: marked as smaller copies"
    unmarked = write_pages(tmp_path / "unmarked.tif", [*VOLUME, VOLUME[0][::4, ::4].copy()])
    np.testing.assert_array_equal(read_all(unmarked), VOLUME)
    assert "1 page of 6 x 7 left out" in notes_of(unmarked)


def test_pages_that_are_all_marked_as_copies_are_slices(tmp_path: Path) -> None:
    path = write_pages(tmp_path / "a.tif", VOLUME, subfiletype=1)
    np.testing.assert_array_equal(read_all(path), VOLUME)


def test_thumbnail_behind_every_page(tmp_path: Path) -> None:
    """As confocal microscopes write."""
    pages: list[Any] = []
    for plane in VOLUME:
        pages += [plane, (plane[::2, ::2].copy(), {"subfiletype": 1})]
    path = write_pages(tmp_path / "a.tif", pages)
    np.testing.assert_array_equal(read_all(path), VOLUME)


# --- counts that do not fit -----------------------------------------------------------------


def test_imagej_counts_fewer_than_there_are(tmp_path: Path) -> None:
    told = "ImageJ's description states 20 images, but the file holds 24 pages; all 24 pages"
    one_piece = imagej_in_one_piece(tmp_path / "one.tif", VOLUME, IMAGEJ.format(20))
    joined = write_pages(tmp_path / "two.tif", described(VOLUME, IMAGEJ.format(20)))
    for path in (one_piece, joined):
        np.testing.assert_array_equal(read_all(path), VOLUME)
        assert told in notes_of(path)


def test_imagej_counts_more_than_there_are(tmp_path: Path) -> None:
    path = imagej_in_one_piece(tmp_path / "a.tif", VOLUME, IMAGEJ.format(60))
    np.testing.assert_array_equal(read_all(path), VOLUME)
    assert "states 60 images, but the file holds 24 pages" in notes_of(path)


@pytest.mark.parametrize(
    "counts", ["images=12\nchannels=2\nslices=6\n", "images=12\nslices=6\nframes=2\n"]
)
def test_imagej_hyperstack_of_another_count_is_refused(tmp_path: Path, counts: str) -> None:
    path = write_pages(tmp_path / "a.tif", described(VOLUME, f"ImageJ=1.54f\n{counts}"))
    with pytest.raises(InvalidVolumeError, match="states 12 images, but the file holds 24 pages"):
        open_source(str(path))


def test_imagej_hyperstack_with_a_wrong_number_of_images(tmp_path: Path) -> None:
    text = "ImageJ=1.54f\nimages=12\nchannels=2\nslices=12\n"
    path = write_pages(tmp_path / "a.tif", described(VOLUME, text))
    with pytest.raises(InvalidVolumeError, match=r"4D array of shape 12 x 2 x 22 x 26 \(ZCYX\)"):
        open_source(str(path))


def test_two_imagej_stacks_joined_page_by_page(tmp_path: Path) -> None:
    half = IMAGEJ.format(12)
    pages = [*described(VOLUME[:12], half), *described(VOLUME[12:], half)]
    path = write_pages(tmp_path / "a.tif", pages)
    np.testing.assert_array_equal(read_all(path), VOLUME)
    assert "states 12 images" in notes_of(path)


def big_imagej(path: Path, depth: int, side: int, *, cut: int = 0) -> None:
    """One directory, big endian, and voxels for `depth` slices behind it; the middle is a hole."""
    text = f"ImageJ=1.53t\nimages={depth}\nslices={depth}\nunit=micron\nspacing=0.65\n\0".encode()
    rows = [
        *((256, 4, 1, side), (257, 4, 1, side), (258, 3, 1, 16 << 16), (259, 3, 1, 1 << 16)),
        *((262, 3, 1, 1 << 16), (270, 2, len(text), 1000), (273, 4, 1, 2000)),
        *((277, 3, 1, 1 << 16), (278, 4, 1, side), (279, 4, 1, side * side * 2)),
        *((282, 5, 1, 900), (283, 5, 1, 900)),
    ]
    plane = side * side * 2
    with path.open("wb") as file:
        file.write(b"MM\0*" + struct.pack(">IH", 8, len(rows)))
        file.write(b"".join(struct.pack(">HHII", *row) for row in rows) + bytes(4))
        file.seek(900)
        file.write(struct.pack(">II", 1000000, 650000))
        file.seek(1000)
        file.write(text)
        file.seek(2000 + (depth - 1) * plane)
        file.write(np.full((side, side), 4711, ">u2").tobytes())
        file.truncate(2000 + depth * plane - cut)


def test_imagej_beyond_four_gigabytes(tmp_path: Path) -> None:
    big_imagej(tmp_path / "whole.tif", 560, 2000)
    with open_source(str(tmp_path / "whole.tif")) as source:
        assert source.shape == (560, 2000, 2000)
        assert source.voxel_size is not None
        assert source.voxel_size.um == pytest.approx((0.65, 0.65, 0.65))
        assert (source.read(559, 560) == 4711).all()
        assert (source.read(558, 559) == 0).all()
    big_imagej(tmp_path / "cut.tif", 560, 2000, cut=20_000_000)
    with pytest.raises(InvalidVolumeError, match="states 560 images, but 557 fit"):
        open_source(str(tmp_path / "cut.tif"))


def test_ome_xml_counts_fewer_or_more_pages(tmp_path: Path) -> None:
    for name, stated in (("fewer.tif", 20), ("more.tif", 30)):
        xml = ome_xml([(name, 0)], name, size=(stated, 22, 26), pages_each=stated)
        write_pages(tmp_path / name, described(VOLUME, xml))
    np.testing.assert_array_equal(read_all(tmp_path / "fewer.tif"), VOLUME)
    assert "OME-XML states 20 pages, but the file holds 24" in notes_of(tmp_path / "fewer.tif")
    with pytest.raises(InvalidVolumeError, match="24 pages, but the OME-XML states 30"):
        open_source(str(tmp_path / "more.tif"))


def test_damaged_ome_xml_costs_no_slice(tmp_path: Path) -> None:
    xml = '<?xml version="1.0"?><OME><Image><Pixels SizeZ="three"/></Image></OME>'
    path = write_pages(tmp_path / "a.tif", described(VOLUME, xml))
    np.testing.assert_array_equal(read_all(path), VOLUME)


def test_pages_in_the_order_of_ome_xml(tmp_path: Path) -> None:
    blocks = "".join(f'<TiffData FirstZ="{23 - page}" IFD="{page}"/>' for page in range(24))
    xml = ome_xml([("a.tif", 0)], "a.tif", size=(24, 22, 26))
    xml = xml[: xml.index("<TiffData")] + blocks + xml[xml.index("</Pixels>") :]
    path = write_pages(tmp_path / "a.tif", described(VOLUME, xml))
    np.testing.assert_array_equal(read_all(path), VOLUME[::-1])


def test_jpeg_and_empty_jpeg2000_pages(tmp_path: Path) -> None:
    grey = (noise(3, 64, 80) // 256).astype(np.uint8)
    jpeg = write_pages(tmp_path / "jpeg.tif", grey, compression="jpeg", rowsperstrip=16)
    with tifffile.TiffFile(jpeg) as tif:
        lossy = np.stack([page.asarray() for page in tif.pages])
    np.testing.assert_array_equal(read_all(jpeg), lossy)
    empty = np.zeros((3, 4000, 4000), np.uint8)
    packed = write_pages(tmp_path / "empty.tif", empty, compression="jpeg2000")
    assert not read_all(packed).any()


def test_metamorph_stack_behind_one_page(tmp_path: Path) -> None:
    """MetaMorph counts planes by the values of a private tag; they lie behind the first."""
    planes = (33629, 5, 24, (1, 1) * 24, True)
    path = write_pages(tmp_path / "a.tif", [VOLUME[0]], extratags=[planes])
    with tifffile.TiffFile(path) as tif:
        assert tif.pages[0].dataoffsets[0] + VOLUME[0].nbytes == path.stat().st_size
    with path.open("ab") as file:
        file.write(VOLUME[1:].tobytes())
    np.testing.assert_array_equal(read_all(path), VOLUME)


def test_zeiss_slices_and_times(tmp_path: Path) -> None:
    for slices, times in ((24, 1), (12, 2)):
        info = struct.pack("<7i", 0x00400494C, 500, 26, 22, slices, 1, times).ljust(500, b"\0")
        pages = [(VOLUME[0], {"extratags": [(34412, 1, 500, info, True)]}), *VOLUME[1:]]
        write_pages(tmp_path / f"{times}.lsm.tif", pages)
    np.testing.assert_array_equal(read_all(tmp_path / "1.lsm.tif"), VOLUME)
    with pytest.raises(InvalidVolumeError, match=r"4D array of shape 2 x 12 x 22 x 26 \(TZYX\)"):
        open_source(str(tmp_path / "2.lsm.tif"))


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("mode", ["L", "I;16", "F"])
def test_pages_that_pillow_wrote(tmp_path: Path, mode: str, compression: str | None) -> None:
    dtype = {"L": np.uint8, "I;16": np.uint16, "F": np.float32}[mode]
    volume = (noise(6, 300, 400) // 256).astype(dtype)
    first, *others = (Image.fromarray(plane) for plane in volume)
    assert first.mode == mode
    path = tmp_path / "a.tif"
    first.save(path, save_all=True, append_images=others, compression=compression)
    np.testing.assert_array_equal(read_all(path), volume)


# --- several series -------------------------------------------------------------------------


def test_pages_written_one_by_one(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "loop.tif") as writer:
        for plane in VOLUME:
            writer.write(plane)
    for plane in VOLUME:
        tifffile.imwrite(tmp_path / "append.tif", plane, append=True, compression="zlib")
    for name in ("loop.tif", "append.tif"):
        np.testing.assert_array_equal(read_all(tmp_path / name), VOLUME)


def write_series(path: Path, *series: np.ndarray, **kwargs: Any) -> Path:
    with tifffile.TiffWriter(path, **kwargs) as writer:
        for voxels in series:
            writer.write(voxels, photometric="minisblack")
    return path


def test_pages_added_to_a_stack(tmp_path: Path) -> None:
    path = write_series(tmp_path / "a.tif", VOLUME[:23], VOLUME[23])
    np.testing.assert_array_equal(read_all(path), VOLUME)
    assert "states 23 pages; all 24 are read" in notes_of(path)


def test_equal_stacks_in_one_file_are_refused(tmp_path: Path) -> None:
    slabs = write_series(tmp_path / "slabs.tif", *np.split(VOLUME, 4))
    with pytest.raises(InvalidVolumeError, match=r"4 stacks in one file, with 6, 6, 6, 6 slices"):
        open_source(str(slabs))
    images = write_series(tmp_path / "two.ome.tif", VOLUME, VOLUME[::-1].copy(), ome=True)
    with pytest.raises(InvalidVolumeError, match="2 stacks in one file, with 24, 24 slices"):
        open_source(str(images))


def test_smaller_series_are_left_out_with_a_note(tmp_path: Path) -> None:
    small = VOLUME[:8, ::2, ::2].copy()
    for name, ome in (("plain.tif", False), ("a.ome.tif", True)):
        path = write_series(tmp_path / name, VOLUME, small, ome=ome)
        np.testing.assert_array_equal(read_all(path), VOLUME)
        assert "8 pages of 11 x 13" in notes_of(path)


def test_two_scans_without_description_are_refused(tmp_path: Path) -> None:
    path = write_pages(tmp_path / "a.tif", [*VOLUME, *VOLUME[:12, :18, :20]])
    with pytest.raises(InvalidVolumeError, match="page 25 of 36 has 18 x 20 voxels"):
        open_source(str(path))


def test_photograph_with_its_pyramid_is_no_volume(tmp_path: Path) -> None:
    photo = noise(1, 64, 64)[0]
    levels = [photo, photo[::2, ::2].copy(), photo[::4, ::4].copy()]
    with pytest.raises(NoVolumeError, match="2D"):
        open_source(str(write_pages(tmp_path / "a.tif", levels)))


def test_file_of_an_ome_set_by_itself_is_refused(tmp_path: Path) -> None:
    xml = ome_xml([("a.ome.tif", 0), ("b.ome.tif", 24)], "a.ome.tif", size=(48, 22, 26))
    xml = xml.replace('PlaneCount="1"', 'PlaneCount="24"')
    path = write_pages(tmp_path / "a.ome.tif", described(VOLUME, xml))
    with pytest.raises(InvalidVolumeError, match=r"24 of 48 planes of an OME-TIFF set"):
        open_source(str(path))


def test_renamed_ome_file_is_whole(tmp_path: Path) -> None:
    xml = ome_xml([("before.tif", 0)], "before.tif", size=(24, 22, 26), pages_each=24)
    path = write_pages(tmp_path / "after.tif", described(VOLUME, xml))
    np.testing.assert_array_equal(read_all(path), VOLUME)


# --- packings -------------------------------------------------------------------------------


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize(
    ("dtype", "how"),
    [
        ("uint16", {"compression": "lzw", "predictor": True}),
        ("uint16", {"compression": "jpeg2000", "compressionargs": {"level": 0}}),
        ("uint16", {"tile": (16, 16)}),
        ("uint16", {"bitspersample": 12}),
        ("uint16", {"photometric": "miniswhite"}),
        ("int16", {"rowsperstrip": 3}),
        ("float16", {}),
        ("float32", {"compression": "zstd", "predictor": True}),
        ("float64", {"compression": "zlib", "tile": (16, 32)}),
    ],
)
def test_packings_in_files_and_folders(
    tmp_path: Path, byteorder: Any, dtype: str, how: dict[str, Any]
) -> None:
    if byteorder == ">" and ("bitspersample" in how or how.get("compression") == "jpeg2000"):
        pytest.skip("tifffile writes swapped values here")
    volume = (noise(7) // 16).astype(dtype)
    if volume.dtype.kind == "f":
        volume[:, 5:9, ::3] = np.nan
    options = {"photometric": "minisblack", "metadata": None, **how}
    (tmp_path / "scan").mkdir()
    with tifffile.TiffWriter(tmp_path / "a.tif", byteorder=byteorder) as writer:
        for z, plane in enumerate(volume):
            writer.write(plane, **options)
            name = tmp_path / "scan" / f"{z:03d}.tif"
            tifffile.imwrite(name, plane, byteorder=byteorder, **options)
    for path in (tmp_path / "a.tif", tmp_path / "scan"):
        found = read_all(path)
        assert found.dtype == ("float32" if dtype == "float16" else dtype)
        np.testing.assert_array_equal(found, volume)
        assert ("(MinIsWhite)" in notes_of(path)) == ("photometric" in how)


@pytest.mark.parametrize("tile", [(16, 16), (4, 16, 16), (16, 32, 32), None])
def test_volume_in_one_page(tmp_path: Path, tile: tuple[int, ...] | None) -> None:
    volume = noise(13, 40, 50)
    tifffile.imwrite(tmp_path / "a.tif", volume, tile=tile, volumetric=True, compression="zlib")
    np.testing.assert_array_equal(read_all(tmp_path / "a.tif"), volume)


def test_pyramid_in_sub_directories(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    metadata = {"axes": "ZYX", "PhysicalSizeX": 650, "PhysicalSizeXUnit": "nm"}
    metadata |= {"PhysicalSizeY": 0.00065, "PhysicalSizeYUnit": "mm", "PhysicalSizeZ": 1.3}
    with tifffile.TiffWriter(path) as writer:
        writer.write(VOLUME, subifds=1, tile=(16, 16), metadata=metadata)
        writer.write(VOLUME[:, ::2, ::2].copy(), subfiletype=1, tile=(16, 16))
    np.testing.assert_array_equal(read_all(path), VOLUME)
    with open_source(str(path)) as source:
        assert source.voxel_size is not None
        assert source.voxel_size.um == pytest.approx((1.3, 0.65, 0.65))


@pytest.mark.parametrize("levels", [1, 2])
def test_pages_that_are_previews_are_refused(tmp_path: Path, levels: int) -> None:
    """As raw photographs keep theirs: the image lies below its preview."""
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        for plane in VOLUME:
            preview = plane[::2, ::2].copy()
            writer.write(preview, subfiletype=1, subifds=levels, metadata=None)
            for _ in range(levels):
                writer.write(plane, metadata=None)
    with pytest.raises(InvalidVolumeError, match="previews of 11 x 13 pixels"):
        open_source(str(path))


def test_remote_files_read_the_same(tmp_path: Path) -> None:
    pages = [(plane, PACKINGS[z % len(PACKINGS)]) for z, plane in enumerate(VOLUME)]
    data = write_pages(tmp_path / "a.tif", pages).read_bytes()
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/tiff_files/a.tif", data)
    try:
        np.testing.assert_array_equal(read_all("memory://tiff_files/a.tif"), VOLUME)
    finally:
        memory.rm("/tiff_files", recursive=True)


# --- damage and bombs -----------------------------------------------------------------------


def test_directories_in_a_circle(tmp_path: Path) -> None:
    path = one_strip_file(tmp_path / "a.tif", bytes(4096), compression=1)
    data = bytearray(path.read_bytes())
    data[-4:] = struct.pack("<I", 8 + 4096)
    path.write_bytes(data)
    with pytest.raises(InvalidVolumeError, match="page 3 is followed by page 1 again"):
        open_source(str(path))


def test_strips_that_were_never_written(tmp_path: Path) -> None:
    """Zeros would stand in for them."""
    path = write_pages(tmp_path / "a.tif", VOLUME, compression="zlib", rowsperstrip=11)
    with tifffile.TiffFile(path) as tif:
        at = tif.pages[7].tags["StripByteCounts"].valueoffset
    data = bytearray(path.read_bytes())
    data[at : at + 8] = bytes(8)
    path.write_bytes(data)
    with pytest.raises(InvalidVolumeError, match="page 8 has strips that were never written"):
        read_all(path)


def test_packing_that_is_not_read_is_named(tmp_path: Path) -> None:
    path = one_strip_file(tmp_path / "a.tif", b"x" * 5000, compression=50001)
    with pytest.raises(InvalidVolumeError, match="compressed with WEBP, which ctray does not read"):
        open_source(str(path))


def test_strip_that_grows_beyond_its_page(tmp_path: Path) -> None:
    packer = zlib.compressobj(9)
    bomb = b"".join(packer.compress(bytes(1 << 24)) for _ in range(16)) + packer.flush()
    wide = imagecodecs.jpeg2k_encode(np.zeros((4000, 4000), np.uint8), level=0)
    tall = imagecodecs.jpeg_encode(np.zeros((9000, 9000), np.uint8))
    files = [
        one_strip_file(tmp_path / "deflate.tif", bomb, compression=8),
        one_strip_file(tmp_path / "jp2.tif", wide, compression=34712),
        one_strip_file(tmp_path / "jpeg.tif", tall, compression=7),
        one_strip_file(tmp_path / "declared.tif", b"x" * 500, compression=8, side=60000),
        one_strip_file(tmp_path / "plain.tif", b"x" * 500, compression=1, side=60000),
    ]
    for path in files:
        tracemalloc.start()
        try:
            with pytest.raises(InvalidVolumeError, match=path.name):
                read_all(path)
            assert tracemalloc.get_traced_memory()[1] < 8 << 20
        finally:
            tracemalloc.stop()


def test_long_descriptions_are_refused_unread(tmp_path: Path) -> None:
    path = write_pages(tmp_path / "a.tif", described(VOLUME, "x" * (17 << 20)))
    with pytest.raises(InvalidVolumeError, match="description of 17 MiB"):
        open_source(str(path))


def test_xml_that_grows_is_not_expanded(tmp_path: Path) -> None:
    bomb = '<?xml version="1.0"?><!DOCTYPE OME [<!ENTITY a "aaaa">]><OME>&a;</OME>'
    path = write_pages(tmp_path / "a.tif", described(VOLUME, bomb))
    np.testing.assert_array_equal(read_all(path), VOLUME)
