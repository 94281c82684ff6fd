"""All that ctray uses of zarr beyond its public interface, in one place.

zarr's minor version is pinned in pyproject.toml, and `tests/volumes/test_zarr_internals.py` fails
when one of these parts moves. No other module imports from ``zarr.core`` or overrides a method of
zarr whose name begins with an underscore.
"""

from __future__ import annotations

import asyncio
import math
import os
import stat
import warnings
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from numcodecs.abc import Codec  # type: ignore[import-untyped]
from zarr.abc.codec import BytesBytesCodec
from zarr.abc.store import ByteRequest, RangeByteRequest, Store
from zarr.codecs import BytesCodec, ShardingCodec
from zarr.core.metadata import ArrayV2Metadata, ArrayV3Metadata
from zarr.storage import LocalStore, StorePath, WrapperStore

from ctray.volumes.codec_rules import CHECKSUMS, PREFIX, TRANSFORMS
from ctray.volumes.unpacking import UNPACKED, allowed, unpack_within

if TYPE_CHECKING:
    from zarr.abc.buffer import Buffer, BufferPrototype
    from zarr.core.array_spec import ArraySpec

Metadata = ArrayV2Metadata | ArrayV3Metadata

# Readers did not choose the codec, so zarr's advice to choose another one is of no use to them.
warnings.filterwarnings("ignore", message="Numcodecs codecs are not in the Zarr version 3")


# --- arrays ---------------------------------------------------------------------------------------


def parse_metadata(document: dict[str, Any], store: Store) -> Metadata:
    """Metadata of an array as zarr understands `document`, a parsed `.zarray` or `zarr.json`."""
    untyped: Any = document
    found: Metadata = zarr.AsyncArray(metadata=untyped, store_path=StorePath(store)).metadata
    return found


def array_of(metadata: Metadata, store: Store) -> zarr.Array[Any]:
    """Array with these metadata, which are not read again, whose chunks lie in `store`."""
    return zarr.Array(zarr.AsyncArray(metadata=metadata, store_path=StorePath(store)))


def native_dtype(metadata: Metadata) -> np.dtype[Any]:
    """Type of the voxels, in the stored byte order for Zarr v2."""
    return np.dtype(metadata.dtype.to_native_dtype())


def object_shape(metadata: Metadata) -> tuple[int, ...]:
    """Voxels of one stored object: of a shard, or of a chunk where there are no shards."""
    found: Any = metadata
    return tuple(found.chunks if metadata.zarr_format == 2 else found.chunk_grid.chunk_shape)


def chunk_key(array: zarr.Array[Any], place: Sequence[int]) -> str:
    """Name of a stored object below its array, by its place in the grid of objects."""
    metadata: Any = array.metadata
    return str(metadata.encode_chunk_key(tuple(place)))


# --- codecs ---------------------------------------------------------------------------------------


def v2_codecs(array: zarr.Array[Any]) -> tuple[str, Any, Any]:
    """Order, filters and compressor of a Zarr v2 array."""
    metadata: Any = array.metadata
    return metadata.order, metadata.filters, metadata.compressor


def v3_codecs(array: zarr.Array[Any]) -> tuple[str | None, list[dict[str, Any]]] | None:
    """Byte order and further codecs of a v3 array's chunks; None if its first codec is not "bytes".

    The byte order is None for voxels of one byte. Codecs of shards are those of their chunks.
    """
    metadata: Any = array.metadata
    sharding = sharding_of(array)
    first, *rest = metadata.codecs if sharding is None else sharding.codecs
    if not isinstance(first, BytesCodec):
        return None
    return first.endian and first.endian.value, [codec.to_dict() for codec in rest]


def sharding_of(array: zarr.Array[Any]) -> ShardingCodec | None:
    """Codec of the array's shards, where that is its only codec."""
    codecs: Any = getattr(array.metadata, "codecs", ())
    if len(codecs) == 1 and isinstance(codecs[0], ShardingCodec):
        return codecs[0]
    return None


def has_index_at_start(array: zarr.Array[Any]) -> bool:
    """Whether shards begin with their index; usually it is at the end."""
    sharding = sharding_of(array)
    return sharding is not None and sharding.index_location.value == "start"


def has_usual_index(array: zarr.Array[Any]) -> bool:
    """Whether an array has no shards, or stores their index as nearly all writers do."""
    if array.shards is None:
        return True
    sharding = sharding_of(array)
    named = [codec.to_dict() for codec in sharding.index_codecs] if sharding else []
    return [c["name"] for c in named] == ["bytes", "crc32c"] and named[0].get("configuration") == {
        "endian": "little"
    }


def chunks_per_shard(metadata: Metadata) -> int:
    """Chunks in one shard, at the deepest nesting of shards that has most; 1 without shards."""
    if not isinstance(metadata, ArrayV3Metadata):
        return 1
    shape: Sequence[int] = object_shape(metadata)
    codecs: Any = metadata.codecs
    most = 1
    while found := [codec for codec in codecs if isinstance(codec, ShardingCodec)]:
        inner = found[0].chunk_shape
        most = max(most, math.prod(-(-s // c) for s, c in zip(shape, inner, strict=True)))
        shape, codecs = inner, found[0].codecs
    return most


def bounded_metadata(metadata: Metadata) -> Metadata:
    """Metadata whose codecs refuse chunks that unpack to more than their size.

    Parameters
    ----------
    metadata
        Of an array that `ctray.volumes.codec_rules.check_codecs` accepted.
    """
    if isinstance(metadata, ArrayV3Metadata):
        return replace(metadata, codecs=_bounded(metadata.codecs))
    num_bytes = math.prod(metadata.chunks) * native_dtype(metadata).itemsize
    steps = [*(metadata.filters or ()), *([metadata.compressor] if metadata.compressor else [])]
    bounded = []
    for step in steps:
        bounded.append(_BoundedStep(step, num_bytes))
        num_bytes = _most_encoded(step, num_bytes)
    compressor = bounded.pop() if metadata.compressor else None
    return replace(metadata, filters=tuple(bounded) or None, compressor=compressor)


def _most_encoded(step: Any, num_bytes: int) -> int:
    """Most bytes that a step of Zarr v2 makes of `num_bytes`, so that undoing it may take them."""
    name = step.codec_id
    if name in UNPACKED or name in CHECKSUMS:
        return allowed(num_bytes)
    if name == "packbits":
        return num_bytes // 8 + 2
    settings = step.get_config()
    before = settings.get("decode_dtype") or settings.get("dtype")
    after = settings.get("encode_dtype") or settings.get("astype") or before
    if name not in TRANSFORMS or before is None or after is None:
        return num_bytes
    return int(num_bytes // np.dtype(before).itemsize * np.dtype(after).itemsize)


class _BoundedStep(Codec):  # type: ignore[misc]
    """Filter or compressor of a Zarr v2 array that gives no more than a limit."""

    codec_id = "bounded"

    def __init__(self, inner: Any, limit: int) -> None:
        self.codec_id = inner.codec_id
        self._inner = inner
        self._limit = limit

    def encode(self, buf: Any) -> Any:
        return self._inner.encode(buf)

    def decode(self, buf: Any, out: Any = None) -> Any:
        view = memoryview(buf).cast("B")
        if self.codec_id in UNPACKED:
            return unpack_within(self.codec_id, view, self._limit, self._inner.get_config())
        # The other codecs state no size; their output is at most 8 times their input.
        if view.nbytes > _most_encoded(self._inner, self._limit):
            raise ValueError(f"{view.nbytes} bytes are too many for a chunk of {self._limit}")
        found = self._inner.decode(buf, out)
        if np.asarray(found).nbytes > self._limit:
            raise ValueError(f"a chunk unpacks to more than {self._limit} bytes")
        return found

    def get_config(self) -> dict[str, Any]:
        return dict(self._inner.get_config())


@dataclass(frozen=True)
class _BoundedBytes(BytesBytesCodec):
    """Compressor of a Zarr v3 array that gives no more than its chunk can have."""

    inner: BytesBytesCodec
    name: str

    is_fixed_size = False

    def to_dict(self) -> dict[str, Any]:
        return self.inner.to_dict()

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        return self.inner.compute_encoded_size(input_byte_length, chunk_spec)

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer:
        array: Any = chunk_bytes.as_numpy_array()
        itemsize = np.dtype(chunk_spec.dtype.to_native_dtype()).itemsize
        limit = allowed(math.prod(chunk_spec.shape) * itemsize)
        settings: Any = self.to_dict().get("configuration", {})
        found = await asyncio.to_thread(
            unpack_within, self.name, memoryview(array).cast("B"), limit, settings
        )
        return chunk_spec.prototype.buffer.from_bytes(found)

    async def _encode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer | None:
        raise TypeError("arrays are opened for reading")


def _bounded(codecs: Any) -> tuple[Any, ...]:
    """Codecs of a Zarr v3 array, with those that unpack replaced, in shards too."""
    found: list[Any] = []
    for codec in codecs:
        name = str(codec.to_dict()["name"]).removeprefix(PREFIX)
        if isinstance(codec, ShardingCodec):
            found.append(replace(codec, codecs=_bounded(codec.codecs)))
        elif name in UNPACKED:
            found.append(_BoundedBytes(inner=codec, name=name))
        else:
            found.append(codec)
    return tuple(found)


# --- stores ---------------------------------------------------------------------------------------


class CountingStore(WrapperStore[Store]):
    """Store that counts the bytes that it reads, and reads no object larger than a limit.

    Parameters
    ----------
    store
        Where the objects are.
    count
        Called with the bytes of everything that is fetched.
    max_bytes
        Most bytes that an object may have. No more than that is fetched of a larger object, or of
        a larger part of one, and a `ValueError` names the size.
    """

    def __init__(self, store: Store, count: Callable[[int], None], max_bytes: int) -> None:
        super().__init__(store)
        self._count = count
        self._max_bytes = max_bytes

    def _with_store(self, store: Store) -> CountingStore:
        return type(self)(store, self._count, self._max_bytes)

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
        """Range to ask for: one byte more than is allowed, to tell that there is more."""
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
            # Opening a named pipe would wait for ever for its writer.
            raise ValueError(f"{key} is a pipe, socket or device, not a file")
        if found.st_size > self._max_bytes:
            raise ValueError(f"{key} has {found.st_size} bytes, more than {self._max_bytes}")

    def _counted(self, buffer: Buffer | None) -> Buffer | None:
        if buffer is not None:
            self._count(len(buffer))
            if len(buffer) > self._max_bytes:
                raise ValueError(f"an object of more than {self._max_bytes} bytes")
        return buffer
