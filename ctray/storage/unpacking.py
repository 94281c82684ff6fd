"""Unpacking chunks that may claim anything: no more memory is taken than the metadata tell of.

The size of a chunk is known before it is read. What unpacks to more is damaged or hostile: a few
kilobytes of zstd can fill any memory. Zarr itself believes what a chunk says of its size.
"""

from __future__ import annotations

import bz2
import lzma
import math
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from numcodecs import Blosc, Zstd  # type: ignore[import-untyped]
from numcodecs.abc import Codec  # type: ignore[import-untyped]
from zarr.codecs import BloscCodec, GzipCodec, ShardingCodec, ZstdCodec
from zarr.core.array import AsyncArray
from zarr.core.metadata import ArrayV2Metadata

from ctray.errors import InvalidVolumeError
from ctray.geometry import Triple

if TYPE_CHECKING:
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer

# A worker holds decoded chunks whole. Blosc, the usual compressor, packs no more than this either.
MAX_CHUNK_BYTES = 2 * 2**30
# 16 bytes of index a chunk: a shard of so many has 256 MiB of it, read for every access.
MAX_CHUNKS_PER_SHARD = 2**24
# 65,536 cubed: months of work for one worker, and hundreds of times the largest scans.
MAX_VOXELS = 2**48
MAX_SIDE = 2**24

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
# RFC 8878, 3.1.1.2.4: no block unpacks to more.
_ZSTD_BLOCK = 128 * 2**10
# A frame that does not tell its size is known by its blocks only, which need not be full.
_UNTOLD = 64 * 2**20


def check_sizes(url: str, shape: Triple, chunk: Triple, shard: Triple, itemsize: int) -> None:
    """Refuse an array by its metadata, before memory is taken for it.

    Parameters
    ----------
    url
        The array; it leads the message.
    shape, chunk, shard
        Voxels, (z, y, x).
    itemsize
        Bytes of a voxel.

    Raises
    ------
    InvalidVolumeError
        If a chunk is larger than 2 GiB, a shard holds more than 2**24 chunks, or the array has
        a side of more than 2**24 or in all more than 2**48 voxels.
    """
    if max(shape) > MAX_SIDE or math.prod(shape) > MAX_VOXELS:
        raise InvalidVolumeError(
            f"{url}: shape {shape} is larger than any volume that is read, {MAX_SIDE:,} voxels a "
            f"side and {MAX_VOXELS:,} in all; mend its metadata"
        )
    size = math.prod(chunk) * itemsize
    if size > MAX_CHUNK_BYTES:
        raise InvalidVolumeError(
            f"{url}: a chunk of shape {chunk} takes {size / 2**30:,.1f} GiB in memory, more than "
            f"{MAX_CHUNK_BYTES / 2**30:g} GiB; store the volume in smaller chunks, or mend its "
            "metadata"
        )
    per_shard = math.prod(s // c for s, c in zip(shard, chunk, strict=True))
    if per_shard > MAX_CHUNKS_PER_SHARD:
        raise InvalidVolumeError(
            f"{url}: a shard of shape {shard} has {per_shard:,} chunks, more than "
            f"{MAX_CHUNKS_PER_SHARD:,}; store the volume in smaller shards, or mend its metadata"
        )


def with_bounded_codecs(array: zarr.Array[Any]) -> zarr.Array[Any]:
    """`array` read through codecs that refuse chunks which unpack to more than their size.

    zstd, blosc and gzip; of Zarr v2 also zlib, bz2, lzma and lz4.
    """
    metadata: Any = array.metadata
    if isinstance(metadata, ArrayV2Metadata):
        if metadata.compressor is None:
            return array
        size = math.prod(metadata.chunks) * np.dtype(metadata.dtype.to_native_dtype()).itemsize
        # Filters come before the compressor and may have widened the voxels.
        limit = _allowed(size * (8 if metadata.filters else 1))
        bounded: Any = replace(metadata, compressor=_BoundedCompressor(metadata.compressor, limit))
    else:
        bounded = replace(metadata, codecs=_bounded(metadata.codecs))
    inner = array._async_array
    return zarr.Array(
        AsyncArray(metadata=bounded, store_path=inner.store_path, config=inner.config)
    )


def unpack(name: str, data: bytes | memoryview, num_bytes: int) -> Any:
    """Unpack what zstd, blosc or gzip packed from exactly `num_bytes`; `ValueError` if damaged."""
    check_told(name, data, num_bytes, exact=True)
    if name == "gzip":
        found: Any = _unpack_stream(name, data, num_bytes)
    elif name == "zstd" and _zstd_content_bytes(data) is None:
        found = Zstd().decode(data)
    else:
        codec = Zstd() if name == "zstd" else Blosc()
        found = codec.decode(data, out=np.empty(num_bytes, np.uint8))
    if memoryview(found).nbytes != num_bytes:
        raise ValueError(f"a chunk unpacks to {memoryview(found).nbytes} bytes and not {num_bytes}")
    return found


def check_told(name: str, data: bytes | memoryview, num_bytes: int, *, exact: bool = False) -> None:
    """Raise `ValueError` where a packed chunk says that it unpacks to more than `num_bytes`.

    Nothing is unpacked. `exact` refuses less than `num_bytes` too, where the size is told; other
    codecs than zstd, blosc and lz4 do not tell it.
    """
    if name == "zstd":
        told = _zstd_content_bytes(data)
        if told is None:
            limit = 2 * num_bytes + _UNTOLD
            if _zstd_most_bytes(data, limit) > limit:
                raise ValueError(f"a chunk of {num_bytes} bytes may unpack to more than {limit}")
            return
    elif name == "blosc":
        told = _blosc_bytes(data, exact)
    elif name == "lz4":
        told = int.from_bytes(data[:4], "little")
    else:
        return
    if told > num_bytes or (exact and told < num_bytes):
        may = "has" if exact else "has at most"
        raise ValueError(f"a chunk says that it unpacks to {told} bytes, and it {may} {num_bytes}")


def _allowed(num_bytes: int) -> int:
    """Most bytes that a codec may give for a chunk: others, such as checksums, come after it."""
    return 2 * num_bytes + 4096


def _blosc_bytes(data: bytes | memoryview, exact: bool) -> int:
    # Blosc 1 chunk header: bytes 4 to 7 tell the size unpacked, 12 to 15 that of the chunk.
    if len(data) < 16:
        raise ValueError(f"{len(data)} bytes are no blosc chunk")
    stored = int.from_bytes(data[12:16], "little")
    if stored > len(data) or (exact and stored < len(data)):
        raise ValueError(f"{len(data)} bytes of a blosc chunk of {stored}")
    return int.from_bytes(data[4:8], "little")


def _zstd_header(data: bytes | memoryview) -> tuple[int | None, int]:
    """Size that a zstd frame unpacks to, None where it does not tell, and the header's length.

    RFC 8878, 3.1.1.1.
    """
    if len(data) < 6 or data[:4] != _ZSTD_MAGIC:
        raise ValueError("no zstd frame")
    flags = data[4]
    single, size_flag = flags >> 5 & 1, flags >> 6
    at = 5 + (0 if single else 1) + (0, 1, 2, 4)[flags & 3]
    if size_flag == 0 and not single:
        return None, at
    length = (1, 2, 4, 8)[size_flag]
    told = int.from_bytes(data[at : at + length], "little")
    return told + 256 if size_flag == 1 else told, at + length


def _zstd_content_bytes(data: bytes | memoryview) -> int | None:
    return _zstd_header(data)[0]


def _zstd_most_bytes(data: bytes | memoryview, enough: int) -> int:
    """Most bytes that zstd frames, one after the other, can unpack to, by their blocks' headers.

    Beyond `enough` nobody counts on.
    """
    most = at = 0
    while at < len(data) and most <= enough:
        magic = int.from_bytes(data[at : at + 4], "little")
        if magic & 0xFFFFFFF0 == 0x184D2A50:  # skippable, RFC 8878, 3.1.2
            at += 8 + int.from_bytes(data[at + 4 : at + 8], "little")
            continue
        _, header = _zstd_header(data[at : at + 18])
        has_checksum, is_last = data[at + 4] >> 2 & 1, False
        at += header
        while not is_last and at < len(data) and most <= enough:
            block = int.from_bytes(data[at : at + 3], "little")
            is_last, kind, size = bool(block & 1), block >> 1 & 3, block >> 3
            most += _ZSTD_BLOCK if kind == 2 else size
            at += 3 + (1 if kind == 1 else size)
        at += 4 * has_checksum
    return most


_STREAMS: dict[str, Callable[[], Any]] = {
    "gzip": lambda: zlib.decompressobj(wbits=31),
    "zlib": zlib.decompressobj,
    "bz2": bz2.BZ2Decompressor,
    "lzma": lzma.LZMADecompressor,
}


def _unpack_stream(name: str, data: bytes | memoryview, limit: int) -> bytes:
    """Unpack gzip, zlib, bz2 or lzma, which may be several streams, as long as it fits."""
    parts: list[bytes] = []
    size, rest = 0, bytes(data)
    while rest or not parts:
        unpacker = _STREAMS[name]()
        part = unpacker.decompress(rest, limit + 1 - size)
        size += len(part)
        if size > limit:
            raise ValueError(f"a chunk unpacks to more than {limit} bytes")
        if not unpacker.eof:
            raise ValueError(f"a {name} chunk that does not end where its object ends")
        parts.append(part)
        rest = unpacker.unused_data
    return b"".join(parts)


class _BoundedCompressor(Codec):  # type: ignore[misc]
    """Compressor of a Zarr v2 array that gives no more than a limit."""

    codec_id = "bounded"

    def __init__(self, inner: Any, limit: int) -> None:
        self.codec_id = inner.codec_id
        self._inner = inner
        self._limit = limit

    def encode(self, buf: Any) -> Any:
        return self._inner.encode(buf)

    def decode(self, buf: Any, out: Any = None) -> Any:
        data = memoryview(buf).cast("B")
        # Other lzma formats than xz are read by their settings, which the library knows.
        if self.codec_id in _STREAMS and self._inner.get_config().get("format", 1) == 1:
            return _unpack_stream(self.codec_id, data, self._limit)
        check_told(self.codec_id, data, self._limit)
        return self._inner.decode(buf, out)

    def get_config(self) -> dict[str, Any]:
        return dict(self._inner.get_config())


class _BoundedZstd(ZstdCodec):
    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer:
        check_told("zstd", _view(chunk_bytes), _limit(chunk_spec))
        return await super()._decode_single(chunk_bytes, chunk_spec)


class _BoundedBlosc(BloscCodec):
    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer:
        check_told("blosc", _view(chunk_bytes), _limit(chunk_spec))
        return await super()._decode_single(chunk_bytes, chunk_spec)


class _BoundedGzip(GzipCodec):
    def _decode_sync(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer:
        found = _unpack_stream("gzip", _view(chunk_bytes), _limit(chunk_spec))
        return chunk_spec.prototype.buffer.from_bytes(found)


_BOUNDED: dict[type, Any] = {
    ZstdCodec: _BoundedZstd,
    BloscCodec: _BoundedBlosc,
    GzipCodec: _BoundedGzip,
}


def _bounded(codecs: Any) -> tuple[Any, ...]:
    """Codecs of a Zarr v3 array, those that unpack replaced; within shards too."""
    found = []
    for codec in codecs:
        if isinstance(codec, ShardingCodec):
            found.append(replace(codec, codecs=_bounded(codec.codecs)))
        elif type(codec) in _BOUNDED:
            found.append(_BOUNDED[type(codec)].from_dict(codec.to_dict()))
        else:
            found.append(codec)
    return tuple(found)


def _view(chunk_bytes: Buffer) -> memoryview:
    array: Any = chunk_bytes.as_numpy_array()
    return memoryview(array).cast("B")


def _limit(spec: ArraySpec) -> int:
    return _allowed(math.prod(spec.shape) * np.dtype(spec.dtype.to_native_dtype()).itemsize)
