"""Damaged tags: each input ends in voxels or in a refusal that names the file."""

from __future__ import annotations

import os
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from poison import confinement
from tiff_inputs import described, imagej_in_one_piece, noise, ome_xml, write_pages

from ctray.errors import CtrayError
from ctray.storage.sources import open_source

VOLUME = noise(5, 16, 16)
# More and other ones in a run by hand: CTRAY_FUZZ_EXAMPLES=2000.
BY_HAND = os.environ.get("CTRAY_FUZZ_EXAMPLES")
EXAMPLES = int(BY_HAND or "150")
_MOST_BYTES = 256 << 20

TAGS = st.sampled_from(
    [
        *(254, 255, 256, 257, 258, 259, 262, 266, 270, 273, 274, 277, 278, 279, 282, 284, 296),
        *(317, 322, 323, 324, 325, 330, 338, 339, 347, 32997, 32998, 33629, 34412, 42113, 50839),
    ]
)
VALUES = st.one_of(
    st.sampled_from([0, 1, 2, 3, 7, 8, 12, 16, 32, 64, 255, 65535, 2**31 - 1, 2**32 - 1]),
    st.integers(0, 2**32 - 1),
)
CHANGES = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 30), TAGS, st.integers(0, 18), VALUES, VALUES),
    min_size=1,
    max_size=4,
)


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Sound files of several kinds."""
    folder = tmp_path_factory.mktemp("seeds")
    imagej = "ImageJ=1.54f\nimages=5\nslices=5\n"
    xml = ome_xml([("a.tif", 0)], "a.tif", size=(5, 16, 16), pages_each=5)
    files = [
        write_pages(folder / "plain.tif", VOLUME),
        write_pages(folder / "deflate.tif", VOLUME, compression="zlib", predictor=True),
        write_pages(folder / "tiles.tif", VOLUME, compression="lzw", tile=(16, 16)),
        write_pages(folder / "jp2.tif", VOLUME, compression="jpeg2000"),
        write_pages(folder / "jpeg.tif", VOLUME.astype(np.uint8), compression="jpeg"),
        write_pages(folder / "ome.tif", described(VOLUME, xml), rowsperstrip=5),
        imagej_in_one_piece(folder / "imagej.tif", VOLUME, imagej),
    ]
    return [path.read_bytes() for path in files]


def entries_of(data: bytes) -> list[list[int]]:
    """Places of the tags of each page of a little-endian classic TIFF."""
    pages = []
    offset = struct.unpack_from("<I", data, 4)[0]
    while offset:
        count = struct.unpack_from("<H", data, offset)[0]
        pages.append([offset + 2 + 12 * i for i in range(count)])
        offset = struct.unpack_from("<I", data, offset + 2 + 12 * count)[0]
    return pages


def read_or_refuse(path: Path) -> None:
    """Open and read with little memory; any error is ours and names the file.

    Decoders take theirs where `tracemalloc` does not see it.
    """
    told = path.name
    tracemalloc.start()
    try:
        with confinement(2**30, 20), open_source(str(path)) as source:
            if source.num_bytes <= _MOST_BYTES:
                assert source.read(0, source.shape[0]).shape == source.shape
    except CtrayError as error:
        told = str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert path.name in told
    assert "\n" not in told
    assert peak < 3 * _MOST_BYTES


FUZZ = settings(
    max_examples=EXAMPLES,
    derandomize=BY_HAND is None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@FUZZ
@given(kind=st.integers(0, 6), changes=CHANGES)
def test_changed_tags(
    seeds: list[bytes],
    tmp_path: Path,
    kind: int,
    changes: list[tuple[int, int, int, int, int, int]],
) -> None:
    data = bytearray(seeds[kind])
    pages = entries_of(seeds[kind])
    for page, entry, tag, value_type, count, value in changes:
        entries = pages[page % len(pages)]
        places = [at for at in entries if struct.unpack_from("<H", data, at)[0] == tag]
        at = places[0] if places else entries[entry % len(entries)]
        kept = struct.unpack_from("<HI", data, at + 2)
        # Mostly another value, sometimes another type and count too.
        new = (value_type, count) if value_type > 12 else kept
        struct.pack_into("<HHII", data, at, tag, *new, value)
    path = tmp_path / "changed.tif"
    path.write_bytes(data)
    read_or_refuse(path)


@FUZZ
@given(
    kind=st.integers(0, 6),
    places=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=12),
    keep=st.floats(0.05, 1),
)
def test_changed_bytes(
    seeds: list[bytes],
    tmp_path: Path,
    kind: int,
    places: list[tuple[float, int]],
    keep: float,
) -> None:
    data = bytearray(seeds[kind])
    for where, value in places:
        data[min(int(where * len(data)), len(data) - 1)] = value
    path = tmp_path / "changed.tif"
    path.write_bytes(data[: max(1, int(keep * len(data)))] if keep < 0.9 else data)
    read_or_refuse(path)


@FUZZ
@given(
    text=st.one_of(
        st.from_regex(
            r"ImageJ=1\n(images=[0-9]{1,9}\n)?(slices=[0-9]{1,4}\n)?(channels=[0-9]{1,3}\n)?"
            r"(frames=-?[0-9]{1,3}\n)?(unit=[a-z\\u0-9]{0,8}\n)?(spacing=[-0-9.einfa]{0,6}\n)?",
            fullmatch=True,
        ),
        st.from_regex(
            r'\{"shape": \[(-?[0-9]{1,5}, ?){0,3}[0-9]{1,3}\](, "axes": "[ZYXCTS]{0,4}")?'
            r'(, "truncated": true)?\}',
            fullmatch=True,
        ),
        st.from_regex(
            r'<OME UUID="u"><Image><Pixels SizeZ="-?[0-9]{1,8}" SizeC="[0-9]{1,2}" '
            r'SizeT="[0-9]{0,2}" DimensionOrder="XY[ZCT]{0,3}"'
            r'( PhysicalSizeX="[-0-9.a-z]{1,5}" PhysicalSizeY="1")?>'
            r'(<TiffData IFD="-?[0-9]{1,2}" FirstZ="[0-9]{1,3}" PlaneCount="[0-9]{1,9}"/>){0,3}'
            r"</Pixels></Image></OME>",
            fullmatch=True,
        ),
    )
)
def test_descriptions(tmp_path: Path, text: str) -> None:
    read_or_refuse(write_pages(tmp_path / "changed.tif", described(VOLUME, text)))
