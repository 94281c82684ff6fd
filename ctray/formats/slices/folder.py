"""What volumes in folders of slices have in common, whatever format the slices are in."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from ctray.core.errors import InvalidVolumeError, NotFoundError
from ctray.formats.names import format_of
from ctray.formats.slices.stacks import NumberedStack, group_numbered
from ctray.formats.source import Kind, VolumeSource, check_dtype, damaged
from ctray.storage import store
from ctray.volumes import voxel_metadata

# One decoder a core hides the latency of small files; more only compete with the writer.
_READERS = 4
_MAX_SLICE_BYTES = 1 << 30
_MIN_SLICES = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class SliceHeader:
    """Shape (y, x) and type of one slice, as its file says before it is decoded."""

    shape: tuple[int, int]
    dtype: np.dtype[Any]

    @property
    def num_bytes(self) -> int:
        """Bytes of the decoded slice."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        return f"y x x = {self.shape[0]} x {self.shape[1]} {self.dtype}"


class SliceFolderSource(VolumeSource):
    """A folder of slices, one file each.

    `url` is a pattern, `scan/slice_*.png`, the asterisk being the number that counts slices, or a
    folder with one such stack. Opening looks at the headers of the first, middle and last file;
    the others are checked when they are read.

    Raises
    ------
    InvalidVolumeError
        If a file is damaged, differs from the first, or would fill the memory.
    NoVolumeError
        If the files are pictures and no slices.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._folder, names, sizes = self._find(url)
        empty = next((name for name in names if sizes[name] == 0), None)
        if empty is not None:
            raise damaged(self._file(empty), "slice", "0 bytes")
        self._names = names
        self._first = self._checked_first()
        self.shape = (len(names), *self._first.shape)
        self.dtype = check_dtype(self._file(names[0]), self._first.dtype)
        for name in (names[len(names) // 2], names[-1]):
            self._check_same(name, self._header(self._file(name)))
        self.bytes_stored = sum(sizes[name] or 0 for name in names)
        self._take_voxel_size(
            self._own_voxel_size() or voxel_metadata.from_sidecar(self._folder, is_folder=True)
        )

    @property
    def files(self) -> tuple[str, ...]:
        """URLs of the slices, in their order."""
        return tuple(map(self._file, self._names))

    def _find(self, url: str) -> tuple[str, Sequence[str], dict[str, int | None]]:
        """Folder, names of the slices in their order, and sizes by name."""
        folder, stack, sizes = stack_of(url, self.kind)
        self.notes = stack.notes
        return folder, stack.names, sizes

    @abstractmethod
    def _header(self, url: str) -> SliceHeader:
        """What a file says of its slice."""

    @abstractmethod
    def _plane(self, url: str) -> tuple[np.ndarray, int]:
        """Slice of a file, and the bytes that were read for it."""

    def _own_voxel_size(self) -> voxel_metadata.FoundVoxelSize | None:
        """Voxel size that the files themselves tell."""
        return None

    def _file(self, name: str) -> str:
        return store.join(self._folder, name)

    def _checked_first(self) -> SliceHeader:
        url = self._file(self._names[0])
        first = self._header(url)
        if first.num_bytes > _MAX_SLICE_BYTES:
            raise InvalidVolumeError(
                f"{url}: {first} is over {_MAX_SLICE_BYTES} bytes a slice; convert to Zarr or "
                "tiled TIFF"
            )
        return first

    def _check_same(self, name: str, header: SliceHeader) -> None:
        if header != self._first:
            raise InvalidVolumeError(
                f"{self._file(name)}: {header} in a stack of {self._first} ({self._names[0]}); "
                "move it elsewhere"
            )

    def _load(self, name: str) -> tuple[np.ndarray, int]:
        url = self._file(name)
        # Before it is decoded: what it says is what it may fill of the memory.
        self._check_same(name, self._header(url))
        plane, num_bytes = self._plane(url)
        if plane.shape != self._first.shape or plane.dtype != self._first.dtype:
            raise damaged(url, "slice", f"decodes to {plane.shape} {plane.dtype}")
        return plane, num_bytes

    def _read(self, start: int, stop: int) -> np.ndarray:
        slab = np.empty((stop - start, *self.shape[1:]), self.dtype)
        with ThreadPoolExecutor(_READERS) as pool:
            for i, (plane, size) in enumerate(pool.map(self._load, self._names[start:stop])):
                slab[i] = plane
                self.bytes_read += size
        return slab

    def close(self) -> None:
        """Nothing stays open between reads."""


def stack_of(url: str, kind: Kind) -> tuple[str, NumberedStack, dict[str, int | None]]:
    """Folder, stack and sizes by name of numbered slices: those of a pattern, or the only ones.

    Raises
    ------
    NotFoundError
        If no file of the folder matches the pattern.
    InvalidVolumeError
        If a folder without a pattern holds no stack of slices, or several.
    """
    folder, pattern, sizes = slices_of(url, kind)
    stacks = [s for s in group_numbered(sizes) if s.pattern == pattern or not pattern]
    if pattern and not stacks:
        raise NotFoundError(f"{folder}: no files named {pattern}; check the pattern")
    stacks = stacks if pattern else [s for s in stacks if len(s.names) >= _MIN_SLICES]
    if len(stacks) != 1:
        shown = ", ".join(s.pattern for s in stacks[:5]) or "no numbered slices"
        raise InvalidVolumeError(f"{folder}: not one stack but {shown}; name one by its pattern")
    if stacks[0].problem is not None:
        raise InvalidVolumeError(f"{folder}: {stacks[0].problem}")
    return folder, stacks[0], sizes


def slices_of(url: str, kind: Kind) -> tuple[str, str, dict[str, int | None]]:
    """Folder and pattern (empty for none) of `url`, and sizes of its files of `kind` by name."""
    folder, _, pattern = url.rpartition("/")
    # A folder may have an asterisk in its own name.
    if "*" not in pattern or store.exists(url):
        folder, pattern = url, ""
    sizes = {
        entry.name: entry.size
        for entry in store.list_dir(folder)
        if not entry.is_dir and entry.special is None and _is_of(entry.name, kind)
    }
    return folder, pattern, sizes


def _is_of(name: str, kind: Kind) -> bool:
    known = format_of(name)
    return known is not None and known.kind == kind and not name.startswith(".")
