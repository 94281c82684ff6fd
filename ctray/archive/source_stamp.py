"""The stamp of a source: a cheap test whether any of its files has changed.

A stamp covers the number of files, their bytes, and their names, sizes and times (or the tags of
the store).
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ctray.core.errors import NotFoundError
from ctray.formats.opening import open_as
from ctray.formats.source import VolumeSource
from ctray.formats.tiff.source import TiffSource
from ctray.storage import s3, store, zipped

# Most objects of a Zarr volume that a stamp covers, in the order of their names. Some volumes have
# millions of chunks.
_MOST_OBJECTS = 100_000
# From this many files in one folder, listing it costs less than asking for each file.
_WORTH_LISTING = 4
_ZARR = ("zarr", "ome-zarr")

_File = tuple[str, int, str]


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
        found = ((path, *_size_and_tag(infos[path])) for path in sorted(infos))
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
    """Objects below a prefix on S3, in the order of their names."""
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
            yield name, *_size_and_tag(root.info(f"{folder}/{name}"))


def _size_and_tag(info: dict[str, Any]) -> tuple[int, str]:
    """Size, and the tag or time, from an fsspec file system."""
    known = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "created")
    return int(info["size"] or 0), next((str(info[n]) for n in known if info.get(n)), "")
