"""Volumes in folders of PNG or JPEG 2000 slices."""

from __future__ import annotations

import struct

import imagecodecs
import numpy as np

from ctray.core.errors import NoVolumeError
from ctray.formats.file_access import damage_as_error, damaged, file_size
from ctray.formats.slices.folder import SliceFolderSource, SliceHeader
from ctray.storage import store

PNG_SUFFIXES = (".png",)
JPEG2000_SUFFIXES = (".jp2", ".j2k", ".jpf", ".jpx", ".j2c")
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
# Grey without alpha (PNG, 11.2.2).
_PNG_GREY = 0
# Deflate compresses 1,032 to 1 at most: a PNG that claims more is damaged.
_MOST_PACKED = 1100
# Start of the codestream and its size marker (ISO/IEC 15444-1, annex A.4 and A.5). In a file they
# follow a few boxes of metadata.
_JP2_SIZE = b"\xff\x4f\xff\x51"
_HEADER_BYTES = 64 << 10


class ImageFolderSource(SliceFolderSource):
    """A folder of numbered grey PNGs or JPEG 2000 files, one slice each.

    Raises
    ------
    NoVolumeError
        If the files are pictures: in colour, or with few bits per pixel.
    """

    kind = "image-folder"
    suffixes = (*PNG_SUFFIXES, *JPEG2000_SUFFIXES)

    def _header(self, url: str) -> SliceHeader:
        with store.open_binary(url) as file:
            size = file_size(url, file)
            head = file.read(_HEADER_BYTES)
        if not _is_png(url):
            return _jp2_header(url, head)
        header = _png_header(url, head)
        if header.num_bytes > _MOST_PACKED * size:
            raise damaged(url, "PNG", f"{size} bytes for a slice of {header.num_bytes}")
        return header

    def _plane(self, url: str) -> tuple[np.ndarray, int]:
        decode = imagecodecs.png_decode if _is_png(url) else imagecodecs.jpeg2k_decode
        with store.open_binary(url) as file:
            data = file.read()
        with damage_as_error(url, "image"):
            return np.asarray(decode(data)), len(data)


def _is_png(url: str) -> bool:
    return url.lower().endswith(PNG_SUFFIXES)


def _png_header(url: str, head: bytes) -> SliceHeader:
    if not head.startswith(_PNG_MAGIC) or head[12:16] != b"IHDR" or len(head) < 33:
        raise damaged(url, "PNG", "no image header")
    width, height, bits, colour = struct.unpack(">IIBB", head[16:26])
    if colour != _PNG_GREY:
        raise NoVolumeError(f"{url}: a picture with colour or transparency, not grey values")
    if bits not in (8, 16):
        raise NoVolumeError(f"{url}: a picture with {bits} bits per pixel, not grey values")
    return _slice_header(url, "PNG", (height, width), "u1" if bits == 8 else "u2")


def _jp2_header(url: str, head: bytes) -> SliceHeader:
    at = head.find(_JP2_SIZE)
    if at < 0 or len(head) < at + 45:
        raise damaged(url, "JPEG 2000", "no image header")
    x1, y1, x0, y0 = struct.unpack(">IIII", head[at + 8 : at + 24])
    components, depth = struct.unpack(">HB", head[at + 40 : at + 43])
    if components != 1:
        raise NoVolumeError(f"{url}: a picture with {components} components, not grey values")
    bits, signed = (depth & 0x7F) + 1, bool(depth & 0x80)
    if not 2 <= bits <= 16:
        raise NoVolumeError(f"{url}: ctray reads images with 2 to 16 bits per pixel, not {bits}")
    code = ("i" if signed else "u") + ("1" if bits <= 8 else "2")
    return _slice_header(url, "JPEG 2000", (y1 - y0, x1 - x0), code)


def _slice_header(url: str, what: str, shape: tuple[int, int], code: str) -> SliceHeader:
    if min(shape) < 1:
        raise damaged(url, what, f"{shape[0]} x {shape[1]} pixels")
    return SliceHeader(shape=shape, dtype=np.dtype(code))
