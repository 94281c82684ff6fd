"""What a Zarr group or array says about the volume in it: levels, axes, physical place."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ctray.errors import GeometryError, InvalidVolumeError, NotFoundError
from ctray.geometry import VoxelSize, micrometres_per
from ctray.storage import store

Floats = tuple[float, float, float]
UNFINISHED = "ctray.unfinished.json"
READABLE_VERSIONS = ("0.4", "0.5")


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """One array of a multiscale.

    `relative_scale` are level-0 voxels per voxel and `offset` level-0 voxels from level 0's first
    voxel, both as the metadata say, (z, y, x); None where they say nothing.
    """

    path: str
    relative_scale: Floats | None = None
    offset: Floats | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Where the arrays of a volume are and what is known of it before they are opened."""

    datasets: tuple[Dataset, ...] = (Dataset(path=""),)
    axes: tuple[str, ...] | None = None
    voxel_size: VoxelSize | None = None
    origin: Floats = (0.0, 0.0, 0.0)
    ome_version: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    metadata_bytes: int = 0
    zarr_format: Literal[2, 3] = 3


def read_layout(url: str) -> Layout:
    """Layout of the Zarr array or OME-Zarr group at `url`.

    Raises
    ------
    NotFoundError
        If there is no Zarr metadata, or only those of an interrupted writer.
    InvalidVolumeError
        If the metadata describe no image, or one of a version that is not read.
    """
    v3, size = _metadata_at(store.join(url, "zarr.json"))
    if v3 is not None:
        if v3.get("node_type") == "array":
            return Layout(metadata_bytes=size)
        attributes = _mapping(url, v3.get("attributes", {}))
        return _image(url, attributes, _mapping(url, attributes.get("ome", {})), size)
    attributes_v2, size = _metadata_at(store.join(url, ".zattrs"))
    if attributes_v2 is not None and "multiscales" in attributes_v2:
        image = _image(url, attributes_v2, attributes_v2, size)
        return replace(image, zarr_format=2)
    if store.exists(store.join(url, ".zarray")):
        return Layout(metadata_bytes=size, zarr_format=2)
    if store.exists(store.join(url, UNFINISHED)):
        raise NotFoundError(f"{url} is unfinished: its writer was interrupted; write it again")
    if store.exists(store.join(url, ".zgroup")):
        raise _no_image(url)
    if not store.exists(url):
        store.list_dir(url)  # tells a missing bucket from a missing volume
        raise NotFoundError(f"{url}: nothing is there; check the URL")
    raise InvalidVolumeError(f"{url} is no Zarr volume; give an array or OME-Zarr group")


def _metadata_at(url: str) -> tuple[dict[str, Any] | None, int]:
    try:
        data = store.read_bytes(url)
    except NotFoundError:
        return None, 0
    try:
        found = json.loads(data)
    except ValueError as error:
        raise InvalidVolumeError(f"{url}: damaged metadata, no JSON ({error})") from error
    return _mapping(url, found), len(data)


def _mapping(url: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidVolumeError(f"{url}: damaged metadata, {type(value).__name__} for an object")
    return value


def _no_image(url: str) -> InvalidVolumeError:
    return InvalidVolumeError(
        f"{url} is a Zarr group without multiscales; give an image or array inside it"
    )


def _image(url: str, attributes: dict[str, Any], ome: dict[str, Any], size: int) -> Layout:
    """Layout from OME-NGFF metadata; wrong structure becomes one clear error."""
    if not ome.get("multiscales"):
        raise _no_image(url)
    try:
        multiscale = ome["multiscales"][0]
        version = str(ome.get("version") or multiscale.get("version") or "0.4")
        if version not in READABLE_VERSIONS:
            raise InvalidVolumeError(
                f"{url}: OME-Zarr {version} is not read; convert it to 0.4 or 0.5"
            )
        return _multiscale(multiscale, version, _mapping(url, attributes.get("ctray", {})), size)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise InvalidVolumeError(
            f"{url}: damaged OME metadata ({type(error).__name__}: {error})"
        ) from error


def _multiscale(
    multiscale: dict[str, Any], version: str, attributes: dict[str, Any], size: int
) -> Layout:
    names = tuple(str(axis["name"]).lower() for axis in multiscale["axes"])
    space = [i for i, name in enumerate(names) if name in ("z", "y", "x")]
    outer = multiscale.get("coordinateTransformations", [])
    placed = [
        _transform([*dataset.get("coordinateTransformations", []), *outer], len(names))
        for dataset in multiscale["datasets"]
    ]
    scale0, shift0 = placed[0]
    datasets = []
    for entry, (scale, shift) in zip(multiscale["datasets"], placed, strict=True):
        ratio = [s / s0 for s, s0 in zip(scale, scale0, strict=True)]
        moved = [(t - t0) / s0 for t, t0, s0 in zip(shift, shift0, scale0, strict=True)]
        stated = bool(entry.get("coordinateTransformations"))
        datasets.append(
            Dataset(
                path=str(entry["path"]),
                relative_scale=_spatial(ratio, space) if stated else None,
                offset=_spatial(moved, space) if stated else None,
            )
        )
    to_um = _micrometres([multiscale["axes"][i].get("unit") for i in space])
    if to_um is None or len(space) != 3:
        # Without a unit only multiples of a voxel are known.
        voxel_size = None
        origin = [t / s for t, s in zip(shift0, scale0, strict=True)]
        place = _spatial(origin, space)
    else:
        edges = [scale0[i] * f for i, f in zip(space, to_um, strict=True)]
        voxel_size = VoxelSize.of(edges)
        z, y, x = (shift0[i] * f for i, f in zip(space, to_um, strict=True))
        place = (z, y, x)
    return Layout(
        datasets=tuple(datasets),
        axes=names,
        voxel_size=voxel_size,
        origin=place or (0.0, 0.0, 0.0),
        ome_version=version,
        attributes=attributes,
        metadata_bytes=size,
    )


def _transform(steps: Sequence[dict[str, Any]], ndim: int) -> tuple[list[float], list[float]]:
    """Scale and translation of a chain of transforms, applied first to last."""
    scale, shift = [1.0] * ndim, [0.0] * ndim
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
            raise ValueError(f"transform {step['type']!r} is not read")
    return scale, shift


def _spatial(values: Sequence[float], space: Sequence[int]) -> Floats | None:
    if len(space) != 3:
        return None
    z, y, x = (values[i] for i in space)
    return (z, y, x)


def _micrometres(units: Sequence[str | None]) -> list[float] | None:
    """Micrometres per unit of each axis; None if an axis has no unit of length."""
    try:
        return [micrometres_per(unit) for unit in units if unit] if all(units) else None
    except GeometryError:
        return None
