"""Zarr arrays and OME-Zarr images as sources of slabs, and what of them is no volume."""

from __future__ import annotations

import itertools
import math

import numpy as np

from ctray.core.errors import CtrayError, NoVolumeError
from ctray.core.geometry import Box, VoxelSize
from ctray.formats.source import Kind, VolumeSource, check_dtype, check_shape
from ctray.storage import store
from ctray.volumes import voxel_metadata
from ctray.volumes.volume import Volume, open_volume
from ctray.volumes.zarr_json import read_document

# Objects of level 0 that are counted: a listing of a store takes one request in a thousand.
_MOST_COUNTED = 10_000
_MOST_COUNTED_REMOTE = 2_000


class ZarrSource(VolumeSource):
    """Level 0 of an OME-Zarr group, or a bare Zarr array, through `open_volume`.

    Raises
    ------
    NoVolumeError
        If the voxels are labels or a mask, or a single plane.
    InvalidVolumeError
        As `open_volume`.
    """

    def __init__(self, url: str, dataset: str | None = None) -> None:
        self.url = url
        self.dataset = dataset
        volume = open_volume(store.join(url, dataset) if dataset else url)
        self._volume = volume
        _refuse_annotation(volume)
        self.kind: Kind = "ome-zarr" if volume.ome_version else "zarr"
        self.shape = check_shape(url, volume.shape)
        self.dtype = check_dtype(url, volume.dtype)
        level = volume.levels[0]
        self.slab_depth = level.shard[0]
        if volume.voxel_size is not None:
            self.voxel_size, self.voxel_size_source = volume.voxel_size, "OME-Zarr scale"
        else:
            self._take_voxel_size(voxel_metadata.from_sidecar(url, is_folder=True))
        self.plain_scale = None if self.voxel_size is not None else volume.plain_scale
        self.origin_um = self.origin_with(self.voxel_size)
        self.notes = (*volume.notes, *self._notes())

    def origin_with(self, voxel_size: VoxelSize | None) -> tuple[float, float, float]:
        """Centre of the first voxel in micrometres, in voxels where `voxel_size` is None."""
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
                f"{stored} of {total} chunks of level 0 are stored; the others read as the fill "
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
    """How many of the objects of level 0 are in the store, and how many there are with all.

    Chunks of the fill value alone need not be stored, and an interrupted copy lacks chunks too.
    None where there are so many that counting them is slow, where the store does not list, and
    for volumes that ctray wrote, whose last object says that they are complete.
    """
    level = volume.levels[0]
    total = math.prod(-(-n // s) for n, s in zip(level.shape, level.shard, strict=True))
    most = _MOST_COUNTED if store.is_local(volume.url) else _MOST_COUNTED_REMOTE
    if volume.attributes or total > most:
        return None
    where = store.join(volume.url, level.path)
    try:
        # What else is in the folder is not worth a long listing.
        listed = list(itertools.islice(store.list_tree(where), 2 * most))
    except (NotImplementedError, CtrayError):
        return None
    if len(listed) == 2 * most:
        return None
    expected = volume.object_keys(0)
    return sum(1 for key, _ in listed if key in expected), total


def _refuse_annotation(volume: Volume) -> None:
    if volume.is_label or _is_listed_label(volume.url):
        raise NoVolumeError(f"{volume.url}: labels of another image, no grey values")
    if volume.dtype.kind == "b":
        raise NoVolumeError(f"{volume.url}: dtype {volume.dtype} is a mask, no grey values")
    if 1 in volume.shape:
        raise NoVolumeError(f"{volume.url}: shape {volume.shape} is a single plane, no volume")


def _is_listed_label(url: str) -> bool:
    """Whether the group around `url` lists it as labels of an image (OME-NGFF, section "labels").

    Writers may leave `image-label` out of the labels themselves.
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
