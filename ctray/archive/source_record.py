"""What a run keeps of a source, so that a later look can tell whether it is still the same.

The stamp is cheap: number, bytes, and names, sizes and times (or tags) of the files. It is asked
before a volume is worked on. The checksums are of the voxels, slab by slab, taken while they are
imported: they tell what has changed, whatever the stamp says.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ctray.core.errors import NotFoundError
from ctray.formats.opening import open_as
from ctray.formats.source import Kind, VolumeSource
from ctray.storage import s3, store, zipped

# Of a Zarr volume so many objects are looked at, the first by name: some have millions of chunks.
_MOST_OBJECTS = 100_000
_MOST_SLABS = 256
_LEAST_DEPTH = 16
# Where so many files lie in one folder, listing it costs less than asking for each.
_WORTH_LISTING = 4
_ZARR = ("zarr", "ome-zarr")

_File = tuple[str, int, str]


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


def _stamp(found: Iterator[_File], url: str) -> str:
    digest, count, size = hashlib.sha256(), 0, 0
    for name, num_bytes, tag in found:
        count, size = count + 1, size + num_bytes
        digest.update(f"{name}\0{num_bytes}\0{tag}\n".encode("utf-8", "surrogateescape"))
    if not count:
        raise NotFoundError(f"{url}: nothing is there; check the path or URL")
    return f"{count}:{size}:{digest.hexdigest()[:16]}"


def _tree(url: str) -> Iterator[_File]:
    if store.is_local(url):
        found = _local_tree(Path(url))
    elif url.startswith("s3://"):
        found = _listed(url)
    else:
        root = store.filesystem(url)
        infos = root.find(url, detail=True)
        found = ((path, *_told(infos[path])) for path in sorted(infos))
    with store.mapped_errors(url, "list"):
        yield from itertools.islice(found, _MOST_OBJECTS)


def _local_tree(root: Path) -> Iterator[_File]:
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            path = Path(folder) / name
            about = path.stat()
            yield str(path.relative_to(root)), about.st_size, str(about.st_mtime_ns)


def _listed(url: str) -> Iterator[_File]:
    """Objects below a prefix on S3, which come by name."""
    import obstore

    bucket, key = s3.split(url)
    for page in obstore.list(s3.client(bucket), prefix=key or None):
        for item in page:
            yield item["path"], item["size"], item["e_tag"] or str(item["last_modified"])


def _files(urls: Sequence[str]) -> Iterator[_File]:
    wanted: dict[str, set[str]] = {}
    for url in urls:
        folder, _, name = url.rpartition("/")
        wanted.setdefault(folder, set()).add(name)
    for folder, names in wanted.items():
        with store.mapped_errors(f"{folder}/{min(names)}", "look at"):
            yield from _files_of(folder, names)


def _files_of(folder: str, names: set[str]) -> Iterator[_File]:
    if store.is_local(folder):
        for name in sorted(names):
            about = (Path(folder) / name).stat()
            yield name, about.st_size, str(about.st_mtime_ns)
    elif folder.startswith("s3://") and len(names) >= _WORTH_LISTING:
        for path, size, tag in _listed(folder):
            name = path.rpartition("/")[2]
            if name in names:
                yield name, size, tag
    else:
        root = store.filesystem(folder)
        for name in sorted(names):
            yield name, *_told(root.info(f"{folder}/{name}"))


def _told(info: dict[str, Any]) -> tuple[int, str]:
    """Size, and the tag or time that a file system of fsspec tells."""
    known = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "created")
    return int(info["size"] or 0), next((str(info[n]) for n in known if info.get(n)), "")
