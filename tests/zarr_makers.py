"""OME-Zarr images and bare arrays for tests, written with zarr alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

Json = dict[str, Any]


def axes_of(names: Sequence[str], units: Sequence[str | None] | str | None = "micrometer") -> Any:
    """OME-NGFF axes; one unit for all axes in space, or one for each axis."""
    kinds = {"t": "time", "c": "channel"}
    given = [units] * len(names) if isinstance(units, str | None) else list(units)
    axes = []
    for name, unit in zip(names, given, strict=True):
        kind = kinds.get(name, "space")
        told = {"unit": unit} if unit and kind == "space" else {}
        axes.append({"name": name, "type": kind, **told})
    return axes


def scale(*values: float) -> Json:
    return {"type": "scale", "scale": list(values)}


def translation(*values: float) -> Json:
    return {"type": "translation", "translation": list(values)}


def write_image(
    folder: Path,
    levels: Sequence[np.ndarray],
    steps: Sequence[list[Json] | None],
    *,
    axes: Any,
    version: str = "0.4",
    multiscale: Json | None = None,
    attributes: Json | None = None,
    chunks: tuple[int, ...] | None = None,
) -> str:
    """Write an image of several levels; `steps` are each level's transforms, None for no key.

    `multiscale` adds to its entry, `attributes` to the group's.
    """
    zarr_format: Any = 2 if version == "0.4" else 3
    folder.mkdir(parents=True)
    datasets = []
    for number, (level, step) in enumerate(zip(levels, steps, strict=True)):
        array = zarr.create_array(
            folder / str(number),
            shape=level.shape,
            chunks=chunks or level.shape,
            dtype=level.dtype,
            zarr_format=zarr_format,
        )
        array[...] = level
        told = {} if step is None else {"coordinateTransformations": step}
        datasets.append({"path": str(number), **told})
    entry = {"axes": axes, "datasets": datasets, **(multiscale or {})}
    if zarr_format == 2:
        (folder / ".zgroup").write_text('{"zarr_format": 2}')
        entry = {"version": version, **entry}
        (folder / ".zattrs").write_text(json.dumps({"multiscales": [entry], **(attributes or {})}))
    else:
        ome = {"version": version, "multiscales": [entry], **(attributes or {})}
        group = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": ome}}
        (folder / "zarr.json").write_text(json.dumps(group))
    return str(folder)


def write_array(folder: Path, voxels: np.ndarray, **options: Any) -> str:
    """Write a bare array; `options` are those of `zarr.create_array`."""
    options.setdefault("chunks", voxels.shape)
    array = zarr.create_array(folder, shape=voxels.shape, dtype=voxels.dtype, **options)
    array[...] = voxels
    return str(folder)


def halved(voxels: np.ndarray) -> np.ndarray:
    """Means of 2 x 2 x 2 voxels, for even shapes."""
    z, y, x = (n // 2 for n in voxels.shape)
    means = voxels.reshape(z, 2, y, 2, x, 2).mean((1, 3, 5))
    return np.asarray(means.astype(voxels.dtype))
