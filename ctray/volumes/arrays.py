"""Opening one Zarr array: its metadata are checked before a library sees them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import zarr

from ctray.core.errors import CtrayError, GeometryError, InvalidVolumeError, NotFoundError
from ctray.core.geometry import AXES, Triple, as_triple
from ctray.storage import store
from ctray.volumes.axes import axis_role, spatial_axes
from ctray.volumes.codec_rules import check_codecs
from ctray.volumes.metadata import Layout
from ctray.volumes.transfer import Transfer
from ctray.volumes.unpacking import allowed, check_shard, check_sizes
from ctray.volumes.voxel_metadata import shown
from ctray.volumes.zarr_internals import (
    CountingStore,
    Metadata,
    array_of,
    bounded_metadata,
    chunks_per_shard,
    native_dtype,
    object_shape,
    parse_metadata,
)
from ctray.volumes.zarr_json import read_document


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenedArray:
    """An array with three axes in space, in any order, and perhaps others of length 1.

    Parameters
    ----------
    array
        Opened for reading, with bounded codecs.
    axes
        Positions of z, y and x among its axes.
    """

    array: zarr.Array[Any]
    axes: Triple

    @property
    def shape(self) -> Triple:
        """Voxels, (z, y, x)."""
        return self.in_space(self.array.shape)

    @property
    def chunk(self) -> Triple:
        """Unit of compression, voxels (z, y, x)."""
        return self.in_space(self.array.chunks)

    @property
    def shard(self) -> Triple:
        """Unit of storage, voxels (z, y, x)."""
        return self.in_space(self.array.shards or self.array.chunks)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the voxels in native byte order."""
        return np.dtype(self.array.dtype).newbyteorder("=")

    def in_space(self, values: Sequence[int]) -> Triple:
        """Pick the values of z, y and x from one value per axis of the array."""
        return as_triple([values[axis] for axis in self.axes], "shape")

    def read(self, slices: Sequence[slice]) -> np.ndarray:
        """Voxels of a region, (z, y, x).

        On damage, zarr and its codecs raise errors of any type; see `damage_named`.
        """
        index: list[Any] = [0] * self.array.ndim
        for axis, part in zip(self.axes, slices, strict=True):
            index[axis] = part
        voxels = np.asarray(self.array[tuple(index)])
        stored = sorted(self.axes)
        return voxels.transpose([stored.index(axis) for axis in self.axes])


def open_array(
    url: str, layout: Layout, transfer: Transfer, document: dict[str, Any] | None
) -> OpenedArray:
    """Open the array at `url`.

    Parameters
    ----------
    url
        The array.
    layout
        Description from its group.
    transfer
        Counter of the fetched bytes.
    document
        Its metadata if they have been read.

    Raises
    ------
    NotFoundError
        If no array is there.
    NoVolumeError, InvalidVolumeError
        If it is no volume, or ctray does not read it: see `spatial_axes`, `check_codecs` and
        `check_sizes`.
    """
    if document is None:
        document = _read(url, layout.zarr_format, transfer)
    with damage_named(url):
        shape = _lengths(url, document, "shape")
        axes = spatial_axes(url, shape, _names(url, document, layout), coloured=layout.is_coloured)
        check_codecs(url, document, layout.zarr_format)
        array = _built(url, document, layout.zarr_format, transfer)
        if np.dtype(array.dtype).kind not in "biuf":
            raise InvalidVolumeError(
                f"{url}: dtype {array.dtype} is no grey value; ctray reads integers and floats"
            )
        opened = OpenedArray(array=array, axes=axes)
        if array.ndim != len(shape) or 0 in array.chunks:
            raise InvalidVolumeError(f"{url}: chunks {array.chunks} do not fit shape {shape}")
        itemsize = opened.dtype.itemsize
        check_sizes(url, opened.shape, opened.chunk, opened.shard, itemsize)
        check_shard(url, chunks_per_shard(array.metadata))
    return opened


@contextlib.contextmanager
def damage_named(url: str) -> Iterator[None]:
    """Turn any error that a library raises on damaged data into an `InvalidVolumeError` of `url`.

    Errors of the store and of the file system keep their meaning.
    """
    with store.mapped_errors(url, "read"):
        try:
            yield
        except (OSError, MemoryError, ImportError):
            raise
        except Exception as error:
            # Errors of geometry are the only ones of ctray that do not name the array.
            own = isinstance(error, CtrayError) and not isinstance(error, GeometryError)
            if own or type(error).__module__.split(".")[0] in ("botocore", "obstore", "aiohttp"):
                raise
            # Libraries raise anything from TypeError to RecursionError.
            text = " ".join(str(error).split())[:300] or type(error).__name__
            raise InvalidVolumeError(
                f"{url}: damaged or no format that ctray reads ({text})"
            ) from error


def _read(url: str, zarr_format: Literal[2, 3], transfer: Transfer) -> dict[str, Any]:
    """Metadata of an array inside a group."""
    name = "zarr.json" if zarr_format == 3 else ".zarray"
    document, size = read_document(store.join(url, name))
    transfer.add(size)
    if document is None:
        raise NotFoundError(f"{url}: no array is there; check the URL")
    return document if zarr_format == 3 else {**document, "attributes": {}}


def _built(
    url: str, document: dict[str, Any], zarr_format: Literal[2, 3], transfer: Transfer
) -> zarr.Array[Any]:
    if document.get("zarr_format") != zarr_format:
        raise InvalidVolumeError(
            f"{url}: zarr_format is {document.get('zarr_format')!r:.40}, not {zarr_format}"
        )
    # zarr needs no attributes, and warns of an empty list of filters.
    told = {**document, "attributes": {}}
    if zarr_format == 2:
        told["filters"] = document.get("filters") or None
    source = store.zarr_store(url, read_only=True)
    metadata = bounded_metadata(parse_metadata(told, source))
    return array_of(metadata, CountingStore(source, transfer.add, _most_stored(metadata)))


def _most_stored(metadata: Metadata) -> int:
    """Most bytes that a stored object of an array can have: far more than any does."""
    num_bytes = math.prod(object_shape(metadata)) * native_dtype(metadata).itemsize
    # Filters widen a voxel to 8 bytes at most. A chunk in a shard has 16 bytes of index, and its
    # compressor a header.
    return allowed(8 * num_bytes) + 128 * chunks_per_shard(metadata)


def _lengths(url: str, document: dict[str, Any], key: str) -> tuple[int, ...]:
    found = document.get(key)
    is_sound = isinstance(found, list) and all(
        isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in found
    )
    if not is_sound:
        raise InvalidVolumeError(f"{url}: damaged metadata, {key} is no list of whole numbers")
    return tuple(found or ())


def _names(url: str, document: dict[str, Any], layout: Layout) -> Sequence[str | None] | None:
    """Names of the axes: of OME-Zarr, of Zarr v3, or as xarray notes them in attributes."""
    names = document.get("dimension_names")
    attributes = document.get("attributes")
    if names is None and isinstance(attributes, dict):
        names = attributes.get("_ARRAY_DIMENSIONS")
    own = [n if isinstance(n, str) else None for n in names] if isinstance(names, list) else None
    if layout.axes is None or own is None:
        return layout.axes or own
    roles, own_roles = ([axis_role(name) for name in given] for given in (layout.axes, own))
    if set(AXES) <= set(own_roles) and own_roles != roles:
        raise InvalidVolumeError(
            f"{url}: its image says that its axes are {shown(', '.join(layout.axes))}, and "
            f"its own metadata {shown(', '.join(str(n) for n in own))}; mend one of them"
        )
    return layout.axes
