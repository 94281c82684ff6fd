"""Turning errors of the storage libraries into errors that a user can act on."""

from __future__ import annotations

import errno
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from ctray.core.errors import (
    AccessError,
    CtrayError,
    DiskFullError,
    InvalidVolumeError,
    KeysError,
    NotFoundError,
    StorageError,
    StoreUnavailableError,
)

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# Codes of the S3 protocol, as the clients spell them in their messages.
_KEY_CODES = (
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "TokenRefreshRequired",
)
_ACCESS_CODES = (*_KEY_CODES, "AccessDenied", "Forbidden")
_FULL_CODES = ("QuotaExceeded", "InsufficientCapacity", "XMinioStorageFull")
# Errors of decoders on damaged bytes.
_DAMAGE = (ValueError, RuntimeError, KeyError, EOFError, zlib.error)
_BUSY_WORDS = (
    "timed out",
    "timeout",
    "connect",
    "error sending request",
    "connection",
    "unreachable",
)


@contextmanager
def mapped_errors(url: str, doing: str = "read") -> Iterator[None]:
    """Turn any error of a store or codec inside into a `CtrayError` that names `url`.

    Parameters
    ----------
    url
        Object or folder in use; it leads the message.
    doing
        Verb for the message: read, write, list, open.

    Raises
    ------
    NotFoundError, KeysError, AccessError, DiskFullError, StoreUnavailableError, StorageError
        By cause. Messages are one line.
    InvalidVolumeError
        If the bytes do not decode, or the decoded data do not fit in memory.
    """
    try:
        yield
    except CtrayError:
        raise
    except BaseException as error:
        # A panic of obstore is no `Exception`; it must not end the work on other volumes.
        if type(error).__name__ == "PanicException":
            raise StorageError(f"{url}: failed to {doing} it ({_one_line(error)})") from error
        if not isinstance(error, Exception):
            raise
        mapped = _translate(error, url, doing)
        if mapped is None:
            raise
        raise mapped from error


def _translate(error: Exception, url: str, doing: str) -> CtrayError | None:
    """Error of ctray for an error of a library; None if it is a defect, not a storage failure."""
    text = _one_line(error)
    # A long URL pushes the server's answer out of the one line.
    said = f"{text} {error}"
    if _is_full(error, said):
        return DiskFullError(f"{url}: no space left to {doing} it; free some and run again")
    if _is_access(error, said):
        # obstore's text carries a page of XML; the code of the protocol is enough.
        why = next((code for code in _ACCESS_CODES if code in said), text)
        refused: type[AccessError] = KeysError if why in _KEY_CODES else AccessError
        return refused(f"{url}: not allowed to {doing} it; check keys and permissions ({why})")
    if "NoSuchUpload" in said:
        # An upload in parts failed and was aborted twice; the client hides the reason.
        return StoreUnavailableError(f"{url}: an upload broke off; the store was away or too busy")
    if "NoSuchBucket" in said or "bucket does not exist" in said:
        return NotFoundError(f"{url}: the bucket does not exist; create it or correct the URL")
    if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
        what = "URL" if "://" in url else "path"
        return NotFoundError(f"{url}: nothing to {doing} there; check the {what}")
    remote = any(
        _is_from(e, "botocore", "obstore", "aiohttp") for e in (error, error.__cause__) if e
    )
    if remote or isinstance(error, OSError):
        if any(word in text.lower() for word in _BUSY_WORDS) or isinstance(error, TimeoutError):
            return StoreUnavailableError(
                f"{url}: the store does not answer; check network and endpoint ({text})"
            )
        failed: type[StorageError] = StoreUnavailableError if remote else StorageError
        return failed(f"{url}: failed to {doing} it ({text})")
    if isinstance(error, MemoryError) and doing == "read":
        return InvalidVolumeError(
            f"{url}: does not fit in memory; give the process more, or store it in smaller chunks"
        )
    if isinstance(error, ImportError):
        return StorageError(f"{url}: needs a package that is not installed ({text})")
    if isinstance(error, ValueError) and "Protocol not known" in text:
        return StorageError(f"{url}: unknown kind of URL; use a path, s3:// or another")
    if isinstance(error, zipfile.BadZipFile):
        return InvalidVolumeError(f"{url}: damaged zip ({text}); copy it again")
    if isinstance(error, _DAMAGE) and doing == "read":
        return InvalidVolumeError(f"{url}: damaged or no format that ctray reads ({text})")
    return None


def _is_full(error: Exception, text: str) -> bool:
    full = isinstance(error, OSError) and error.errno in _FULL
    return full or any(code in text for code in _FULL_CODES)


def _is_access(error: Exception, text: str) -> bool:
    if isinstance(error, PermissionError):
        return True
    name = type(error).__name__
    if name in ("PermissionDeniedError", "UnauthenticatedError", "NoCredentialsError"):
        return True
    return any(code in text for code in _ACCESS_CODES) and not isinstance(error, ValueError)


def _is_from(error: BaseException, *packages: str) -> bool:
    return any(cls.__module__.split(".")[0] in packages for cls in type(error).__mro__)


def _one_line(error: BaseException, limit: int = 300) -> str:
    """Start of an error's message: clients append debug dumps over many lines."""
    said = str(error).split("Debug source:")[0]
    # Some clients raise an empty error from the one that has the reason.
    while said in ("", "None") and error.__cause__ is not None:
        error = error.__cause__
        said = str(error)
    text = " ".join(said.split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"
