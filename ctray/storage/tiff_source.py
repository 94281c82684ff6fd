"""Volumes in multi-page TIFF files."""

from __future__ import annotations

import contextlib
import math
import threading

import numpy as np
import tifffile

from ctray.errors import InvalidVolumeError
from ctray.geometry import Triple
from ctray.storage import store
from ctray.storage.source_types import (
    Kind,
    VolumeSource,
    check_dtype,
    check_shape,
    damaged,
    file_size,
    open_binary,
)
from ctray.storage.tiff_pages import (
    colour_error,
    has_dense_pages,
    own_voxel_size,
    page_end,
    refuse_colour,
    tiff_damage,
    tiff_file,
    with_sidecar,
)

# Fewer images than this on a channel axis are colours, not slices.
_MAX_CHANNELS = 4


class TiffSource(VolumeSource):
    """A multi-page TIFF or BigTIFF, with ImageJ, OME or no metadata at all.

    Of several series the largest 3D one is the volume. Opening walks the page directory once
    (0.15 s for 6,000 pages on a local disk; on object storage two small requests a page where the
    pages are large, unless the voxels lie in one piece).

    Raises
    ------
    InvalidVolumeError
        If the file is damaged, or holds colours, one 2D image, 4D data or no grey values.
    """

    kind: Kind = "tiff"

    def __init__(self, url: str) -> None:
        self.url = url
        self._lock = threading.Lock()
        self._stack = contextlib.ExitStack()
        try:
            dense = not store.is_local(url) and has_dense_pages(url)
            file = self._stack.enter_context(open_binary(url, dense=dense))
            with tiff_damage(url):
                self._size = file_size(url, file)
                self._tif = self._stack.enter_context(tiff_file(file, url))
                self._series = _largest_volume(url, self._tif)
                self._describe()
        except BaseException:
            self._stack.close()
            raise

    def _describe(self) -> None:
        series = self._series
        self.shape = _volume_shape(self.url, series)
        self.dtype = check_dtype(self.url, series.dtype)
        page = self._tif.pages.first
        self._contiguous = series.dataoffset
        if self._contiguous is None:
            self._check_pages()
        else:
            num_bytes = math.prod(self.shape) * series.dtype.itemsize
            self._check_inside(self._contiguous + num_bytes)
        self.bytes_stored = self._size
        own = own_voxel_size(self._tif, series, page)
        self._take_voxel_size(with_sidecar(own, self.url, is_folder=False))

    def _check_pages(self) -> None:
        """Raise unless there are as many pages as declared, the last one inside the file."""
        pages = self._series.pages
        expected = math.prod(self.shape) // math.prod(self._series.keyframe.shape)
        if len(pages) != expected:
            raise damaged(self.url, "TIFF", f"{len(pages)} pages where {expected} are declared")
        first, last = pages[0], pages[-1]
        if first is None or last is None:
            raise damaged(self.url, "TIFF", "pages are missing")
        self._check_inside(page_end(last))

    def _check_inside(self, end: int) -> None:
        if end > self._size:
            raise damaged(
                self.url, "TIFF", f"truncated: {self._size} bytes where {end} are declared"
            )

    def _read(self, start: int, stop: int) -> np.ndarray:
        with self._lock, tiff_damage(self.url):
            if self._contiguous is not None:
                return self._read_contiguous(self._contiguous, start, stop)
            if self._series.keyframe.ndim > 2:
                # One page holds the whole volume (SGI volumetric); there is no smaller unit.
                volume: np.ndarray = self._series.asarray().reshape(self.shape)
                self.bytes_read += sum(self._series.keyframe.databytecounts)
                return volume[start:stop]
            pages = self._series.pages[start:stop]
            for page in pages:
                if page is None:
                    raise damaged(self.url, "TIFF", f"pages between {start} and {stop} are missing")
                self._check_inside(page_end(page))
                self.bytes_read += sum(page.databytecounts)
            slab: np.ndarray = self._tif.asarray(key=slice(start, stop), series=self._series)
            return slab.reshape(stop - start, *self.shape[1:])

    def _read_contiguous(self, offset: int, start: int, stop: int) -> np.ndarray:
        plane = self.shape[1] * self.shape[2]
        dtype = self._series.dtype.newbyteorder(self._tif.byteorder)
        handle = self._tif.filehandle
        handle.seek(offset + start * plane * dtype.itemsize)
        data = handle.read((stop - start) * plane * dtype.itemsize)
        self.bytes_read += len(data)
        return np.frombuffer(data, dtype).reshape(stop - start, *self.shape[1:])

    def close(self) -> None:
        """Close the file."""
        self._stack.close()


def _largest_volume(url: str, tif: tifffile.TiffFile) -> tifffile.TiffPageSeries:
    """Return the largest series that is a 3D volume, or the error of the largest one."""
    if not tif.series:
        raise damaged(url, "TIFF", "no image in it")
    ranked = sorted(tif.series, key=lambda series: -series.size)
    errors: list[InvalidVolumeError] = []
    for series in ranked:
        try:
            _volume_shape(url, series)
            return series
        except InvalidVolumeError as error:
            errors.append(error)
    raise errors[0]


def _volume_shape(url: str, series: tifffile.TiffPageSeries) -> Triple:
    refuse_colour(url, series.keyframe, alone=len(series.pages) == 1)
    axes, shape = str(series.axes), tuple(int(n) for n in series.shape)
    kept = [(a, n) for a, n in zip(axes, shape, strict=True) if a in "YX" or n != 1]
    axes, shape = "".join(a for a, _ in kept), tuple(n for _, n in kept)
    if "S" in axes:
        raise colour_error(url, f"{shape[axes.index('S')]} samples a pixel")
    if axes.startswith("C") and len(axes) == 3 and shape[0] <= _MAX_CHANNELS:
        raise colour_error(url, f"{shape[0]} channels of one image")
    return check_shape(url, shape, axes=axes)
