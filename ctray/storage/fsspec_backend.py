"""Every other store that fsspec knows: memory, HTTP, Zarr in zip files."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any, cast

import fsspec
from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper
from zarr.storage import FsspecStore

from ctray.core.errors import NotFoundError
from ctray.storage import zipped
from ctray.storage.backend import Entry, ObjectInfo, Parts, holds
from ctray.storage.local_backend import open_local
from ctray.storage.urls import join

# A remote file is asked for what is wanted and this much more. A multi-page TIFF's directory lies
# in small pieces all over the file: larger blocks would fetch all of it just to count pages.
_READ_AHEAD_BYTES = 64 << 10
# Where the pieces lie close together, few large blocks beat thousands of small requests.
_BLOCK_BYTES = 2 << 20
_MAX_BLOCKS = 16
_VERSION_KEYS = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "created")
_one_at_a_time = threading.Lock()


def caching(*, dense: bool) -> dict[str, Any]:
    """Cache of a remote file that is read piece by piece."""
    if not dense:
        return {"block_size": _READ_AHEAD_BYTES, "cache_type": "readahead"}
    options = {"maxblocks": _MAX_BLOCKS}
    return {"block_size": _BLOCK_BYTES, "cache_type": "blockcache", "cache_options": options}


class FsspecBackend:
    """Objects of a file system of fsspec; see `ctray.storage.backend.Backend`.

    fsspec offers exclusive creation only. `replace` and `delete_unchanged` are safe between threads
    of one process; two processes that use them within milliseconds may both succeed.
    """

    def open(self, url: str, *, dense: bool) -> IO[bytes]:
        """Open an object with a cache."""
        file = _filesystem(url).open(_path(url), mode="rb", **caching(dense=dense))
        return cast("IO[bytes]", file)

    def read(self, url: str, check: Callable[[int], None] | None = None) -> bytes:
        """Read a whole object."""
        if check is not None:
            check(self.stat(url).size)
        return bytes(_filesystem(url).cat_file(_path(url)))

    def read_ranges(self, url: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Read byte ranges."""
        fs, path = _filesystem(url), _path(url)
        return [bytes(fs.cat_file(path, start=a, end=b)) for a, b in ranges]

    def read_suffix(self, url: str, num_bytes: int) -> bytes:
        """Read the last bytes."""
        start = max(0, self.stat(url).size - num_bytes)
        return bytes(_filesystem(url).cat_file(_path(url), start=start))

    def write(self, url: str, parts: Parts, *, durable: bool) -> None:
        """Write an object in one call."""
        _filesystem(url).pipe_file(_path(url), b"".join(parts))

    def create(self, url: str, data: bytes) -> bool:
        """Write an object in exclusive mode."""
        try:
            with _filesystem(url).open(_path(url), "xb") as file:
                file.write(data)
        except FileExistsError:
            return False
        # Some stores ignore the mode.
        return holds(self, url, data)

    def replace(self, url: str, seen: bytes, data: bytes) -> bool:
        """Compare, then write."""
        with _one_at_a_time:
            if not holds(self, url, seen):
                return False
            self.write(url, [data], durable=True)
            return holds(self, url, data)

    def delete_unchanged(self, url: str, seen: bytes) -> bool:
        """Compare, then delete."""
        with _one_at_a_time:
            if not holds(self, url, seen):
                return False
            self.delete(url)
            return True

    def stat(self, url: str) -> ObjectInfo:
        """Size, and the tag or time that the file system gives."""
        return _told("", _filesystem(url).info(_path(url)))

    def exists(self, url: str) -> bool:
        """Whether something exists; fsspec's own ``exists`` says no when the store fails."""
        _filesystem(url).info(_path(url))
        return True

    def list(self, url: str) -> Iterator[Entry]:
        """Entries of a folder."""
        path = _path(url).strip("/")
        for item in _filesystem(url).ls(_path(url), detail=True):
            if item["name"].strip("/") == path:
                if item["type"] == "file" and not path.endswith("/"):
                    raise NotFoundError(f"{url} is a file, no folder")
                continue
            name = item["name"].rstrip("/").rsplit("/", 1)[-1]
            is_dir = item["type"] == "directory"
            size = None if is_dir else item.get("size")
            version = _told("", item).version
            yield Entry(url=join(url, name), name=name, is_dir=is_dir, size=size, version=version)

    def tree(self, url: str) -> Iterator[ObjectInfo]:
        """All objects below a folder."""
        below = f"{_path(url).strip('/')}/"
        for path, info in sorted(_filesystem(url).find(_path(url), detail=True).items()):
            yield _told(path.lstrip("/").removeprefix(below), info)

    def delete(self, url: str) -> None:
        """Delete one object."""
        _filesystem(url).rm_file(_path(url))

    def delete_tree(self, url: str) -> None:
        """Delete everything below a folder."""
        fs = _filesystem(url)
        found = fs.find(_path(url))
        if found:
            fs.rm(found)

    def zarr_store(self, url: str, *, read_only: bool) -> FsspecStore:
        """Zarr store over an asynchronous file system."""
        fs = _filesystem(url)
        if fs.async_impl:
            protocol = url.split("://", 1)[0]
            fs = fsspec.filesystem(protocol, asynchronous=True, use_listings_cache=False)
        else:
            fs = AsyncFileSystemWrapper(fs, asynchronous=True)
        return FsspecStore(fs, path=_path(url), read_only=read_only)


def _filesystem(url: str) -> Any:
    if not url.startswith(zipped.SCHEME):
        return fsspec.filesystem(url.split("://", 1)[0])
    # Refuses a pipe of that name: opening it would block.
    open_local(zipped.file_of(url)).close()
    return zipped.zip_filesystem(url)


def _path(url: str) -> str:
    """Path of `url` as its file system wants it."""
    if url.startswith(zipped.SCHEME):
        return zipped.inner_path(url)
    scheme, rest = url.split("://", 1)
    if scheme in ("http", "https"):
        return url
    return f"/{rest}" if scheme == "memory" else rest


def _told(path: str, info: Mapping[str, Any]) -> ObjectInfo:
    version = next((str(info[key]) for key in _VERSION_KEYS if info.get(key)), "")
    return ObjectInfo(path=path, size=int(info["size"] or 0), version=version)
