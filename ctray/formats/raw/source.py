"""Volumes in raw files that a header describes: MetaImage, NRRD, ESRF .vol, VGStudio."""

from __future__ import annotations

import contextlib
import math
import threading
import zlib
from collections.abc import Callable
from typing import IO

import numpy as np

from ctray.core.errors import InvalidVolumeError
from ctray.formats.file_access import damage_as_error, damaged
from ctray.formats.raw.headers import info_layout, metaimage_layout, vgi_layout
from ctray.formats.raw.layout import RawLayout
from ctray.formats.raw.nrrd import nrrd_layout
from ctray.formats.source import VolumeSource, check_dtype
from ctray.storage import store

_LAYOUTS: dict[str, Callable[[str], RawLayout]] = {
    ".mhd": metaimage_layout,
    ".mha": metaimage_layout,
    ".nrrd": nrrd_layout,
    ".nhdr": nrrd_layout,
    ".info": info_layout,
    ".vgi": vgi_layout,
}
_STEP_BYTES = 1 << 20
_MAX_SLICE_BYTES = 4 << 30
# Deflate compresses 1,032 to 1 at most.
_MOST_PACKED = 1100
# zlib detects zlib and gzip streams by their first bytes.
_ANY_WRAPPER = 47
_GZIP = b"\x1f\x8b"


class RawSource(VolumeSource):
    """Voxels in a raw file with a header: `.mhd`, `.mha`, `.nrrd`, `.nhdr`, `.info`, `.vgi`.

    `url` is the URL of the header. Compressed voxels (zlib, gzip) are read forward; reading an
    earlier slab restarts at the beginning.

    Raises
    ------
    InvalidVolumeError
        If the header is incomplete, or the file holds fewer or more bytes than the header declares.
    """

    kind = "raw"

    def __init__(self, url: str) -> None:
        super().__init__(url)
        layout = _LAYOUTS["." + url.rpartition(".")[2].lower()](url)
        self._layout = layout
        self.parts = (layout.data_url,)
        self.shape, self.notes = layout.shape, layout.notes
        self.dtype = check_dtype(url, layout.dtype)
        self.bytes_stored = store.file_bytes(layout.data_url)
        self._check_size(self.bytes_stored)
        self._offset = 0 if layout.packed else self._checked_offset(self.bytes_stored)
        self._packed = _PackedVoxels(layout) if layout.packed else None
        self._set_voxel_size(layout.voxel_size)

    def _check_size(self, stored: int) -> None:
        """Refuse slices too large for memory, and streams too short for the declared voxels."""
        slice_bytes = math.prod(self.shape[1:]) * self._layout.dtype.itemsize
        if slice_bytes > _MAX_SLICE_BYTES:
            raise InvalidVolumeError(
                f"{self.url}: slices of {self.shape[1]} x {self.shape[2]} {self._layout.dtype} are "
                f"over {_MAX_SLICE_BYTES} bytes each; correct the header, or convert to Zarr"
            )
        if self._layout.packed and slice_bytes * self.shape[0] > _MOST_PACKED * stored:
            raise damaged(
                self._layout.data_url,
                "compressed voxels",
                f"{stored} bytes cannot hold {slice_bytes * self.shape[0]} bytes of voxels",
            )

    def _checked_offset(self, size: int) -> int:
        layout = self._layout
        num_bytes = math.prod(layout.shape) * layout.dtype.itemsize
        offset = size - num_bytes if layout.offset is None else layout.offset
        if offset < 0 or offset + num_bytes != size:
            begin, what = max(0, offset), " x ".join(map(str, layout.shape))
            raise InvalidVolumeError(
                f"{layout.data_url}: {size} bytes instead of {begin + num_bytes} ({what} "
                f"{layout.dtype} from byte {begin}); copy it again, or correct "
                f"{self.url.rpartition('/')[2]}"
            )
        return offset

    def _read(self, start: int, stop: int) -> np.ndarray:
        plane = math.prod(self.shape[1:]) * self._layout.dtype.itemsize
        first, last = start * plane, stop * plane
        if self._packed is not None:
            data: bytes | memoryview = self._packed.read(first, last)
            if stop == self.shape[0] and self._packed.read(last, last + 1):
                raise damaged(self._layout.data_url, "voxels", "more bytes than declared")
        else:
            (data,) = store.read_ranges(
                self._layout.data_url, [(self._offset + first, self._offset + last)]
            )
        self.bytes_read += len(data)
        if len(data) != last - first:
            raise damaged(self._layout.data_url, "voxels", f"truncated in slices [{start}, {stop})")
        slab = np.frombuffer(data, self._layout.dtype)
        return slab.reshape(stop - start, *self.shape[1:])

    def close(self) -> None:
        """Close the file of compressed voxels."""
        if self._packed is not None:
            self._packed.close()


class _PackedVoxels:
    """A zlib or gzip stream, decompressed piece by piece and never further than requested."""

    def __init__(self, layout: RawLayout) -> None:
        self._layout = layout
        self._lock = threading.Lock()
        self._stack = contextlib.ExitStack()
        self._file: IO[bytes] | None = None
        self._place = 0

    def read(self, start: int, stop: int) -> bytes:
        """Decompressed bytes [start, stop); fewer if the stream ends before."""
        with self._lock, damage_as_error(self._layout.data_url, "compressed voxels"):
            if self._file is None or start < self._place:
                self._begin()
            while self._place < start and self._next(min(_STEP_BYTES, start - self._place)):
                pass
            parts: list[bytes] = []
            while self._place < stop and (part := self._next(stop - self._place)):
                parts.append(part)
            return b"".join(parts)

    def close(self) -> None:
        self._stack.close()

    def _begin(self) -> None:
        self._stack.close()
        self._file = self._stack.enter_context(store.open_binary(self._layout.data_url))
        self._file.seek(self._layout.offset or 0)
        self._stream = zlib.decompressobj(_ANY_WRAPPER)
        self._place = 0

    def _next(self, count: int) -> bytes:
        """Up to `count` decompressed bytes; none at the end of the stream."""
        assert self._file is not None
        while True:
            given = self._stream.unconsumed_tail or self._stream.unused_data
            given = given or self._file.read(_STEP_BYTES)
            if self._stream.eof:
                # Several streams may follow one another; other trailing bytes are ignored.
                if not given.startswith(_GZIP):
                    return b""
                self._stream = zlib.decompressobj(_ANY_WRAPPER)
            part = self._stream.decompress(given, min(count, _STEP_BYTES))
            self._place += len(part)
            if part or not given:
                return part
