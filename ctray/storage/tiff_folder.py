"""Volumes in folders of single-page TIFF files."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from ctray.errors import InvalidVolumeError, NotFoundError
from ctray.storage import store
from ctray.storage.source_types import (
    Kind,
    VolumeSource,
    check_dtype,
    damaged,
    file_size,
    open_binary,
)
from ctray.storage.stacks import NumberedStack, group_numbered
from ctray.storage.tiff_pages import (
    is_tiff_name,
    own_voxel_size,
    page_end,
    refuse_colour,
    tiff_damage,
    tiff_file,
    with_sidecar,
)
from ctray.storage.voxel_metadata import FoundVoxelSize

# Two images can be a pair of anything; three numbered ones are slices.
MIN_STACK_FILES = 3
# One decoder a core hides the latency of small files; more only compete with the writer.
_READERS = 4


class TiffFolderSource(VolumeSource):
    """A folder of single-page TIFFs, one slice each, in natural order.

    Where a folder holds several stacks, a pattern in place of the file name takes one of them:
    `scans/left_*.tif`, the asterisk being the number that counts slices.

    Opening looks at the first, middle and last file, and at those that differ in size from
    the first where the data are not compressed; the others are checked when they are read.

    Raises
    ------
    InvalidVolumeError
        If a file is unreadable, or differs in shape or dtype from the first (it is named).
    """

    kind: Kind = "tiff-folder"

    def __init__(self, url: str) -> None:
        self.url = url
        pattern = None
        if "*" in url.rpartition("/")[2]:
            url, _, pattern = url.rpartition("/")
        self._folder = url
        self._sizes = {
            entry.name: entry.size
            for entry in store.list_dir(url)
            if not entry.is_dir and is_tiff_name(entry.name)
        }
        stack = _only_stack(url, list(self._sizes), pattern)
        self._names, self.notes = stack.names, stack.notes
        first = self._plane(self._names[0])
        self._first = first
        self.shape = (len(self._names), first.shape[0], first.shape[1])
        self.dtype = check_dtype(self._file(self._names[0]), first.dtype)
        self.bytes_stored = sum(self._sizes[name] or 0 for name in self._names)
        self._check_some()
        self._take_voxel_size(with_sidecar(first.voxel_size, url, is_folder=True))

    @property
    def files(self) -> tuple[str, ...]:
        """One file a slice, in their order."""
        return tuple(self._file(name) for name in self._names)

    def _check_some(self) -> None:
        count = len(self._names)
        probe = {self._names[count // 2], self._names[-1]}
        size = self._sizes.get(self._names[0])
        for name in self._names:
            if self._sizes.get(name) == 0:
                raise InvalidVolumeError(
                    f"{self._file(name)}: file is empty (0 bytes); copy or export it again"
                )
            # Without compression equal images are files of about equal size.
            differs = self._first.is_plain and self._sizes.get(name) != size
            if differs and len(probe) < 16:
                probe.add(name)
        for name in sorted(probe):
            self._check_same(name, self._plane(name))

    def _check_same(self, name: str, plane: _Plane) -> None:
        first = self._first
        if plane.shape != first.shape:
            raise InvalidVolumeError(
                f"{self._file(name)}: y x x = {plane.shape[0]} x {plane.shape[1]} in a stack of "
                f"{first.shape[0]} x {first.shape[1]} ({self._names[0]}); move it elsewhere"
            )
        if plane.dtype != first.dtype:
            raise InvalidVolumeError(
                f"{self._file(name)}: dtype {plane.dtype} in a stack of {first.dtype} "
                f"({self._names[0]}); move it elsewhere or convert it"
            )

    def _file(self, name: str) -> str:
        return store.join(self._folder, name)

    def _plane(self, name: str) -> _Plane:
        url = self._file(name)
        with open_binary(url) as file:
            return _read_plane(url, file, voxels=False)

    def _load(self, name: str) -> _Plane:
        url = self._file(name)
        with open_binary(url) as file:
            plane = _read_plane(url, file, voxels=True)
        self._check_same(name, plane)
        return plane

    def _read(self, start: int, stop: int) -> np.ndarray:
        slab = np.empty((stop - start, *self.shape[1:]), self.dtype)
        with ThreadPoolExecutor(_READERS) as pool:
            for i, plane in enumerate(pool.map(self._load, self._names[start:stop])):
                slab[i] = plane.voxels
                self.bytes_read += plane.num_bytes
        return slab

    def close(self) -> None:
        """Nothing stays open between reads."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Plane:
    """One slice of a folder: what its header says, and its voxels if asked for."""

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    num_bytes: int
    is_plain: bool
    voxel_size: FoundVoxelSize | None
    voxels: np.ndarray | None


def _read_plane(url: str, file: IO[bytes], *, voxels: bool) -> _Plane:
    with tiff_damage(url):
        size = file_size(url, file)
        with tiff_file(file, url) as tif:
            page = tif.pages.first
            refuse_colour(url, page, alone=False)
            if tif.pages.is_multipage:
                raise InvalidVolumeError(
                    f"{url}: several pages in a folder of single pages; "
                    "import this file by itself, or move it elsewhere"
                )
            shape = tuple(n for n in page.shape if n != 1) if page.ndim > 2 else page.shape
            if len(shape) != 2:
                raise InvalidVolumeError(f"{url}: page of shape {page.shape}; slices must be 2D")
            if page_end(page) > size:
                raise damaged(url, "TIFF", f"truncated: {size} bytes where more are declared")
            return _Plane(
                shape=(shape[0], shape[1]),
                dtype=np.dtype(page.dtype) if page.dtype is not None else np.dtype("V"),
                num_bytes=sum(page.databytecounts),
                is_plain=page.compression == 1,
                voxel_size=own_voxel_size(tif, None, page),
                voxels=page.asarray(maxworkers=1).reshape(shape) if voxels else None,
            )


def _only_stack(url: str, names: Sequence[str], pattern: str | None) -> NumberedStack:
    """Return the stack of a folder; an error where there is none, or more than one."""
    groups = group_numbered(names)
    if pattern is not None:
        groups = [group for group in groups if group.pattern == pattern]
        if not groups:
            raise NotFoundError(f"{url}: no TIFF files named {pattern}; check the pattern")
    if not groups:
        raise InvalidVolumeError(f"{url}: no TIFF files in this folder; give the folder of a stack")
    if len(groups) == 1:
        return groups[0]
    stacks = [g for g in groups if len(g.names) >= MIN_STACK_FILES]
    if len(stacks) == 1:
        return stacks[0]
    if not stacks and len(names) >= MIN_STACK_FILES:
        raise InvalidVolumeError(
            f"{url}: {len(names)} TIFF files without a common numbered name "
            f"({', '.join(sorted(names)[:3])}, ...); rename them, or import files one by one"
        )
    shown = ", ".join(f"{g.pattern} ({len(g.names)} files)" for g in (stacks or groups)[:5])
    raise InvalidVolumeError(
        f"{url}: several stacks in one folder: {shown}; name one, as in {url}/{groups[0].pattern}"
    )
