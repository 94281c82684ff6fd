"""The encoding of single chunks. Two arrays with the same encoding can share stored bytes.

Zarr v2 and v3 store a chunk alike: voxels in C order and a byte order, then a compressor. So a
chunk of an OME-Zarr 0.4 volume is, byte for byte, an inner chunk of a 0.5 shard.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from numcodecs import Blosc, GZip, Zstd  # type: ignore[import-untyped]
from zarr.codecs import BytesCodec
from zarr.registry import get_codec_class

from ctray.core.geometry import Triple, as_triple
from ctray.volumes.sharding import crc32c, without_crc32c
from ctray.volumes.unpacking import check_unpacked_size, unpack
from ctray.volumes.zarr_internals import native_dtype, v2_codecs
from ctray.volumes.zarr_internals import v3_codecs as stored_v3_codecs

ZSTD_LEVEL = 3
CHECKSUM = "crc32c"
# Larger chunks are no practical unit of work: they are cut up and encoded again.
_MAX_CHUNK_BYTES = 32 * 2**20
_SHUFFLES = ("noshuffle", "shuffle", "bitshuffle")


@dataclass(frozen=True, kw_only=True, slots=True)
class ChunkEncoding:
    """How the chunks of an array are stored.

    Parameters
    ----------
    chunk
        Voxels (z, y, x).
    dtype
        Type of the voxels in the stored byte order.
    codecs
        Names and settings of the codecs after "bytes", as Zarr v3 writes them: at most one of
        zstd, blosc and gzip, and crc32c.
    fill_value
        Value of the voxels of chunks that are not stored.
    """

    chunk: Triple
    dtype: np.dtype[Any]
    codecs: tuple[tuple[str, tuple[tuple[str, Any], ...]], ...]
    fill_value: Any

    @property
    def num_bytes(self) -> int:
        """Bytes of a chunk before compression."""
        return math.prod(self.chunk) * self.dtype.itemsize

    @property
    def is_checksummed(self) -> bool:
        """Whether chunks end with a checksum of their stored bytes."""
        return bool(self.codecs) and self.codecs[-1][0] == CHECKSUM

    @property
    def compressor(self) -> tuple[str, dict[str, Any]] | None:
        """Name and settings of the compressor."""
        named = [(name, dict(settings)) for name, settings in self.codecs if name != CHECKSUM]
        return named[0] if named else None

    def decode(self, data: bytes | memoryview) -> npt.NDArray[Any]:
        """Voxels of a stored chunk, shape `chunk`; the codec raises an error if it is damaged."""
        found: Any = data
        for name, _ in reversed(self.codecs):
            if name == CHECKSUM:
                found = without_crc32c(found)
            else:
                # The compressor packed the voxels, perhaps with a checksum.
                inner = self.num_bytes + (4 if self.codecs[0][0] == CHECKSUM else 0)
                found = unpack(name, found, inner)
        return np.frombuffer(found, np.uint8).view(self.dtype).reshape(self.chunk)

    def check(self, data: bytes | memoryview) -> None:
        """Raise an error if a stored chunk is damaged.

        A checksum of its bytes is enough; without one, the chunk is unpacked.
        """
        if not self.is_checksummed:
            self.decode(data)
            return
        content = without_crc32c(data)
        # Sound bytes may still be no chunk of this array.
        name, _ = self.codecs[-2] if len(self.codecs) > 1 else ("", ())
        if name and self.codecs[0][0] != CHECKSUM:
            check_unpacked_size(name, content, self.num_bytes, exact=True)

    def encode(self, voxels: npt.NDArray[Any]) -> bytes | None:
        """Stored bytes of a chunk; None if all of it is the fill value.

        `voxels` may be smaller than a chunk at the end of an array; the rest is filled.
        """
        if self._is_fill(voxels):
            return None
        whole = voxels
        if voxels.shape != self.chunk:
            whole = np.full(self.chunk, self.fill_value, self.dtype)
            whole[tuple(slice(0, n) for n in voxels.shape)] = voxels
        stored = np.ascontiguousarray(whole, dtype=self.dtype)
        found: Any = stored
        for name, settings in self.codecs:
            if name == CHECKSUM:
                plain = bytes(found) if not isinstance(found, np.ndarray) else found.tobytes()
                found = plain + crc32c(plain)
            else:
                found = _numcodec(name, dict(settings)).encode(found)
        return found.tobytes() if isinstance(found, np.ndarray) else bytes(found)

    def _is_fill(self, voxels: npt.NDArray[Any]) -> bool:
        fill = np.asarray(self.fill_value, voxels.dtype)
        if voxels.flat[0] != fill and not (fill != fill and voxels.flat[0] != voxels.flat[0]):
            return False
        if voxels.dtype.kind != "f":
            return bool((voxels == fill).all())
        # By bits: -0.0 differs from 0.0, and NaN equals NaN.
        bits = np.dtype(f"u{voxels.dtype.itemsize}")
        plain = np.ascontiguousarray(voxels, voxels.dtype.newbyteorder("="))
        return bool((plain.view(bits) == fill.astype(plain.dtype).view(bits)).all())


def default_encoding(
    chunk: Triple,
    dtype: np.dtype[Any],
    ome_version: str,
    fill_value: Any = 0,
    level: int = ZSTD_LEVEL,
) -> ChunkEncoding:
    """Encoding of new chunks: zstd, little-endian, with a checksum in OME-Zarr 0.5.

    Unpacking alone misses damage: it noticed at most a fifth of the flipped bits in zstd chunks of
    noisy grey values. A CRC-32C notices all, for a hundredth of the cost of unpacking.
    """
    settings = (("checksum", False), ("level", level))
    checksum = () if ome_version == "0.4" else ((CHECKSUM, ()),)
    return ChunkEncoding(
        chunk=chunk,
        dtype=dtype.newbyteorder("<"),
        codecs=(("zstd", settings), *checksum),
        fill_value=fill_value,
    )


def encoding_of(array: zarr.Array[Any], axes: Sequence[int]) -> ChunkEncoding | None:
    """Encoding of an array's chunks; None if other arrays should not adopt it.

    Not adopted: codecs other than zstd, blosc, gzip and crc32c, no compression, voxels in another
    order than C, and chunks of more than 32 MiB.
    """
    found = _of_v2(array) if array.metadata.zarr_format == 2 else _of_v3(array)
    if found is None:
        return None
    dtype, codecs = found
    fill = 0 if array.fill_value is None else array.fill_value
    encoding = ChunkEncoding(
        chunk=as_triple([array.chunks[a] for a in axes], "chunk"),
        dtype=dtype,
        codecs=codecs,
        fill_value=np.asarray(fill, dtype.newbyteorder("=")).item(),
    )
    usable = encoding.compressor is not None and encoding.num_bytes <= _MAX_CHUNK_BYTES
    return encoding if usable else None


def v2_compressor(encoding: ChunkEncoding) -> Any:
    """Compressor for Zarr v2 that stores the same bytes; None if there is none."""
    compressor = encoding.compressor
    if compressor is None or len(encoding.codecs) != 1:
        return None
    return _numcodec(*compressor)


def v3_serializer(encoding: ChunkEncoding) -> BytesCodec:
    """Zarr v3 codec that turns voxels into bytes."""
    if encoding.dtype.itemsize == 1:
        return BytesCodec(endian=None)
    return BytesCodec(endian="big" if encoding.dtype.str[0] == ">" else "little")


def v3_codecs(encoding: ChunkEncoding) -> list[Any]:
    """Zarr v3 codecs after the "bytes" codec."""
    return [
        get_codec_class(name).from_dict({"name": name, "configuration": dict(settings)})
        if settings
        else get_codec_class(name).from_dict({"name": name})
        for name, settings in encoding.codecs
    ]


def _of_v3(array: zarr.Array[Any]) -> tuple[np.dtype[Any], Any] | None:
    found = stored_v3_codecs(array)
    if found is None:
        return None
    endian, named = found
    names = [codec["name"] for codec in named]
    compressors = [name for name in names if name in ("zstd", "blosc", "gzip")]
    if len(compressors) > 1 or names.count(CHECKSUM) > 1 or set(names) - {CHECKSUM, *compressors}:
        return None
    dtype = native_dtype(array.metadata).newbyteorder(">" if endian == "big" else "<")
    return dtype, tuple((c["name"], _frozen(c.get("configuration", {}))) for c in named)


def _of_v2(array: zarr.Array[Any]) -> tuple[np.dtype[Any], Any] | None:
    order, filters, compressor = v2_codecs(array)
    if order != "C" or filters or compressor is None:
        return None
    config = dict(compressor.get_config())
    name = config.pop("id")
    dtype = native_dtype(array.metadata)
    if name == "zstd":
        config.setdefault("checksum", False)
    elif name == "blosc":
        # Numcodecs' -1: by bits for single bytes, by bytes for the rest.
        shuffle = config["shuffle"] if config["shuffle"] >= 0 else (2 if dtype.itemsize == 1 else 1)
        config |= {"shuffle": _SHUFFLES[shuffle], "typesize": dtype.itemsize}
    elif name != "gzip":
        return None
    return dtype, ((name, _frozen(config)),)


def _frozen(settings: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(settings.items()))


def _numcodec(name: str, settings: dict[str, Any]) -> Any:
    if name == "zstd":
        return Zstd(level=settings["level"], checksum=settings.get("checksum", False))
    if name == "gzip":
        return GZip(level=settings["level"])
    shuffle = settings["shuffle"]
    return Blosc(
        cname=getattr(settings["cname"], "value", settings["cname"]),
        clevel=settings["clevel"],
        shuffle=_SHUFFLES.index(getattr(shuffle, "value", shuffle)),
        blocksize=settings["blocksize"],
    )
