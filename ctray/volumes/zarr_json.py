"""Metadata documents of Zarr: untrusted JSON, bounded before it is parsed."""

from __future__ import annotations

import json
from typing import Any

from ctray.core.errors import InvalidVolumeError, NotFoundError
from ctray.storage import store

# One array takes about 1 KB in consolidated metadata. This bound allows ten thousand arrays, more
# than a plate of 384 wells with four images each has. Documents of one image take 20 KB.
MAX_DOCUMENT_BYTES = 16 * 2**20
# An empty list takes 2 bytes of JSON and 60 of memory; real documents have one list or object per
# 50 bytes. With this bound, a document takes at most about 200 MiB.
MAX_CONTAINERS = 10**6
# Real documents are nested 10 to 20 deep. Libraries use recursion on them.
MAX_DEPTH = 100


def read_document(url: str) -> tuple[dict[str, Any] | None, int]:
    """JSON object at `url` and its size in bytes; (None, 0) if nothing is there.

    Raises
    ------
    InvalidVolumeError
        If it is no JSON object, names a key twice with different values, or is larger or nested
        deeper than any real metadata.
    AccessError, StorageError
        If the store refuses or fails.
    """
    try:
        data = store.read_bytes(url, max_bytes=MAX_DOCUMENT_BYTES)
    except NotFoundError:
        return None, 0
    return parse_document(url, data), len(data)


def parse_document(url: str, data: bytes) -> dict[str, Any]:
    """JSON object of `data`, the content of `url`; see `read_document`."""
    containers = data.count(b"[") + data.count(b"{")
    if containers > MAX_CONTAINERS:
        raise InvalidVolumeError(
            f"{url}: metadata of {containers:,} lists and objects, more than {MAX_CONTAINERS:,}; "
            "they describe no volume"
        )
    try:
        found = json.loads(data, object_pairs_hook=_unique)
    except RecursionError as error:
        raise _too_deep(url) from error
    except ValueError as error:
        raise InvalidVolumeError(f"{url}: damaged metadata, no JSON ({error})") from error
    if _is_deeper(found, MAX_DEPTH):
        raise _too_deep(url)
    return as_mapping(url, found)


def as_mapping(url: str, value: Any) -> dict[str, Any]:
    """`value` if it is a JSON object, else `InvalidVolumeError`."""
    if not isinstance(value, dict):
        raise InvalidVolumeError(f"{url}: damaged metadata, {type(value).__name__} for an object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        # Readers differ in the value that they use, so the volume would depend on the reader.
        for key, value in pairs:
            if found[key] != value:
                raise ValueError(f"key {key[:40]!r} has two values")
    return found


def _is_deeper(value: Any, depth: int) -> bool:
    """Whether lists and objects are nested more than `depth` deep; without recursion."""
    layer = [value]
    while layer and depth >= 0:
        inner: list[Any] = []
        for item in layer:
            if isinstance(item, dict):
                inner.extend(v for v in item.values() if isinstance(v, dict | list))
            elif isinstance(item, list):
                inner.extend(v for v in item if isinstance(v, dict | list))
        layer, depth = inner, depth - 1
    return bool(layer)


def _too_deep(url: str) -> InvalidVolumeError:
    return InvalidVolumeError(
        f"{url}: metadata nested more than {MAX_DEPTH} deep; they describe no volume"
    )
