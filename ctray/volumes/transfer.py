"""What a volume fetches from its store: counted, and no more than an object of it can have."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import AsyncGenerator, Iterable
from typing import TYPE_CHECKING

from zarr.abc.store import ByteRequest, RangeByteRequest, Store
from zarr.storage import LocalStore, WrapperStore

if TYPE_CHECKING:
    from zarr.core.buffer import Buffer, BufferPrototype


class Transfer:
    """Sum of the bytes fetched by all stores of one volume."""

    def __init__(self, bytes_read: int = 0) -> None:
        self.bytes_read = bytes_read
        self._lock = threading.Lock()

    def add(self, num_bytes: int) -> None:
        """Count `num_bytes` more."""
        with self._lock:
            self.bytes_read += num_bytes


class CountingStore(WrapperStore[Store]):
    """Store that counts the bytes of every buffer that it hands out.

    Parameters
    ----------
    store
        Where the objects are.
    transfer
        Counts.
    max_bytes
        Most bytes that an object can have: of a larger one, or a part that is larger, no more is
        fetched, and a `ValueError` tells of it.
    """

    def __init__(self, store: Store, transfer: Transfer, max_bytes: int) -> None:
        super().__init__(store)
        self._transfer = transfer
        self._max_bytes = max_bytes

    def _with_store(self, store: Store) -> CountingStore:
        return type(self)(store, self._transfer, self._max_bytes)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Fetch and count one object or a part of it."""
        bounded = self._bounded(key, byte_range)
        return self._counted(await self._store.get(key, prototype, bounded))

    async def get_partial_values(
        self,
        prototype: BufferPrototype,
        key_ranges: Iterable[tuple[str, ByteRequest | None]],
    ) -> list[Buffer | None]:
        """Fetch and count several parts."""
        bounded = [(key, self._bounded(key, part)) for key, part in key_ranges]
        found = await self._store.get_partial_values(prototype, bounded)
        return [self._counted(buffer) for buffer in found]

    async def _get_many(
        self, requests: Iterable[tuple[str, BufferPrototype, ByteRequest | None]]
    ) -> AsyncGenerator[tuple[str, Buffer | None], None]:
        for key, prototype, byte_range in requests:
            yield key, await self.get(key, prototype, byte_range)

    def _bounded(self, key: str, part: ByteRequest | None) -> ByteRequest | None:
        """What to ask for, one byte more than there may be at most."""
        if isinstance(part, RangeByteRequest) and part.end - part.start > self._max_bytes:
            raise ValueError(f"a part of {part.end - part.start} bytes of {key}")
        if isinstance(self._store, LocalStore):
            path = self._store.root / key
            if path.exists():
                self._check_file(key, path.stat())
            return part
        return RangeByteRequest(0, self._max_bytes + 1) if part is None else part

    def _check_file(self, key: str, found: os.stat_result) -> None:
        if stat.S_ISDIR(found.st_mode):
            return
        if not stat.S_ISREG(found.st_mode):
            # Opening a named pipe would wait for its writer for ever.
            raise ValueError(f"{key} is a pipe, socket or device and no file")
        if found.st_size > self._max_bytes:
            raise ValueError(f"{key} has {found.st_size} bytes, more than {self._max_bytes}")

    def _counted(self, buffer: Buffer | None) -> Buffer | None:
        if buffer is not None:
            self._transfer.add(len(buffer))
            if len(buffer) > self._max_bytes:
                raise ValueError(f"an object of more than {self._max_bytes} bytes")
        return buffer
