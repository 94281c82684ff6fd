"""Volumes in multi-page TIFF files."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO

import numpy as np

from ctray.core.errors import InvalidVolumeError
from ctray.formats.source import VolumeSource, check_dtype, check_shape
from ctray.formats.tiff.decoding import PageReader, check_page
from ctray.formats.tiff.descriptions import find_layout
from ctray.formats.tiff.directory import PageTags, read_directory
from ctray.formats.tiff.layout import MAX_CHANNELS
from ctray.formats.tiff.pages import (
    colour_error,
    form_notes,
    has_dense_pages,
    own_voxel_size,
    refuse_colour,
    tiff_damage,
    tiff_file,
)
from ctray.storage import store
from ctray.volumes.voxel_metadata import FoundVoxelSize

# One decoder per core; more only compete with the writer.
_DECODERS = store.NUM_CPUS


class TiffSource(VolumeSource):
    """A multi-page TIFF or BigTIFF, with ImageJ, OME or no metadata at all.

    Opening reads the tags of every page once (0.05 s for 2,000 pages on a local disk; on object
    storage one small request per page if the pages are large). Every page is decoded by its own
    tags. Smaller copies and other images in the file are left out with a note.

    Raises
    ------
    InvalidVolumeError
        If the file is damaged, if a page differs from the others, or if the file holds colours,
        one 2D image, several volumes, 4D data or no grey values.
    """

    kind = "tiff"

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._stack = contextlib.ExitStack()
        try:
            dense = not store.is_local(url) and has_dense_pages(url)
            file = self._stack.enter_context(store.open_binary(url, dense=dense))
            with tiff_damage(url):
                self._slices = self._stack.enter_context(TiffSlices(url, file))
                self._describe()
        except BaseException:
            self._stack.close()
            raise

    def _describe(self) -> None:
        slices = self._slices
        layout = slices.layout
        if layout.others:
            raise InvalidVolumeError(
                f"{self.url}: holds only {len(layout.pages)} of "
                f"{len(layout.pages) + len(layout.others)} planes of an OME-TIFF set; give the "
                "folder with all files of the set"
            )
        self.shape = check_shape(self.url, layout.shape, axes=layout.all_axes)
        self.dtype = check_dtype(self.url, layout.form.dtype)
        self.slab_depth = slices.slab_depth
        self.bytes_stored = slices.size
        self.notes = (*layout.notes, *form_notes(layout.form))
        self._set_voxel_size(slices.voxel_size())

    def _read(self, start: int, stop: int) -> np.ndarray:
        with tiff_damage(self.url):
            slab, stored = self._slices.read(start, stop)
        self.bytes_read += stored
        return slab

    def close(self) -> None:
        """Close the file."""
        self._stack.close()


class TiffSlices:
    """The slices in one open TIFF file, checked page by page.

    Parameters
    ----------
    url
        Named in messages.
    file
        The open file. The caller closes it.
    in_stack
        Whether the file is one of a stack. Then a colour image is a failure and not a picture.

    Raises
    ------
    InvalidVolumeError
        If the file is damaged, holds colours, or its pages do not fit together.
    """

    def __init__(self, url: str, file: IO[bytes], *, in_stack: bool = False) -> None:
        self._url, self._file = url, file
        self._lock = threading.RLock()
        directory = read_directory(url, file)
        self.size = directory.size
        self._order = directory.byte_order
        self.layout = find_layout(url, file, directory)
        self._check(in_stack)
        self._tif = tiff_file(file, url)
        self._reader = PageReader(url, self._tif, self.size, self._lock)
        form = self.layout.form
        self.num_slices = self.layout.num_images
        volumetric = form.depth > 1 and self.layout.together is None
        self.slab_depth = self._reader.part_depth(self.layout.pages[0]) if volumetric else 1

    def _check(self, in_stack: bool) -> None:
        layout = self.layout
        alone = len(layout.pages) == 1 and not in_stack
        refuse_colour(self._url, layout.form, alone=alone)
        if layout.axes == "C" and layout.counts[0] <= MAX_CHANNELS:
            raise colour_error(self._url, f"{layout.counts[0]} channels of one image")
        for page in layout.pages:
            check_page(self._url, page, self.size)

    def voxel_size(self, *, is_slice: bool = False) -> FoundVoxelSize | None:
        """Voxel size that the file itself states."""
        return own_voxel_size(
            self._tif, self._tif.pages.first, image=self.layout.image, is_slice=is_slice
        )

    def read(self, start: int, stop: int) -> tuple[np.ndarray, int]:
        """Slices [start, stop), shape (stop - start, y, x), and the stored bytes read."""
        form = self.layout.form
        if self.layout.together is not None:
            plane = self.layout.pages[0].num_bytes
            where = self.layout.together + start * plane
            return self._piece(where, stop - start), (stop - start) * plane
        if form.depth > 1:
            return self._reader.read_part(self.layout.pages[0], start, stop)
        pages = self.layout.pages[start:stop]
        stored = 0
        packed = [i for i, page in enumerate(pages) if not page.is_plain_piece]
        pieces = _pieces(pages)
        if len(pieces) == 1 and pages[0].data is not None and not packed:
            return self._piece(pages[0].data[0], len(pages)), len(pages) * pages[0].num_bytes
        slab = np.empty((len(pages), form.height, form.width), form.dtype)
        for first, count in pieces:
            data = pages[first].data
            assert data is not None
            slab[first : first + count] = self._piece(data[0], count)
            stored += count * pages[first].num_bytes
        for i, (voxels, num_bytes) in zip(packed, self._decode_all(pages, packed), strict=True):
            slab[i] = voxels[0]
            stored += num_bytes
        return slab, stored

    def _decode_all(
        self, pages: Sequence[PageTags], numbers: Sequence[int]
    ) -> Iterator[tuple[np.ndarray, int]]:
        if len(numbers) < 2:
            yield from (self._decode(pages[i]) for i in numbers)
            return
        with ThreadPoolExecutor(_DECODERS) as pool:
            yield from pool.map(lambda i: self._decode(pages[i]), numbers)

    def _decode(self, page: PageTags) -> tuple[np.ndarray, int]:
        with tiff_damage(self._url):
            return self._reader.read(page)

    def _piece(self, offset: int, count: int) -> np.ndarray:
        """Slices whose voxels lie in one piece that begins at `offset`."""
        form = self.layout.form
        assert form.dtype is not None
        with self._lock:
            self._file.seek(offset)
            data = self._file.read(count * self.layout.pages[0].num_bytes)
        # Big-endian voxels become native when they are copied.
        dtype = form.dtype.newbyteorder(">" if self._order == ">" else "<")
        return np.frombuffer(data, dtype).reshape(count, form.height, form.width)

    def __enter__(self) -> TiffSlices:
        return self

    def __exit__(self, *exc: object) -> None:
        self._tif.close()


def _pieces(pages: Sequence[PageTags]) -> list[tuple[int, int]]:
    """First page and number of pages of each stretch of pages with adjacent plain voxels."""
    pieces: list[tuple[int, int]] = []
    end = -1
    for i, page in enumerate(pages):
        if not page.is_plain_piece or page.data is None:
            end = -1
        elif page.data[0] == end:
            pieces[-1] = (pieces[-1][0], pieces[-1][1] + 1)
            end += page.num_bytes
        else:
            pieces.append((i, 1))
            end = page.data[0] + page.num_bytes
    return pieces
