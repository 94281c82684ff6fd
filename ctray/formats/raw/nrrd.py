"""Headers of NRRD volumes (`.nrrd`, `.nhdr`), after the definition of the format."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from ctray.formats.raw.layout import (
    HEADER_BYTES,
    RawLayout,
    data_beside,
    header_error,
    needed,
    read_header,
    shape_of,
    spacing_of,
)
from ctray.volumes.voxel_metadata import FoundVoxelSize

_TYPES = {
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(
        ("short", "short int", "signed short", "signed short int", "int16", "int16_t"), "i2"
    ),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    **dict.fromkeys(("longlong", "long long", "long long int", "int64", "int64_t"), "i8"),
    **dict.fromkeys(("ulonglong", "unsigned long long", "uint64", "uint64_t"), "u8"),
    "float": "f4",
    "double": "f8",
}
_END = re.compile(rb"\r?\n\r?\n")


def nrrd_layout(url: str) -> RawLayout:
    """Layout of an NRRD file: raw or gzip, with the voxels in it or in one file beside it.

    Raises
    ------
    InvalidVolumeError
        If the header is incomplete, or if the voxels have another encoding, have several values
        each, or lie in several files or outside the folder of the header.
    """
    head = read_header(url)
    if not head.startswith(b"NRRD"):
        raise header_error(url, "the file does not begin with NRRD")
    end = _END.search(head)
    if end is None and len(head) == HEADER_BYTES:
        raise header_error(url, f"no end of the header within {HEADER_BYTES} bytes")
    fields = _fields(head[: end.start() if end else None].decode("latin-1"))
    encoding = needed(url, fields, "encoding").lower()
    if encoding not in ("raw", "gzip", "gz"):
        raise header_error(url, f"ctray does not read encoding {encoding}")
    named = fields.get("data file") or fields.get("datafile")
    if named is None and end is None:
        raise header_error(url, "no voxels behind the header")
    if named is not None and (named.upper().startswith("LIST") or "%" in named):
        raise header_error(url, f"ctray does not read voxels in several files ({named})")
    packed = encoding != "raw"
    return RawLayout(
        data_url=data_beside(url, named) if named is not None else url,
        offset=_offset(url, fields, end.end() if end and named is None else 0, packed),
        shape=_shape(url, fields),
        dtype=_dtype(url, fields),
        packed=packed,
        voxel_size=_voxel_size(fields),
    )


def _fields(text: str) -> dict[str, str]:
    """Fields of a header, without comments and key/value pairs (`:=`)."""
    found = {}
    for line in text.splitlines()[1:]:
        if not line.startswith("#") and ":=" not in line and ":" in line:
            key, _, value = line.partition(":")
            found[key.strip().lower()] = value.strip()
    return found


def _offset(url: str, fields: dict[str, str], begin: int, packed: bool) -> int | None:
    lines = fields.get("line skip") or fields.get("lineskip") or "0"
    skip = fields.get("byte skip") or fields.get("byteskip") or "0"
    if lines != "0" or (packed and skip != "0"):
        raise header_error(
            url, "ctray does not support line skip, nor byte skip of compressed voxels"
        )
    if skip == "-1":
        return None
    if not skip.isdigit():
        raise header_error(url, f"byte skip {skip!r} is not a whole number")
    return begin + int(skip)


def _shape(url: str, fields: dict[str, str]) -> tuple[int, int, int]:
    kinds = fields.get("kinds", "").lower().split()
    colours = [k for k in kinds if k.endswith(("color", "vector", "matrix")) or k == "complex"]
    if colours:
        raise header_error(url, f"an axis of kind {colours[0]} holds no grey values")
    return shape_of(url, needed(url, fields, "sizes").split())


def _dtype(url: str, fields: dict[str, str]) -> np.dtype[Any]:
    name = needed(url, fields, "type").lower()
    if name not in _TYPES:
        raise header_error(url, f"type {name} holds no grey values")
    dtype = np.dtype(_TYPES[name])
    if dtype.itemsize == 1:
        return dtype
    order = needed(url, fields, "endian").lower()
    if order not in ("little", "big"):
        raise header_error(url, f"endian {order} is neither little nor big")
    return dtype.newbyteorder("<" if order == "little" else ">")


def _voxel_size(fields: dict[str, str]) -> FoundVoxelSize | None:
    """Voxel size from the lengths of the axis vectors, else from the spacings."""
    units = re.findall(r'"([^"]*)"', fields.get("space units", fields.get("units", "")))
    unit = units[0] if units and len(set(units)) == 1 and units[0] else None
    if len(set(units)) > 1:
        return None
    vectors = re.findall(r"\(([^)]*)\)", fields.get("space directions", ""))
    try:
        edges = [math.hypot(*(float(part) for part in vector.split(","))) for vector in vectors]
        if not edges:
            edges = [float(part) for part in fields.get("spacings", "").split()]
    except ValueError:
        return None
    return spacing_of(edges, unit, "NRRD spacings") if edges else None
