"""The stamp of a source: a cheap test whether any of its files has changed.

A stamp covers the number of files, their bytes, and their names, sizes and times (or the tags of
the store).
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

from ctray.core.errors import NotFoundError
from ctray.formats.opening import open_as
from ctray.formats.source import VolumeSource
from ctray.formats.tiff.source import TiffSource
from ctray.storage import store, zipped
from ctray.storage.backend import ObjectInfo

# Most objects of a Zarr volume that a stamp covers, in the order of their names. Some volumes have
# millions of chunks.
_MOST_OBJECTS = 100_000
# From this many files in one folder, listing it costs less than asking for each file.
_WORTH_LISTING = 4
_ZARR = ("zarr", "ome-zarr")


def stamp_of(url: str, kind: str, dataset: str | None = None, within: str | None = None) -> str:
    """Stamp of the source at `url`: ``FILES:BYTES:DIGEST``.

    The digest is of names, sizes, and modification times or the store's tags.

    Raises
    ------
    NotFoundError
        If nothing is there.
    InvalidVolumeError
        If it cannot be opened any more to find its files.
    """
    if url.startswith(zipped.SCHEME) or zipped.is_zipped_zarr(url):
        return _stamp(_files([zipped.file_of(url)]), url)
    if kind in _ZARR:
        return _stamp(_tree(store.join(url, dataset) if dataset else url), url)
    if kind == TiffSource.kind and "*" not in url:
        # Opening a TIFF reads the tags of all pages.
        return _stamp(_files([url]), url)
    with open_as(url, kind, dataset=dataset, within=within) as source:
        return stamp_of_open(source)


def stamp_of_open(source: VolumeSource) -> str:
    """Stamp of an open source; see `stamp_of`."""
    if source.kind in _ZARR:
        return stamp_of(source.url, source.kind, source.dataset)
    return _stamp(_files(source.files), source.url)


def what_changed(before: str, now: str) -> str:
    """Difference of two stamps, as text."""
    (count, size, _), (count_now, size_now, _) = before.split(":"), now.split(":")
    if count != count_now:
        return f"{count_now} files instead of {count}"
    if size != size_now:
        return f"{size_now} bytes instead of {size}"
    return "a file was rewritten"


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
