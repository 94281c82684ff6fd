"""Unpacking chunks in bounded memory: never more than the metadata state.

The size of a chunk is known before it is read. A chunk that unpacks to more is damaged or hostile:
a few kilobytes of zstd can fill any memory. Zarr itself believes the size that a chunk states.
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
import zstandard
from numcodecs import LZ4, Blosc, Zstd  # type: ignore[import-untyped]

from ctray.core.errors import InvalidVolumeError
from ctray.core.geometry import Triple

# A worker holds whole unpacked chunks. Blosc, a usual compressor, has the same limit.
MAX_CHUNK_BYTES = 2 * 2**30
# A chunk has 16 bytes of index: such a shard has an index of 256 MiB, read for every access.
MAX_CHUNKS_PER_SHARD = 2**24
# 65,536 cubed: months of work for one worker, and hundreds of times the largest scans.
MAX_VOXELS = 2**48
MAX_SIDE = 2**24
# In chunks of 64 cubed, 41,000 voxels cubed. Each chunk costs a request, whether it exists or not.
MAX_CHUNKS = 2**28
# Each chunk of a region takes some KiB while it is read, however few voxels it has.
MAX_TINY_CHUNKS = 2**18
_TINY_VOXELS = 512

# The window of the strongest usual preset; the library refuses frames that need a larger one.
_ZSTD_WINDOW_BYTES = 128 * 2**20
# Memory that lzma may take to unpack: its strongest preset needs 65 MiB.
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
            f"{url}: shape {shape} is larger than any volume that ctray reads, {MAX_SIDE:,} "
            f"voxels a side and {MAX_VOXELS:,} in all; correct its metadata"
        )
    count = math.prod(-(-n // c) for n, c in zip(shape, chunk, strict=True))
    is_tiny = math.prod(chunk) < _TINY_VOXELS
    most = MAX_TINY_CHUNKS if is_tiny else MAX_CHUNKS
    if count > most:
        which = f" of less than {_TINY_VOXELS} voxels" if is_tiny else ""
        raise InvalidVolumeError(
            f"{url}: shape {shape} in chunks of shape {chunk} has {count:,} chunks, more than "
            f"{most:,}{which}; store the volume in larger chunks, or correct its metadata"
        )
    size = math.prod(chunk) * itemsize
    if size > MAX_CHUNK_BYTES:
        raise InvalidVolumeError(
            f"{url}: a chunk of shape {chunk} takes {size / 2**30:,.1f} GiB in memory, more than "
            f"{MAX_CHUNK_BYTES / 2**30:g} GiB; store the volume in smaller chunks, or mend its "
            "metadata"
        )
    check_shard(url, math.prod(s // c for s, c in zip(shard, chunk, strict=True)))


def check_shard(url: str, num_chunks: int) -> None:
    """Refuse shards of so many chunks that their index alone fills the memory."""
    if num_chunks > MAX_CHUNKS_PER_SHARD:
        raise InvalidVolumeError(
            f"{url}: a shard has {num_chunks:,} chunks, more than {MAX_CHUNKS_PER_SHARD:,}; store "
            "the volume in smaller shards, or correct its metadata"
        )


def unpack(name: str, data: bytes | memoryview, num_bytes: int) -> Any:
    """Unpack a zstd, blosc or gzip chunk of exactly `num_bytes`; `ValueError` if it is damaged."""
    if name == "gzip":
        found: Any = _unpack_stream(name, data, num_bytes)
    elif name == "zstd" and _zstd_stated_bytes(data) is None:
        found = _unpack_zstd(data, num_bytes)
    else:
        check_unpacked_size(name, data, num_bytes, exact=True)
        codec = Zstd() if name == "zstd" else Blosc()
        found = codec.decode(data, out=np.empty(num_bytes, np.uint8))
    if memoryview(found).nbytes != num_bytes:
        raise ValueError(f"a chunk unpacks to {memoryview(found).nbytes} bytes, not {num_bytes}")
    return found


def check_unpacked_size(
    name: str, data: bytes | memoryview, num_bytes: int, *, exact: bool = False
) -> None:
    """Raise `ValueError` for a packed chunk that unpacks to more than `num_bytes`.

    Only zstd, blosc and lz4 chunks are checked, by the size that they state. A zstd chunk without
    a stated size is unpacked as far as `num_bytes`. `exact` refuses a stated size of less, too.
    """
    if name == "zstd":
        stated = _zstd_stated_bytes(data)
        if stated is None:
            _unpack_zstd(data, num_bytes)
            return
    elif name == "blosc":
        stated = _blosc_stated_bytes(data, exact)
    elif name == "lz4":
        stated = int.from_bytes(data[:4], "little")
    else:
        return
    if stated > num_bytes or (exact and stated < num_bytes):
        may = "has" if exact else "has at most"
        raise ValueError(f"a chunk states that it unpacks to {stated} bytes; it {may} {num_bytes}")


def unpack_within(
    name: str, data: bytes | memoryview, limit: int, settings: Mapping[str, Any] = _NONE
) -> Any:
    """Unpack a chunk of any compressor in `UNPACKED` to at most `limit` bytes.

    Parameters
    ----------
    name
        As numcodecs and Zarr call it.
    data
        Packed bytes.
    limit
        Most bytes that may come out; it also bounds the memory needed on the way.
    settings
        Of the codec; only lzma needs them.

    Raises
    ------
    ValueError
        If there would be more, or the data are damaged.
    """
    if name in _STREAMS:
        return _unpack_stream(name, data, limit, settings)
    if name == "zstd" and _zstd_stated_bytes(data) is None:
        return _unpack_zstd(data, limit)
    check_unpacked_size(name, data, limit)
    found = _WHOLE[name]().decode(data)
    if memoryview(found).nbytes > limit:
        raise ValueError(f"a chunk unpacks to more than {limit} bytes")
    return found


def allowed(num_bytes: int) -> int:
    """Most bytes that `num_bytes` may take when they are packed, checksums included."""
    return 2 * num_bytes + 4096


def _blosc_stated_bytes(data: bytes | memoryview, exact: bool) -> int:
    # Blosc 1 chunk header: bytes 4 to 7 state the unpacked size, 12 to 15 that of the chunk.
    if len(data) < 16:
        raise ValueError(f"{len(data)} bytes are no blosc chunk")
    stored = int.from_bytes(data[12:16], "little")
    if stored > len(data) or (exact and stored < len(data)):
        raise ValueError(f"{len(data)} bytes of a blosc chunk of {stored}")
    return int.from_bytes(data[4:8], "little")


def _zstd_stated_bytes(data: bytes | memoryview) -> int | None:
    """Unpacked size in the header of a zstd frame; None where streaming writers left it out."""
    try:
        stated = zstandard.frame_content_size(data)
    except zstandard.ZstdError as error:
        raise ValueError(f"no zstd frame ({error})") from error
    return None if stated < 0 else stated


def _unpack_zstd(data: bytes | memoryview, limit: int) -> bytes:
    """Unpack zstd frames, one after the other, that do not state their size."""
    unpacker = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES)
    try:
        found = unpacker.stream_reader(data, read_across_frames=True).read(limit + 1)
    except zstandard.ZstdError as error:
        raise ValueError(f"damaged zstd chunk ({error})") from error
    if len(found) > limit:
        raise ValueError(f"a chunk unpacks to more than {limit} bytes")
    return found


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
            raise ValueError(f"a {name} chunk is cut short")
        parts.append(part)
        rest = unpacker.unused_data
    return b"".join(parts)
