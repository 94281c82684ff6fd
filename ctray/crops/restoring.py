"""Keeping a coarse surround with a crop, and rebuilding the volume from crop and surround.

The surround is the whole source at a coarse level, strongly compressed, as an array `surround` in
the crop's group. It is no dataset of the image, so readers of OME-Zarr ignore it. The ``ctray``
attributes hold its path and its factors.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ctray.core.errors import InvalidVolumeError, OutputExistsError
from ctray.core.geometry import AXES, Box, Triple, as_triple
from ctray.core.grid import ShardGrid
from ctray.core.parallel import BYTES_IN_FLIGHT, bounded_map
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
    """A volume that `restore` wrote.

    Parameters
    ----------
    url
        The volume's group.
    shape
        Voxels (z, y, x), those of the crop's source.
    box
        Region of the crop in it: every voxel there equals the source's.
    factors
        Level-0 voxels per voxel of the surround, (z, y, x). None if the crop has no surround; then
        the rest is the fill value.
    checksum
        "sha256:..." of the stored objects, see `ctray.volumes.manifest`.
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
        Group of the crop, laid out but not committed.
    size
        Wanted longest side, voxels; the nearest size that halving reaches is kept.
    ome_version
        Version of OME-Zarr of the crop.

    Returns
    -------
    dict
        Path and factors, for the ``ctray`` attributes.
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
    """Rebuild a volume of the shape of a crop's source.

    Inside the crop's box, every voxel is the source's. Outside, each voxel takes the value of the
    surround's voxel that covers it, or the fill value. Voxel size and origin are the source's; the
    pyramid is made of means. A volume whose writing was interrupted does not exist for readers and
    is written again.

    Parameters
    ----------
    crop_url
        The crop.
    url
        Where the volume goes.
    ome_version
        "0.5" or "0.4".
    bytes_in_flight
        Bound of the voxel bytes held in memory.
    progress
        Called with the finished bytes of level 0 and their total.

    Raises
    ------
    InvalidVolumeError
        If `crop_url` is no crop.
    OutputExistsError
        If a finished volume, or anything that ctray did not begin, is at `url`.
    """
    crop = open_volume(crop_url)
    target = store.normalize(url)
    if f"{target}/".startswith(f"{crop.url}/"):
        raise OutputExistsError(f"--out {url} is the crop or lies in it; give another folder")
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
        voxels = _voxels_of(shard, crop, box, fill, surround)
        writer.put_shard(0, shard, None if voxels is None else writer.encode_shard(0, voxels))
        return shard.num_voxels * crop.dtype.itemsize

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
    attributes = crop.attributes
    writer.commit(
        {
            "restored_from": crop.url,
            "source_url": attributes.get("source_url"),
            "imported_url": attributes.get("imported_url"),
            "volume_id": attributes.get("volume_id"),
            "crop_box": box.ranges,
            "rest": attributes["surround"] if surround is not None else {"fill_value": _json(fill)},
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


def _voxels_of(
    shard: Box, crop: Volume, box: Box, fill: Any, surround: tuple[OpenedArray, Triple] | None
) -> npt.NDArray[Any] | None:
    """Voxels of one shard of the rebuilt volume; None if all are the fill value."""
    inside = shard.intersection(box)
    if inside is None and surround is None:
        return None
    voxels = np.full(shard.shape, fill, crop.dtype)
    if surround is not None and inside != shard:
        voxels[...] = _upsampled(crop.url, *surround, shard)
    if inside is not None:
        part = inside.shift([-a for a in box.start])
        voxels[inside.shift([-a for a in shard.start]).slices] = crop.read(part)
    return voxels


def attributes_of_source(volume: Volume) -> dict[str, Any]:
    """JSON values of the source that a crop's attributes keep for `restore`."""
    return {"source_shape": list(volume.shape), "source_fill": _json(volume.fill_value)}


def _origin_of(crop: Volume) -> tuple[Box, Triple, Any]:
    """Box of the crop in its source, and the source's shape and fill value."""
    attributes = crop.attributes
    if "source_shape" not in attributes:
        raise InvalidVolumeError(f"{crop.url} is no crop of ctray; give one of a run's crops/")
    return (
        Box.from_ranges(attributes["crop_box"]),
        as_triple(attributes["source_shape"], "source shape"),
        _fill(attributes["source_fill"], crop.dtype),
    )


def _surround_of(crop: Volume) -> tuple[OpenedArray, Triple] | None:
    kept = crop.attributes.get("surround")
    if kept is None:
        return None
    with damage_named(crop.url):
        factors = as_triple(kept["factors"], "factors")
        if kept["path"] != PATH or min(factors) < 1:
            raise InvalidVolumeError(
                f"{crop.url}: damaged attributes: surround at {str(kept['path'])[:80]!r}, factors "
                f"{factors}; a crop keeps it at {PATH!r}, with factors of 1 or more"
            )
    layout = Layout(axes=AXES, zarr_format=2 if crop.ome_version == "0.4" else 3)
    return open_array(store.join(crop.url, PATH), layout, Transfer(), None), factors


def _upsampled(url: str, array: OpenedArray, factors: Triple, region: Box) -> npt.NDArray[Any]:
    """Voxels of the surround that cover `region` of level 0, repeated to level-0 voxels."""
    shape = array.shape
    # A level whose extent was rounded down ends before the volume: its last voxel is repeated.
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
    """Fill value as JSON can hold it: NaN and infinities as text."""
    plain = np.asarray(value).item()
    return str(plain) if isinstance(plain, float) and not math.isfinite(plain) else plain


def _fill(value: Any, dtype: np.dtype[Any]) -> Any:
    return np.asarray(float(value) if isinstance(value, str) else value).astype(dtype).item()
