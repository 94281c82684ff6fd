"""Codecs of an array's metadata: which are read, and reading them in bounded memory.

A codec that is not listed here is refused by name before it is made. Some of those that the
libraries know run code that a chunk brings along (pickle) or take any memory that a chunk asks
for. Of the listed ones, every step gives at most what the metadata say that it must give.
"""

from __future__ import annotations

import asyncio
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numcodecs.abc import Codec  # type: ignore[import-untyped]
from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import ShardingCodec
from zarr.core.metadata import ArrayV2Metadata, ArrayV3Metadata

from ctray.core.errors import InvalidVolumeError
from ctray.volumes.unpacking import MAX_CHUNKS_PER_SHARD, UNPACKED, allowed, unpack_within

if TYPE_CHECKING:
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer

# Bytes in, about as many bytes out.
_CHECKSUMS = frozenset({"crc32", "crc32c", "adler32", "fletcher32", "jenkins_lookup3"})
# Numbers in, as many numbers out, of the types in their settings.
_TRANSFORMS = frozenset({"delta", "fixedscaleoffset", "quantize", "bitround", "astype"})
_NUMCODECS = UNPACKED | _CHECKSUMS | _TRANSFORMS | {"shuffle", "packbits"}
_V3 = frozenset(
    {"bytes", "endian", "transpose", "crc32c", "zstd", "blosc", "gzip", "sharding_indexed"}
)
_INDEX_CODECS = frozenset({"bytes", "endian", "crc32c"})
_TYPES = ("dtype", "astype", "encode_dtype", "decode_dtype")
_PREFIX = "numcodecs."
# Real arrays have up to five, in shards too.
_MAX_CODECS = 16
_MAX_NESTED_SHARDS = 2

# Who reads did not choose the codec, so the advice of zarr to choose another helps nobody.
warnings.filterwarnings("ignore", message="Numcodecs codecs are not in the Zarr version 3")


def check_codecs(url: str, document: Mapping[str, Any], zarr_format: int) -> None:
    """Refuse an array by the codecs that its metadata name.

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
        If it names a codec that is not read, or settings that make no sense.
    """
    if zarr_format == 2:
        filters = document.get("filters") or []
        if not isinstance(filters, list):
            raise InvalidVolumeError(f"{url}: damaged metadata, filters are no list of objects")
        steps = [*filters, document.get("compressor")]
        named = [(_field(url, step, "id"), step) for step in steps if step is not None]
        _check_steps(url, named, _NUMCODECS, "")
        return
    _check_v3(url, document.get("codecs"), 0)


def _check_v3(url: str, codecs: Any, shards_around: int) -> None:
    if not isinstance(codecs, list) or not codecs:
        raise InvalidVolumeError(f"{url}: damaged metadata, codecs are no list of objects")
    named = [(_field(url, step, "name"), _settings(url, step)) for step in codecs]
    known = _V3 | {f"{_PREFIX}{name}" for name in _NUMCODECS}
    _check_steps(url, named, known, _PREFIX)
    for name, settings in named:
        if name != "sharding_indexed":
            continue
        if shards_around == _MAX_NESTED_SHARDS:
            raise InvalidVolumeError(f"{url}: shards nested more than {_MAX_NESTED_SHARDS} deep")
        _check_v3(url, settings.get("codecs"), shards_around + 1)
        index = settings.get("index_codecs")
        if index is not None:
            if not isinstance(index, list):
                raise InvalidVolumeError(f"{url}: damaged metadata, index_codecs are no list")
            found = [(_field(url, step, "name"), _settings(url, step)) for step in index]
            _check_steps(url, found, _INDEX_CODECS, "")


def _check_steps(
    url: str, named: Sequence[tuple[str, Mapping[str, Any]]], known: Iterable[str], prefix: str
) -> None:
    if len(named) > _MAX_CODECS:
        raise InvalidVolumeError(f"{url}: {len(named)} codecs, more than {_MAX_CODECS}")
    for name, settings in named:
        if name not in known:
            raise InvalidVolumeError(
                f"{url}: codec {name[:40]!r} is not read; store the volume with zstd, blosc or gzip"
            )
        if name.removeprefix(prefix) in _TRANSFORMS:
            for key in _TYPES:
                _check_type(url, name, settings.get(key))


def _check_type(url: str, codec: str, value: Any) -> None:
    """Refuse a type of a transform that is no number: a text of 2 GiB, for example."""
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
        raise InvalidVolumeError(f"{url}: damaged metadata, a codec without a name")
    return value


def _settings(url: str, step: Any) -> Mapping[str, Any]:
    found = step.get("configuration", {}) if isinstance(step, dict) else {}
    if not isinstance(found, dict):
        raise InvalidVolumeError(f"{url}: damaged metadata, settings of a codec are no object")
    return found


def bounded_metadata(metadata: Any) -> Any:
    """Metadata of an array whose codecs refuse chunks that unpack to more than their size.

    Parameters
    ----------
    metadata
        `ArrayV2Metadata` or `ArrayV3Metadata` of an array that `check_codecs` has passed.
    """
    if isinstance(metadata, ArrayV3Metadata):
        return replace(metadata, codecs=_bounded(metadata.codecs))
    assert isinstance(metadata, ArrayV2Metadata)
    num_bytes = math.prod(metadata.chunks) * np.dtype(metadata.dtype.to_native_dtype()).itemsize
    steps = [*(metadata.filters or ()), *([metadata.compressor] if metadata.compressor else [])]
    bounded = []
    for step in steps:
        bounded.append(_BoundedStep(step, num_bytes))
        num_bytes = _most_encoded(step, num_bytes)
    compressor = bounded.pop() if metadata.compressor else None
    return replace(metadata, filters=tuple(bounded) or None, compressor=compressor)


def shard_chunks(metadata: Any) -> int:
    """Chunks in one shard of an array, shards within shards counted out; 1 without shards."""
    if not isinstance(metadata, ArrayV3Metadata):
        return 1
    shape: Sequence[int] = metadata.chunk_grid.chunk_shape  # type: ignore[attr-defined]
    codecs: Any = metadata.codecs
    most = 1
    while found := [codec for codec in codecs if isinstance(codec, ShardingCodec)]:
        inner = found[0].chunk_shape
        most = max(most, math.prod(-(-s // c) for s, c in zip(shape, inner, strict=True)))
        shape, codecs = inner, found[0].codecs
    return most


def _most_encoded(step: Any, num_bytes: int) -> int:
    """Most bytes that a step of Zarr v2 makes of `num_bytes`, and so may be given to undo it."""
    name = step.codec_id
    if name in UNPACKED or name in _CHECKSUMS:
        return allowed(num_bytes)
    if name == "packbits":
        return num_bytes // 8 + 2
    settings = step.get_config()
    before = settings.get("decode_dtype") or settings.get("dtype")
    after = settings.get("encode_dtype") or settings.get("astype") or before
    if name not in _TRANSFORMS or before is None or after is None:
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
        # What these give has no size of its own: it is at most 8 times what they are given.
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
    """Codecs of a Zarr v3 array, those that unpack replaced; within shards too."""
    found: list[Any] = []
    for codec in codecs:
        name = str(codec.to_dict()["name"]).removeprefix(_PREFIX)
        if isinstance(codec, ShardingCodec):
            found.append(replace(codec, codecs=_bounded(codec.codecs)))
        elif name in UNPACKED:
            found.append(_BoundedBytes(inner=codec, name=name))
        else:
            found.append(codec)
    return tuple(found)


def check_shards(url: str, metadata: Any) -> None:
    """Refuse shards of so many chunks that their index alone fills the memory."""
    count = shard_chunks(metadata)
    if count > MAX_CHUNKS_PER_SHARD:
        raise InvalidVolumeError(
            f"{url}: a shard has {count:,} chunks, more than {MAX_CHUNKS_PER_SHARD:,}; store the "
            "volume in smaller shards, or mend its metadata"
        )
