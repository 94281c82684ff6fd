"""Volumes in folders of EDF slices (ESRF data format), read by fabio."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ctray.core.errors import InvalidVolumeError
from ctray.formats.file_access import damage_as_error, damaged, extra_package
from ctray.formats.slices.folder import SliceFolderSource, SliceHeader
from ctray.storage import store

# Longer than any header. The voxels begin behind the header.
_HEADER_BYTES = 1 << 20
_HEADER_END = b"}\n"


class EdfSource(SliceFolderSource):
    """A folder of numbered EDF files on a local disk, one slice each.

    Raises
    ------
    InvalidVolumeError
        If fabio is not installed, if the files are on an object store, or if a file holds several
        images, compressed voxels, or fewer bytes than its header declares.
    """

    kind = "edf"
    suffixes = (".edf",)

    def _header(self, url: str) -> SliceHeader:
        with _opened(url) as image:
            return _checked_header(url, image)

    def _plane(self, url: str) -> tuple[np.ndarray, int]:
        with _opened(url) as image, damage_as_error(url, "EDF"):
            return np.asarray(image.data), store.file_bytes(url)


@contextlib.contextmanager
def _opened(url: str) -> Iterator[Any]:
    fabio = extra_package("fabio", url, "EDF")
    if not store.is_local(url):
        raise InvalidVolumeError(
            f"{url}: ctray reads EDF from local disks only; copy it to one, or convert it"
        )
    # Everything it warns about is checked here and becomes an error that names the file.
    logging.getLogger("fabio").setLevel(logging.CRITICAL)
    # fabio guesses the format and decompresses by itself: only plain EDF may reach it.
    (head,) = store.read_ranges(url, [(0, 1)])
    if bytes(head) != b"{":
        raise damaged(url, "EDF", "the file does not begin with a header")
    with damage_as_error(url, "EDF"):
        image = fabio.edfimage.EdfImage().read(url)
    with contextlib.closing(image):
        yield image


def _checked_header(url: str, image: Any) -> SliceHeader:
    shape, dtype = tuple(int(n) for n in image.shape), np.dtype(image.dtype)
    if image.nframes != 1 or len(shape) != 2:
        raise InvalidVolumeError(f"{url}: ctray reads one image per EDF file; split the file")
    if any(key.lower() == "compression" for key in image.header):
        raise InvalidVolumeError(f"{url}: ctray does not read compressed EDF; decompress it")
    (head,) = store.read_ranges(url, [(0, _HEADER_BYTES)])
    end = bytes(head).find(_HEADER_END) + len(_HEADER_END)
    size, needed = store.file_bytes(url), end + math.prod(shape) * dtype.itemsize
    # fabio fills what is missing with zeros.
    if size < needed:
        raise damaged(url, "EDF", f"truncated: {size} bytes instead of {needed}")
    return SliceHeader(shape=(shape[0], shape[1]), dtype=dtype)
