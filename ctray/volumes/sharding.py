"""The bytes of a shard: Zarr v3 sharding codec, version 1.0, section "Binary shard format".

A shard holds its encoded inner chunks, one after the other, and an index. The index has the offset
and the length of each inner chunk in C order, as little-endian 64-bit integers, both 2**64 - 1 for
a missing chunk, and then a CRC-32C of the index.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from ctray.core.geometry import Triple

MISSING = 2**64 - 1
_CRC_BYTES = 4


def crc32c(data: bytes | memoryview) -> bytes:
    """CRC-32C of `data`, little-endian, as the crc32c codec appends it."""
    # As an array: the library refuses memoryviews, and bytes would be a copy.
    found = google_crc32c.value(np.frombuffer(data, np.uint8)) if len(data) else 0
    return int(found).to_bytes(_CRC_BYTES, "little")


def without_crc32c(data: bytes | memoryview) -> memoryview:
    """Return `data` without the CRC-32C at its end; `ValueError` if that does not match."""
    view = memoryview(data)
    content, stored = view[:-_CRC_BYTES], bytes(view[-_CRC_BYTES:])
    if len(view) < _CRC_BYTES or crc32c(content) != stored:
        raise ValueError("its CRC-32C does not match its content")
    return content


def index_bytes(counts: Triple) -> int:
    """Bytes of the index of a shard of `counts` inner chunks."""
    return 16 * math.prod(counts) + _CRC_BYTES


def parse_index(data: bytes | memoryview, counts: Triple) -> npt.NDArray[np.uint64]:
    """Offset and length of every inner chunk, shape (*counts, 2); `ValueError` if damaged."""
    if len(data) != index_bytes(counts):
        raise ValueError(f"{len(data)} bytes of a shard index of {index_bytes(counts)}")
    try:
        table = np.frombuffer(without_crc32c(data), "<u8").astype(np.uint64)
    except ValueError as error:
        raise ValueError("its index does not match its checksum: cut off, or damaged") from error
    return table.reshape(*counts, 2)


def assemble(chunks: Sequence[bytes | memoryview | None]) -> list[bytes | memoryview] | None:
    """Parts of a shard: its inner chunks in C order (None for a missing one), and its index.

    The parts are not joined, which saves a copy. None if all chunks are missing: then no object is
    stored.
    """
    index: npt.NDArray[Any] = np.full((len(chunks), 2), MISSING, "<u8")
    parts: list[bytes | memoryview] = []
    offset = 0
    for number, chunk in enumerate(chunks):
        if chunk is None:
            continue
        index[number] = (offset, len(chunk))
        offset += len(chunk)
        parts.append(chunk)
    if not parts:
        return None
    table = index.tobytes()
    return [*parts, table, crc32c(table)]
