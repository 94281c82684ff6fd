"""Counting what is really fetched from a store."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Iterable
from typing import TYPE_CHECKING

from zarr.abc.store import ByteRequest, Store
from zarr.storage import WrapperStore

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
    """Store that counts the bytes of every buffer that it hands out."""

    def __init__(self, store: Store, transfer: Transfer) -> None:
        super().__init__(store)
        self._transfer = transfer

    def _with_store(self, store: Store) -> CountingStore:
        return type(self)(store, self._transfer)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Fetch and count one object or a part of it."""
        return self._counted(await self._store.get(key, prototype, byte_range))

    async def get_partial_values(
        self,
        prototype: BufferPrototype,
        key_ranges: Iterable[tuple[str, ByteRequest | None]],
    ) -> list[Buffer | None]:
        """Fetch and count several parts."""
        found = await self._store.get_partial_values(prototype, key_ranges)
        return [self._counted(buffer) for buffer in found]

    async def _get_many(
        self, requests: Iterable[tuple[str, BufferPrototype, ByteRequest | None]]
    ) -> AsyncGenerator[tuple[str, Buffer | None], None]:
        async for key, buffer in self._store._get_many(requests):
            yield key, self._counted(buffer)

    def _counted(self, buffer: Buffer | None) -> Buffer | None:
        if buffer is not None:
            self._transfer.add(len(buffer))
        return buffer
