"""What a run keeps of a source, so that a later look can tell whether it is still the same.

The stamp is cheap: number, bytes, and names, sizes and times (or tags) of the files. It is asked
before a volume is worked on. The checksums are of the voxels, slab by slab, taken while they are
imported: they tell what has changed, whatever the stamp says.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ctray.core.errors import NotFoundError
from ctray.formats.opening import open_as
from ctray.formats.source import Kind, VolumeSource
from ctray.storage import store, zipped
from ctray.storage.backend import ObjectInfo

# Of a Zarr volume so many objects are looked at, the first by name: some have millions of chunks.
_MOST_OBJECTS = 100_000
_MOST_SLABS = 256
_LEAST_DEPTH = 16
# Where so many files lie in one folder, listing it costs less than asking for each.
_WORTH_LISTING = 4
_ZARR = ("zarr", "ome-zarr")


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceRecord:
    """What a source was when a run read it.

    Parameters
    ----------
    kind, dataset, within
        How it was opened.
    stamp
        See `stamp_of`.
    slab_depth, slabs
        SHA-256 of the voxels of every `slab_depth` slices along z, the last ones fewer: C order,
        little-endian, in the dtype in which the source hands them on. Empty for Zarr volumes,
        which are not imported.
    """

    kind: Kind
    stamp: str
    dataset: str | None = None
    within: str | None = None
    slab_depth: int = 0
    slabs: list[str] | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> SourceRecord | None:
        """Inverse of `to_json`; None for anything else, such as what earlier versions kept."""
        try:
            return cls(**{f.name: data[f.name] for f in fields(cls)})
        except (KeyError, TypeError):
            return None


class SlabChecksums:
    """Checksums of slabs, from slices that come in their order."""

    def __init__(self, num_slices: int) -> None:
        self.depth = slab_depth(num_slices)
        self._left = self.depth
        self._current = hashlib.sha256()
        self._done: list[str] = []

    def update(self, slices: npt.NDArray[Any]) -> None:
        """Take the next slices, (z, y, x)."""
        while len(slices):
            part, slices = slices[: self._left], slices[self._left :]
            self._current.update(voxel_bytes(part))
            self._left -= len(part)
            if self._left == 0:
                self._end_slab()

    def finish(self) -> list[str]:
        """Checksums of all slabs."""
        if self._left < self.depth:
            self._end_slab()
        return self._done

    def _end_slab(self) -> None:
        self._done.append(self._current.hexdigest())
        self._current, self._left = hashlib.sha256(), self.depth


def slab_depth(num_slices: int) -> int:
    """Slices of a slab: at least 16, and such that there are at most 256 slabs."""
    return max(_LEAST_DEPTH, -(-num_slices // _MOST_SLABS))


def voxel_bytes(voxels: npt.NDArray[Any]) -> memoryview:
    """Voxels as they are checksummed."""
    little = np.ascontiguousarray(voxels, dtype=voxels.dtype.newbyteorder("<"))
    return little.view(np.uint8).data


def stamp_of(url: str, kind: Kind, dataset: str | None = None, within: str | None = None) -> str:
    """Stamp of the source at `url`: ``FILES:BYTES:DIGEST``.

    The digest is of names, sizes, and modification times or the store's tags.

    Raises
    ------
    NotFoundError
        If nothing is there.
    InvalidVolumeError
        If the files that belong to it cannot be told any more.
    """
    if url.startswith(zipped.SCHEME) or zipped.is_zipped_zarr(url):
        return _stamp(_files([zipped.file_of(url)]), url)
    if kind in _ZARR:
        return _stamp(_tree(store.join(url, dataset) if dataset else url), url)
    if kind == "tiff" and "*" not in url:
        # Opening one walks all its pages.
        return _stamp(_files([url]), url)
    with open_as(url, kind, dataset=dataset, within=within) as source:
        return stamp_of_open(source)


def stamp_of_open(source: VolumeSource) -> str:
    """`stamp_of` a source that is open."""
    if source.kind in _ZARR:
        return stamp_of(source.url, source.kind, source.dataset)
    return _stamp(_files(source.files), source.url)


def what_changed(before: str, now: str) -> str:
    """Difference of two stamps in words."""
    (count, size, _), (count_now, size_now, _) = before.split(":"), now.split(":")
    if count != count_now:
        return f"{count_now} files, not {count}"
    if size != size_now:
        return f"{size_now} bytes, not {size}"
    return "a file was written anew"


def _stamp(found: Iterator[ObjectInfo], url: str) -> str:
    digest, count, size = hashlib.sha256(), 0, 0
    for info in found:
        count, size = count + 1, size + info.size
        line = f"{info.path}\0{info.size}\0{info.version}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    if not count:
        raise NotFoundError(f"{url}: nothing is there; check the path or URL")
    return f"{count}:{size}:{digest.hexdigest()[:16]}"


def _tree(url: str) -> Iterator[ObjectInfo]:
    return itertools.islice(store.stat_tree(url), _MOST_OBJECTS)


def _files(urls: Sequence[str]) -> Iterator[ObjectInfo]:
    wanted: dict[str, set[str]] = {}
    for url in urls:
        folder, _, name = url.rpartition("/")
        wanted.setdefault(folder, set()).add(name)
    for folder, names in wanted.items():
        if store.is_local(folder) or len(names) < _WORTH_LISTING:
            for name in sorted(names):
                yield replace(store.stat(f"{folder}/{name}"), path=name)
            continue
        for entry in store.list_dir(folder):
            if entry.name in names:
                yield ObjectInfo(path=entry.name, size=entry.size or 0, version=entry.version)
