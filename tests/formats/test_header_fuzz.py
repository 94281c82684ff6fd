"""Headers of any content end in the right voxels or in one error that names the file."""

from __future__ import annotations

import gzip
import resource
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ctray.core.errors import CtrayError
from ctray.formats.opening import open_source

VOLUME = np.random.default_rng(2).integers(0, 250, (4, 5, 6), dtype=np.uint8)
_MHD = (
    "ObjectType = Image\nNDims = 3\nBinaryData = True\nCompressedData = False\n"
    "BinaryDataByteOrderMSB = False\nElementSpacing = 0.1 0.2 0.3\nDimSize = 6 5 4\n"
    "ElementType = MET_UCHAR\nHeaderSize = 0\nElementDataFile = v.raw\n"
)
_NRRD = (
    "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 6 5 4\nendian: little\nencoding: gzip\n"
    "spacings: 1 2 3\nspace directions: (1,0,0) (0,1,0) (0,0,1)\nbyte skip: 0\ndata file: v.gz\n\n"
)
_INFO = "NUM_X = 6\nNUM_Y = 5\nNUM_Z = 4\nvoxelSize = 2.5\nBYTEORDER = LOWBYTEFIRST\n"
_VGI = (
    "[file1]\nFileFormat = raw\nSize = 6 5 4\nName = v.raw\nDatatype = unsigned integer\n"
    "BitsPerElement = 8\nSkipHeader = 0\n[geometry]\nresolution = 1 2 3\nunit = mm\n"
)
HEADERS = {"v.mhd": _MHD, "v.nhdr": _NRRD, "v.raw.info": _INFO, "v.vgi": _VGI}
WORDS = st.one_of(
    st.integers(-(2**70), 2**70).map(str),
    st.sampled_from(
        [
            *("nan", "inf", "-1", "1e400", "0", "", "true", "False", "LIST", "LOCAL", "raw"),
            *("/etc/passwd", "../x", "%03d", "v.raw", "v.gz", ".", "MET_FLOAT", "double", "big"),
            *("(1,2", "(,)", ":=", "99999999 99999999 1", "3 3", "\x1b[2J", "٣", "1_000"),
        ]
    ),
    st.text(max_size=12),
)


@st.composite
def changed(draw: st.DrawFn, text: str) -> bytes:
    """A header in which some words, lines or bytes are others."""
    lines = text.split("\n")
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(lines) - 1))
        how = draw(st.sampled_from(["value", "drop", "double", "swap"]))
        other = draw(st.integers(0, len(lines) - 1))
        if how == "value":
            mark = next((m for m in ("=", ":") if m in lines[at]), "")
            lines[at] = f"{lines[at].partition(mark)[0]}{mark} {draw(WORDS)}" if mark else lines[at]
        elif how == "drop":
            lines[at] = ""
        elif how == "double":
            lines.insert(at, lines[other])
        else:
            lines[at], lines[other] = lines[other], lines[at]
    data = bytearray("\n".join(lines).encode("utf-8", "replace"))
    for _ in range(draw(st.integers(0, 2))):
        if data:
            data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data)


def read_or_refuse(url: Path, folder: Path) -> None:
    """All voxels in bounded memory, or one error that says which file."""
    refusal = ""
    try:
        with open_source(str(url)) as source:
            assert source.num_bytes <= 1 << 24, "nothing here is that large"
            for z in range(source.shape[0]):
                assert source.read(z, z + 1).shape == (1, *source.shape[1:])
            if source.voxel_size is not None:
                assert all(0 < um < np.inf for um in source.voxel_size.um)
    except CtrayError as error:
        refusal = str(error)
    assert not refusal or str(folder) in refusal


@pytest.fixture(scope="module", autouse=True)
def memory_stays_small() -> object:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # kB: 1 GiB


@pytest.mark.parametrize("name", HEADERS)
def test_headers_of_raw_voxels(name: str) -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "v.raw").write_bytes(VOLUME.tobytes())
        (folder / "v.gz").write_bytes(gzip.compress(VOLUME.tobytes()))
        (folder / name).write_text(HEADERS[name])
        with open_source(str(folder / name)) as source:
            np.testing.assert_array_equal(source.read(0, 4), VOLUME)

        @settings(max_examples=150, derandomize=True)
        @given(changed(HEADERS[name]))
        def check(data: bytes) -> None:
            (folder / name).write_bytes(data)
            read_or_refuse(folder / name, folder)

        check()


def _png(plane: np.ndarray) -> bytes:
    return bytes(imagecodecs.png_encode(plane))


def _jp2(plane: np.ndarray) -> bytes:
    return bytes(imagecodecs.jpeg2k_encode(plane, level=0, codecformat="jp2"))


@pytest.mark.parametrize(("suffix", "encode"), [("png", _png), ("jp2", _jp2)])
def test_bytes_of_slices(suffix: str, encode: Callable[[np.ndarray], bytes]) -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        slices = [encode(plane) for plane in VOLUME]

        @settings(
            max_examples=150,
            derandomize=True,
            suppress_health_check=[HealthCheck.too_slow],
        )
        @given(
            st.lists(st.tuples(st.integers(0, 120), st.integers(0, 255)), min_size=1, max_size=4)
        )
        def check(changes: list[tuple[int, int]]) -> None:
            data = bytearray(slices[1])
            for at, value in changes:
                data[at % len(data)] = value
            for z, plane in enumerate(slices):
                (folder / f"s_{z}.{suffix}").write_bytes(bytes(data) if z == 1 else plane)
            read_or_refuse(folder, folder)

        check()


@settings(max_examples=100, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=5), st.integers(0, 99)
)
def test_bytes_of_zipped_zarr(changes: list[tuple[int, int]], cut: int) -> None:
    meta = (
        '{"zarr_format": 2, "shape": [4, 5, 6], "chunks": [4, 5, 6], "dtype": "|u1", '
        '"compressor": null, "fill_value": 0, "order": "C", "filters": null}'
    )
    with tempfile.TemporaryDirectory() as made:
        path = Path(made) / "v.zarr.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr(".zarray", meta)
            file.writestr("0.0.0", VOLUME.tobytes())
        data = bytearray(path.read_bytes())
        for at, value in changes:
            data[at % len(data)] = value
        path.write_bytes(bytes(data)[: len(data) - (cut if cut < 50 else 0)])
        read_or_refuse(path, Path(made))
