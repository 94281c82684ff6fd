"""The one door to storage: objects and folders by URL, with errors that a user can act on.

Local paths stay plain absolute paths; everything else is a URL. Each kind of store has a backend:
the local disk, ``s3://``, and fsspec for the rest (``memory://``, ...). Every error of a library
leaves this module as a `ctray.core.errors.CtrayError`.

`ctray.storage.s3_client` tells how S3 is configured. ``CTRAY_STORE_PATIENCE_S`` bounds how long a
run waits for a store that is away (`ctray.storage.patience`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any

import zarr

from ctray.core.errors import ConfigError, InvalidVolumeError, NotFoundError, StorageError
from ctray.storage.backend import Backend, Entry, ObjectInfo, Parts
from ctray.storage.failures import mapped_errors
from ctray.storage.fsspec_backend import FsspecBackend
from ctray.storage.local_backend import LocalBackend
from ctray.storage.s3_backend import S3Backend
from ctray.storage.urls import is_local, join, normalize

if TYPE_CHECKING:
    from zarr.abc.store import Store

__all__ = [
    "NUM_CPUS",
    "Entry",
    "ObjectInfo",
    "create",
    "delete_file",
    "delete_tree",
    "delete_unchanged",
    "exists",
    "file_bytes",
    "is_local",
    "join",
    "list_dir",
    "list_tree",
    "mapped_errors",
    "normalize",
    "open_binary",
    "read_bytes",
    "read_json",
    "read_ranges",
    "read_suffix",
    "read_view",
    "replace",
    "stat",
    "stat_tree",
    "tree_bytes",
    "write_bytes",
    "write_json",
    "write_parts",
    "zarr_store",
]

# Zarr's own default counts every core of the node, including those of other processes.
NUM_CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
zarr.config.set({"threading.max_workers": min(16, max(2, NUM_CPUS)), "async.concurrency": 10})

# Far more than any metadata have.
MAX_JSON_BYTES = 64 * 2**20

_LOCAL, _OTHER = LocalBackend(), FsspecBackend()
_BACKENDS: dict[str, Backend] = {"s3": S3Backend()}


def _backend(url: str) -> Backend:
    """Backend of a normalized URL."""
    return _LOCAL if is_local(url) else _BACKENDS.get(url.split("://", 1)[0], _OTHER)


def exists(url: str) -> bool:
    """Whether an object or a folder is at `url`.

    Raises
    ------
    AccessError, StorageError
        If the store refuses to say, or fails.
    """
    url = normalize(url)
    try:
        with mapped_errors(url, "look at"):
            return _backend(url).exists(url)
    except NotFoundError:
        return False


def stat(url: str) -> ObjectInfo:
    """Size and version of the object at `url`; `NotFoundError` if it does not exist."""
    url = normalize(url)
    with mapped_errors(url, "look at"):
        return _backend(url).stat(url)


def file_bytes(url: str) -> int:
    """Size of the object at `url`; `NotFoundError` if it does not exist."""
    url = normalize(url)
    with mapped_errors(url, "read"):
        return _backend(url).stat(url).size


def open_binary(url: str, *, dense: bool = False) -> IO[bytes]:
    """Open an object for reading at any position, in bounded memory.

    Errors while it is read are those of the library: wrap the reads in `mapped_errors`.

    Parameters
    ----------
    url
        The object.
    dense
        Whether small reads will lie close together; only remote stores use it.
    """
    url = normalize(url)
    with mapped_errors(url, "read"):
        return _backend(url).open(url, dense=dense)


def read_bytes(url: str, *, max_bytes: int | None = None) -> bytes:
    """Read the object at `url`; `NotFoundError` if it does not exist.

    An object of more than `max_bytes` is not fetched: `InvalidVolumeError`.
    """
    return bytes(read_view(url, max_bytes=max_bytes))


def read_view(url: str, *, max_bytes: int | None = None) -> bytes | memoryview:
    """`read_bytes` without a last copy, for large objects."""
    url = normalize(url)

    def check(size: int) -> None:
        if max_bytes is not None and size > max_bytes:
            raise InvalidVolumeError(
                f"{url}: holds {size:,} bytes, more than the {max_bytes:,} that ctray reads; it is "
                "damaged, or not what its name says"
            )

    with mapped_errors(url, "read"):
        return _backend(url).read(url, check if max_bytes is not None else None)


def read_ranges(url: str, ranges: Sequence[tuple[int, int]]) -> Parts:
    """Read byte ranges [start, stop) of an object; shorter where the object ends earlier.

    A store that refuses a range beyond the object's end raises `InvalidVolumeError` instead.
    """
    url = normalize(url)
    with mapped_errors(url, "read"):
        return _backend(url).read_ranges(url, ranges)


def read_suffix(url: str, num_bytes: int) -> bytes:
    """Read the last bytes of an object, all of it where it is smaller."""
    url = normalize(url)
    with mapped_errors(url, "read"):
        return _backend(url).read_suffix(url, num_bytes)


def write_bytes(url: str, data: bytes, *, durable: bool = True) -> None:
    """Write an object, whole or not at all: in one put, or by a rename within the local folder.

    `durable` waits until a local disk holds it: a commit marker must not reach the disk before what
    it commits.
    """
    write_parts(url, [data], durable=durable)


def write_parts(url: str, parts: Parts, *, durable: bool = True) -> None:
    """`write_bytes` of an object whose parts lie apart in memory."""
    url = normalize(url)
    with mapped_errors(url, "write"):
        _backend(url).write(url, parts, durable=durable)


def create(url: str, data: bytes) -> bool:
    """Write an object unless one exists; return whether it was written.

    Parameters
    ----------
    url
        Where.
    data
        Content that differs from that of every other writer: some stores ignore the condition, so
        the object is read back.
    """
    url = normalize(url)
    with mapped_errors(url, "write"):
        return _backend(url).create(url, data)


def replace(url: str, seen: bytes, data: bytes) -> bool:
    """Write an object only if its content is still `seen`; return whether it was written."""
    url = normalize(url)
    with mapped_errors(url, "write"):
        return _backend(url).replace(url, seen, data)


def delete_unchanged(url: str, seen: bytes) -> bool:
    """Delete an object only if its content is still `seen`; return whether it was deleted."""
    url = normalize(url)
    with mapped_errors(url, "remove"):
        return _backend(url).delete_unchanged(url, seen)


def read_json(url: str, *, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """Return parsed JSON at `url`; `StorageError` if it is not JSON, or larger than `max_bytes`."""
    try:
        data = read_bytes(url, max_bytes=max_bytes)
    except InvalidVolumeError as error:
        raise StorageError(str(error)) from error
    try:
        return json.loads(data)
    except RecursionError as error:
        raise StorageError(f"{url} holds JSON nested too deeply; remove or repair it") from error
    except ValueError as error:
        raise StorageError(f"{url} holds no valid JSON ({error}); remove or repair it") from error


def write_json(url: str, obj: Any) -> None:
    """Write `obj` as JSON, whole or not at all; `ConfigError` for values JSON cannot hold (NaN)."""
    try:
        text = json.dumps(obj, indent=2, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{url} cannot be written as JSON: {error}") from error
    write_bytes(url, text.encode() + b"\n")


def list_dir(url: str) -> list[Entry]:
    """Entries of a folder, sorted by name; `NotFoundError` if it does not exist or is a file."""
    url = normalize(url)
    with mapped_errors(url, "list"):
        return sorted(_backend(url).list(url), key=lambda entry: entry.name)


def list_tree(url: str) -> Iterator[tuple[str, int]]:
    """Path below `url` and size in bytes of every object there; see `stat_tree`."""
    return ((found.path, found.size) for found in stat_tree(url))


def stat_tree(url: str) -> Iterator[ObjectInfo]:
    """Every object below `url`, in an order that does not change between calls.

    Raises
    ------
    NotImplementedError
        If the store cannot list.
    """
    url = normalize(url)
    with mapped_errors(url, "list"):
        yield from _backend(url).tree(url)


def tree_bytes(url: str) -> int:
    """Bytes of all objects below `url`; 0 if there are none."""
    return sum(found.size for found in stat_tree(url))


def delete_file(url: str) -> None:
    """Delete one object if it exists; only for notes that ctray itself wrote."""
    url = normalize(url)
    with suppress(NotFoundError), mapped_errors(url, "remove"):
        _backend(url).delete(url)


def delete_tree(url: str) -> None:
    """Delete everything below `url`; only for unfinished output of ctray itself."""
    url = normalize(url)
    with mapped_errors(url, "remove"):
        _backend(url).delete_tree(url)


def zarr_store(url: str, *, read_only: bool) -> Store:
    """Zarr store whose root is `url`."""
    url = normalize(url)
    with mapped_errors(url, "open"):
        return _backend(url).zarr_store(url, read_only=read_only)
