"""The one door to storage: URLs, small objects, Zarr stores, and what their errors mean.

Local paths stay plain absolute paths; everything else is a URL: ``s3://`` through obstore, what
else fsspec knows (``memory://``, ...) through fsspec. Whatever a library raises leaves this module
as a `ctray.core.errors.CtrayError`.

S3 takes endpoint, keys and region from the usual environment (``AWS_ENDPOINT_URL``,
``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_SESSION_TOKEN``, ``AWS_REGION``) or from
the AWS configuration files; without any key, requests are anonymous. ``CTRAY_S3_TIMEOUT_S``
bounds one request (30 s), ``CTRAY_S3_RETRIES`` the repeats of a failed one (2), and
``CTRAY_STORE_PATIENCE_S`` what a run waits for a store that is away (`ctray.storage.patience`).
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
import zarr
from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper
from zarr.storage import FsspecStore

from ctray.core.errors import ConfigError, InvalidVolumeError, NotFoundError, StorageError
from ctray.storage import s3, zipped
from ctray.storage.failures import mapped_errors
from ctray.storage.local_files import FileStore, open_local, special_kind

if TYPE_CHECKING:
    from zarr.abc.store import Store

__all__ = [
    "NUM_CPUS",
    "Entry",
    "delete_file",
    "delete_tree",
    "exists",
    "file_bytes",
    "filesystem",
    "is_local",
    "join",
    "list_dir",
    "list_tree",
    "mapped_errors",
    "normalize",
    "open_local",
    "read_bytes",
    "read_json",
    "read_ranges",
    "read_suffix",
    "read_view",
    "tree_bytes",
    "write_bytes",
    "write_json",
    "write_parts",
    "zarr_store",
]

# Zarr's own default counts every core of the node, also those that another process was given.
NUM_CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
zarr.config.set({"threading.max_workers": min(16, max(2, NUM_CPUS)), "async.concurrency": 10})


# Far more than metadata of ours or of others have.
MAX_JSON_BYTES = 64 * 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One name in a folder; `size` in bytes, None for a folder.

    `special` says what a file is that holds no stored bytes, such as a named pipe; None for others.
    """

    url: str
    name: str
    is_dir: bool
    size: int | None
    special: str | None = None


def is_local(url: str) -> bool:
    """Whether `url` is a path of this machine's file system."""
    return "://" not in url or url.startswith(("file://", "local://"))


def normalize(url: str | os.PathLike[str]) -> str:
    """Return the one spelling of `url`: an absolute path if local, no slash at the end."""
    text = os.fspath(url)
    if is_local(text):
        return str(Path(text.split("://", 1)[-1]).expanduser().absolute())
    scheme, rest = text.split("://", 1)
    return f"{scheme}://{rest.rstrip('/')}"


def join(url: str, *parts: str) -> str:
    """`url` with `parts` below it."""
    tail = [p.strip("/") for p in parts if p.strip("/")]
    return "/".join([normalize(url).rstrip("/"), *tail])


def exists(url: str) -> bool:
    """Whether an object or a folder is at `url`.

    Raises
    ------
    AccessError, StorageError
        If the store does not say. fsspec's own ``exists`` answers False then.
    """
    url = normalize(url)
    try:
        with mapped_errors(url, "look at"):
            if is_local(url):
                return Path(url).exists()
            if _is_s3(url):
                return s3.exists(url)
            filesystem(url).info(_path(url))
    except NotFoundError:
        return False
    return True


def read_bytes(url: str, *, max_bytes: int | None = None) -> bytes:
    """Whole content of the object at `url`; `NotFoundError` if there is none.

    An object of more than `max_bytes` is not fetched: `InvalidVolumeError`.
    """
    return bytes(read_view(url, max_bytes=max_bytes))


def read_view(url: str, *, max_bytes: int | None = None) -> bytes | memoryview:
    """`read_bytes` without a last copy, for large objects."""
    url = normalize(url)

    def check(size: int) -> None:
        if max_bytes is not None and size > max_bytes:
            raise InvalidVolumeError(
                f"{url}: holds {size:,} bytes, more than the {max_bytes:,} that are read; it is "
                "damaged, or not what its name says"
            )

    with mapped_errors(url, "read"):
        if is_local(url):
            with open_local(url) as file:
                check(os.fstat(file.fileno()).st_size)
                return file.read()
        if _is_s3(url):
            return s3.read(url, check)
        fs, path = filesystem(url), _path(url)
        if max_bytes is not None:
            check(int(fs.info(path)["size"] or 0))
        return bytes(fs.cat_file(path))


def read_ranges(url: str, ranges: Sequence[tuple[int, int]]) -> Sequence[bytes | memoryview]:
    """Parts [start, stop) in bytes of the object at `url`; shorter where the object ends earlier.

    A store that refuses a range beyond the object's end raises `InvalidVolumeError` instead.
    """
    url = normalize(url)
    with mapped_errors(url, "read"):
        if is_local(url):
            with open_local(url) as file:
                return [os.pread(file.fileno(), b - a, a) for a, b in ranges]
        if _is_s3(url):
            return s3.read_ranges(url, ranges)
        fs, path = filesystem(url), _path(url)
        return [bytes(fs.cat_file(path, start=a, end=b)) for a, b in ranges]


def read_suffix(url: str, num_bytes: int) -> bytes:
    """Last bytes of the object at `url`, all of it where it is smaller."""
    url = normalize(url)
    with mapped_errors(url, "read"):
        if is_local(url):
            with open_local(url) as file:
                size = os.fstat(file.fileno()).st_size
                return os.pread(file.fileno(), num_bytes, max(0, size - num_bytes))
        if _is_s3(url):
            return s3.read_suffix(url, num_bytes)
        fs = filesystem(url)
        size = int(fs.info(_path(url))["size"] or 0)
        return bytes(fs.cat_file(_path(url), start=max(0, size - num_bytes)))


def file_bytes(url: str) -> int:
    """Size of the object at `url`; `NotFoundError` if there is none."""
    url = normalize(url)
    with mapped_errors(url, "read"):
        if is_local(url):
            return Path(url).stat().st_size
        if _is_s3(url):
            return s3.size(url)
        return int(filesystem(url).info(_path(url))["size"] or 0)


def write_bytes(url: str, data: bytes, *, durable: bool = True) -> None:
    """Write an object whole or not at all: a single put, or a rename within the local folder.

    `durable` waits until a local disk has it: what is written last must not reach the disk first.
    """
    write_parts(url, [data], durable=durable)


def write_parts(url: str, parts: Sequence[bytes | memoryview], *, durable: bool = True) -> None:
    """`write_bytes` of an object whose parts lie apart in memory."""
    url = normalize(url)
    with mapped_errors(url, "write"):
        if is_local(url):
            _write_local(Path(url), parts, durable)
        elif _is_s3(url):
            s3.write(url, parts)
        else:
            filesystem(url).pipe_file(_path(url), b"".join(parts))


def read_json(url: str, *, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """Return parsed JSON at `url`; `StorageError` if it is not JSON, or larger than `max_bytes`."""
    try:
        data = read_bytes(url, max_bytes=max_bytes)
    except InvalidVolumeError as error:
        raise StorageError(str(error)) from error
    try:
        return json.loads(data)
    except RecursionError as error:
        raise StorageError(f"{url} holds JSON nested too deeply; remove or mend it") from error
    except ValueError as error:
        raise StorageError(f"{url} holds no valid JSON ({error}); remove or mend it") from error


def write_json(url: str, obj: Any) -> None:
    """Write `obj` as JSON, whole or not at all; `ConfigError` for what JSON cannot hold (NaN)."""
    try:
        text = json.dumps(obj, indent=2, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{url} cannot be written as JSON: {error}") from error
    write_bytes(url, text.encode() + b"\n")


def list_dir(url: str) -> list[Entry]:
    """Entries of a folder, sorted by name; `NotFoundError` if it does not exist or is a file."""
    url = normalize(url)
    with mapped_errors(url, "list"):
        if is_local(url):
            with os.scandir(url) as names:
                found = [_local_entry(name) for name in names]
        else:
            found = [
                Entry(url=join(url, name), name=name, is_dir=is_dir, size=size)
                for name, is_dir, size in (s3.folder(url) if _is_s3(url) else _folder(url))
            ]
            # S3 has no empty folders, but a bucket may be empty.
            if not found and _is_s3(url) and s3.split(url)[1]:
                what = "a file, no folder" if exists(url) else "nothing; check the URL"
                raise NotFoundError(f"{url} is {what}")
    return sorted(found, key=lambda e: e.name)


def tree_bytes(url: str) -> int:
    """Bytes of all objects below `url`, 0 where nothing is."""
    url = normalize(url)
    with mapped_errors(url, "list"):
        if is_local(url):
            return sum(p.stat().st_size for p in Path(url).rglob("*") if p.is_file())
        if _is_s3(url):
            return sum(size for _, size in s3.listing(url))
        found = filesystem(url).find(_path(url), detail=True)
        return sum(int(info["size"] or 0) for info in found.values())


def list_tree(url: str) -> Iterator[tuple[str, int]]:
    """Path below `url` and size in bytes of every object there, in no order.

    Raises
    ------
    NotImplementedError
        If the store cannot list.
    """
    url = normalize(url)
    with mapped_errors(url, "list"):
        if is_local(url):
            root = Path(url)
            for path in root.rglob("*"):
                if path.is_file():
                    yield path.relative_to(root).as_posix(), path.stat().st_size
        elif _is_s3(url):
            below = f"{s3.split(url)[1]}/".removeprefix("/")
            for key, size in s3.listing(url):
                yield key.removeprefix(below), size
        else:
            below = f"{_path(url).strip('/')}/"
            for path, info in filesystem(url).find(_path(url), detail=True).items():
                yield path.lstrip("/").removeprefix(below), int(info["size"] or 0)


def delete_file(url: str) -> None:
    """Remove one object, if it is there; for ctray's own notes alone."""
    url = normalize(url)
    with suppress(NotFoundError), mapped_errors(url, "remove"):
        if is_local(url):
            Path(url).unlink()
        elif _is_s3(url):
            s3.remove(url)
        else:
            filesystem(url).rm_file(_path(url))


def delete_tree(url: str) -> None:
    """Remove everything below `url`; for ctray's own unfinished output alone."""
    url = normalize(url)
    with mapped_errors(url, "remove"):
        if is_local(url):
            if Path(url).exists():
                shutil.rmtree(url)
            return
        if _is_s3(url):
            s3.remove_below(url)
            return
        fs = filesystem(url)
        found = fs.find(_path(url))
        if found:
            fs.rm(found)


def zarr_store(url: str, *, read_only: bool) -> Store:
    """Zarr store whose root is `url`: obstore on S3, the file system, or fsspec for the rest."""
    url = normalize(url)
    with mapped_errors(url, "open"):
        if is_local(url):
            return FileStore(url, read_only=read_only)
        if _is_s3(url):
            return s3.VoxelStore(s3.client(*s3.split(url)), read_only=read_only)
        fs = filesystem(url)
        if not fs.async_impl:
            fs = AsyncFileSystemWrapper(fs, asynchronous=True)
        else:
            protocol = url.split("://", 1)[0]
            fs = fsspec.filesystem(protocol, asynchronous=True, use_listings_cache=False)
        return FsspecStore(fs, path=_path(url), read_only=read_only)


def filesystem(url: str) -> Any:
    """Return the fsspec file system for `url`, with bounded waits and no listing cache."""
    protocol = "file" if is_local(url) else url.split("://", 1)[0]
    if protocol == "zip":
        # Refuses a pipe of that name, which would be waited for.
        open_local(zipped.file_of(url)).close()
        return zipped.zip_filesystem(url)
    if protocol != "s3":
        return fsspec.filesystem(protocol)
    fs = fsspec.filesystem("s3", **s3.s3fs_options())
    # botocore repeats already; s3fs on top would multiply the longest wait.
    fs.retries = 1
    return fs


def _is_s3(url: str) -> bool:
    return url.startswith("s3://")


def _path(url: str) -> str:
    """Path of a remote `url` as its file system wants it."""
    if url.startswith(zipped.SCHEME):
        return zipped.inner_path(url)
    scheme, rest = url.split("://", 1)
    return url if scheme in ("http", "https") else ("/" + rest if scheme == "memory" else rest)


def _write_local(path: Path, parts: Sequence[bytes | memoryview], durable: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with partial.open("wb") as file:
            file.writelines(parts)
            if durable:
                # Else a power cut could leave the name on an empty file: a commit without content.
                file.flush()
                os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _local_entry(name: os.DirEntry[str]) -> Entry:
    try:
        found = name.stat()
    except OSError:
        # A dangling link has no size, nor has what may not be looked at; whoever opens it gets
        # the clear error.
        return Entry(url=name.path, name=name.name, is_dir=False, size=None)
    is_dir = stat.S_ISDIR(found.st_mode)
    return Entry(
        url=name.path,
        name=name.name,
        is_dir=is_dir,
        size=None if is_dir else found.st_size,
        special=special_kind(found.st_mode),
    )


def _folder(url: str) -> list[tuple[str, bool, int | None]]:
    """Name, whether a folder, and size of the entries directly below a remote `url`."""
    path = _path(url).strip("/")
    found = []
    for item in filesystem(url).ls(_path(url), detail=True):
        if item["name"].strip("/") == path:
            if item["type"] == "file" and not path.endswith("/"):
                raise NotFoundError(f"{url} is a file, no folder")
            continue
        name = item["name"].rstrip("/").rsplit("/", 1)[-1]
        is_dir = item["type"] == "directory"
        found.append((name, is_dir, None if is_dir else item.get("size")))
    return found
