"""Raw voxels that a header describes: MetaImage, NRRD, ESRF .info, VGStudio .vgi."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
import pytest

from ctray.archive.catalog import build_catalog
from ctray.archive.importing import import_volume
from ctray.core.errors import InvalidVolumeError, NoVolumeError
from ctray.formats.opening import open_source
from ctray.formats.source import VolumeSource
from ctray.volumes.volume import open_volume

SHAPE = (5, 6, 7)
SIZES = "7 6 5"


def voxels(dtype: str) -> np.ndarray:
    values = np.random.default_rng(9).normal(0, 90, SHAPE)
    return (np.abs(values) if np.dtype(dtype).kind == "u" else values).astype(dtype)


def whole(source: VolumeSource) -> np.ndarray:
    with source:
        slabs = [source.read(z, min(z + 2, source.shape[0])) for z in range(0, source.shape[0], 2)]
    return np.concatenate(slabs)


def same(url: Path, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(whole(open_source(str(url))), expected)


def um(url: Path) -> tuple[float, ...] | None:
    with open_source(str(url)) as source:
        return source.voxel_size.um if source.voxel_size else None


def mhd(path: Path, volume: np.ndarray, kind: str, *more: str, data: str = "v.raw") -> Path:
    """A header beside its data, or before them where `data` is LOCAL."""
    lines = [
        "ObjectType = Image",
        "NDims = 3",
        f"DimSize = {SIZES}",
        f"ElementType = {kind}",
        *more,
    ]
    header = "".join(f"{line}\n" for line in (*lines, f"ElementDataFile = {data}"))
    local = data == "LOCAL"
    path.write_bytes(header.encode() + (volume.tobytes() if local else b""))
    if not local:
        (path.parent / data).write_bytes(volume.tobytes())
    return path


def nrrd(path: Path, data: bytes, kind: str, *more: str, encoding: str = "raw") -> Path:
    lines = ["NRRD0004", "# made up", f"type: {kind}", "dimension: 3", f"sizes: {SIZES}"]
    lines += [f"encoding: {encoding}", *more, "key:=value: with colon"]
    path.write_bytes("\n".join(lines).encode() + b"\n\n" + data)
    return path


# --- MetaImage ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "dtype", "more"),
    [
        ("MET_UCHAR", "u1", ()),
        ("MET_CHAR", "i1", ()),
        ("MET_USHORT", "<u2", ()),
        ("MET_SHORT", ">i2", ("BinaryDataByteOrderMSB = True",)),
        ("MET_UINT", ">u4", ("ElementByteOrderMSB = True",)),
        ("MET_FLOAT", "<f4", ("BinaryDataByteOrderMSB = False",)),
        ("MET_DOUBLE", "<f8", ()),
    ],
)
@pytest.mark.parametrize("data", ["v.raw", "LOCAL"])
def test_metaimage(tmp_path: Path, kind: str, dtype: str, more: tuple[str, ...], data: str) -> None:
    volume = voxels(dtype)
    same(mhd(tmp_path / "v.mhd", volume, kind, *more, data=data), volume)


def test_metaimage_header_in_front_of_the_voxels(tmp_path: Path) -> None:
    volume = voxels("u2")
    for size, front, behind in (("10", b"0123456789", b""), ("-1", b"any number of", b"")):
        url = mhd(tmp_path / "v.mhd", volume, "MET_USHORT", f"HeaderSize = {size}")
        (tmp_path / "v.raw").write_bytes(front + volume.tobytes() + behind)
        same(url, volume)


def test_metaimage_voxel_size_is_in_millimetres(tmp_path: Path) -> None:
    volume = voxels("u1")

    def size(*more: str) -> tuple[float, ...] | None:
        return um(mhd(tmp_path / "v.mhd", volume, "MET_UCHAR", *more))

    assert size("ElementSpacing = 0.001 0.002 0.003") == pytest.approx((3, 2, 1))
    assert size("ElementSize = 0.5 0.5 0.25") == pytest.approx((250, 500, 500))
    assert size("ElementSpacing = 3 2 1", "DistanceUnits = um") == pytest.approx((1, 2, 3))
    # What programs write that know nothing, and what means nothing.
    assert size() is None
    assert size("ElementSpacing = 1 1 1") is None
    assert size("ElementSpacing = 0 1 nan") is None


def test_packed_metaimage(tmp_path: Path) -> None:
    volume = voxels("u2")
    url = mhd(tmp_path / "v.mhd", volume, "MET_USHORT", "CompressedData = True", data="v.zraw")
    (tmp_path / "v.zraw").write_bytes(zlib.compress(volume.tobytes()))
    same(url, volume)


# --- NRRD ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "dtype", "more"),
    [
        ("uint8", "u1", ()),
        ("unsigned short", "<u2", ("endian: little",)),
        ("int16_t", ">i2", ("endian: big",)),
        ("float", ">f4", ("endian: big",)),
    ],
)
@pytest.mark.parametrize("encoding", ["raw", "gzip"])
def test_nrrd(tmp_path: Path, kind: str, dtype: str, more: tuple[str, ...], encoding: str) -> None:
    volume = voxels(dtype)
    data = volume.tobytes() if encoding == "raw" else gzip.compress(volume.tobytes())
    same(nrrd(tmp_path / "v.nrrd", data, kind, *more, encoding=encoding), volume)
    # And the same with the voxels in a file of their own.
    (tmp_path / "v.bin").write_bytes(data)
    beside = nrrd(tmp_path / "v.nhdr", b"", kind, *more, "data file: v.bin", encoding=encoding)
    same(beside, volume)


def test_nrrd_slices_are_read_in_any_order(tmp_path: Path) -> None:
    volume = voxels("u1")
    data = gzip.compress(volume[:2].tobytes()) + gzip.compress(volume[2:].tobytes())
    url = nrrd(tmp_path / "v.nrrd", gzip.compress(volume.tobytes()), "uint8", encoding="gzip")
    with open_source(str(url)) as source:
        for start, stop in ((3, 5), (0, 1), (4, 5), (1, 4)):
            np.testing.assert_array_equal(source.read(start, stop), volume[start:stop])
    # Streams that were joined are cut short by many readers.
    joined = nrrd(tmp_path / "j.nrrd", data, "uint8", encoding="gzip")
    same(joined, volume)


def test_nrrd_offsets(tmp_path: Path) -> None:
    volume = voxels("u1")
    (tmp_path / "v.bin").write_bytes(b"12345" + volume.tobytes())
    for skip in ("5", "-1"):
        more = ("data file: v.bin", f"byte skip: {skip}")
        same(nrrd(tmp_path / "v.nhdr", b"", "uint8", *more), volume)


def test_nrrd_voxel_size(tmp_path: Path) -> None:
    data = voxels("u1").tobytes()

    def size(*more: str) -> tuple[float, ...] | None:
        return um(nrrd(tmp_path / "v.nrrd", data, "uint8", *more))

    assert size("spacings: 0.001 0.002 0.003") == pytest.approx((3, 2, 1))
    assert size("spacings: 3 2 1", 'units: "um" "um" "um"') == pytest.approx((1, 2, 3))
    # Turned axes keep their lengths.
    turned = "space directions: (0,0.004,0.003) (0.002,0,0) (0,0,0.001)"
    assert size(turned) == pytest.approx((1, 2, 5))
    microns = 'space units: "microns" "microns" "microns"'
    assert size(turned, microns) == pytest.approx((0.001, 0.002, 0.005))
    assert size(turned, 'space units: "parsec" "parsec" "parsec"') is None
    assert size("spacings: nan 1 1") is None
    assert size('units: "mm" "mm" "s"', "spacings: 1 2 3") is None
    assert size() is None


# --- .info and .vgi -----------------------------------------------------------------------------


def info(path: Path, data: bytes, *more: str) -> Path:
    header = ("! PyHST", "NUM_X = 7", "NUM_Y = 6", "NUM_Z = 5", *more)
    path.with_name(f"{path.name}.info").write_text("\n".join(header))
    path.write_bytes(data)
    return path.with_name(f"{path.name}.info")


def test_vol_with_info(tmp_path: Path) -> None:
    for order, dtype in (("LOWBYTEFIRST", "<f4"), ("HIGHBYTEFIRST", ">f4")):
        volume = voxels(dtype)
        url = info(tmp_path / "v.vol", volume.tobytes(), f"BYTEORDER = {order}", "voxelSize = 6.5")
        same(url, volume)
        assert um(url) == pytest.approx((6.5, 6.5, 6.5))


@pytest.mark.parametrize("dtype", ["u1", "<u2"])
def test_converted_raw_with_info_says_what_it_assumes(tmp_path: Path, dtype: str) -> None:
    volume = voxels(dtype)
    url = info(tmp_path / "v.raw", volume.tobytes())
    same(url, volume)
    with open_source(str(url)) as source:
        assert "is derived from the file size" in source.notes[0]


def test_vgi(tmp_path: Path) -> None:
    volume = voxels("<u2")
    (tmp_path / "scan.vol").write_bytes(volume.tobytes())
    (tmp_path / "scan.vgi").write_text(
        "{volume1}\n[representation]\nsize = 1 1 1\ndatatype = float\n[file1]\n"
        f"FileFormat = raw\nSize = {SIZES}\nName = scan.vol\nDatatype = unsigned integer\n"
        "datarange = 0 -1\nBitsPerElement = 16\n{volumeprimitive12}\n[geometry]\n"
        "resolution = 0.01 0.02 0.03\nunit = mm\n"
    )
    same(tmp_path / "scan.vgi", volume)
    assert um(tmp_path / "scan.vgi") == pytest.approx((30, 20, 10))


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize("change", [-1, 1, -42, 210])
@pytest.mark.parametrize("kind", ["mhd", "mha", "nrrd", "info", "vgi"])
def test_a_file_of_another_length_than_declared_is_refused(
    tmp_path: Path, kind: str, change: int
) -> None:
    """One byte is as wrong as a slice; more bytes mean that the header is another file's."""
    data = voxels("<f4").tobytes()
    data = data[:change] if change < 0 else data + bytes(change)
    url = tmp_path / f"v.{kind}"
    if kind == "mhd":
        mhd(url, voxels("<f4"), "MET_FLOAT")
        (tmp_path / "v.raw").write_bytes(data)
    elif kind == "mha":
        mhd(url, np.frombuffer(data, "u1"), "MET_FLOAT", data="LOCAL")
    elif kind == "nrrd":
        nrrd(url, data, "float", "endian: little")
    elif kind == "info":
        url = info(tmp_path / "v.vol", data)
    else:
        (tmp_path / "v.raw").write_bytes(data)
        url.write_text(
            f"[file1]\nSize = {SIZES}\nName = v.raw\nDatatype = float\nBitsPerElement = 32\n"
        )
    with pytest.raises(InvalidVolumeError, match=r"bytes instead of "):
        open_source(str(url))


@pytest.mark.parametrize("change", ["short", "long", "words"])
def test_packed_voxels_of_another_length_are_refused_when_read(tmp_path: Path, change: str) -> None:
    data = voxels("u1").tobytes()
    packed = {
        "short": gzip.compress(data[:-1]),
        "long": gzip.compress(data + b"1"),
        "words": b"no gzip at all",
    }[change]
    url = nrrd(tmp_path / "v.nrrd", packed, "uint8", encoding="gzip")
    with pytest.raises(InvalidVolumeError, match=r"v\.nrrd"):
        whole(open_source(str(url)))


def test_a_packed_bomb_takes_no_more_than_is_asked_for(tmp_path: Path) -> None:
    """A stream that goes on behind the declared voxels is cut there, and refused."""
    url = nrrd(tmp_path / "v.nrrd", gzip.compress(bytes(1 << 28)), "uint8", encoding="gzip")
    with open_source(str(url)) as source:
        np.testing.assert_array_equal(source.read(0, 2), np.zeros((2, 6, 7)))
        with pytest.raises(InvalidVolumeError, match="more bytes than declared"):
            source.read(4, 5)


@pytest.mark.parametrize("name", ["../secret.raw", "/etc/passwd", "a/../../secret.raw", "link.raw"])
def test_a_header_leads_out_of_its_folder_nowhere(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.raw").write_bytes(voxels("u1").tobytes())
    folder = tmp_path / "archive"
    folder.mkdir()
    (folder / "link.raw").symlink_to(tmp_path / "secret.raw")
    head = f"ObjectType = Image\nNDims = 3\nDimSize = {SIZES}\nElementType = MET_UCHAR\n"
    (folder / "v.mhd").write_text(f"{head}ElementDataFile = {name}\n")
    nrrd(folder / "v.nhdr", b"", "uint8", f"data file: {name}")
    for header in ("v.mhd", "v.nhdr"):
        with pytest.raises(InvalidVolumeError, match="lies outside the folder of the header"):
            open_source(str(folder / header))


def test_a_header_that_is_a_link_finds_its_data(tmp_path: Path) -> None:
    volume = voxels("u1")
    (tmp_path / "disk").mkdir()
    (tmp_path / "archive").mkdir()
    mhd(tmp_path / "disk" / "v.mhd", volume, "MET_UCHAR")
    for name in ("v.mhd", "v.raw"):
        (tmp_path / "archive" / name).symlink_to(tmp_path / "disk" / name)
    same(tmp_path / "archive" / "v.mhd", volume)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("BinaryData = False",), "as text"),
        (("ElementNumberOfChannels = 3",), "3 values per voxel"),
        (("ElementType = MET_STRING",), "MET_STRING"),
        (("DimSize = 7 6 x",), "not whole numbers"),
        (("DimSize = 7 6 -5",), "not lengths"),
        (("DimSize = 7 6 5 2", "NDims = 4"), "4D"),
    ],
)
def test_metaimages_that_are_refused(tmp_path: Path, more: tuple[str, ...], message: str) -> None:
    with pytest.raises(InvalidVolumeError, match=message):
        open_source(str(mhd(tmp_path / "v.mhd", voxels("u1"), "MET_UCHAR", *more)))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("encoding: hex",), "encoding hex"),
        (("type: block",), "type block"),
        (("type: short",), "no endian"),
        (("kinds: RGB-color domain domain",), "no grey values"),
        (("data file: LIST",), "several files"),
        (("data file: s%03d.raw 1 5 1",), "several files"),
        (("line skip: 2",), "line skip"),
        (("sizes: 7 6 5 3",), "4D"),
    ],
)
def test_nrrds_that_are_refused(tmp_path: Path, more: tuple[str, ...], message: str) -> None:
    with pytest.raises(InvalidVolumeError, match=message):
        open_source(str(nrrd(tmp_path / "v.nrrd", voxels("u1").tobytes(), "uint8", *more)))


def test_flat_images_are_no_volumes(tmp_path: Path) -> None:
    (tmp_path / "v.nrrd").write_bytes(
        b"NRRD0001\ntype: uint8\ndimension: 2\nsizes: 7 6\nencoding: raw\n\n" + bytes(42)
    )
    with pytest.raises(NoVolumeError):
        open_source(str(tmp_path / "v.nrrd"))


@pytest.mark.parametrize("suffix", [".mhd", ".nrrd", ".vgi", ".vol.info"])
@pytest.mark.parametrize("content", [b"", b"words", b"\x00" * 2000, b"a = b\n", b"NRRD0004\n\n"])
def test_headers_of_nonsense(tmp_path: Path, suffix: str, content: bytes) -> None:
    (tmp_path / f"v{suffix}").write_bytes(content)
    with pytest.raises(InvalidVolumeError, match=rf"v{suffix}"):
        open_source(str(tmp_path / f"v{suffix}"))


# --- in an archive ------------------------------------------------------------------------------


def test_data_files_that_a_header_names_are_not_told_again(tmp_path: Path) -> None:
    mhd(tmp_path / "a.mhd", voxels("u1"), "MET_UCHAR", data="other_name.raw")
    info(tmp_path / "b.vol", voxels("<f4").tobytes())
    (tmp_path / "lost.raw").write_bytes(b"0")
    catalog = build_catalog(str(tmp_path))
    assert {e.volume_id for e in catalog.ok} == {"a", "b"}
    (other,) = catalog.other_formats
    assert (other.count, Path(other.example).name) == (1, "lost.raw")
    assert "without a known header" in other.name


def test_import_of_raw_voxels(tmp_path: Path) -> None:
    volume = voxels(">i2")
    spacing = ("ElementSpacing = 0.001 0.002 0.003", "BinaryDataByteOrderMSB = True")
    url = mhd(tmp_path / "v.mhd", volume, "MET_SHORT", *spacing)
    result = import_volume(str(url), str(tmp_path / "v.zarr"))
    imported = open_volume(result.url)
    assert imported.voxel_size is not None
    assert imported.voxel_size.um == pytest.approx((3, 2, 1))
    with open_source(result.url) as source:
        np.testing.assert_array_equal(source.read(0, 5), volume)
