"""The protocol of a format reader: `VolumeSource`, and the checks that all readers share.

A new format needs one subclass of `VolumeSource` and one line in `ctray.formats.registry`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np

from ctray.core.errors import InvalidVolumeError, NoVolumeError
from ctray.core.geometry import AXES, Triple, VoxelSize, as_triple
from ctray.volumes import voxel_metadata
from ctray.volumes.voxel_metadata import FoundVoxelSize, PlainScale


class VolumeSource(ABC):
    """A 3D array that can be read in slabs along z.

    A subclass sets `kind`, fills `shape` and `dtype` in `__init__`, and implements `_read` and
    `close`. The constructor reads metadata only. All other attributes have defaults.

    Attributes
    ----------
    kind
        Name of the reader, as catalogs store it.
    is_folder
        Whether `url` is a folder or prefix, or a pattern in one.
    is_isolated
        Whether the catalog opens the volume in a helper process, because the library that reads
        it can crash or block the whole process.
    url, dataset
        The volume, and the path inside it (HDF5 and Zarr groups only).
    within
        Folder or prefix that links must not leave; None for formats without links.
    shape
        Voxels, (z, y, x).
    dtype
        What `read` returns: native byte order, an integer or float32/float64.
    voxel_size, voxel_size_source
        Edge lengths, and the metadata that state them. Both are None if nothing states them.
    plain_scale
        Edge lengths in metadata that give no unit of length; else None.
    slab_depth
        Slices that are stored together. Reads aligned to it decompress nothing twice.
    bytes_stored
        Bytes of the voxels in storage, compressed, as far as metadata tell.
    bytes_read
        Stored bytes of everything read so far.
    notes
        Oddities that are no error, such as gaps in the numbering of slices.
    parts
        URLs of other files that hold voxels of this volume.
    voxels_ids, part_ids
        Identities of the stored voxels in this file that are the volume, and of the stored
        voxels in other files that it uses. See `ctray.archive.inspection.parts_of_others`.
    """

    kind: str
    is_folder: ClassVar[bool] = False
    is_isolated: ClassVar[bool] = False
    dataset: str | None = None
    within: str | None = None
    shape: Triple
    dtype: np.dtype[Any]
    voxel_size: VoxelSize | None = None
    voxel_size_source: str | None = None
    plain_scale: PlainScale | None = None
    slab_depth: int = 1
    bytes_stored: int | None = None
    bytes_read: int = 0
    notes: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    voxels_ids: tuple[str, ...] = ()
    part_ids: tuple[str, ...] = ()

    def __init__(self, url: str) -> None:
        self.url = url

    @classmethod
    def open(cls, url: str, *, dataset: str | None = None, within: str | None = None) -> Self:
        """Open the volume at `url`; see `ctray.formats.opening.open_source`.

        Readers of files that hold several datasets, or links to other files, override this.
        """
        if dataset is not None:
            raise InvalidVolumeError(
                f"{url}: a volume of kind {cls.kind} has no datasets inside; remove "
                f"--dataset {dataset}"
            )
        return cls(url)

    @property
    def num_bytes(self) -> int:
        """Bytes of all voxels, uncompressed."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def files(self) -> tuple[str, ...]:
        """URLs of the files that hold the voxels; for Zarr volumes the folder."""
        return tuple(dict.fromkeys((self.url, *self.parts)))

    def read(self, start: int, stop: int) -> np.ndarray:
        """Slices [start, stop) along z, shape (stop - start, y, x), in `dtype`.

        Raises
        ------
        InvalidVolumeError
            If the range leaves the volume or the stored data are damaged.
        """
        if not 0 <= start < stop <= self.shape[0]:
            raise InvalidVolumeError(
                f"{self.url}: slices [{start}, {stop}) are not inside z extent {self.shape[0]}"
            )
        slab = self._read(start, stop)
        expected = (stop - start, *self.shape[1:])
        if slab.shape != expected:
            raise InvalidVolumeError(
                f"{self.url}: slices [{start}, {stop}) have shape {slab.shape} instead of "
                f"{expected}; the file is damaged or its metadata are wrong"
            )
        return np.ascontiguousarray(slab, dtype=self.dtype)

    def origin_with(self, voxel_size: VoxelSize | None) -> tuple[float, float, float]:
        """Centre of the first voxel in micrometres, (z, y, x); in voxels without a voxel size."""
        return (0.0, 0.0, 0.0)

    @abstractmethod
    def _read(self, start: int, stop: int) -> np.ndarray:
        """Slices [start, stop), shape (stop - start, y, x), in any byte order."""

    @abstractmethod
    def close(self) -> None:
        """Close all files."""

    def _set_voxel_size(self, own: FoundVoxelSize | None, *, beside: str | None = None) -> None:
        """Take the volume's own voxel size, else the one in a JSON file beside `beside` (`url`).

        The JSON file also replaces a weak size, such as one from TIFF resolution tags.
        """
        found = own
        if own is None or own.weak:
            at = self.url if beside is None else beside
            found = voxel_metadata.from_sidecar(at, is_folder=self.is_folder) or own
        if found is not None:
            self.voxel_size, self.voxel_size_source = found.size, found.source

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def check_shape(url: str, shape: Sequence[int], *, axes: str | None = None) -> Triple:
    """Shape (z, y, x) without singleton axes in front; `InvalidVolumeError` unless that is 3D.

    Singleton axes are dropped from the left, until three axes remain.
    """
    given = tuple(int(n) for n in shape)
    text = " x ".join(map(str, given)) + (f" ({axes})" if axes else "")
    if 0 in given:
        names = axes or "".join(AXES)[-len(given) :]
        at = given.index(0)
        axis = names[at] if at < len(names) else str(at)
        raise InvalidVolumeError(
            f"{url}: axis {axis} of shape {text} has length 0, so there are no voxels; export it "
            "again"
        )
    kept = list(given)
    while len(kept) > 3 and 1 in kept:
        kept.remove(1)
    if len(kept) > 3:
        raise InvalidVolumeError(
            f"{url}: {len(kept)}D array of shape {text}; ctray reads 3D volumes (z, y, x), "
            "export each time point or channel as its own volume"
        )
    if len(kept) < 3:
        raise NoVolumeError(
            f"{url}: {len(kept)}D array of shape {text}; ctray reads 3D volumes (z, y, x), "
            "for a stack of images give their folder"
        )
    return as_triple(kept, "shape")


def check_dtype(url: str, dtype: np.dtype[Any] | None) -> np.dtype[Any]:
    """Dtype that `VolumeSource.read` returns: native byte order, float16 as float32.

    Raises
    ------
    InvalidVolumeError
        If `dtype` holds no grey values.
    """
    if dtype is None:
        raise InvalidVolumeError(f"{url}: unknown sample format; export it as integers or floats")
    if dtype.kind == "b":
        raise InvalidVolumeError(
            f"{url}: dtype {dtype} (one bit per voxel) is a mask and holds no grey values; "
            "give the volume with grey values, or convert to uint8"
        )
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise InvalidVolumeError(
            f"{url}: dtype {dtype} holds no grey values; convert to an integer or float type"
        )
    # Zarr stores float16, but hardly any viewer opens it.
    return np.dtype(np.float32) if dtype == np.float16 else dtype.newbyteorder("=")
