"""Unpacking chunks that may claim anything: no more memory is taken than the metadata tell of.

The size of a chunk is known before it is read. What unpacks to more is damaged or hostile: a few
kilobytes of zstd can fill any memory. Zarr itself believes what a chunk says of its size.
"""

from __future__ import annotations

import bz2
import lzma
import math
import zlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numcodecs import LZ4, Blosc, Zstd  # type: ignore[import-untyped]

from ctray.core.errors import InvalidVolumeError
from ctray.core.geometry import Triple

# A worker holds decoded chunks whole. Blosc, the usual compressor, packs no more than this either.
MAX_CHUNK_BYTES = 2 * 2**30
# 16 bytes of index a chunk: a shard of so many has 256 MiB of it, read for every access.
MAX_CHUNKS_PER_SHARD = 2**24
# 65,536 cubed: months of work for one worker, and hundreds of times the largest scans.
MAX_VOXELS = 2**48
MAX_SIDE = 2**24
# In chunks of 64 cubed, 41,000 voxels cubed. A chunk is asked for at a time, whether it is there
# or not.
MAX_CHUNKS = 2**28
# Each chunk of a region takes some KiB while it is read, however few voxels it has.
MAX_TINY_CHUNKS = 2**18
_TINY_VOXELS = 512

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
# RFC 8878, 3.1.1.2.4: no block unpacks to more.
_ZSTD_BLOCK = 128 * 2**10
# A frame that does not tell its size is known by its blocks only, which need not be full.
_UNTOLD = 64 * 2**20
# What lzma may take to unpack: its strongest preset needs 65 MiB.
_LZMA_BYTES = 256 * 2**20
_NONE: Mapping[str, Any] = MappingProxyType({})


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
        a side of more than 2**24, or in all more than 2**48 voxels or 2**28
        chunks (2**18 of less than 512 voxels).
    """
    if max(shape) > MAX_SIDE or math.prod(shape) > MAX_VOXELS:
        raise InvalidVolumeError(
            f"{url}: shape {shape} is larger than any volume that is read, {MAX_SIDE:,} voxels a "
            f"side and {MAX_VOXELS:,} in all; mend its metadata"
        )
    count = math.prod(-(-n // c) for n, c in zip(shape, chunk, strict=True))
    is_tiny = math.prod(chunk) < _TINY_VOXELS
    most = MAX_TINY_CHUNKS if is_tiny else MAX_CHUNKS
    if count > most:
        which = f" of less than {_TINY_VOXELS} voxels" if is_tiny else ""
        raise InvalidVolumeError(
            f"{url}: shape {shape} in chunks of shape {chunk} has {count:,} chunks, more than "
            f"{most:,}{which}; store the volume in larger chunks, or mend its metadata"
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


def unpack_within(
    name: str, data: bytes | memoryview, limit: int, settings: Mapping[str, Any] = _NONE
) -> Any:
    """Unpack what a compressor of `UNPACKED` packed, if that is at most `limit` bytes.

    Parameters
    ----------
    name
        As numcodecs and Zarr call it.
    data
        Packed bytes.
    limit
        Most bytes that may come out; memory that is taken on the way is bounded by it too.
    settings
        Of the codec; only lzma needs them.

    Raises
    ------
    ValueError
        If there would be more, or the data are damaged.
    """
    if name in _STREAMS:
        return _unpack_stream(name, data, limit, settings)
    check_told(name, data, limit)
    found = _WHOLE[name]().decode(data)
    if memoryview(found).nbytes > limit:
        raise ValueError(f"a chunk unpacks to more than {limit} bytes")
    return found


def allowed(num_bytes: int) -> int:
    """Most bytes that `num_bytes` may take when they are packed, checksums included."""
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


def _lzma(settings: Mapping[str, Any]) -> Any:
    """Decompressor as numcodecs would make it, with a bound on its memory."""
    form = int(settings.get("format", lzma.FORMAT_XZ))
    if form != lzma.FORMAT_RAW:
        return lzma.LZMADecompressor(form, memlimit=_LZMA_BYTES)
    filters = settings.get("filters") or []
    if any(int(part.get("dict_size") or 0) > _LZMA_BYTES for part in filters):
        raise ValueError(f"an lzma dictionary of more than {_LZMA_BYTES} bytes")
    return lzma.LZMADecompressor(form, filters=filters)


_STREAMS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "gzip": lambda _: zlib.decompressobj(wbits=31),
    "zlib": lambda _: zlib.decompressobj(),
    "bz2": lambda _: bz2.BZ2Decompressor(),
    "lzma": _lzma,
}
_WHOLE: dict[str, Callable[[], Any]] = {"zstd": Zstd, "blosc": Blosc, "lz4": LZ4}
# Compressors that `unpack_within` knows.
UNPACKED = frozenset({*_STREAMS, *_WHOLE})


def _unpack_stream(
    name: str, data: bytes | memoryview, limit: int, settings: Mapping[str, Any] = _NONE
) -> bytes:
    """Unpack gzip, zlib, bz2 or lzma, which may be several streams, as long as it fits."""
    parts: list[bytes] = []
    size, rest = 0, bytes(data)
    while rest or not parts:
        unpacker = _STREAMS[name](settings)
        try:
            part = unpacker.decompress(rest, limit + 1 - size)
        except (lzma.LZMAError, zlib.error, OSError) as error:
            raise ValueError(f"damaged {name} chunk ({error})") from error
        size += len(part)
        if size > limit:
            raise ValueError(f"a chunk unpacks to more than {limit} bytes")
        if not unpacker.eof:
            raise ValueError(f"a {name} chunk that does not end where its object ends")
        parts.append(part)
        rest = unpacker.unused_data
    return b"".join(parts)
