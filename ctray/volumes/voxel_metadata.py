"""Voxel sizes from the metadata that files carry: ImageJ, OME-XML, TIFF tags, HDF5, sidecars."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ctray.core.errors import CtrayError, GeometryError, printable
from ctray.core.geometry import VoxelSize, micrometres_per
from ctray.storage import store

# "voxel_size", "pixelSizeUm", "voxel_size_mm_zyx", "element_size_um" and their like.
_NAME = re.compile(
    r"^(?P<what>voxel|pixel|element)[ _-]?(size|spacing)"
    r"(_(?P<unit>nm|um|µm|mm|cm|m|nanometer|micrometer|micron|millimeter|centimeter|meter))?"
    r"(_(?P<order>zyx|xyz))?$",
    re.IGNORECASE,
)
_UNIT_KEYS = (
    "units",
    "unit",
    "voxel_size_unit",
    "voxel_size_units",
    "voxel_unit",
    "pixel_size_unit",
)
# Without a unit, a value outside of this range is no voxel size in micrometres.
_PLAUSIBLE_UM = (1e-3, 1e4)
# Screen and print resolutions that programs write when they know no resolution.
_DEFAULT_DPI = (
    *(72.0, 75.0, 90.0, 96.0, 100.0, 120.0, 144.0, 150.0, 180.0, 200.0, 240.0, 300.0, 350.0),
    *(360.0, 400.0, 600.0, 720.0, 1200.0, 2400.0, 4800.0),
)
_MOST_DPI_PER_CM = 600.0
_SIDECAR_MAX_BYTES = 1 << 20
_SHOWN = 40


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundVoxelSize:
    """A voxel size and the metadata that gave it; a sidecar overrides a `weak` one."""

    size: VoxelSize
    source: str
    weak: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class PlainScale:
    """Edge lengths of a voxel, (z, y, x), without units of length."""

    edges: tuple[float, float, float]
    units: tuple[str | None, str | None, str | None]

    def __str__(self) -> str:
        lengths = " × ".join(f"{edge:g}" for edge in self.edges)
        names = dict.fromkeys(self.units)
        if len(names) == 1:
            unit = self.units[0]
            return f"{lengths} (unit unknown)" if not unit else f"{lengths} {shown(unit)}"
        told = ", ".join(shown(unit) if unit else "unknown" for unit in self.units)
        return f"{lengths} (units {told})"


def from_imagej(
    metadata: Mapping[str, Any], per_unit_xy: tuple[float, float]
) -> FoundVoxelSize | None:
    """Voxel size of ImageJ's description (`unit`, `spacing`) and the resolution tags.

    Parameters
    ----------
    metadata
        Keys and values of the ImageJ description.
    per_unit_xy
        Pixels per unit along x and y (TIFF tags 282 and 283).
    """
    x, y = per_unit_xy
    unit = _imagej_unit(metadata, "unit")
    if not unit or x <= 0 or y <= 0:
        return None
    # Axes in other units than x have their own keys.
    units = (_imagej_unit(metadata, "zunit"), _imagej_unit(metadata, "yunit"), unit)
    if "spacing" not in metadata and not math.isclose(x, 1.0, rel_tol=1e-6):
        # ImageJ omits a depth of 1 unit, and so do programs that know no depth.
        return None
    spacing = abs(float(metadata.get("spacing", 1.0)))
    edges = [
        in_micrometres(edge, axis_unit or unit)
        for edge, axis_unit in zip((spacing, 1 / y, 1 / x), units, strict=True)
    ]
    if any(edge is None for edge in edges):
        return None
    return _found([e for e in edges if e is not None], "micrometer", "ImageJ metadata")


def _imagej_unit(metadata: Mapping[str, Any], key: str) -> str:
    unit = str(metadata.get(key, "")).strip()
    if "\\u" in unit:
        unit = unit.encode("ascii", "ignore").decode("unicode_escape")
    return unit


def from_ome(metadata: Mapping[str, Any], image_index: int) -> FoundVoxelSize | None:
    """Voxel size of OME-XML, given as the dict of its elements (`PhysicalSizeX` ...)."""
    images = metadata.get("OME", metadata).get("Image", [])
    images = images if isinstance(images, list) else [images]
    if image_index >= len(images):
        return None
    pixels = images[image_index].get("Pixels", {})
    edges: dict[str, float] = {}
    for axis in "XYZ":
        value = pixels.get(f"PhysicalSize{axis}")
        if value is None:
            continue
        try:
            # OME schema 2016-06: the unit defaults to µm.
            factor = micrometres_per(str(pixels.get(f"PhysicalSize{axis}Unit", "µm")))
            edges[axis] = float(value) * factor
        except (GeometryError, ValueError, TypeError):
            return None
    if "X" not in edges or "Y" not in edges:
        return None
    if "Z" not in edges and edges["X"] != edges["Y"]:
        return None
    z = edges.get("Z", edges["X"])
    return _found((z, edges["Y"], edges["X"]), "micrometer", "OME-XML PhysicalSize")


def from_resolution(
    per_unit_xy: tuple[float, float], unit_tag: int | None
) -> FoundVoxelSize | None:
    """Voxel size of plain TIFF resolution tags, taken as isotropic; None if they mean nothing.

    TIFF 6.0, tag 296: 2 is inch, 3 is centimetre. Programs that know no resolution write one pixel
    per unit, a usual screen or print resolution, or a number without a unit (per inch in the
    standard).
    """
    x, y = per_unit_xy
    unit = {2: "inch", 3: "centimeter"}.get(unit_tag or 0)
    if unit is None or x <= 1 or not math.isclose(x, y, rel_tol=1e-3):
        return None
    if any(_is_print(x, unit, dpi) for dpi in _DEFAULT_DPI):
        return None
    return _found((1 / x, 1 / y, 1 / x), unit, "TIFF resolution tags", weak=True)


def _is_print(per_unit: float, unit: str, dpi: float) -> bool:
    """Whether this is a screen or print resolution; 72 dpi are 28 or 28.35 per cm."""
    if unit == "centimeter" and dpi > _MOST_DPI_PER_CM:
        # Printers state finer ones per inch; per centimetre they are scans of 10 µm or less.
        return False
    known = dpi if unit == "inch" else dpi / 2.54
    return math.isclose(per_unit, known, rel_tol=1e-3) or per_unit == round(known)


def from_mapping(values: Mapping[str, Any], where: str) -> FoundVoxelSize | None:
    """Voxel size of the first usable key among attributes or the keys of a JSON file.

    A value is one number or three, in (z, y, x) unless the name ends in `_xyz`. The unit comes from
    the name, or else from a `unit` key beside it. Otherwise micrometres are assumed if the values
    are plausible, and `source` says so.
    """
    for key in sorted(values, key=str):
        match = _NAME.match(str(key))
        if match is None:
            continue
        edges = _edges(values[key])
        if edges is None:
            continue
        if (match["order"] or "").lower() == "xyz":
            edges = edges[::-1]
        unit = match["unit"] or _unit_beside(values)
        source = f"{key} of {where}"
        if unit is None:
            low, high = _PLAUSIBLE_UM
            if not all(low <= edge <= high for edge in edges):
                continue
            unit, source = "micrometer", f"{source} (no unit given, micrometres assumed)"
        found = _found(edges, unit, source)
        if found is not None:
            return found
    return None


def from_sidecar(url: str, *, is_folder: bool) -> FoundVoxelSize | None:
    """Voxel size of a JSON file that describes the volume at `url`.

    Candidates are `<stem>.json` beside it and `meta.json` in its folder, or inside it if the volume
    is a folder. A sidecar whose `file` key names another file is ignored. Unreadable sidecars are
    ignored too: the volume itself may be readable.
    """
    parent, _, name = url.rpartition("/")
    stem = name if is_folder else name.rpartition(".")[0]
    home = url if is_folder else parent
    for candidate in (f"{parent}/{stem}.json", f"{home}/meta.json"):
        try:
            if not store.exists(candidate):
                continue
            content = json.loads(store.read_bytes(candidate, max_bytes=_SIDECAR_MAX_BYTES))
        except (CtrayError, ValueError, RecursionError):
            continue
        if not isinstance(content, dict) or content.get("file", name) != name:
            continue
        found = from_mapping(content, candidate.rpartition("/")[2])
        if found is not None:
            return found
    return None


def _found(
    edges: Sequence[float], unit: str, source: str, *, weak: bool = False
) -> FoundVoxelSize | None:
    """Found size; None if the edges or the unit mean nothing (0, NaN, "pixel")."""
    try:
        return FoundVoxelSize(size=VoxelSize.of(edges, unit), source=source, weak=weak)
    except GeometryError:
        return None


def _edges(value: Any) -> list[float] | None:
    if isinstance(value, Mapping):
        value = [value.get(axis) for axis in "zyx"]
    if hasattr(value, "tolist"):
        value = value.tolist()
    values = list(value) if isinstance(value, list | tuple) else [value]
    try:
        edges = [float(v) for v in values]
    except (TypeError, ValueError):
        return None
    if len(edges) == 1:
        edges *= 3
    return edges if len(edges) == 3 else None


def _unit_beside(values: Mapping[str, Any]) -> str | None:
    for key in _UNIT_KEYS:
        unit = values.get(key)
        if isinstance(unit, bytes):
            unit = unit.decode("utf-8", "replace")
        if isinstance(unit, str) and unit:
            return unit
    return None


def in_micrometres(value: float, unit: str) -> float | None:
    """Return `value` in micrometres; None if it is 0 or not finite, or the unit is no length."""
    try:
        um = value * micrometres_per(unit)
    except GeometryError:
        return None
    return um if math.isfinite(um) and um > 0 else None


def shown(text: str) -> str:
    """Untrusted text for a message: short, one line."""
    return printable(text[:_SHOWN])
