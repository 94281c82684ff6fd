"""The protocol of a store: what every kind of store must be able to do.

Each kind has one implementation: `local_backend`, `s3_backend`, and `fsspec_backend` for the rest.
To add a kind of store, implement `Backend` and name its scheme in `ctray.storage.store`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from zarr.abc.store import Store

Parts = Sequence[bytes | memoryview]


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One name in a folder.

    Parameters
    ----------
    url, name
        Where it is, and its last part.
    is_dir
        Whether it is a folder.
    size
        Bytes; None for a folder, or where the store does not say.
    version
        See `ObjectInfo`.
    special
        Kind of a file that holds no stored bytes, such as a named pipe; None for other entries.
    """

    url: str
    name: str
    is_dir: bool
    size: int | None
    version: str = ""
    special: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectInfo:
    """State of one object.

    Parameters
    ----------
    path
        Its path below the folder that was listed; empty for a single object.
    size
        Bytes.
    version
        Modification time or entity tag: differs after the object was written again. Empty where
        the store gives neither.
    """

    path: str = ""
    size: int
    version: str = ""


class Backend(Protocol):
    """Objects and folders of one kind of store.

    Every `url` is normalized (`ctray.storage.urls.normalize`). Methods raise whatever their library
    raises; `ctray.storage.store` turns that into errors of ctray.
    """

    def open(self, url: str, *, dense: bool) -> IO[bytes]:
        """Open an object for reading at any position; `dense` expects reads close together."""

    def read(self, url: str, check: Callable[[int], None] | None = None) -> bytes | memoryview:
        """Read a whole object; `check` is called with its size before its content is fetched."""

    def read_ranges(self, url: str, ranges: Sequence[tuple[int, int]]) -> Parts:
        """Read byte ranges [start, stop); shorter where the object ends earlier."""

    def read_suffix(self, url: str, num_bytes: int) -> bytes:
        """Read the last bytes of an object, all of it where it is smaller."""

    def write(self, url: str, parts: Parts, *, durable: bool) -> None:
        """Write an object of `parts`, whole or not at all; `durable` waits for the disk."""

    def create(self, url: str, data: bytes) -> bool:
        """Write an object unless one exists; return whether it was written."""

    def replace(self, url: str, seen: bytes, data: bytes) -> bool:
        """Write an object if its content is still `seen`; return whether it was written."""

    def delete_unchanged(self, url: str, seen: bytes) -> bool:
        """Delete an object if its content is still `seen`; return whether it was deleted."""

    def stat(self, url: str) -> ObjectInfo:
        """Size and version of an object."""

    def exists(self, url: str) -> bool:
        """Whether an object or a folder is at `url`; may raise `FileNotFoundError` for no."""

    def list(self, url: str) -> Iterable[Entry]:
        """Entries directly in a folder, in any order."""

    def tree(self, url: str) -> Iterator[ObjectInfo]:
        """Every object below a folder, in an order that does not change between calls."""

    def delete(self, url: str) -> None:
        """Delete one object."""

    def delete_tree(self, url: str) -> None:
        """Delete everything below a folder; nothing happens if it does not exist."""

    def zarr_store(self, url: str, *, read_only: bool) -> Store:
        """Zarr store whose root is `url`."""


def holds(backend: Backend, url: str, data: bytes) -> bool:
    """Whether the object at `url` exists and its content is `data`."""
    try:
        return bytes(backend.read(url)) == data
    except FileNotFoundError:
        return False
