"""One way to open what holds a volume: TIFF, TIFF folder, HDF5, Zarr."""

from __future__ import annotations

import numpy as np

from ctray.errors import InvalidVolumeError, NotFoundError
from ctray.geometry import Box
from ctray.storage import store, voxel_metadata
from ctray.storage.hdf5_source import Hdf5Source, is_hdf5_name
from ctray.storage.source_types import (
    Kind,
    NoVolumeError,
    VolumeSource,
    check_dtype,
    check_shape,
    open_binary,
)
from ctray.storage.tiff_folder import TiffFolderSource
from ctray.storage.tiff_pages import is_tiff_name
from ctray.storage.tiff_source import TiffSource
from ctray.storage.volume import open_volume

# Names that a Zarr array or group of format 2 or 3 always or often has at its root.
ZARR_MARKERS = frozenset({"zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata"})
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


class ZarrSource(VolumeSource):
    """Level 0 of an OME-Zarr group, or a bare Zarr array, through `open_volume`."""

    def __init__(self, url: str, dataset: str | None = None) -> None:
        self.url = url
        self.dataset = dataset
        self._volume = open_volume(store.join(url, dataset) if dataset else url)
        self.kind: Kind = "ome-zarr" if self._volume.ome_version else "zarr"
        self.shape = check_shape(url, self._volume.shape)
        self.dtype = check_dtype(url, self._volume.dtype)
        level = self._volume.levels[0]
        self.slab_depth = level.shard[0]
        self.origin_um = self._volume.origin_um
        if self._volume.voxel_size is not None:
            self.voxel_size, self.voxel_size_source = self._volume.voxel_size, "OME-Zarr scale"
        else:
            self._take_voxel_size(voxel_metadata.from_sidecar(url, is_folder=True))

    def read_box(self, box: Box) -> np.ndarray:
        """Voxels of a box at level 0, in `dtype`."""
        voxels: np.ndarray = self._volume.read(box)
        self.bytes_read = self._volume.bytes_read
        return voxels

    def _read(self, start: int, stop: int) -> np.ndarray:
        return self.read_box(Box(start=(start, 0, 0), stop=(stop, self.shape[1], self.shape[2])))

    def close(self) -> None:
        """Nothing to close."""


def open_source(url: str, *, dataset: str | None = None) -> VolumeSource:
    """Open the volume at `url` for reading slabs; use it in a `with` statement.

    Parameters
    ----------
    url
        A multi-page TIFF, a folder of single-page TIFFs, an HDF5 or NeXus file, or a Zarr
        array or group; local or any URL that fsspec knows.
    dataset
        Path inside an HDF5 file or a Zarr group.

    Raises
    ------
    InvalidVolumeError
        If there is no usable volume: unreadable, wrong dimensions, colour, no grey values.
    NotFoundError, AccessError, StorageError
        If the store does not give it.
    """
    url = store.normalize(url)
    return open_as(url, detect_kind(url), dataset=dataset)


def open_as(url: str, kind: Kind, *, dataset: str | None = None) -> VolumeSource:
    """Open the volume at `url` (normalized) as `kind`; see `open_source`."""
    if kind == "hdf5":
        return Hdf5Source(url, dataset)
    if kind in ("zarr", "ome-zarr"):
        return ZarrSource(url, dataset)
    if dataset is not None:
        raise InvalidVolumeError(
            f"{url}: a TIFF has no dataset {dataset!r} inside; leave --dataset out"
        )
    return TiffSource(url) if kind == "tiff" else TiffFolderSource(url)


def detect_kind(url: str) -> Kind:
    """Which source `url` is ("zarr" for OME-Zarr too), by name, listing, or first bytes.

    Raises
    ------
    NotFoundError
        If nothing is there.
    InvalidVolumeError
        If it is a file of another kind.
    """
    name = url.rpartition("/")[2]
    if "*" in name:
        return "tiff-folder"
    try:
        names = {entry.name for entry in store.list_dir(url)}
    except NotFoundError as error:
        # A file, unless it is nothing at all; then this error knows why (no such bucket, say).
        if not store.exists(url):
            raise error
    else:
        is_zarr = bool(names & ZARR_MARKERS) or name.lower().endswith((".zarr", ".ome.zarr"))
        return "zarr" if is_zarr else "tiff-folder"
    if is_tiff_name(name):
        return "tiff"
    if is_hdf5_name(name):
        return "hdf5"
    with open_binary(url) as file:
        head = file.read(8)
    if head == _HDF5_MAGIC:
        return "hdf5"
    if head[:4] in _TIFF_MAGIC:
        return "tiff"
    raise InvalidVolumeError(f"{url}: neither TIFF, HDF5 nor Zarr; convert it to one of them")


__all__ = [
    "ZARR_MARKERS",
    "Kind",
    "NoVolumeError",
    "VolumeSource",
    "ZarrSource",
    "detect_kind",
    "open_as",
    "open_source",
]
