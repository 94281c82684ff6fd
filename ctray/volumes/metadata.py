"""OME-Zarr and Zarr metadata of a volume: levels, axes, voxel size and origin."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from urllib.parse import unquote

from ctray.core.errors import CtrayError, GeometryError, InvalidVolumeError, NotFoundError
from ctray.core.geometry import AXES, VoxelSize, micrometres_per
from ctray.storage import store
from ctray.volumes.axes import axis_role
from ctray.volumes.voxel_metadata import PlainScale, shown
from ctray.volumes.zarr_json import as_mapping, read_document

Floats = tuple[float, float, float]
UNFINISHED = "ctray.unfinished.json"
READABLE_VERSIONS = ("0.4", "0.5")
# Halving the longest side that is read, 2**24 voxels, gives 25.
_MAX_LEVELS = 64
# OME-NGFF, section "axes", allows five; a level has two transforms, and its image as many.
_MAX_AXES = 16
_MAX_STEPS = 16
_COLOURS = {"FF0000", "00FF00", "0000FF"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """One array of a multiscale.

    `relative_scale` is level-0 voxels per voxel, and `offset` the distance from level 0's first
    voxel in level-0 voxels, both from the metadata, (z, y, x); None if they state nothing.
    """

    path: str
    relative_scale: Floats | None = None
    offset: Floats | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Description of a volume from its metadata, before its arrays are opened.

    Parameters
    ----------
    datasets
        Levels, the finest first.
    axes
        Names of the axes; None if only the arrays' own metadata name them.
    voxel_size, origin
        Edge lengths, and centre of the first voxel in micrometres; in voxels if the size is
        unknown.
    plain_scale
        Edge lengths if the metadata give numbers without a unit of length.
    ome_version, attributes, zarr_format
        Version of OME-Zarr, ``ctray`` attributes, version of Zarr.
    document
        Metadata of the array, if it has no group.
    is_label, is_coloured
        Whether it holds labels of another image, or its channels are red, green and blue.
    notes
        Remarks on oddities that are no failure.
    metadata_bytes
        Bytes of metadata that were fetched.
    """

    datasets: tuple[Dataset, ...] = (Dataset(path=""),)
    axes: tuple[str, ...] | None = None
    voxel_size: VoxelSize | None = None
    origin: Floats = (0.0, 0.0, 0.0)
    plain_scale: PlainScale | None = None
    ome_version: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    metadata_bytes: int = 0
    zarr_format: Literal[2, 3] = 3
    document: dict[str, Any] | None = None
    is_label: bool = False
    is_coloured: bool = False
    notes: tuple[str, ...] = ()


def read_layout(url: str) -> Layout:
    """Layout of the Zarr array or OME-Zarr group at `url`.

    Raises
    ------
    NotFoundError
        If there are no Zarr metadata, or only those of an interrupted writer.
    InvalidVolumeError
        If the metadata describe no image, or one of a version that ctray does not read.
    """
    v3, size = read_document(store.join(url, "zarr.json"))
    if v3 is not None:
        if v3.get("node_type") == "array":
            return Layout(metadata_bytes=size, document=v3)
        attributes = as_mapping(url, v3.get("attributes", {}))
        # Some writers put metadata of 0.4 into groups of Zarr v3.
        ome = attributes if "multiscales" in attributes else attributes.get("ome", {})
        return _image(url, attributes, as_mapping(url, ome), size)
    attributes_v2, size = read_document(store.join(url, ".zattrs"))
    if attributes_v2 is not None and "multiscales" in attributes_v2:
        image = _image(url, attributes_v2, attributes_v2, size)
        return replace(image, zarr_format=2)
    array, array_size = read_document(store.join(url, ".zarray"))
    if array is not None:
        array = {**array, "attributes": attributes_v2 or {}}
        return Layout(metadata_bytes=size + array_size, zarr_format=2, document=array)
    if store.exists(store.join(url, UNFINISHED)):
        raise NotFoundError(f"{url} is unfinished: its writer was interrupted; write it again")
    if store.exists(store.join(url, ".zgroup")):
        raise _no_image(url)
    if not store.exists(url):
        store.list_dir(url)  # tells a missing bucket from a missing volume
        raise NotFoundError(f"{url}: nothing is there; check the URL")
    raise InvalidVolumeError(f"{url} is no Zarr volume; give an array or OME-Zarr group")


def is_image(attributes: dict[str, Any]) -> bool:
    """Whether the attributes of a group are those of an OME-Zarr image, of any version."""
    inner = attributes.get("ome")
    return "multiscales" in attributes or (isinstance(inner, dict) and "multiscales" in inner)


def _no_image(url: str) -> InvalidVolumeError:
    return InvalidVolumeError(
        f"{url} is a Zarr group without multiscales; give an image or array inside it"
    )


def _image(url: str, attributes: dict[str, Any], ome: dict[str, Any], size: int) -> Layout:
    """Layout from OME-NGFF metadata; a wrong structure raises one clear error."""
    if not ome.get("multiscales"):
        raise _no_image(url)
    try:
        multiscale = ome["multiscales"][0]
        version = str(ome.get("version") or multiscale.get("version") or "0.4")
        if version not in READABLE_VERSIONS:
            raise InvalidVolumeError(
                f"{url}: ctray does not read OME-Zarr {shown(version)}; convert it to 0.4 or 0.5"
            )
        layout = _multiscale(url, multiscale)
    except (GeometryError, OverflowError) as error:
        raise InvalidVolumeError(f"{url}: damaged OME metadata ({error})") from error
    except CtrayError:
        raise
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise InvalidVolumeError(
            f"{url}: damaged OME metadata ({type(error).__name__}: {str(error)[:200]})"
        ) from error
    others = len(ome["multiscales"]) - 1
    notes = (f"{others} more images in one group; the first is read",) if others else ()
    return replace(
        layout,
        ome_version=version,
        attributes=as_mapping(url, attributes.get("ctray", {})),
        metadata_bytes=size,
        is_label="image-label" in ome,
        is_coloured=_is_coloured(ome.get("omero")),
        notes=notes,
    )


def _multiscale(url: str, multiscale: dict[str, Any]) -> Layout:
    entries = _bounded(multiscale["datasets"], _MAX_LEVELS, "levels")
    axes = _bounded(multiscale["axes"], _MAX_AXES, "axes")
    names = tuple(str(axis["name"]) for axis in axes)
    space = _space(names)
    outer = multiscale.get("coordinateTransformations") or []
    placed = [
        _transform([*(entry.get("coordinateTransformations") or []), *outer], len(names))
        for entry in entries
    ]
    stated = [_has_scale(entry.get("coordinateTransformations")) for entry in entries]
    scale0, shift0 = placed[0]
    datasets = []
    for entry, (scale, shift), is_stated in zip(entries, placed, stated, strict=True):
        ratio = [s / s0 for s, s0 in zip(scale, scale0, strict=True)]
        moved = [(t - t0) / s0 for t, t0, s0 in zip(shift, shift0, scale0, strict=True)]
        known = is_stated and stated[0]
        datasets.append(
            Dataset(
                path=_path(url, entry["path"]),
                relative_scale=_spatial(ratio, space) if known else None,
                offset=_spatial(moved, space) if known else None,
            )
        )
    layout = Layout(datasets=tuple(datasets), axes=names)
    if space is None or not (stated[0] or _has_scale(outer)):
        # Without a scale, the voxel size and the unit of the translation are unknown.
        return layout
    units = [_unit(axes[i].get("unit")) for i in space]
    return replace(layout, **_physical(units, _pick(scale0, space), _pick(shift0, space)))


def _bounded(found: Any, most: int, what: str) -> list[dict[str, Any]]:
    if not isinstance(found, list) or not 0 < len(found) <= most:
        count = len(found) if isinstance(found, list) else "no list of"
        raise ValueError(f"{count} {what}; an image has 1 to {most}")
    return found


def _physical(units: list[str | None], scale: Floats, shift: Floats) -> dict[str, Any]:
    """Voxel size and origin, or the plain numbers if a unit of length is missing."""
    to_um = _micrometres(units)
    if to_um is None:
        z, y, x = (t / s for t, s in zip(shift, scale, strict=True))
        plain = PlainScale(edges=scale, units=(units[0], units[1], units[2]))
        return {"plain_scale": plain, "origin": (z, y, x)}
    z, y, x = (t * f for t, f in zip(shift, to_um, strict=True))
    edges = [s * f for s, f in zip(scale, to_um, strict=True)]
    return {"voxel_size": VoxelSize.of(edges), "origin": (z, y, x)}


def _path(url: str, path: Any) -> str:
    """Path of a level inside its group; refused if it leads out of the group."""
    # A web server decodes %2e to a dot.
    parts = unquote(path).split("/") if isinstance(path, str) else []
    plain = all(part not in ("", ".", "..") and part.isprintable() for part in parts)
    if not parts or not plain or "\\" in path or ":" in parts[0]:
        raise InvalidVolumeError(
            f"{url}: level {str(path)[:80]!r} lies outside of the image's group; use a path below "
            "the group"
        )
    return str(path)


def _has_scale(steps: Any) -> bool:
    return any(step["type"] == "scale" for step in steps or [])


def _transform(steps: Sequence[dict[str, Any]], ndim: int) -> tuple[list[float], list[float]]:
    """Scale and translation of a chain of transforms, applied in order."""
    scale, shift = [1.0] * ndim, [0.0] * ndim
    if len(steps) > _MAX_STEPS:
        raise ValueError(f"{len(steps)} transforms in a row, more than {_MAX_STEPS}")
    for step in steps:
        if step["type"] == "scale":
            factors = [float(v) for v in step["scale"]]
            if not all(math.isfinite(f) and f > 0 for f in factors):
                raise ValueError(f"scale {factors} must be positive")
            scale = [s * f for s, f in zip(scale, factors, strict=True)]
            shift = [t * f for t, f in zip(shift, factors, strict=True)]
        elif step["type"] == "translation":
            shift = [t + float(v) for t, v in zip(shift, step["translation"], strict=True)]
        elif step["type"] != "identity":
            raise ValueError(f"ctray does not read transform {step['type']!r}")
    if not all(math.isfinite(v) for v in (*scale, *shift)) or 0 in scale:
        raise ValueError("scale and translation must be finite")
    return scale, shift


def _space(names: Sequence[str]) -> tuple[int, int, int] | None:
    """Positions of z, y and x among the axes; None unless there are all three."""
    roles = [axis_role(name) for name in names]
    if not set(AXES) <= set(roles):
        return None
    z, y, x = (roles.index(axis) for axis in AXES)
    return (z, y, x)


def _pick(values: Sequence[float], space: tuple[int, int, int]) -> Floats:
    z, y, x = (values[i] for i in space)
    return (z, y, x)


def _spatial(values: Sequence[float], space: tuple[int, int, int] | None) -> Floats | None:
    return None if space is None else _pick(values, space)


def _unit(unit: Any) -> str | None:
    return unit if isinstance(unit, str) and unit.strip() else None


def _micrometres(units: Sequence[str | None]) -> list[float] | None:
    """Micrometres per unit of each axis; None if an axis has no unit of length."""
    try:
        return [micrometres_per(unit) for unit in units if unit] if all(units) else None
    except GeometryError:
        return None


def _is_coloured(omero: Any) -> bool:
    """Whether rendering settings show three channels as red, green and blue."""
    channels = omero.get("channels") if isinstance(omero, dict) else None
    if not isinstance(channels, list) or len(channels) not in (3, 4):
        return False
    colours = {str(c.get("color", "")).upper().lstrip("#") for c in channels if isinstance(c, dict)}
    return colours >= _COLOURS
