"""Objects that one writer makes: created only if absent, replaced only if unchanged.

Disks do it with a hard link and a lock of the file, S3 with conditional puts. Of other stores
fsspec offers creation alone: there, one process replaces one thing at a time, and two processes
that do so within milliseconds may both believe to have done it. What was put is read back, for
stores that ignore a condition.
"""

from __future__ import annotations

import os
import threading
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ctray.core.errors import NotFoundError
from ctray.storage import s3, store

if TYPE_CHECKING:
    from obstore import PutMode

_one_at_a_time = threading.Lock()


def create(url: str, data: bytes) -> bool:
    """Write an object unless one is there; whether it was written. Whole or not at all.

    Parameters
    ----------
    url
        Where.
    data
        Its content, different from that of every other writer.
    """
    url = store.normalize(url)
    with store.mapped_errors(url, "write"):
        if store.is_local(url):
            return _create_local(Path(url), data)
        if url.startswith("s3://"):
            return _put_if(url, data, "create")
        try:
            with store.filesystem(url).open(url, "xb") as file:
                file.write(data)
        except FileExistsError:
            return False
    return _is_there(url, data)


def replace(url: str, seen: bytes, data: bytes) -> bool:
    """Write an object only if its content is still `seen`; whether it was written."""
    url = store.normalize(url)
    with store.mapped_errors(url, "write"):
        if store.is_local(url):
            return _change_local(Path(url), seen, data)
        if url.startswith("s3://"):
            return _replace_on_s3(url, seen, data)
    with _one_at_a_time:
        if not _is_there(url, seen):
            return False
        store.write_bytes(url, data)
        return _is_there(url, data)


def remove(url: str, seen: bytes) -> bool:
    """Delete an object only if its content is still `seen`; whether it was deleted.

    Object stores cannot do it in one step: there, who replaces the object in the milliseconds
    between the two loses it.
    """
    url = store.normalize(url)
    if store.is_local(url):
        with store.mapped_errors(url, "remove"):
            return _change_local(Path(url), seen, None)
    if not _is_there(url, seen):
        return False
    store.delete_file(url)
    return True


def _is_there(url: str, data: bytes) -> bool:
    try:
        return store.read_bytes(url) == data
    except NotFoundError:
        return False


def _create_local(path: Path, data: bytes) -> bool:
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name that appears with its content: who opens it finds all of it.
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(partial, path)
        except FileExistsError:
            return False
        except OSError:
            # A file system without hard links.
            return _create_plainly(path, data)
    finally:
        partial.unlink(missing_ok=True)
    return True


def _create_plainly(path: Path, data: bytes) -> bool:
    try:
        with path.open("xb") as file:
            file.write(data)
    except FileExistsError:
        return False
    return True


def _change_local(path: Path, seen: bytes, data: bytes | None) -> bool:
    """Replace or remove a file under the lock of that very file, if it still holds `seen`."""
    import fcntl

    try:
        file = path.open("rb")
    except FileNotFoundError:
        return False
    with file:
        # Some network file systems have no such locks: the comparison alone must do there.
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        try:
            same_file = os.path.samestat(os.fstat(file.fileno()), path.stat())
        except FileNotFoundError:
            return False
        if not same_file or file.read() != seen:
            return False
        if data is None:
            path.unlink()
        else:
            store.write_bytes(str(path), data)
    return True


def _replace_on_s3(url: str, seen: bytes, data: bytes) -> bool:
    import obstore

    bucket, key = s3.split(url)
    try:
        found = obstore.get(s3.client(bucket), key)
    except FileNotFoundError:
        return False
    tag = found.meta["e_tag"]
    if bytes(found.bytes()) != seen:
        return False
    if tag is None:
        return _put_if(url, data, "overwrite")
    # Ceph 16 takes tags without their quotes only, and refuses others.
    return any(_put_if(url, data, {"e_tag": spelt}) for spelt in (tag, tag.strip('"')))


def _put_if(url: str, data: bytes, mode: PutMode) -> bool:
    import obstore
    from obstore.exceptions import AlreadyExistsError, PreconditionError

    bucket, key = s3.split(url)
    # A refusal may be of a put that was done and whose answer was lost: the content tells.
    with suppress(AlreadyExistsError, PreconditionError):
        obstore.put(s3.client(bucket), key, data, mode=mode, use_multipart=False)
    return _is_there(url, data)
