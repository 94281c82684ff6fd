"""Volumes in folders of TIFF files: one slice a file, or numbered parts of one recording."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import accumulate

import numpy as np

from ctray.core.errors import InvalidVolumeError, NotFoundError
from ctray.formats.slices.stacks import NumberedStack, group_numbered
from ctray.formats.source import (
    Kind,
    VolumeSource,
    check_dtype,
    check_shape,
    open_binary,
)
from ctray.formats.tiff.layout import Layout
from ctray.formats.tiff.pages import form_notes, is_tiff_name, tiff_damage, with_sidecar
from ctray.formats.tiff.source import TiffSlices
from ctray.storage import store
from ctray.volumes.voxel_metadata import FoundVoxelSize

# Two images can be a pair of anything; three numbered ones are slices.
MIN_STACK_FILES = 3
# One decoder a core hides the latency of small files; more only compete with the writer.
_READERS = 4
# Files that are opened before any is read: all would take minutes on a network disk.
_PROBES = 16


class TiffFolderSource(VolumeSource):
    """A folder of single-page TIFFs, one slice each, in natural order.

    Where a folder holds several stacks, a pattern in place of the file name takes one of them:
    `scans/left_*.tif`, the asterisk being the number that counts slices. Numbered files of
    several pages are joined in the order of their numbers, as parts of one recording. Files of
    an OME-TIFF set are ordered by their OME-XML.

    Opening looks at the first, middle and last file, at a few in between, and at those whose
    size stands out; the others are checked when they are read.

    Raises
    ------
    InvalidVolumeError
        If a file is unreadable, or differs in shape or dtype from the first (it is named).
    """

    kind: Kind = "tiff-folder"

    def __init__(self, url: str) -> None:
        self.url = url
        pattern = None
        # A folder may have an asterisk in its own name.
        if "*" in url.rpartition("/")[2] and not store.exists(url):
            url, _, pattern = url.rpartition("/")
        self._folder = url
        self._sizes = {
            entry.name: entry.size
            for entry in store.list_dir(url)
            if not entry.is_dir and is_tiff_name(entry.name)
        }
        stack = only_stack(url, list(self._sizes), pattern)
        self._names, self.notes = stack.names, stack.notes
        self._refuse_empty()
        self._first = self._layout(self._names[0], first=True)
        self._order_by_ome()
        self._pages = self._count_pages()
        self._stops = tuple(accumulate(self._pages))
        form = self._first.form
        self.shape = check_shape(url, (self._stops[-1], form.height, form.width))
        self.dtype = check_dtype(self._file(self._names[0]), form.dtype)
        self.bytes_stored = sum(self._sizes[name] or 0 for name in self._names)
        self.notes += (*self._first.notes, *form_notes(form))
        self._take_voxel_size(with_sidecar(self._found_size, url, is_folder=True))

    @property
    def files(self) -> tuple[str, ...]:
        """The files of the slices, in their order."""
        return tuple(self._file(name) for name in self._names)

    def _refuse_empty(self) -> None:
        for name in self._names:
            if self._sizes.get(name) == 0:
                raise InvalidVolumeError(
                    f"{self._file(name)}: file is empty (0 bytes); copy or export it again"
                )

    @contextmanager
    def _open(self, url: str) -> Iterator[TiffSlices]:
        with (
            open_binary(url) as file,
            tiff_damage(url),
            TiffSlices(url, file, in_stack=True) as slices,
        ):
            yield slices

    def _layout(self, name: str, *, first: bool = False) -> Layout:
        """Pages of a file, from its tags alone."""
        with self._open(self._file(name)) as slices:
            if first:
                is_slice = slices.num_slices == 1
                self._found_size: FoundVoxelSize | None = slices.voxel_size(is_slice=is_slice)
            return slices.layout

    def _count_pages(self) -> tuple[int, ...]:
        """Slices in each file; files of single slices are checked by some of them."""
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
        with ThreadPoolExecutor(_READERS) as pool:
            yield from zip(names, pool.map(self._layout, names), strict=True)

    def _probes(self) -> list[str]:
        """Files to open now: the ends, some between them, and those whose size stands out."""
        names = self._names
        count = len(names)
        spread = {names[i * (count - 1) // (_PROBES - 1)] for i in range(_PROBES)}
        by_size = sorted(names, key=lambda name: self._sizes.get(name) or 0)
        usual = self._sizes.get(by_size[count // 2])
        # Without compression equal images are files of about equal size.
        odd = [name for name in names if self._sizes.get(name) != usual]
        ends = by_size[: _PROBES // 4] + by_size[-_PROBES // 4 :]
        return sorted({*spread, names[count // 2], *ends, *odd[:_PROBES]} - {names[0]})

    def _check_same(self, name: str, layout: Layout) -> None:
        first = self._first
        if (layout.num_images == 1) != (first.num_images == 1):
            raise InvalidVolumeError(
                f"{self._file(name)}: {layout.num_images} pages where {self._names[0]} has "
                f"{first.num_images}; import this file by itself, or move it elsewhere"
            )
        form, wanted = layout.form, first.form
        if (form.height, form.width) != (wanted.height, wanted.width):
            raise InvalidVolumeError(
                f"{self._file(name)}: y x x = {form.height} x {form.width} in a stack of "
                f"{wanted.height} x {wanted.width} ({self._names[0]}); move it elsewhere"
            )
        if form.dtype != wanted.dtype:
            raise InvalidVolumeError(
                f"{self._file(name)}: dtype {form.dtype} in a stack of {wanted.dtype} "
                f"({self._names[0]}); move it elsewhere or convert it"
            )
        difference = form.difference(wanted)
        if difference:
            raise InvalidVolumeError(
                f"{self._file(name)}: {difference} as {self._names[0]}; "
                "move it elsewhere or convert it"
            )

    def _order_by_ome(self) -> None:
        """Put the files of an OME-TIFF set into the order of their planes."""
        first = self._first
        if not first.others or first.place is None:
            return
        places = {plane.file: (plane.t, plane.z, plane.c) for plane in reversed(first.others)}
        places[self._names[0]] = first.place
        if not all(name in places for name in self._names):
            self.notes += ("OME-XML names other files; slices are in the order of their names",)
            return
        channels = {(places[name][0], places[name][2]) for name in self._names}
        if len(channels) > 1:
            raise InvalidVolumeError(
                f"{self._folder}: {self._names[0]} and the files beside it hold several channels "
                "or times of one OME-TIFF set; give each its own folder"
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

    def _file(self, name: str) -> str:
        return store.join(self._folder, name)

    def _load(self, name: str, start: int, stop: int) -> tuple[np.ndarray, int]:
        with self._open(self._file(name)) as slices:
            self._check_same(name, slices.layout)
            return slices.read(start, min(stop, slices.num_slices))

    def _read(self, start: int, stop: int) -> np.ndarray:
        slab = np.empty((stop - start, *self.shape[1:]), self.dtype)
        parts = self._parts(start, stop)
        at = 0
        with ThreadPoolExecutor(_READERS) as pool:
            for voxels, num_bytes in pool.map(lambda part: self._load(*part), parts):
                slab[at : at + len(voxels)] = voxels
                at += len(voxels)
                self.bytes_read += num_bytes
        return slab[:at]

    def _parts(self, start: int, stop: int) -> list[tuple[str, int, int]]:
        """File, first and last slice in it, for each file that holds some of [start, stop)."""
        parts = []
        for i in range(bisect_right(self._stops, start), len(self._names)):
            begin = self._stops[i] - self._pages[i]
            if begin >= stop:
                break
            low, high = max(start, begin), min(stop, self._stops[i])
            parts.append((self._names[i], low - begin, high - begin))
        return parts

    def close(self) -> None:
        """Nothing stays open between reads."""


def only_stack(url: str, names: Sequence[str], pattern: str | None) -> NumberedStack:
    """Return the stack of a folder; an error where there is none, or more than one."""
    groups = group_numbered(names)
    if pattern is not None:
        groups = [group for group in groups if group.pattern == pattern]
        if not groups:
            raise NotFoundError(f"{url}: no TIFF files named {pattern}; check the pattern")
    if not groups:
        raise InvalidVolumeError(f"{url}: no TIFF files in this folder; give the folder of a stack")
    if len(groups) > 1:
        groups = _long_ones(url, names, groups)
    if groups[0].problem:
        raise InvalidVolumeError(f"{url}: {groups[0].problem}")
    return groups[0]


def _long_ones(
    url: str, names: Sequence[str], groups: Sequence[NumberedStack]
) -> list[NumberedStack]:
    """Return the only group that is long enough for a stack, or raise."""
    stacks = [g for g in groups if len(g.names) >= MIN_STACK_FILES]
    if len(stacks) == 1:
        return stacks
    if not stacks and len(names) >= MIN_STACK_FILES:
        raise InvalidVolumeError(
            f"{url}: {len(names)} TIFF files without a common numbered name "
            f"({', '.join(sorted(names)[:3])}, ...); rename them, or import files one by one"
        )
    shown = ", ".join(f"{g.pattern} ({len(g.names)} files)" for g in (stacks or groups)[:5])
    raise InvalidVolumeError(
        f"{url}: several stacks in one folder: {shown}; name one, as in {url}/{groups[0].pattern}"
    )
