"""Zarr in a zip file, read in place: URLs of what lies in it, and their file system.

`zip:///data/scan.ome.zarr.zip!/0` names `0` in that file. Only local files are read: an object
store would be asked for the directory of the file again and again.
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
# Members are whole chunks or shards; a larger one would not be read into memory on purpose.
_MAX_MEMBER_BYTES = 4 << 30
# Deflate packs a thousand times at most; ctray trusts no more than this of a packed member.
_MAX_PACKED_BYTES = 256 << 20


def is_zipped_zarr(name: str) -> bool:
    """Whether a file name is that of a zipped Zarr."""
    return name.lower().endswith(_SUFFIXES)


def zip_url(url: str) -> str:
    """URL of what the zip file at `url` (normalized) holds.

    Raises
    ------
    InvalidVolumeError
        If it is on an object store.
    """
    if "://" in url:
        raise InvalidVolumeError(
            f"{url}: a zipped Zarr on an object store is not read; unzip it there, or copy it to "
            "a local disk"
        )
    return f"{SCHEME}{url}!"


def file_of(url: str) -> str:
    """Path of the zip file that `url` leads into."""
    return url.removeprefix(SCHEME).partition("!")[0]


def inner_path(url: str) -> str:
    """Path inside the zip file."""
    return url.removeprefix(SCHEME).partition("!")[2].strip("/")


def zip_filesystem(url: str) -> Any:
    """Return the fsspec file system of a zip file; one object for all that read it.

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
    """File system of a zip file as it is now: one that was replaced is opened anew."""
    try:
        fs = fsspec.filesystem("zip", fo=path, mode="r", skip_instance_cache=True)
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise InvalidVolumeError(f"{path}: unreadable zip ({error}); copy it again") from error
    _check_members(path, fs.zip)
    return fs


def _check_members(path: str, file: zipfile.ZipFile) -> None:
    """Refuse members that would fill the memory."""
    for member in file.infolist():
        packed = member.compress_type != zipfile.ZIP_STORED
        limit = _MAX_PACKED_BYTES if packed else _MAX_MEMBER_BYTES
        if member.file_size > limit:
            raise InvalidVolumeError(
                f"{path}: {member.filename} unpacks to {member.file_size} bytes, over {limit}; "
                "unzip it to a folder"
            )


__all__ = ["SCHEME", "file_of", "inner_path", "is_zipped_zarr", "zip_filesystem", "zip_url"]
