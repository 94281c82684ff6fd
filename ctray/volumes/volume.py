"""One 3D array with its metadata, in any Zarr layout that ctray reads."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ctray.core.errors import GeometryError, InvalidVolumeError, NotFoundError
from ctray.core.geometry import Box, Triple, VoxelSize, as_triple, tiles
from ctray.core.parallel import BYTES_IN_FLIGHT
from ctray.storage import store
from ctray.volumes.arrays import OpenedArray, damage_named, open_array
from ctray.volumes.chunk_reading import read_region
from ctray.volumes.metadata import Dataset, Layout, read_layout
from ctray.volumes.stored_chunks import StoredChunks
from ctray.volumes.transfer import Transfer
from ctray.volumes.voxel_metadata import PlainScale
from ctray.volumes.zarr_internals import chunk_key


@dataclass(frozen=True, kw_only=True, slots=True)
class Level:
    """One level of a pyramid.

    Parameters
    ----------
    shape
        Voxels, (z, y, x).
    factors
        Level-0 voxels per voxel of this level, (z, y, x).
    offset
        Distance from the centre of level 0's first voxel to the centre of this level's first voxel,
        in level-0 voxels, (z, y, x).
    chunk, shard
        Units of compression and of storage, voxels; equal if the array has no shards.
    path
        Name below the volume's URL; empty for a bare array.
    """

    shape: Triple
    factors: Triple
    offset: tuple[float, float, float]
    chunk: Triple
    shard: Triple
    path: str


def open_volume(url: str) -> Volume:
    """Open an OME-Zarr 0.4 or 0.5 image or a bare Zarr array (v2 or v3) as a volume.

    The array has axes z, y and x in any order, and perhaps others of length 1; the volume is
    always (z, y, x). Levels of a multiscale are left out if their voxels are no whole multiple of
    level 0's, or of another type.

    Parameters
    ----------
    url
        Path or URL of the group or array.

    Raises
    ------
    NotFoundError
        If nothing is at `url`, or an unfinished volume.
    NoVolumeError
        If the data are sound but no volume: a 2D or colour image, or projections.
    InvalidVolumeError
        If ctray does not read it: more than one time or channel, an axis of length 0, unreadable
        metadata, unknown codecs, sizes that no memory holds.
    AccessError, StorageError
        If the store refuses or fails.
    """
    url = store.normalize(url)
    layout = read_layout(url)
    transfer = Transfer(layout.metadata_bytes)
    arrays: list[OpenedArray] = []
    levels: list[Level] = []
    for dataset in layout.datasets:
        array = _open_level(url, dataset, layout, transfer)
        first = arrays[0] if arrays else array
        if any(n > n0 for n, n0 in zip(array.shape, first.shape, strict=True)):
            raise InvalidVolumeError(
                f"{url}: level {dataset.path!r} of shape {array.shape} is larger than level "
                f"{levels[0].path!r} of shape {first.shape}; list the finest level first"
            )
        factors = _factors(array.shape, first.shape, dataset.relative_scale)
        if factors is None or array.dtype != first.dtype:
            continue
        # Without metadata, assume that a level is a mean of level 0, as most pyramids are.
        offset = dataset.offset or _as_floats([(f - 1) / 2 for f in factors])
        levels.append(
            Level(
                shape=array.shape,
                factors=factors,
                offset=offset,
                chunk=array.chunk,
                shard=array.shard,
                path=dataset.path,
            )
        )
        arrays.append(array)
    return Volume(url, tuple(levels), arrays, layout, transfer)


def _open_level(url: str, dataset: Dataset, layout: Layout, transfer: Transfer) -> OpenedArray:
    try:
        return open_array(store.join(url, dataset.path), layout, transfer, layout.document)
    except NotFoundError as error:
        # Only a level of a multiscale is opened before it is known to exist.
        raise InvalidVolumeError(
            f"{url}: its metadata name level {dataset.path!r}, which is not there; write the "
            "volume again, or remove the level from its metadata"
        ) from error


class Volume:
    """A volume opened for reading; made by `open_volume`.

    Attributes
    ----------
    url : str
    shape : tuple of int
        Voxels of level 0, (z, y, x).
    dtype : numpy.dtype
        Type of the voxels in native byte order.
    voxel_size : VoxelSize or None
        None if the metadata give no scale, or a scale without a unit of length.
    plain_scale : PlainScale or None
        Edge lengths if the metadata give numbers without a unit of length; else None.
    origin_um : tuple of float
        Centre of the first voxel in micrometres; in voxels if `voxel_size` is None.
    ome_version : str or None
        "0.4", "0.5", or None for a bare array.
    attributes : dict
        The ``ctray`` attributes; empty for volumes of other writers.
    is_label : bool
        Whether the metadata say that the voxels are labels of another image.
    notes : tuple of str
        Remarks on oddities that are no failure.
    levels : tuple of Level
    """

    def __init__(
        self,
        url: str,
        levels: tuple[Level, ...],
        arrays: Sequence[OpenedArray],
        layout: Layout,
        transfer: Transfer,
    ) -> None:
        self.url = url
        self.levels = levels
        self.shape = levels[0].shape
        self.dtype = arrays[0].dtype
        self.voxel_size: VoxelSize | None = layout.voxel_size
        self.plain_scale: PlainScale | None = layout.plain_scale
        self.origin_um: tuple[float, float, float] = layout.origin
        self.ome_version: str | None = layout.ome_version
        self.attributes: dict[str, Any] = layout.attributes
        self.is_label: bool = layout.is_label
        self.notes: tuple[str, ...] = layout.notes
        self._coarse: tuple[Volume, Triple] | None = None
        self._arrays = arrays
        self._transfer = transfer
        self._chunks = [
            StoredChunks.of(store.join(url, level.path), opened.array, opened.axes, transfer.add)
            for level, opened in zip(levels, arrays, strict=True)
        ]

    def __repr__(self) -> str:
        return f"Volume({self.url!r}, shape={self.shape}, dtype={self.dtype})"

    @property
    def bytes_read(self) -> int:
        """Bytes fetched from the store so far, metadata included."""
        own = self._transfer.bytes_read
        return own if self._coarse is None else own + self._coarse[0].bytes_read

    @property
    def num_bytes(self) -> int:
        """Bytes of level 0 without compression."""
        return math.prod(self.shape) * self.dtype.itemsize

    def bytes_stored(self, level: int | None = None) -> int | None:
        """Bytes that the volume, or one level of it, takes in its store; None if it cannot list."""
        path = "" if level is None else self._level(level).path
        try:
            return store.tree_bytes(store.join(self.url, path))
        except NotImplementedError:
            return None

    def read(self, box: Box) -> npt.NDArray[Any]:
        """Voxels of `box` at its own level.

        Returns
        -------
        numpy.ndarray
            Shape ``box.shape``, dtype ``self.dtype``.

        Raises
        ------
        GeometryError
            If the box leaves its level or the volume has no such level.
        InvalidVolumeError
            If a chunk does not decode.
        """
        box.check_inside(self._level(box.level).shape)
        chunks = self._chunks[box.level]
        if chunks is not None:
            return read_region(chunks, box, self.dtype)
        # Rare layouts: everything that zarr reads, at the speed of zarr.
        with damage_named(store.join(self.url, self.levels[box.level].path)):
            voxels = self._arrays[box.level].read(box.slices)
        return np.ascontiguousarray(voxels, dtype=self.dtype)

    @property
    def fill_value(self) -> Any:
        """Value of voxels whose chunk is not stored."""
        fill = self._arrays[0].array.fill_value
        return np.asarray(0 if fill is None else fill).astype(self.dtype).item()

    def object_keys(self, level: int) -> set[str]:
        """Names, below the array, of the shards or chunks that hold a level's voxels."""
        self._level(level)
        array = self._arrays[level].array
        unit = array.shards or array.chunks
        counts = [range(-(-n // u)) for n, u in zip(array.shape, unit, strict=True)]
        return {chunk_key(array, place) for place in itertools.product(*counts)}

    def stored_chunks(self, level: int) -> StoredChunks | None:
        """Reader of a level's stored chunks; None for a layout that no other array shares."""
        self._level(level)
        return self._chunks[level]

    def read_level(self, level: int) -> npt.NDArray[Any]:
        """All voxels of a level, in memory."""
        return self.read(Box.whole(self._level(level).shape, level=level))

    def iter_slabs(
        self, level: int = 0, max_bytes: int = BYTES_IN_FLIGHT
    ) -> Iterator[tuple[Box, npt.NDArray[Any]]]:
        """Slabs along z that cover a level, in order, each with its box.

        A slab is as many shards deep, or else chunks, as fit in `max_bytes`. If not even one layer
        of chunks fits, slabs are thinner, and chunks are fetched several times.
        """
        info = self._level(level)
        layer_bytes = math.prod(info.shape[1:]) * self.dtype.itemsize
        fit = max(1, max_bytes // layer_bytes)
        depth = fit
        for unit in (info.chunk[0], info.shard[0]):
            if fit >= unit:
                depth = fit // unit * unit
        for box in tiles(info.shape, (depth, *info.shape[1:])):
            slab = Box(start=box.start, stop=box.stop, level=level)
            yield slab, self.read(slab)

    def add_coarse(self, coarse: Volume, factors: Triple) -> None:
        """Keep `coarse`, whose voxels are `factors` voxels of level 0, for `read_working_level`."""
        self._coarse = coarse, factors

    @property
    def coarse(self) -> tuple[Volume, Triple] | None:
        """Coarse levels kept elsewhere, and their level-0 voxels per voxel; None without any."""
        return self._coarse

    def _level(self, level: int) -> Level:
        if not 0 <= level < len(self.levels):
            raise GeometryError(
                f"{self.url} has levels 0 to {len(self.levels) - 1}, not level {level}"
            )
        return self.levels[level]


def _as_floats(values: Sequence[float]) -> tuple[float, float, float]:
    z, y, x = (float(v) for v in values)
    return (z, y, x)


def _factors(
    shape: Triple, shape0: Triple, relative_scale: tuple[float, float, float] | None
) -> Triple | None:
    """Whole level-0 voxels per voxel: from the metadata's scales, else from the shapes' ratio."""
    by_shape = [n0 / n for n0, n in zip(shape0, shape, strict=True)]
    # A crop may begin within a coarse voxel and has one more then. Only metadata can say so.
    for ratios, more in ((relative_scale, 1), (by_shape, 0)):
        if ratios is None:
            continue
        whole = [max(1, round(r)) for r in ratios]
        # Pyramid builders floor, ceil or round odd extents.
        if all(
            n0 // f <= n <= -(-n0 // f) + more or n == max(1, n0 // f)
            for n0, n, f in zip(shape0, shape, whole, strict=True)
        ):
            return as_triple(whole, "factors")
    return None
