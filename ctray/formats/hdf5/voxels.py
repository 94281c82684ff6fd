"""Voxels of one HDF5 dataset, in its own file or in raw files beside it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import h5py
import numpy as np

from ctray.core.errors import InvalidVolumeError
from ctray.formats.file_access import damage_as_error, damaged
from ctray.formats.hdf5.chunks import (
    Pipeline,
    check_claim,
    check_filters,
    chunk_grid,
    pipeline_of,
    unpack,
)
from ctray.formats.hdf5.files import Hdf5Files, require_regular
from ctray.formats.hdf5.links import Place
from ctray.storage import store
from ctray.volumes.unpacking import MAX_CHUNK_BYTES, MAX_SIDE, MAX_VOXELS

# Bytes that are read at once from voxels in one piece.
_PIECE_BYTES = 32 << 20

Range = tuple[slice, ...]


class Voxels(ABC):
    """Voxels with the axes as stored.

    Attributes
    ----------
    shape, dtype
        As stored.
    chunk
        Voxels that are stored together along each axis; 1 without chunks.
    bytes_stored
        Bytes in storage, compressed.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunk: tuple[int, ...]
    bytes_stored: int

    @abstractmethod
    def read_into(self, out: np.ndarray, box: Range) -> None:
        """Read a box (one slice with start and stop along each axis) into `out`, of its shape."""


class Stored(Voxels):
    """A dataset whose voxels lie in its own file.

    Raises
    ------
    InvalidVolumeError
        If a filter is not installed, if some voxels were never written, or if sizes are absurd.
    """

    def __init__(self, files: Hdf5Files, place: Place) -> None:
        self._files, self._place = files, place
        self._where = f"{place.url}:{place.path}"
        data = self._data()
        self.shape, self.dtype = tuple(data.shape), data.dtype
        check_extent(self._where, self.shape)
        self.bytes_stored = int(data.id.get_storage_size())
        self._pipeline: Pipeline | None = None
        self.chunk = (1,) * len(self.shape)
        if data.chunks is not None:
            self.chunk = tuple(data.chunks)
            self._pipeline = pipeline_of(data)
            check_filters(self._where, self._pipeline)
            if self._pipeline.num_bytes > MAX_CHUNK_BYTES:
                raise InvalidVolumeError(
                    f"{self._where}: a chunk of shape {self.chunk} takes "
                    f"{self._pipeline.num_bytes / 2**30:,.1f} GiB in memory, more than "
                    f"{MAX_CHUNK_BYTES / 2**30:g} GiB; repack it with h5repack"
                )
        _check_written(self._where, data)

    def _data(self) -> h5py.Dataset:
        return self._files.item(self._place.url, self._place.path)

    def read_into(self, out: np.ndarray, box: Range) -> None:
        """Read a box; see `Voxels.read_into`."""
        with damage_as_error(self._place.url, "HDF5"):
            data = self._data()
            if self._pipeline is not None and self._pipeline.filters:
                self._read_packed(data, self._pipeline, out, box)
                return
            for inner, outer in _pieces(self.shape, self.dtype.itemsize, box):
                out[inner] = data[outer]

    def _read_packed(
        self, data: h5py.Dataset, pipeline: Pipeline, out: np.ndarray, box: Range
    ) -> None:
        for corner in _corners(box, self.chunk):
            extent = [
                slice(a, min(a + c, n))
                for a, c, n in zip(corner, self.chunk, self.shape, strict=True)
            ]
            wanted = tuple(
                slice(max(e.start, b.start), min(e.stop, b.stop))
                for e, b in zip(extent, box, strict=True)
            )
            target = tuple(_shifted(w, b.start) for w, b in zip(wanted, box, strict=True))
            mask, packed = data.id.read_direct_chunk(corner)
            try:
                if pipeline.is_ours:
                    within = tuple(_shifted(w, a) for w, a in zip(wanted, corner, strict=True))
                    out[target] = unpack(packed, mask, pipeline)[within]
                    continue
                check_claim(packed, mask, pipeline)
            except Exception as error:
                raise damaged(self._where, "HDF5", f"chunk at {corner}: {error}") from error
            out[target] = data[wanted]


class Raw(Voxels):
    """A dataset whose voxels lie in raw files beside the HDF5 file ("external storage").

    HDF5 itself would open any file that is named, and read zeros where a file is too short.
    """

    def __init__(self, files: Hdf5Files, place: Place) -> None:
        where = f"{place.url}:{place.path}"
        data = files.item(place.url, place.path)
        self.shape, self.dtype = tuple(data.shape), data.dtype
        check_extent(where, self.shape)
        self.chunk = (1,) * len(self.shape)
        self.bytes_stored = math.prod(self.shape) * self.dtype.itemsize
        if data.id.get_type() != h5py.h5t.py_create(self.dtype):
            raise InvalidVolumeError(
                f"{where}: ctray does not read its type from raw files; export it again"
            )
        # (first byte of the dataset, one behind the last, URL, byte of the file)
        self._parts: list[tuple[int, int, str, int]] = []
        at = 0
        for name, offset, length in data.external or ():
            if at >= self.bytes_stored:
                break
            url = files.locate(place.url, name, f"raw data of {place.path}")
            wanted = min(length, self.bytes_stored - at)
            size = _num_bytes(url)
            if size < offset + wanted:
                raise InvalidVolumeError(
                    f"{files.url}: raw data of {place.path}: {url} has {size} bytes instead of "
                    f"{offset + wanted}; copy it again"
                )
            self._parts.append((at, at + wanted, url, offset))
            at += wanted
        if at < self.bytes_stored:
            raise InvalidVolumeError(
                f"{where}: its raw files hold {at} of {self.bytes_stored} bytes; export it again"
            )

    def read_into(self, out: np.ndarray, box: Range) -> None:
        """Read a box; see `Voxels.read_into`."""
        # Rows are counted along the first axis with several.
        skip = next((i for i, n in enumerate(self.shape) if n > 1), 0)
        shape, box, out = self.shape[skip:], box[skip:], out[(0,) * skip]
        row = math.prod(shape[1:]) * self.dtype.itemsize
        for inner, outer in _pieces(shape, self.dtype.itemsize, box):
            data = self._bytes(outer[0].start * row, outer[0].stop * row)
            whole = np.frombuffer(data, self.dtype).reshape(-1, *shape[1:])
            out[inner] = whole[(slice(None), *outer[1:])]

    def _bytes(self, start: int, stop: int) -> bytes:
        found = bytearray()
        for first, last, url, offset in self._parts:
            a, b = max(first, start), min(last, stop)
            if a < b:
                with damage_as_error(url, "raw data"), store.open_binary(url) as file:
                    file.seek(offset + a - first)
                    part = file.read(b - a)
                if len(part) != b - a:
                    raise damaged(url, "raw data", "truncated")
                found += part
        return bytes(found)


def check_extent(where: str, shape: Sequence[int]) -> None:
    """Refuse shapes that no scan has, before anything is allocated."""
    if max(shape, default=0) > MAX_SIDE or math.prod(shape) > MAX_VOXELS:
        raise InvalidVolumeError(
            f"{where}: shape {tuple(shape)} is too large; ctray reads up to {MAX_SIDE:,} voxels "
            f"per side and {MAX_VOXELS:,} in total, export it again"
        )


def _check_written(where: str, data: h5py.Dataset) -> None:
    """Refuse a dataset with voxels that were never written: HDF5 reads fill values for them."""
    if data.size == 0:
        return
    if data.chunks is None:
        # Compact voxels, in the object header, have no offset and are always written.
        layout = data.id.get_create_plist().get_layout()
        if layout == h5py.h5d.CONTIGUOUS and data.id.get_offset() is None:
            raise InvalidVolumeError(
                f"{where}: its voxels were never written; write the file again"
            )
        return
    grid = chunk_grid(data.shape, data.chunks)
    total, written = math.prod(grid), data.id.get_num_chunks()
    if written >= total:
        return
    there = np.zeros(grid[0], bool)

    def note(chunk: Any) -> None:
        at = chunk.chunk_offset[0] // data.chunks[0]
        if at < grid[0]:
            there[at] = True

    data.id.chunk_iter(note)
    depth = data.chunks[0]
    empty = [(i * depth, min((i + 1) * depth, data.shape[0])) for i in np.flatnonzero(~there)]
    shown = f" (all of {_spans(empty)} along its first axis)" if empty else ""
    raise InvalidVolumeError(
        f"{where}: {total - written} of {total} chunks were never written{shown}; the program "
        "that wrote it did not finish, write it again"
    )


def _spans(ranges: list[tuple[int, int]]) -> str:
    """First five ranges [start, stop) as text; adjacent ranges are joined."""
    joined: list[list[int]] = []
    for start, stop in ranges:
        if joined and joined[-1][1] == start:
            joined[-1][1] = stop
        else:
            joined.append([start, stop])
    shown = ", ".join(f"{a} to {b - 1}" for a, b in joined[:5])
    return shown + (", ..." if len(joined) > 5 else "")


def _num_bytes(url: str) -> int:
    if store.is_local(url):
        require_regular(url)
    with store.open_binary(url) as file:
        return file.seek(0, 2)


def _shifted(s: slice, by: int) -> slice:
    return slice(s.start - by, s.stop - by)


def _corners(box: Range, chunk: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """First voxel of each chunk that a box touches."""
    return product(*(range(b.start // c * c, b.stop, c) for b, c in zip(box, chunk, strict=True)))


def _pieces(shape: Sequence[int], itemsize: int, box: Range) -> Iterator[tuple[Range, Range]]:
    """Divide `box` into thin boxes along the first axis, each as (place in the output, box).

    Their depth follows from whole rows of the file, because a box that is narrow along the last
    axis still reads whole rows.
    """
    row = max(1, math.prod(shape[1:]) * itemsize)
    depth = max(1, _PIECE_BYTES // row)
    first = box[0]
    for start in range(first.start, first.stop, depth):
        stop = min(start + depth, first.stop)
        inner = (slice(start - first.start, stop - first.start), *(slice(None) for _ in box[1:]))
        yield inner, (slice(start, stop), *box[1:])
