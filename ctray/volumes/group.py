"""The group of a volume: its OME-Zarr metadata, which are written last and commit the volume.

Until the group's metadata with the ``ctray`` attributes exist, no reader of ctray sees a volume,
and the next writer at the same URL starts again. A note beside the arrays tells such a leftover
from the files of somebody else, which ctray never touches.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from ctray.core.errors import NotFoundError, OutputExistsError
from ctray.core.geometry import AXES, VoxelSize
from ctray.storage import store
from ctray.volumes.metadata import UNFINISHED
from ctray.volumes.multiscale import LevelPlan
from ctray.volumes.voxel_metadata import PlainScale


def begin_group(url: str) -> None:
    """Clear what an interrupted writer left at `url`, and note that a new one has begun.

    Raises
    ------
    OutputExistsError
        If a committed volume, or anything that ctray did not begin, is at `url`.
    """
    _clear_leftover(url)
    store.write_json(store.join(url, UNFINISHED), {"started": datetime.now(UTC).isoformat()})


def commit_group(
    url: str, *, image: dict[str, Any], ctray: dict[str, Any], ome_version: str
) -> None:
    """Write the group's metadata: `image` as its multiscale, and the ``ctray`` attributes."""
    if ome_version == "0.5":
        attributes = {"ome": {"version": "0.5", "multiscales": [image]}, "ctray": ctray}
        group = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
        store.write_json(store.join(url, "zarr.json"), group)
    else:
        store.write_json(store.join(url, ".zgroup"), {"zarr_format": 2})
        multiscales = [{"version": "0.4", **image}]
        store.write_json(store.join(url, ".zattrs"), {"multiscales": multiscales, "ctray": ctray})
    store.delete_file(store.join(url, UNFINISHED))


def multiscale(
    name: str,
    plans: Sequence[LevelPlan],
    *,
    voxel_size: VoxelSize | None,
    plain_scale: PlainScale | None,
    origin: Sequence[float],
) -> dict[str, Any]:
    """OME-NGFF multiscales entry, sections "axes" and "multiscales" of 0.4 and 0.5.

    Parameters
    ----------
    name
        Of the image.
    plans
        Its levels, level 0 first.
    voxel_size, plain_scale
        Edges of a voxel in micrometres, or else in units that are no lengths.
    origin
        Centre of the first voxel in micrometres; in voxels if `voxel_size` is None.
    """
    edge, units = _scale(voxel_size, plain_scale)
    if voxel_size is None:
        origin = [o * e for o, e in zip(origin, edge, strict=True)]
    datasets = []
    for i, plan in enumerate(plans):
        scale = [e * f for e, f in zip(edge, plan.factors, strict=True)]
        shift = [o + d * e for o, d, e in zip(origin, plan.offset, edge, strict=True)]
        transforms = [
            {"type": "scale", "scale": scale},
            {"type": "translation", "translation": shift},
        ]
        datasets.append({"path": str(i), "coordinateTransformations": transforms})
    return {
        "name": name,
        "axes": [
            {"name": axis, "type": "space", **({"unit": unit} if unit else {})}
            for axis, unit in zip(AXES, units, strict=True)
        ],
        "datasets": datasets,
        **({"type": "mean"} if _are_means(plans) else {}),
    }


def is_committed(url: str) -> bool:
    """Whether a volume that ctray committed is at `url`."""
    for name in ("zarr.json", ".zattrs"):
        try:
            found = store.read_json(store.join(url, name))
        except NotFoundError:
            continue
        attributes = found.get("attributes") if name == "zarr.json" else found
        if isinstance(attributes, dict) and "ctray" in attributes:
            return True
    return False


def _clear_leftover(url: str) -> None:
    """Remove the leftover of an interrupted writer; refuse finished volumes and other files."""
    if is_committed(url):
        raise OutputExistsError(f"{url} holds a finished volume; give another output or remove it")
    if not store.exists(url):
        return
    entries = store.list_dir(url)
    names = [entry.name for entry in entries]
    if not names:
        return
    if not any(name.startswith(UNFINISHED) for name in names):
        raise OutputExistsError(
            f"{url} holds files that ctray did not write, such as {names[0]}; give another output"
        )
    for entry in entries:
        # Keep the note: if this is interrupted, the next run must still recognize the leftover.
        if entry.is_dir:
            store.delete_tree(entry.url)
        elif entry.name != UNFINISHED:
            store.delete_file(entry.url)


def _are_means(plans: Sequence[LevelPlan]) -> bool:
    """Whether every level lies where a mean of level 0 does; copied levels need not."""
    return all(
        d == (f - 1) / 2 for plan in plans for d, f in zip(plan.offset, plan.factors, strict=True)
    )


def _scale(
    voxel_size: VoxelSize | None, plain_scale: PlainScale | None
) -> tuple[Sequence[float], Sequence[str | None]]:
    """Edges of a voxel, (z, y, x), and their units, as they are written."""
    if voxel_size is not None:
        return voxel_size.um, ("micrometer",) * 3
    if plain_scale is not None:
        return plain_scale.edges, plain_scale.units
    return (1.0, 1.0, 1.0), (None, None, None)
