"""TIFF files as cameras, microscopes and people leave them, made from numbers."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from ctray.archive.catalog import Catalog, build_catalog
from ctray.formats.opening import open_source

Page = np.ndarray | tuple[np.ndarray, dict[str, Any]]


def noise(depth: int = 24, height: int = 22, width: int = 26, seed: int = 3) -> np.ndarray:
    """Voxels (z, y, x) that no two slices share."""
    return np.random.default_rng(seed).integers(0, 60000, (depth, height, width), np.uint16)


def write_pages(path: Path, pages: Iterable[Page], **kwargs: Any) -> Path:
    """One page after another without any description; a page may bring options of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tifffile.TiffWriter(path) as writer:
        for page in pages:
            voxels, own = page if isinstance(page, tuple) else (page, {})
            writer.write(voxels, **{"metadata": None, "photometric": "minisblack", **kwargs, **own})
    return path


def write_slices(folder: Path, volume: np.ndarray, name: str = "s_{:04d}.tif", **kw: Any) -> Path:
    """One file a slice."""
    for z, plane in enumerate(volume):
        write_pages(folder / name.format(z), [plane], **kw)
    return folder


def described(volume: np.ndarray, text: str, **first: Any) -> list[Page]:
    """Pages of which the first carries a description and options."""
    return [(volume[0], {"description": text, **first}), *volume[1:]]


def read_all(path: Path | str) -> np.ndarray:
    """Every slice, in slabs of unequal depth."""
    with open_source(str(path)) as source:
        depth = source.shape[0]
        cuts = sorted({0, min(5, depth), max(depth - 2, 0), depth})
        slabs = [source.read(a, b) for a, b in pairwise(cuts)]
    return np.concatenate(slabs)


def notes_of(path: Path | str) -> str:
    """What opening a volume tells beside its voxels."""
    with open_source(str(path)) as source:
        return "; ".join(source.notes)


def catalog_of(folder: Path) -> Catalog:
    """Catalog of a folder, nothing excluded by its name."""
    return build_catalog(str(folder), exclude=())


def one_strip_file(
    path: Path, strip: bytes, *, compression: int, side: int = 64, bits: int = 8, pages: int = 3
) -> Path:
    """Pages that share one strip, with tags that say what the caller wants."""
    rows = [
        *((256, 4, side), (257, 4, side), (258, 3, bits), (259, 3, compression), (262, 3, 1)),
        *((273, 4, 8), (277, 3, 1), (278, 4, side), (279, 4, len(strip))),
    ]
    start = 8 + len(strip) + len(strip) % 2
    size = 2 + 12 * len(rows) + 4
    with path.open("wb") as file:
        file.write(b"II*\0" + struct.pack("<I", start) + strip.ljust(start - 8, b"\0"))
        for i in range(pages):
            file.write(struct.pack("<H", len(rows)))
            for tag, kind, value in rows:
                file.write(struct.pack("<HHII", tag, kind, 1, value))
            file.write(struct.pack("<I", start + size * (i + 1) if i < pages - 1 else 0))
    return path


def imagej_in_one_piece(path: Path, volume: np.ndarray, description: str) -> Path:
    """As ImageJ writes: a directory, its text, all voxels, then the other directories."""
    count, height, width = volume.shape
    text = description.encode() + b"\0"
    text += b"\0" * (len(text) % 2)
    first_rows, rows = 10, 9
    text_at = 8 + 2 + 12 * first_rows + 4
    voxels_at = text_at + len(text)
    plane = height * width * 2
    rest_at = voxels_at + count * plane

    def directory(z: int, following: int) -> bytes:
        tags = [
            *((254, 4, 1, 0), (256, 3, 1, width), (257, 3, 1, height), (258, 3, 1, 16)),
            *((259, 3, 1, 1), (262, 3, 1, 1)),
            *([(270, 2, len(text), text_at)] if z == 0 else []),
            *((273, 4, 1, voxels_at + z * plane), (278, 3, 1, height), (279, 4, 1, plane)),
        ]
        body = b"".join(struct.pack("<HHII", *tag) for tag in tags)
        return struct.pack("<H", len(tags)) + body + struct.pack("<I", following)

    size = 2 + 12 * rows + 4
    with path.open("wb") as file:
        file.write(b"II*\0" + struct.pack("<I", 8))
        file.write(directory(0, rest_at if count > 1 else 0) + text + volume.tobytes())
        for z in range(1, count):
            file.write(directory(z, rest_at + z * size if z < count - 1 else 0))
    return path


def ome_xml(
    places: Sequence[tuple[str, int]],
    own: str,
    *,
    size: tuple[int, int, int],
    edge: str = "0.65",
    unit: str | None = None,
    pages_each: int = 1,
) -> str:
    """OME-XML of a set: `places` are file names with the first z of each."""
    depth, height, width = size
    ids = {name: f"urn:uuid:11111111-0000-4000-8000-{i:012d}" for i, (name, _) in enumerate(places)}
    blocks = "".join(
        f'<TiffData FirstZ="{z}" FirstC="0" FirstT="0" IFD="0" PlaneCount="{pages_each}">'
        f'<UUID FileName="{name}">{ids[name]}</UUID></TiffData>'
        for name, z in places
    )
    units = "".join(f' PhysicalSize{a}Unit="{unit}"' for a in "XYZ") if unit else ""
    edges = "".join(f' PhysicalSize{a}="{edge}"' for a in "XYZ")
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
        f'UUID="{ids[own]}"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" '
        f'Type="uint16" SizeX="{width}" SizeY="{height}" SizeZ="{depth}" SizeC="1" SizeT="1"'
        f'{edges}{units}><Channel ID="Channel:0:0" SamplesPerPixel="1"/>{blocks}'
        "</Pixels></Image></OME>"
    )


def write_ome_set(
    folder: Path, volume: np.ndarray, names: Sequence[str], *, pages_each: int = 1, **how: Any
) -> Path:
    """Files that all tell the whole volume; file i holds the slices from i * pages_each on."""
    folder.mkdir(parents=True, exist_ok=True)
    places = [(name, i * pages_each) for i, name in enumerate(names)]
    for name, z in places:
        xml = ome_xml(places, name, size=volume.shape, pages_each=pages_each, **how)  # type: ignore[arg-type]
        write_pages(folder / name, described(volume[z : z + pages_each], xml))
    return folder
