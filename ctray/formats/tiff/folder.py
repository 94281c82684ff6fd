"""Volumes in folders of TIFF files: one slice per file, or numbered parts of one recording."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np

from ctray.core.errors import InvalidVolumeError
from ctray.formats.slices.folder import READERS, FolderSource, choose_stack
from ctray.formats.source import check_dtype, check_shape
from ctray.formats.tiff.layout import Layout
from ctray.formats.tiff.pages import form_notes, tiff_damage
from ctray.formats.tiff.source import TiffSlices
from ctray.storage import store
from ctray.volumes.voxel_metadata import FoundVoxelSize

# Files that are opened before any is read: all would take minutes on a network disk.
_PROBES = 16


class TiffFolderSource(FolderSource):
    """A folder of TIFFs with one slice each, in natural order.

    Numbered files of several pages are joined in the order of their numbers, as parts of one
    recording. Files of an OME-TIFF set are ordered by their OME-XML.

    Opening reads the first, middle and last file, a few between them, and files of unusual size;
    the other files are checked when they are read.

    Raises
    ------
    InvalidVolumeError
        If a file is unreadable, or if its shape or dtype differs from the first (it is named).
    """

    kind = "tiff-folder"
    suffixes = (".tif", ".tiff", ".btf", ".tf8")

    def __init__(self, url: str) -> None:
        super().__init__(url)
        stack = choose_stack(self._folder, self._sizes, self._pattern, min_files=1)
        self.notes = stack.notes
        self._take_files(stack.names)
        self._first = self._layout(self._names[0], first=True)
        self._order_by_ome()
        form = self._first.form
        num_slices = self._take_counts(self._count_pages())
        self.shape = check_shape(self._folder, (num_slices, form.height, form.width))
        self.dtype = check_dtype(self._file(self._names[0]), form.dtype)
        self.notes += (*self._first.notes, *form_notes(form))
        self._set_voxel_size(self._own_size, beside=self._folder)

    @contextmanager
    def _open(self, name: str) -> Iterator[TiffSlices]:
        url = self._file(name)
        with (
            store.open_binary(url) as file,
            tiff_damage(url),
            TiffSlices(url, file, in_stack=True) as slices,
        ):
            yield slices

    def _layout(self, name: str, *, first: bool = False) -> Layout:
        """Pages of a file, from its tags alone; of the `first` file the voxel size too."""
        with self._open(name) as slices:
            if first:
                is_slice = slices.num_slices == 1
                self._own_size: FoundVoxelSize | None = slices.voxel_size(is_slice=is_slice)
            return slices.layout

    def _count_pages(self) -> tuple[int, ...]:
        """Slices in each file. If files hold single slices, only some of them are opened."""
        first = self._first
        if first.num_images == 1:
            for name, layout in self._layouts(self._probes()):
                self._check_same(name, layout)
            return (1,) * len(self._names)
        check_shape(self._file(self._names[0]), first.shape, axes=first.all_axes)
        counts = []
        for name, layout in self._layouts(self._names):
            self._check_same(name, layout)
            counts.append(layout.num_images)
        if not first.others:
            self.notes += (f"{len(counts)} files of several pages joined as parts of one volume",)
        return tuple(counts)

    def _layouts(self, names: Sequence[str]) -> Iterator[tuple[str, Layout]]:
        """Names with the pages of their files, which are opened several at once."""
        with ThreadPoolExecutor(READERS) as pool:
            yield from zip(names, pool.map(self._layout, names), strict=True)

    def _probes(self) -> list[str]:
        """Files to open now: the ends, some between them, and files of unusual size."""
        names = self._names
        count = len(names)
        spread = {names[i * (count - 1) // (_PROBES - 1)] for i in range(_PROBES)}
        by_size = sorted(names, key=lambda name: self._sizes.get(name) or 0)
        usual = self._sizes.get(by_size[count // 2])
        # Uncompressed images of one shape are files of about equal size.
        odd = [name for name in names if self._sizes.get(name) != usual]
        ends = by_size[: _PROBES // 4] + by_size[-_PROBES // 4 :]
        return sorted({*spread, names[count // 2], *ends, *odd[:_PROBES]} - {names[0]})

    def _check_same(self, name: str, layout: Layout) -> None:
        first = self._first
        if (layout.num_images == 1) != (first.num_images == 1):
            raise InvalidVolumeError(
                f"{self._file(name)}: {layout.num_images} pages, but {self._names[0]} has "
                f"{first.num_images}; import this file by itself, or move it elsewhere"
            )
        difference = layout.form.difference(first.form)
        if difference:
            raise InvalidVolumeError(
                f"{self._file(name)}: {difference} as in {self._names[0]}; move the file "
                "elsewhere or convert it"
            )

    def _order_by_ome(self) -> None:
        """Put the files of an OME-TIFF set into the order of their planes."""
        first = self._first
        if not first.others or first.place is None:
            return
        places = {plane.file: (plane.t, plane.z, plane.c) for plane in reversed(first.others)}
        places[self._names[0]] = first.place
        if not all(name in places for name in self._names):
            self.notes += (
                "the OME-XML names other files; slices are in the order of their file names",
            )
            return
        channels = {(places[name][0], places[name][2]) for name in self._names}
        if len(channels) > 1:
            raise InvalidVolumeError(
                f"{self._folder}: {self._names[0]} and the files beside it hold several channels "
                "or times of one OME-TIFF set; move each to its own folder"
            )
        wanted = [
            name
            for name, (t, _, c) in places.items()
            if (t, c) in channels and name not in self._names
        ]
        if wanted:
            raise InvalidVolumeError(
                f"{self._folder}: {wanted[0]} of the OME-TIFF set is missing "
                f"({len(wanted)} of {len(places)} files); copy it here"
            )
        self._names = tuple(sorted(self._names, key=lambda name: places[name]))
        self._first = self._layout(self._names[0], first=True)

    def _load(self, name: str, start: int, stop: int) -> tuple[np.ndarray, int]:
        with self._open(name) as slices:
            self._check_same(name, slices.layout)
            return slices.read(start, min(stop, slices.num_slices))
