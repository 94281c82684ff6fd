"""What a crop keeps of what was cut away, and the volume that comes back from both.

The surround is the whole source at a coarse level, strongly compressed, as an array `surround`
in the crop's group. It is no dataset of the image, so readers of OME-Zarr pass over it; the
``ctray`` attributes tell where it is and how coarse.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ctray.core.errors import InvalidVolumeError, NotFoundError, OutputExistsError
from ctray.core.geometry import AXES, Box, Triple, as_triple
from ctray.core.grid import ShardGrid
from ctray.core.parallel import BYTES_IN_FLIGHT, bounded_map
from ctray.crops.old_names import crop_attributes, cut_url
from ctray.storage import store
from ctray.volumes.arrays import OpenedArray, damage_named, open_array
from ctray.volumes.encoding import default_encoding
from ctray.volumes.level_layout import LevelLayout, create_array
from ctray.volumes.metadata import Layout
from ctray.volumes.transfer import Transfer
from ctray.volumes.volume import Volume, open_volume
from ctray.volumes.working import read_working
from ctray.volumes.writer import create_volume

PATH = "surround"
_ZSTD_LEVEL = 15


@dataclass(frozen=True, kw_only=True, slots=True)
class RestoreResult:
    """What `restore` wrote.

    Parameters
    ----------
    url
        The volume's group.
    shape
        Voxels (z, y, x), those of the crop's source.
    box
        Where the crop lies in it: there every voxel is the source's.
    factors
        Level-0 voxels (z, y, x) for each voxel of the surround that fills the rest; None where the
        crop kept none and the rest is the fill value.
    checksum
        As that of a crop.
    """

    url: str
    shape: Triple
    box: Box
    factors: Triple | None
    checksum: str


def keep_surround(volume: Volume, url: str, size: int, ome_version: str) -> dict[str, Any]:
    """Write `volume` at about `size` voxels into the unfinished crop at `url`.

    Parameters
    ----------
    volume
        Source of the crop.
    url
        Group of the crop, laid out and not committed.
    size
        Longest side that is aimed at; the nearest that halving reaches is kept.
    ome_version
        That of the crop.

    Returns
    -------
    dict
        For the ``ctray`` attributes: path and factors.
    """
    voxels, factors = read_working(volume, size)
    if volume.dtype.kind != "f" and voxels.dtype.kind == "f":
        voxels = np.rint(voxels)
    grid = ShardGrid.choose(voxels.shape)
    if ome_version == "0.4":
        grid = ShardGrid.choose(voxels.shape, shard=grid.chunk)
    encoding = default_encoding(grid.chunk, volume.dtype, ome_version, level=_ZSTD_LEVEL)
    array = create_array(
        store.join(url, PATH), LevelLayout(grid=grid, encoding=encoding), ome_version
    )
    with store.mapped_errors(url, "write"):
        array[:] = voxels.astype(volume.dtype)
    return {"path": PATH, "factors": list(factors)}


def restore(
    crop_url: str,
    url: str,
    *,
    ome_version: str = "0.5",
    bytes_in_flight: int = BYTES_IN_FLIGHT,
    progress: Callable[[int, int], None] | None = None,
) -> RestoreResult:
    """Rebuild a volume of the shape that the source of a crop had.

    Inside the crop's box every voxel is the crop's, which is the source's. Outside it is the
    voxel of the surround that covers it, or the fill value. Voxel size and origin are the source's,
    the pyramid is made of means. Interrupted, it does not exist and is written anew.

    Parameters
    ----------
    crop_url
        The crop.
    url
        Where the volume goes.
    ome_version
        "0.5" or "0.4".
    bytes_in_flight
        Bound of the voxels held in memory.
    progress
        Called with the bytes of level 0 that are done, and all of them.

    Raises
    ------
    InvalidVolumeError
        If `crop_url` is no crop, or one that does not tell its source's shape and whose source
        is gone.
    OutputExistsError
        If a finished volume, or anything that ctray did not begin, is at `url`.
    """
    crop = open_volume(crop_url)
    target = store.normalize(url)
    if f"{target}/".startswith(f"{crop.url}/"):
        raise OutputExistsError(f"--out {url} is the crop or lies in it; give a place of its own")
    box, shape, fill = _origin_of(crop)
    surround = _surround_of(crop)
    edge = (1.0, 1.0, 1.0) if crop.voxel_size is None else crop.voxel_size.um
    writer = create_volume(
        target,
        shape=shape,
        dtype=crop.dtype,
        voxel_size=crop.voxel_size,
        origin_um=[o - a * e for o, a, e in zip(crop.origin_um, box.start, edge, strict=True)],
        ome_version=ome_version,
        fill_value=fill,
        plain_scale=crop.plain_scale,
    )

    def fill_shard(shard: Box) -> int:
        num_bytes = shard.num_voxels * crop.dtype.itemsize
        inside = shard.intersection(box)
        if inside is None and surround is None:
            writer.put_shard(0, shard, None)
            return num_bytes
        voxels = np.full(shard.shape, fill, crop.dtype)
        if surround is not None and inside != shard:
            voxels[...] = _upsampled(crop.url, *surround, shard)
        if inside is not None:
            part = inside.shift([-a for a in box.start])
            voxels[inside.shift([-a for a in shard.start]).slices] = crop.read(part)
        writer.put_shard(0, shard, writer.encode_shard(0, voxels))
        return num_bytes

    done, total = 0, math.prod(shape) * crop.dtype.itemsize
    held = 3 * math.prod(writer.grid.shard) * crop.dtype.itemsize
    for num_bytes in bounded_map(
        fill_shard, writer.grid.shards(), bytes_per_item=held, bytes_in_flight=bytes_in_flight
    ):
        done += num_bytes
        if progress is not None:
            progress(done, total)
    writer.build_pyramid()
    checksum = writer.seal()
    told = crop_attributes(crop.attributes)
    writer.commit(
        {
            "restored_from": crop.url,
            "source_url": told.get("source_url"),
            "imported_url": told.get("imported_url"),
            "volume_id": told.get("volume_id"),
            "crop_box": box.ranges,
            "rest": told["surround"] if surround is not None else {"fill_value": _json(fill)},
            **writer.sealed(checksum),
        }
    )
    return RestoreResult(
        url=writer.url,
        shape=shape,
        box=box,
        factors=None if surround is None else surround[1],
        checksum=checksum,
    )


def told_of_source(volume: Volume) -> dict[str, Any]:
    """What a crop must remember of its source for `restore`: JSON values for its attributes."""
    return {"source_shape": list(volume.shape), "source_fill": _json(volume.fill_value)}


def _origin_of(crop: Volume) -> tuple[Box, Triple, Any]:
    """Box of the crop in its source, shape of the source, and its fill value."""
    told = crop_attributes(crop.attributes)
    if "crop_box" not in told or "restored_from" in told:
        raise InvalidVolumeError(f"{crop.url} is no crop of ctray; give one of a run's crops/")
    box = Box.from_ranges(told["crop_box"])
    if "source_shape" in told:
        fill = told.get("source_fill", 0)
        return box, as_triple(told["source_shape"], "source shape"), _fill(fill, crop.dtype)
    try:
        source = open_volume(cut_url(told))
    except NotFoundError as error:
        raise InvalidVolumeError(
            f"{crop.url} does not tell the shape of its source, as crops of earlier versions, "
            f"and the source {cut_url(told)} is gone"
        ) from error
    return box, source.shape, source.fill_value


def _surround_of(crop: Volume) -> tuple[OpenedArray, Triple] | None:
    told = crop.attributes.get("surround")
    if told is None:
        return None
    with damage_named(crop.url):
        factors = as_triple(told["factors"], "factors")
        if told["path"] != PATH or min(factors) < 1:
            raise InvalidVolumeError(
                f"{crop.url}: its surround is at {str(told['path'])[:80]!r}, by factors {factors}; "
                f"a crop keeps it at {PATH!r}, coarser than itself; it is damaged"
            )
    layout = Layout(axes=AXES, zarr_format=2 if crop.ome_version == "0.4" else 3)
    return open_array(store.join(crop.url, PATH), layout, Transfer(), None), factors


def _upsampled(url: str, array: OpenedArray, factors: Triple, region: Box) -> npt.NDArray[Any]:
    """Voxels of the surround that cover `region` of level 0, each repeated over its cell."""
    shape = array.shape
    # A level that rounded its extent down ends before the volume does: its last voxel goes on.
    start = [min(a // f, n - 1) for a, f, n in zip(region.start, factors, shape, strict=True)]
    stop = [min(-(-b // f), n) for b, f, n in zip(region.stop, factors, shape, strict=True)]
    cells = Box(start=as_triple(start, "start"), stop=as_triple(stop, "stop"))
    with damage_named(store.join(url, PATH)):
        found = array.read(cells.slices)
    for axis, (a, b, f, n, first) in enumerate(
        zip(region.start, region.stop, factors, shape, start, strict=True)
    ):
        index = np.minimum(np.arange(a, b) // f, n - 1) - first
        found = np.take(found, index, axis=axis)
    return found


def _json(value: Any) -> Any:
    """Fill value as JSON can hold it: floats without a number as their names."""
    plain = np.asarray(value).item()
    return str(plain) if isinstance(plain, float) and not math.isfinite(plain) else plain


def _fill(value: Any, dtype: np.dtype[Any]) -> Any:
    return np.asarray(float(value) if isinstance(value, str) else value).astype(dtype).item()
