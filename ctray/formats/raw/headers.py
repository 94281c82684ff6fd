"""Headers of raw volumes: MetaImage, ESRF .info, VGStudio .vgi."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from ctray.core.errors import NoVolumeError
from ctray.formats.raw.layout import (
    RawLayout,
    data_beside,
    fields_of,
    header_error,
    needed,
    read_header,
    shape_of,
    spacing_of,
)
from ctray.storage import store
from ctray.volumes.voxel_metadata import FoundVoxelSize

# MetaIO, metaTypes.h. Its "long" has four bytes in files.
_META_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_DATA_FILE = re.compile(rb"^[ \t]*ElementDataFile[ \t]*=[ \t]*([^\r\n]*)\r?\n?", re.M | re.I)
_VGI_TYPES = {
    ("unsigned integer", 8): "u1",
    ("unsigned integer", 16): "u2",
    ("unsigned integer", 32): "u4",
    ("integer", 8): "i1",
    ("integer", 16): "i2",
    ("integer", 32): "i4",
    ("float", 32): "f4",
    ("float", 64): "f8",
}


def metaimage_layout(url: str) -> RawLayout:
    """Layout of a MetaImage header (`.mhd`, `.mha`) after MetaIO's documentation.

    Raises
    ------
    InvalidVolumeError
        If the header is incomplete, if it names several data files or one outside its folder, or
        if the voxels are text.
    NoVolumeError
        If it describes something other than an image.
    """
    head = read_header(url)
    end = _DATA_FILE.search(head)
    if end is None:
        raise header_error(url, "the header has no ElementDataFile")
    fields = fields_of(url, head[: end.start()].decode("latin-1"), "=")
    if fields.get("objecttype", "Image").lower() != "image":
        raise NoVolumeError(f"{url}: a MetaImage of type {fields['objecttype']}, not an image")
    name = end[1].decode("utf-8", "replace").strip()
    if name.upper().startswith("LIST") or "%" in name:
        raise header_error(url, f"ctray does not read voxels in several files ({name})")
    if _is_true(fields.get("binarydata", "True")) is False:
        raise header_error(url, "ctray does not read voxels as text (BinaryData = False)")
    local = name.upper() == "LOCAL"
    offset: int | None = end.end() if local else 0
    if not local and "headersize" in fields:
        skipped = _whole(url, "HeaderSize", fields["headersize"])
        offset = None if skipped < 0 else skipped
    size = fields.get("elementspacing") or fields.get("elementsize") or ""
    return RawLayout(
        data_url=url if local else data_beside(url, name),
        offset=offset,
        shape=_meta_shape(url, fields),
        dtype=_meta_type(url, fields),
        packed=_is_true(fields.get("compresseddata", "False")) is True,
        voxel_size=spacing_of(size.split(), fields.get("distanceunits"), "MetaImage spacing"),
    )


def _meta_shape(url: str, fields: dict[str, str]) -> tuple[int, int, int]:
    channels = fields.get("elementnumberofchannels", "1")
    if channels != "1":
        raise header_error(url, f"{channels} values per voxel are not grey values")
    return shape_of(url, needed(url, fields, "DimSize").split())


def _meta_type(url: str, fields: dict[str, str]) -> np.dtype[Any]:
    name = needed(url, fields, "ElementType").upper()
    if name not in _META_TYPES:
        raise header_error(url, f"ElementType {name} holds no grey values")
    big = fields.get("binarydatabyteordermsb") or fields.get("elementbyteordermsb") or "False"
    return np.dtype(_META_TYPES[name]).newbyteorder(">" if _is_true(big) else "<")


def info_layout(url: str) -> RawLayout:
    """Layout of an ESRF `.vol.info` or `.raw.info` header, as PyHST writes it.

    `.vol` files hold float32. The header of converted `.raw` files does not state the type: one
    or two bytes per voxel are read as unsigned integers, and a note states this.
    """
    fields = fields_of(url, read_header(url).decode("latin-1"), "=")
    shape = shape_of(url, [needed(url, fields, f"NUM_{axis}") for axis in "XYZ"])
    data_url = url[: -len(".info")]
    order = fields.get("byteorder", "LOWBYTEFIRST").upper()
    if order not in ("LOWBYTEFIRST", "HIGHBYTEFIRST"):
        raise header_error(url, f"BYTEORDER {order} is neither LOWBYTEFIRST nor HIGHBYTEFIRST")
    code, notes = "f4", tuple[str, ...]()
    if not data_url.lower().endswith(".vol"):
        code, notes = _type_by_size(data_url, shape)
    return RawLayout(
        data_url=data_url,
        offset=0,
        shape=shape,
        dtype=np.dtype(code).newbyteorder("<" if order == "LOWBYTEFIRST" else ">"),
        voxel_size=_info_voxel_size(fields),
        notes=notes,
    )


def _type_by_size(data_url: str, shape: tuple[int, int, int]) -> tuple[str, tuple[str, ...]]:
    voxels = shape[0] * shape[1] * shape[2]
    codes = {voxels: "u1", 2 * voxels: "u2", 4 * voxels: "f4"}
    code = codes.get(store.file_bytes(data_url), "f4")
    return code, (f"dtype {np.dtype(code)} is derived from the file size",)


def _info_voxel_size(fields: dict[str, str]) -> FoundVoxelSize | None:
    """Voxel size from `voxelSize`, which PyHST writes in micrometres."""
    edge = fields.get("voxelsize", "").split()[:1] * 3
    return spacing_of(edge, "um", "voxelSize of .info") if edge else None


def vgi_layout(url: str) -> RawLayout:
    """Layout of a VGStudio `.vgi` header that describes one uncompressed raw file."""
    text = read_header(url).decode("latin-1")
    if len(re.findall(r"^\s*\[file\d+\]", text, re.M | re.I)) > 1:
        raise header_error(url, "ctray does not read a volume in several files")
    first = re.split(r"^\s*\[file1\]", text, maxsplit=1, flags=re.M | re.I)
    fields = {**fields_of(url, text, "="), **fields_of(url, _section(first[-1]), "=")}
    if fields.get("fileformat", "raw").lower() != "raw":
        raise header_error(url, f"ctray does not read FileFormat {fields['fileformat']}")
    if fields.get("compression", "none").lower() not in ("none", "0", "no", "false"):
        raise header_error(url, f"ctray does not read compression {fields['compression']}")
    kind = needed(url, fields, "Datatype").lower()
    bits = _whole(url, "BitsPerElement", needed(url, fields, "BitsPerElement"))
    if (kind, bits) not in _VGI_TYPES:
        raise header_error(url, f"ctray does not read voxels of {bits} bits ({kind})")
    spacing = fields.get("resolution") or fields.get("samplingdistance") or ""
    return RawLayout(
        data_url=data_beside(url, needed(url, fields, "Name")),
        offset=_whole(url, "SkipHeader", fields.get("skipheader", "0")),
        shape=shape_of(url, needed(url, fields, "Size").split()),
        dtype=np.dtype(_VGI_TYPES[kind, bits]).newbyteorder("<"),
        voxel_size=spacing_of(spacing.split(), fields.get("unit"), ".vgi resolution"),
    )


def _section(text: str) -> str:
    """Text up to the next section, which begins with a brace or bracket."""
    return re.split(r"^\s*[\[{]", text, maxsplit=1, flags=re.M)[0]


def _whole(url: str, key: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise header_error(url, f"{key} {text!r} is not a whole number") from None


def _is_true(text: str) -> bool:
    return text.strip().lower() in ("true", "1", "yes", "t")
