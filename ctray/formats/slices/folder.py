"""What all volumes in folders of numbered files have in common, whatever format the files have."""

from __future__ import annotations

import math
from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, ClassVar

import numpy as np

from ctray.core.errors import InvalidVolumeError, NotFoundError
from ctray.formats.file_access import damaged, empty_file
from ctray.formats.slices.stacks import MIN_FILES, NumberedStack, group_numbered
from ctray.formats.source import VolumeSource, check_dtype
from ctray.storage import store
from ctray.volumes.voxel_metadata import FoundVoxelSize

# One decoder per core hides the latency of small files; more only compete with the writer.
READERS = 4
_MAX_SLICE_BYTES = 1 << 30


class FolderSource(VolumeSource):
    """A volume in numbered files of one folder.

    `url` is a folder with one stack of files, or a pattern such as `scan/slice_*.png`, in which
    the asterisk stands for the number that counts slices.

    Attributes
    ----------
    suffixes
        Ends of the names of the files, in lower case.
    """

    is_folder = True
    suffixes: ClassVar[tuple[str, ...]]
    _names: Sequence[str]
    _counts: Sequence[int]

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._folder, self._pattern = split_pattern(url)
        self._sizes = {
            entry.name: entry.size
            for entry in store.list_dir(self._folder)
            if not entry.is_dir and self._is_ours(entry.name)
        }

    def _is_ours(self, name: str) -> bool:
        return name.lower().endswith(self.suffixes) and not name.startswith(".")

    @property
    def files(self) -> tuple[str, ...]:
        """URLs of the files, in the order of their slices."""
        return tuple(map(self._file, self._names))

    def _file(self, name: str) -> str:
        return store.join(self._folder, name)

    def _take_files(self, names: Sequence[str]) -> None:
        """Use these files in this order; an error if one is empty."""
        empty = next((name for name in names if self._sizes[name] == 0), None)
        if empty is not None:
            raise empty_file(self._file(empty))
        self._names = names
        self.bytes_stored = sum(self._sizes[name] or 0 for name in names)

    def _take_counts(self, counts: Sequence[int]) -> int:
        """Note how many slices each file holds; their sum."""
        self._stops = tuple(accumulate(counts))
        self._counts = counts
        return self._stops[-1]

    @abstractmethod
    def _load(self, name: str, start: int, stop: int) -> tuple[np.ndarray, int]:
        """Slices [start, stop) of a file, shape (z, y, x), and the bytes that were read."""

    def _read(self, start: int, stop: int) -> np.ndarray:
        slab = np.empty((stop - start, *self.shape[1:]), self.dtype)
        at = 0
        with ThreadPoolExecutor(READERS) as pool:
            stretches = self._stretches(start, stop)
            for voxels, num_bytes in pool.map(lambda stretch: self._load(*stretch), stretches):
                slab[at : at + len(voxels)] = voxels
                at += len(voxels)
                self.bytes_read += num_bytes
        return slab[:at]

    def _stretches(self, start: int, stop: int) -> list[tuple[str, int, int]]:
        """Name, first and last slice for each file that holds some of [start, stop)."""
        found = []
        for i in range(bisect_right(self._stops, start), len(self._names)):
            begin = self._stops[i] - self._counts[i]
            if begin >= stop:
                break
            low, high = max(start, begin), min(stop, self._stops[i])
            found.append((self._names[i], low - begin, high - begin))
        return found

    def close(self) -> None:
        """Nothing stays open between reads."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SliceHeader:
    """Shape (y, x) and dtype of one slice, as its file states them before it is decoded."""

    shape: tuple[int, int]
    dtype: np.dtype[Any]

    @property
    def num_bytes(self) -> int:
        """Bytes of the decoded slice."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        return f"y x x = {self.shape[0]} x {self.shape[1]} {self.dtype}"


class SliceFolderSource(FolderSource):
    """A folder of files with one slice each.

    Opening reads the headers of the first, middle and last file; the other headers are checked
    when their slices are read.

    Raises
    ------
    InvalidVolumeError
        If there is no stack or more than one, or if a file is empty, unreadable or different
        from the first.
    NoVolumeError
        If the files are pictures and not slices.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._take_files(self._ordered_names())
        self._first = self._checked_first()
        names = self._names
        self.shape = (self._take_counts((1,) * len(names)), *self._first.shape)
        self.dtype = check_dtype(self._file(names[0]), self._first.dtype)
        for name in (names[len(names) // 2], names[-1]):
            self._check_same(name, self._header(self._file(name)))
        self._set_voxel_size(self._own_voxel_size(), beside=self._folder)

    def _ordered_names(self) -> Sequence[str]:
        """Names of the slices in their order; sets `notes`."""
        stack = choose_stack(self._folder, self._sizes, self._pattern, min_files=MIN_FILES)
        self.notes = stack.notes
        return stack.names

    @abstractmethod
    def _header(self, url: str) -> SliceHeader:
        """What a file states about its slice."""

    @abstractmethod
    def _plane(self, url: str) -> tuple[np.ndarray, int]:
        """Slice of a file, shape (y, x), and the bytes that were read for it."""

    def _own_voxel_size(self) -> FoundVoxelSize | None:
        """Voxel size that the files themselves state."""
        return None

    def _checked_first(self) -> SliceHeader:
        url = self._file(self._names[0])
        first = self._header(url)
        if first.num_bytes > _MAX_SLICE_BYTES:
            raise InvalidVolumeError(
                f"{url}: {first} is {first.num_bytes / 2**30:.1f} GiB; ctray reads slices of at "
                f"most {_MAX_SLICE_BYTES >> 30} GiB, convert to Zarr or tiled TIFF"
            )
        return first

    def _check_same(self, name: str, header: SliceHeader) -> None:
        if header != self._first:
            raise InvalidVolumeError(
                f"{self._file(name)}: {header} in a stack of {self._first} ({self._names[0]}); "
                "move it elsewhere"
            )

    def _load(self, name: str, start: int, stop: int) -> tuple[np.ndarray, int]:
        url = self._file(name)
        # Before decoding: the header bounds the memory that the slice may fill.
        self._check_same(name, self._header(url))
        plane, num_bytes = self._plane(url)
        if plane.shape != self._first.shape or plane.dtype != self._first.dtype:
            raise damaged(url, "slice", f"decodes to {plane.shape} {plane.dtype}")
        return plane[np.newaxis], num_bytes


def is_pattern(url: str) -> bool:
    """Whether the last name of `url` selects files by an asterisk.

    A file or folder may have an asterisk in its own name.
    """
    return "*" in url.rpartition("/")[2] and not store.exists(url)


def split_pattern(url: str) -> tuple[str, str | None]:
    """Folder and pattern of `url`; no pattern if `url` is a folder."""
    if not is_pattern(url):
        return url, None
    folder, _, pattern = url.rpartition("/")
    return folder, pattern


def choose_stack(
    folder: str,
    names: Sequence[str] | dict[str, int | None],
    pattern: str | None,
    *,
    min_files: int,
) -> NumberedStack:
    """Stack of a folder: the one of the pattern, or the only one.

    Without a pattern, a stack needs `min_files` files, and `MIN_FILES` if there are others.

    Raises
    ------
    NotFoundError
        If no file matches the pattern.
    InvalidVolumeError
        If the folder holds no stack, or several without a pattern, or if the order of the files
        is unknown.
    """
    stacks = group_numbered(names)
    if pattern is not None:
        stacks = [stack for stack in stacks if stack.pattern == pattern]
        if not stacks:
            raise NotFoundError(f"{folder}: no files named {pattern}; check the pattern")
    else:
        fewest = MIN_FILES if len(stacks) > 1 else min_files
        stacks = _long_enough(folder, stacks, fewest)
    (stack,) = stacks
    if stack.problem is not None:
        raise InvalidVolumeError(f"{folder}: {stack.problem}")
    return stack


def _long_enough(
    folder: str, stacks: Sequence[NumberedStack], min_files: int
) -> list[NumberedStack]:
    """The only stack of at least `min_files` files, in a list; else an error."""
    found = [stack for stack in stacks if len(stack.names) >= min_files]
    if len(found) == 1:
        return found
    if found:
        shown = ", ".join(f"{s.pattern} ({len(s.names)} files)" for s in found[:5])
        raise InvalidVolumeError(
            f"{folder}: several stacks in one folder: {shown}; name one, as in "
            f"{folder}/{found[0].pattern}"
        )
    if not stacks:
        raise InvalidVolumeError(f"{folder}: no slices in this folder; give the folder of a stack")
    names = sorted(name for stack in stacks for name in stack.names)
    raise InvalidVolumeError(
        f"{folder}: {len(names)} files do not form a numbered stack of at least {min_files} "
        f"({', '.join(names[:3])}{', ...' if len(names) > 3 else ''}); rename them, or import "
        "files one by one"
    )
