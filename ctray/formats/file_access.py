"""How readers open files: at any position, in bounded memory, with damage as a named error."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator
from typing import IO, Any

from ctray.core.errors import CtrayError, InvalidVolumeError
from ctray.storage import store


@contextlib.contextmanager
def damage_as_error(url: str, what: str) -> Iterator[None]:
    """Turn any error that a file library raises on damaged data into `InvalidVolumeError`.

    Missing files, refused access, time-outs and a full disk keep their own errors.
    """
    with store.mapped_errors(url, doing="read"):
        try:
            yield
        except CtrayError:
            raise
        except Exception as error:
            if _is_from_system(error):
                raise
            # Decoders raise anything from struct.error to their own RuntimeErrors.
            raise damaged(url, what, error) from error


def _is_from_system(error: Exception) -> bool:
    """Whether the file system or network failed, and not the decoding of the data."""
    if isinstance(error, OSError):
        # File libraries raise a bare OSError for damage; system errors carry an errno or are a
        # subclass.
        return type(error) is not OSError or bool(error.errno)
    return type(error).__module__.split(".")[0] in ("botocore", "aiohttp", "obstore", "s3fs")


def damaged(url: str, what: str, detail: object) -> InvalidVolumeError:
    """Error for a file that is not a readable `what`."""
    text = " ".join(str(detail).split())[:200] or type(detail).__name__
    return InvalidVolumeError(f"{url}: unreadable {what} ({text}); copy or export it again")


def empty_file(url: str) -> InvalidVolumeError:
    """Error for a file of 0 bytes."""
    return InvalidVolumeError(f"{url}: file is empty (0 bytes); copy or export it again")


def file_size(url: str, file: IO[bytes]) -> int:
    """Bytes of an open file; `InvalidVolumeError` if it is empty."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if size == 0:
        raise empty_file(url)
    return size


def extra_package(name: str, url: str, what: str) -> Any:
    """Import the optional package `name`, which reads `what`.

    Raises
    ------
    InvalidVolumeError
        If the package is not installed. The message names the volume at `url` and the remedy.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InvalidVolumeError(
            f"{url}: reading {what} needs the package {name}, which is not installed; "
            "pip install 'ctray[formats]'"
        ) from error
