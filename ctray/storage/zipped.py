"""Zarr in a zip file, read in place: URLs of its members, and their file system.

`zip:///data/scan.ome.zarr.zip!/0` names `0` in that file. Only local files are read: on an object
store, each access would fetch the file's directory again.
"""

from __future__ import annotations

import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import fsspec

from ctray.core.errors import InvalidVolumeError

SCHEME = "zip://"
_SUFFIXES = (".zarr.zip", ".ozx")
# Members are whole chunks or shards; larger ones are not meant to be read into memory.
_MAX_MEMBER_BYTES = 4 << 30
# Deflate packs up to a thousand times: a small packed member could fill the memory.
_MAX_PACKED_BYTES = 256 << 20


def is_zipped_zarr(name: str) -> bool:
    """Whether a file name has an ending of a zipped Zarr."""
    return name.lower().endswith(_SUFFIXES)


def zip_url(url: str) -> str:
    """URL of the content of the zip file at `url`, which is normalized.

    Raises
    ------
    InvalidVolumeError
        If it is on an object store.
    """
    if "://" in url:
        raise InvalidVolumeError(
            f"{url}: ctray reads a zipped Zarr on a local disk only; unzip it on the store, or "
            "copy it to a local disk"
        )
    return f"{SCHEME}{url}!"


def file_of(url: str) -> str:
    """Path of the zip file of a ``zip://`` URL."""
    return url.removeprefix(SCHEME).partition("!")[0]


def inner_path(url: str) -> str:
    """Path inside the zip file."""
    return url.removeprefix(SCHEME).partition("!")[2].strip("/")


def zip_filesystem(url: str) -> Any:
    """Return the fsspec file system of a zip file, shared by all its readers.

    Raises
    ------
    InvalidVolumeError
        If it is no zip file, or a member would take more memory than any chunk does.
    """
    path = file_of(url)
    state = Path(path).stat()
    return _opened(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=64)
def _opened(path: str, mtime_ns: int, size: int) -> Any:
    """File system of a zip file; opened again after the file was replaced."""
    try:
        fs = fsspec.filesystem("zip", fo=path, mode="r", skip_instance_cache=True)
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise InvalidVolumeError(f"{path}: unreadable zip ({error}); copy it again") from error
    _check_members(path, fs.zip)
    return fs


def _check_members(path: str, file: zipfile.ZipFile) -> None:
    """Refuse members that may fill the memory."""
    for member in file.infolist():
        packed = member.compress_type != zipfile.ZIP_STORED
        limit = _MAX_PACKED_BYTES if packed else _MAX_MEMBER_BYTES
        if member.file_size > limit:
            raise InvalidVolumeError(
                f"{path}: {member.filename} unpacks to {member.file_size} bytes, over {limit}; "
                "unzip it to a folder"
            )
