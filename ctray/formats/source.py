"""What every source of voxels has in common, and the checks that all of them share."""

from __future__ import annotations

import contextlib
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import IO, Any, Literal, Self

import numpy as np

from ctray.core.errors import CtrayError, InvalidVolumeError, NoVolumeError
from ctray.core.geometry import AXES, Triple, VoxelSize, as_triple
from ctray.storage import store
from ctray.volumes.voxel_metadata import FoundVoxelSize, PlainScale

Kind = Literal[
    "ome-zarr",
    "zarr",
    "tiff",
    "tiff-folder",
    "hdf5",
    "raw",
    "image-folder",
    "edf",
    "dicom",
]


class VolumeSource(ABC):
    """A 3D array that can be read in slabs along z.

    Attributes
    ----------
    url, kind, dataset
        Where it is, what it is, and the path inside (HDF5 and Zarr groups only).
    shape
        Voxels, (z, y, x).
    dtype
        What `read` returns: native byte order, an integer or float32/float64.
    voxel_size, voxel_size_source
        Edge lengths, and which metadata said so; both None where nothing does.
    plain_scale
        Edge lengths where metadata give numbers without a unit of length; None else.
    slab_depth
        Slices that are stored together: reads aligned to it decompress nothing twice.
    bytes_stored
        Bytes that the voxels take in storage, compressed, as far as metadata tell.
    bytes_read
        Stored bytes of everything read so far.
    notes
        Oddities that are no error, such as gaps in the numbering of a TIFF folder.
    parts
        URLs of other files that hold voxels of this volume.
    voxels_ids, part_ids
        Which stored voxels the file holds, and takes from others; see `ctray.formats.parts`.
    """

    url: str
    kind: Kind
    dataset: str | None = None
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

    @property
    def num_bytes(self) -> int:
        """Bytes of all voxels, uncompressed."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def files(self) -> tuple[str, ...]:
        """URLs of the files that the voxels are in; of Zarr volumes their folder."""
        return (self.url, *self.parts)

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
                f"{self.url}: slices [{start}, {stop}) came as {slab.shape}, not {expected}; "
                "the file is damaged or its metadata are wrong"
            )
        return np.ascontiguousarray(slab, dtype=self.dtype)

    def origin_with(self, voxel_size: VoxelSize | None) -> tuple[float, float, float]:
        """Centre of the first voxel in micrometres, (z, y, x); in voxels without a voxel size."""
        return (0.0, 0.0, 0.0)

    @abstractmethod
    def _read(self, start: int, stop: int) -> np.ndarray:
        """Slices [start, stop), any byte order."""

    @abstractmethod
    def close(self) -> None:
        """Close files."""

    def _take_voxel_size(self, found: FoundVoxelSize | None) -> None:
        if found is not None:
            self.voxel_size, self.voxel_size_source = found.size, found.source

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def check_shape(url: str, shape: Sequence[int], *, axes: str | None = None) -> Triple:
    """Shape (z, y, x) without singleton axes in front; `InvalidVolumeError` unless that is 3D.

    Singleton axes are dropped from the left, as far as three axes remain.
    """
    given = tuple(int(n) for n in shape)
    text = " x ".join(map(str, given)) + (f" ({axes})" if axes else "")
    if 0 in given:
        names = axes or "".join(AXES)[-len(given) :]
        at = given.index(0)
        axis = names[at] if at < len(names) else str(at)
        raise InvalidVolumeError(
            f"{url}: axis {axis} of shape {text} has length 0; it holds no voxels, export it again"
        )
    kept = list(given)
    while len(kept) > 3 and 1 in kept:
        kept.remove(1)
    if len(kept) > 3:
        raise InvalidVolumeError(
            f"{url}: {len(kept)}D array of shape {text}; ctray takes 3D volumes (z, y, x), "
            "export each time point or channel as its own volume"
        )
    if len(kept) < 3:
        raise NoVolumeError(
            f"{url}: {len(kept)}D array of shape {text}; ctray takes 3D volumes (z, y, x), "
            "for a stack of images give their folder"
        )
    return as_triple(kept, "shape")


def check_dtype(url: str, dtype: np.dtype[Any] | None) -> np.dtype[Any]:
    """Dtype in which voxels are handed on: native, float16 widened; else `InvalidVolumeError`."""
    if dtype is None:
        raise InvalidVolumeError(f"{url}: sample format is unknown; export as integers or floats")
    if dtype.kind == "b":
        raise InvalidVolumeError(
            f"{url}: dtype {dtype} (one bit a voxel) is a mask, not grey values; "
            "give the grey-value volume, or convert to uint8"
        )
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise InvalidVolumeError(
            f"{url}: dtype {dtype} holds no grey values; convert to an integer or float type"
        )
    # Zarr stores float16, but hardly any viewer opens it.
    return np.dtype(np.float32) if dtype == np.float16 else dtype.newbyteorder("=")


@contextlib.contextmanager
def open_binary(url: str, *, dense: bool = False) -> Iterator[IO[bytes]]:
    """Open a local file or a URL for reading at any position, in bounded memory.

    `dense` says that small reads will lie close together; it matters to remote files alone.
    """
    with store.open_binary(url, dense=dense) as file:
        yield file


@contextlib.contextmanager
def damage_as_error(url: str, what: str) -> Iterator[None]:
    """Turn whatever a file library raises on damaged data into `InvalidVolumeError`.

    Missing files, refused access, time-outs and a full disk keep their own errors.
    """
    with store.mapped_errors(url, doing="read"):
        try:
            yield
        except CtrayError:
            raise
        except Exception as error:
            if _is_from_system(error):
                raise
            # Decoders raise anything from struct.error to RuntimeErrors of their own.
            raise damaged(url, what, error) from error


def _is_from_system(error: Exception) -> bool:
    """Whether the file system or network failed, as opposed to a library's view of the data."""
    if isinstance(error, OSError):
        # File libraries raise a bare OSError for damage; the system's carry an errno or a subclass.
        return type(error) is not OSError or bool(error.errno)
    return type(error).__module__.split(".")[0] in ("botocore", "aiohttp", "obstore", "s3fs")


def damaged(url: str, what: str, detail: object) -> InvalidVolumeError:
    """Error for a file that cannot be read as what it claims to be."""
    text = " ".join(str(detail).split())[:200] or type(detail).__name__
    return InvalidVolumeError(f"{url}: unreadable {what} ({text}); copy or export it again")


def file_size(url: str, file: IO[bytes]) -> int:
    """Bytes of an open file; `InvalidVolumeError` if it is empty."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if size == 0:
        raise InvalidVolumeError(f"{url}: file is empty (0 bytes); copy or export it again")
    return size
