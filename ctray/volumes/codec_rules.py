"""Which codecs ctray reads, decided by their names before any of them is made.

Some codecs that the libraries know run code that a chunk brings along (pickle), or take as much
memory as a chunk asks for. `ctray.volumes.zarr_internals` bounds the accepted ones: each step gives
at most as many bytes as the metadata say.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ctray.core.errors import InvalidVolumeError
from ctray.volumes.unpacking import UNPACKED

# Bytes in, about as many bytes out.
CHECKSUMS = frozenset({"crc32", "crc32c", "adler32", "fletcher32", "jenkins_lookup3"})
# Numbers in, as many numbers out, of the types in their settings.
TRANSFORMS = frozenset({"delta", "fixedscaleoffset", "quantize", "bitround", "astype"})
# What Zarr v3 writes before the names of these codecs.
PREFIX = "numcodecs."
_NUMCODECS = UNPACKED | CHECKSUMS | TRANSFORMS | {"shuffle", "packbits"}
_V3 = frozenset(
    {"bytes", "endian", "transpose", "crc32c", "zstd", "blosc", "gzip", "sharding_indexed"}
)
_INDEX_CODECS = frozenset({"bytes", "endian", "crc32c"})
_TYPES = ("dtype", "astype", "encode_dtype", "decode_dtype")
# Real arrays have up to five, in shards too.
_MAX_CODECS = 16
_MAX_NESTED_SHARDS = 2


def check_codecs(url: str, document: Mapping[str, Any], zarr_format: int) -> None:
    """Refuse an array if its metadata name a codec that ctray does not read.

    Parameters
    ----------
    url
        The array; it leads the message.
    document
        Its metadata, parsed: `.zarray` of Zarr v2 or `zarr.json` of v3.
    zarr_format
        2 or 3.

    Raises
    ------
    InvalidVolumeError
        If a codec is not read, or its settings make no sense.
    """
    if zarr_format == 2:
        filters = document.get("filters") or []
        if not isinstance(filters, list):
            raise InvalidVolumeError(f"{url}: damaged metadata: filters are no list of objects")
        steps = [*filters, document.get("compressor")]
        named = [(_field(url, step, "id"), step) for step in steps if step is not None]
        _check_steps(url, named, _NUMCODECS, "")
        return
    _check_v3(url, document.get("codecs"), 0)


def _check_v3(url: str, codecs: Any, shards_around: int) -> None:
    if not isinstance(codecs, list) or not codecs:
        raise InvalidVolumeError(f"{url}: damaged metadata: codecs are no list of objects")
    named = [(_field(url, step, "name"), _settings(url, step)) for step in codecs]
    known = _V3 | {f"{PREFIX}{name}" for name in _NUMCODECS}
    _check_steps(url, named, known, PREFIX)
    for name, settings in named:
        if name != "sharding_indexed":
            continue
        if shards_around == _MAX_NESTED_SHARDS:
            raise InvalidVolumeError(
                f"{url}: shards are nested more than {_MAX_NESTED_SHARDS} deep"
            )
        _check_v3(url, settings.get("codecs"), shards_around + 1)
        index = settings.get("index_codecs")
        if index is not None:
            if not isinstance(index, list):
                raise InvalidVolumeError(f"{url}: damaged metadata: index_codecs are no list")
            found = [(_field(url, step, "name"), _settings(url, step)) for step in index]
            _check_steps(url, found, _INDEX_CODECS, "")


def _check_steps(
    url: str, named: Sequence[tuple[str, Mapping[str, Any]]], known: Iterable[str], prefix: str
) -> None:
    if len(named) > _MAX_CODECS:
        raise InvalidVolumeError(f"{url}: {len(named)} codecs in a row, more than {_MAX_CODECS}")
    for name, settings in named:
        if name not in known:
            raise InvalidVolumeError(
                f"{url}: codec {name[:40]!r} is not read; store the volume with zstd, blosc or gzip"
            )
        if name.removeprefix(prefix) in TRANSFORMS:
            for key in _TYPES:
                _check_type(url, name, settings.get(key))


def _check_type(url: str, codec: str, value: Any) -> None:
    """Refuse a transform to a type that is no number, for example a text of 2 GiB."""
    if value is None:
        return
    try:
        kind = np.dtype(value).kind if isinstance(value, str) and len(value) < 16 else ""
    except TypeError:
        kind = ""
    if kind not in tuple("biuf"):
        raise InvalidVolumeError(f"{url}: codec {codec} of type {str(value)[:40]!r} is not read")


def _field(url: str, step: Any, key: str) -> str:
    # Zarr v3 allows a name alone for a codec without settings.
    value = step if isinstance(step, str) and key == "name" else None
    if isinstance(step, dict):
        value = step.get(key)
    if not isinstance(value, str):
        raise InvalidVolumeError(f"{url}: damaged metadata: a codec has no name")
    return value


def _settings(url: str, step: Any) -> Mapping[str, Any]:
    found = step.get("configuration", {}) if isinstance(step, dict) else {}
    if not isinstance(found, dict):
        raise InvalidVolumeError(f"{url}: damaged metadata: settings of a codec are no object")
    return found
