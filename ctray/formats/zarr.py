"""Zarr arrays and OME-Zarr images as sources of slabs."""

from __future__ import annotations

import itertools
import math
from typing import Self

import numpy as np

from ctray.core.errors import CtrayError, NoVolumeError
from ctray.core.geometry import Box, VoxelSize
from ctray.formats.source import VolumeSource, check_dtype, check_shape
from ctray.storage import store
from ctray.storage.zipped import is_zipped_zarr, zip_url
from ctray.volumes.volume import Volume, open_volume
from ctray.volumes.voxel_metadata import FoundVoxelSize
from ctray.volumes.zarr_json import read_document

# Names of which a Zarr array or group of format 2 or 3 has at least one at its root.
ZARR_MARKERS = frozenset({"zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata"})
# Most objects of level 0 that are counted: a store lists a thousand per request.
_MOST_COUNTED = 10_000
_MOST_COUNTED_REMOTE = 2_000


class ZarrSource(VolumeSource):
    """Level 0 of an OME-Zarr group, or a bare Zarr array, read by `open_volume`.

    Raises
    ------
    NoVolumeError
        If the voxels are labels or a mask, or a single plane.
    InvalidVolumeError
        As `open_volume`.
    """

    kind = "zarr"
    is_folder = True

    def __init__(self, url: str, dataset: str | None = None) -> None:
        super().__init__(url)
        self.dataset = dataset
        volume = open_volume(store.join(url, dataset) if dataset else url)
        self._volume = volume
        _refuse_annotation(volume)
        self.kind = "ome-zarr" if volume.ome_version else "zarr"
        self.shape = check_shape(url, volume.shape)
        self.dtype = check_dtype(url, volume.dtype)
        level = volume.levels[0]
        self.slab_depth = level.shard[0]
        own = None
        if volume.voxel_size is not None:
            own = FoundVoxelSize(size=volume.voxel_size, source="OME-Zarr scale")
        self._set_voxel_size(own)
        self.plain_scale = None if self.voxel_size is not None else volume.plain_scale
        self.origin_um = self.origin_with(self.voxel_size)
        self.notes = (*volume.notes, *self._notes())

    @classmethod
    def open(cls, url: str, *, dataset: str | None = None, within: str | None = None) -> Self:
        """Open an array or image, or the one at the path `dataset` of a group; also in a zip."""
        return cls(zip_url(url) if is_zipped_zarr(url) else url, dataset)

    def origin_with(self, voxel_size: VoxelSize | None) -> tuple[float, float, float]:
        """Centre of the first voxel in micrometres; in voxels if `voxel_size` is None."""
        origin = self._volume.origin_um
        if voxel_size is None or self._volume.voxel_size is not None:
            return origin
        z, y, x = (o * e for o, e in zip(origin, voxel_size.um, strict=True))
        return (z, y, x)

    def _notes(self) -> list[str]:
        notes = []
        if self.plain_scale is not None:
            notes.append(f"voxel size {self.plain_scale}, z, y, x")
        found = count_objects(self._volume)
        if found is not None and found[0] < found[1]:
            stored, total = found
            notes.append(
                f"only {stored} of {total} chunks of level 0 are stored; the others have the fill "
                f"value {self._volume.fill_value}"
            )
        return notes

    def read_box(self, box: Box) -> np.ndarray:
        """Voxels of a box at level 0, in `dtype`."""
        voxels: np.ndarray = self._volume.read(box)
        self.bytes_read = self._volume.bytes_read
        return voxels

    def _read(self, start: int, stop: int) -> np.ndarray:
        return self.read_box(Box(start=(start, 0, 0), stop=(stop, self.shape[1], self.shape[2])))

    def close(self) -> None:
        """Nothing to close."""


def count_objects(volume: Volume) -> tuple[int, int] | None:
    """Number of objects of level 0 in the store, and the number of a complete level 0.

    Chunks that hold only the fill value need not be stored, but an interrupted copy lacks chunks
    too. None if there are so many objects that counting is slow, if the store cannot list, and
    for volumes that ctray wrote, because their last object proves that they are complete.
    """
    level = volume.levels[0]
    total = math.prod(-(-n // s) for n, s in zip(level.shape, level.shard, strict=True))
    most = _MOST_COUNTED if store.is_local(volume.url) else _MOST_COUNTED_REMOTE
    if volume.attributes or total > most:
        return None
    where = store.join(volume.url, level.path)
    try:
        # Other objects in the folder are not worth a long listing.
        listed = list(itertools.islice(store.list_tree(where), 2 * most))
    except (NotImplementedError, CtrayError):
        return None
    if len(listed) == 2 * most:
        return None
    expected = volume.object_keys(0)
    return sum(1 for key, _ in listed if key in expected), total


def _refuse_annotation(volume: Volume) -> None:
    if volume.is_label or _is_listed_label(volume.url):
        raise NoVolumeError(f"{volume.url}: labels of another image, not grey values")
    if volume.dtype.kind == "b":
        raise NoVolumeError(f"{volume.url}: a mask (dtype {volume.dtype}), not grey values")
    if 1 in volume.shape:
        raise NoVolumeError(f"{volume.url}: a single plane (shape {volume.shape}), not a volume")


def _is_listed_label(url: str) -> bool:
    """Whether the group around `url` lists it as labels of an image (OME-NGFF, section "labels").

    Some writers omit `image-label` in the labels themselves.
    """
    around, _, name = url.rpartition("/")
    if around.rpartition("/")[2] != "labels":
        return False
    for marker in ("zarr.json", ".zattrs"):
        found, _ = read_document(store.join(around, marker))
        attributes = (found or {}).get("attributes", {}) if marker == "zarr.json" else found
        if not isinstance(attributes, dict):
            continue
        inner = attributes.get("ome")
        labels = (inner if isinstance(inner, dict) else attributes).get("labels")
        if isinstance(labels, list) and name in labels:
            return True
    return False
