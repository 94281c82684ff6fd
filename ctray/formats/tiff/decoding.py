"""Decoding of single TIFF pages: never more voxels than declared, never zeros for missing data."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tifffile

from ctray.core.errors import InvalidVolumeError
from ctray.formats.file_access import damaged
from ctray.formats.tiff.directory import PageTags

# One slice must fit into memory several times.
_MAX_SLICE_BYTES = 4 << 30
_JPEG = (7,)
_JPEG2000 = (33003, 33004, 33005, 34712)
# Most decoded bytes per stored byte: by definition for LZW (codes of 9 to 12 bits), deflate
# (258 bytes from 2 bits) and PackBits (128 from 2); generous for the others.
_MOST_PER_BYTE = {
    1: 1,
    5: 4096,
    8: 1100,
    32946: 1100,
    32773: 64,
    50000: 1 << 16,
    34925: 1 << 16,
    **dict.fromkeys(_JPEG, 1 << 10),
    # Empty slices compress to almost nothing; the size that the image declares is checked too.
    **dict.fromkeys(_JPEG2000, 1 << 20),
}
_HEAD_BYTES = 64 << 10


def check_page(url: str, page: PageTags, size: int) -> None:
    """Raise if the tags of a page show that voxels are missing.

    Raises
    ------
    InvalidVolumeError
        If the compression is unknown, if a slice is too large for memory, or if the stored bytes
        lie outside the file or are too few for the voxels.
    """
    if page.compression not in _MOST_PER_BYTE:
        name = _compression_name(page.compression)
        raise InvalidVolumeError(
            f"{url}: page {page.number} is compressed with {name}, which ctray does not read; save "
            "it without compression, or with LZW, deflate, zstd, JPEG or JPEG 2000"
        )
    plane = page.num_bytes // page.form.depth
    if plane > _MAX_SLICE_BYTES:
        raise InvalidVolumeError(
            f"{url}: page {page.number} declares slices of {plane / 2**30:.1f} GiB; "
            f"ctray reads slices of at most {_MAX_SLICE_BYTES >> 30} GiB"
        )
    if page.data is not None:
        _check_stored(url, page, [page.data], size)


def _check_stored(url: str, page: PageTags, parts: Sequence[tuple[int, int]], size: int) -> None:
    for start, count in parts:
        if start + count > size:
            raise damaged(
                url,
                "TIFF",
                f"truncated: {size} bytes, but page {page.number} ends at byte {start + count}",
            )
        if not count:
            raise damaged(url, "TIFF", f"page {page.number} has strips that were never written")
    stored = sum(count for _, count in parts)
    # Voxels of 12 bits use fewer bytes in storage than in memory.
    declared = _packed_bytes(page)
    if stored * _MOST_PER_BYTE[page.compression] < declared:
        raise damaged(
            url,
            "TIFF",
            f"page {page.number} has {stored} bytes, too few for {declared} bytes of voxels",
        )


def _packed_bytes(page: PageTags) -> int:
    form = page.form
    return form.height * form.depth * math.ceil(form.width * form.samples * form.bits / 8)


def _compression_name(code: int) -> str:
    try:
        return str(tifffile.COMPRESSION(code).name)
    except ValueError:
        return f"method {code}"


class PageReader:
    """Decodes pages of one open file; several threads may use it.

    Parameters
    ----------
    url
        Named in messages.
    tif
        The open file.
    size
        Bytes of the file.
    lock
        Held while the position in the file matters.
    """

    def __init__(self, url: str, tif: tifffile.TiffFile, size: int, lock: threading.RLock) -> None:
        self._url, self._tif, self._size, self._lock = url, tif, size, lock
        # Pages of one form and compression share a decoder.
        self._keys: dict[tuple[Any, ...], tifffile.TiffPage] = {}

    def read(self, tags: PageTags) -> tuple[np.ndarray, int]:
        """Voxels of a page, shape (depth, y, x), and the stored bytes that held them."""
        page = self._open(tags)
        voxels: np.ndarray = page.asarray(maxworkers=1, lock=self._lock)
        form = tags.form
        return voxels.reshape(form.depth, form.height, form.width), sum(page.databytecounts)

    def read_part(self, tags: PageTags, start: int, stop: int) -> tuple[np.ndarray, int]:
        """Slices [start, stop) of a page that holds a volume, and the stored bytes read."""
        page = self._page(tags)
        form = tags.form
        part = np.zeros((stop - start, form.height, form.width), page.dtype)
        stored = 0
        for number in self._parts_between(page, start, stop):
            offset, count = int(page.dataoffsets[number]), int(page.databytecounts[number])
            with self._lock:
                self._tif.filehandle.seek(offset)
                data = self._tif.filehandle.read(count)
            stored += count
            decoded, (_, z, y, x, _), shape = page.decode(data, number, **_tables(page))
            block = decoded.reshape(shape)[..., 0]
            a, b = max(z, start), min(z + block.shape[0], stop)
            rows = min(block.shape[1], form.height - y)
            columns = min(block.shape[2], form.width - x)
            part[a - start : b - start, y : y + rows, x : x + columns] = block[
                a - z : b - z, :rows, :columns
            ]
        return part, stored

    def part_depth(self, tags: PageTags) -> int:
        """Slices that are stored together in a page that holds a volume."""
        page = self._page(tags)
        return max(1, int(page.tiledepth)) if page.is_tiled else 1

    @staticmethod
    def _parts_between(page: tifffile.TiffPage, start: int, stop: int) -> Iterator[int]:
        """Strips or tiles that overlap the slices [start, stop)."""
        depth = max(1, int(page.tiledepth)) if page.is_tiled else 1
        layers = math.ceil(page.imagedepth / depth)
        per_layer = len(page.dataoffsets) // layers
        yield from range(start // depth * per_layer, math.ceil(stop / depth) * per_layer)

    def _open(self, tags: PageTags) -> tifffile.TiffPage | tifffile.TiffFrame:
        """Page with its own tags, after checks of what they say about its voxels."""
        kind = (tags.form, tags.packing, tags.segments)
        with self._lock:
            key = self._keys.get(kind)
            if key is None or tags.compression in _JPEG:
                self._tif.filehandle.seek(tags.offset)
                page = key = tifffile.TiffPage(self._tif, index=tags.number - 1)
                self._keys[kind] = key
            else:
                page = self._frame(tags, key)
            parts = [
                (int(start), int(count))
                for start, count in zip(page.dataoffsets, page.databytecounts, strict=False)
            ]
            if len(parts) < math.prod(key.chunked):
                raise damaged(self._url, "TIFF", f"page {tags.number} has too few strips")
            _check_stored(self._url, tags, parts, self._size)
            if tags.compression in (*_JPEG, *_JPEG2000):
                self._check_images(math.prod(key.chunks), tags, parts)
        return page

    def _page(self, tags: PageTags) -> tifffile.TiffPage:
        """Page with all its tags."""
        page = self._open(tags)
        return page if isinstance(page, tifffile.TiffPage) else page.keyframe

    def _frame(self, tags: PageTags, key: tifffile.TiffPage) -> tifffile.TiffFrame:
        """Page with the tags of `key`, except the position of its strips."""
        if tags.data is None:
            return tifffile.TiffFrame(
                self._tif, index=tags.number - 1, offset=tags.offset, keyframe=key
            )
        start, count = tags.data
        return tifffile.TiffFrame(
            self._tif,
            index=tags.number - 1,
            keyframe=key,
            dataoffsets=(start,),
            databytecounts=(count,),
        )

    def _check_images(self, most: int, tags: PageTags, parts: Sequence[tuple[int, int]]) -> None:
        """Raise if a JPEG or JPEG 2000 image has more pixels than its strip or tile."""
        for start, count in parts:
            self._tif.filehandle.seek(start)
            pixels = _pixels(self._tif.filehandle.read(min(count, _HEAD_BYTES)))
            if pixels is None or pixels > most:
                what = "no size" if pixels is None else f"{pixels} pixels"
                raise damaged(
                    self._url,
                    "TIFF",
                    f"page {tags.number} holds an image with {what} instead of {most} pixels",
                )


def _tables(page: tifffile.TiffPage) -> dict[str, Any]:
    return {"jpegtables": page.jpegtables} if page.compression in _JPEG else {}


def _pixels(head: bytes) -> int | None:
    """Pixels that a JPEG or JPEG 2000 image declares; None if it declares none."""
    size = head.find(b"\xff\x4f\xff\x51")
    if size >= 0:
        # ISO 15444-1, A.5.1: SIZ has its length and capabilities, then the extent and its origin.
        edges = [int.from_bytes(head[size + i : size + i + 4], "big") for i in (8, 12, 16, 20)]
        return max(0, edges[0] - edges[2]) * max(0, edges[1] - edges[3])
    at = 2
    while at + 9 <= len(head) and head[at] == 0xFF:
        marker = head[at + 1]
        if marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD8:
            at += 1 if marker == 0xFF else 2
            continue
        # ITU T.81, B.2.2: start of frame is C0 to CF but for tables (C4, C8, CC).
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = head[at + 5 : at + 7], head[at + 7 : at + 9]
            return int.from_bytes(height, "big") * int.from_bytes(width, "big")
        at += 2 + int.from_bytes(head[at + 2 : at + 4], "big")
    return None
