"""Chunks of HDF5 datasets, decompressed in no more memory than the dataset declares.

HDF5's own filters trust the compressed bytes: four megabytes of deflate may become four gigabytes.
Here libraries with a size limit decompress the usual pipelines (shuffle with deflate or LZF). For
other filters, the size that the compressed bytes declare is checked before HDF5 reads them.
"""

from __future__ import annotations

import bz2
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import h5py
import imagecodecs
import numpy as np

from ctray.core.errors import InvalidVolumeError
from ctray.volumes.unpacking import check_unpacked_size

# https://github.com/HDFGroup/hdf5_plugins/blob/master/docs/RegisteredFilterPlugins.md
_BZIP2, _LZF, _BLOSC, _LZ4 = 307, 32000, 32001, 32004
_BITSHUFFLE, _ZSTD, _BLOSC2 = 32008, 32015, 32026
_NAMES = {
    _BZIP2: "bzip2",
    _LZF: "LZF",
    _BLOSC: "Blosc",
    _LZ4: "LZ4",
    _BITSHUFFLE: "bitshuffle",
    _ZSTD: "Zstandard",
    _BLOSC2: "Blosc2",
    32013: "ZFP",
    32017: "SZ",
    32018: "FCIDECOMP",
    32024: "SZ3",
    32028: "SPERR",
    h5py.h5z.FILTER_SZIP: "SZIP",
}
# These filters only rearrange bytes, or add a few.
_SAME_SIZE = (h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32)
# zlib's manual: deflate compresses at most this many bytes into one.
_DEFLATE_MOST = 1032
_BLOSC_HEADER = 16
# https://github.com/Blosc/c-blosc2/blob/main/README_CFRAME_FORMAT.rst
_BLOSC2_SIZE = slice(30, 38)
_BLOSC2_PADDING = 1 << 20
# Small datasets have few chunks.
_MAX_SMALL_CHUNKS = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Filter:
    """One step of a filter pipeline: HDF5's number, the parameters, and the stored name."""

    code: int
    values: tuple[int, ...]
    name: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Pipeline:
    """How the chunks of a dataset are compressed.

    Parameters
    ----------
    filters
        In the order of application.
    chunk
        Voxels of a chunk along each axis.
    dtype
        Type of the stored voxels.
    plain
        Whether the stored type is one of NumPy's, bit for bit.
    """

    filters: tuple[Filter, ...]
    chunk: tuple[int, ...]
    dtype: np.dtype[Any]
    plain: bool

    @property
    def num_bytes(self) -> int:
        """Bytes of a decompressed chunk."""
        return math.prod(self.chunk) * self.dtype.itemsize

    @property
    def is_ours(self) -> bool:
        """Whether `unpack` can replace HDF5's filters."""
        codes = tuple(step.code for step in self.filters)
        packed = codes[1:] if codes[:1] == (h5py.h5z.FILTER_SHUFFLE,) else codes
        return self.plain and packed in ((h5py.h5z.FILTER_DEFLATE,), (_LZF,))


def pipeline_of(data: h5py.Dataset) -> Pipeline:
    """Filters of a chunked dataset."""
    plan = data.id.get_create_plist()
    steps = [plan.get_filter(i) for i in range(plan.get_nfilters())]
    filters = tuple(
        Filter(code=code, values=tuple(values), name=name.decode("ascii", "replace").strip("\0 "))
        for code, _, values, name in steps
    )
    stored = data.id.get_type()
    plain = bool(stored == h5py.h5t.py_create(data.dtype))
    return Pipeline(filters=filters, chunk=tuple(data.chunks), dtype=data.dtype, plain=plain)


def check_filters(where: str, pipeline: Pipeline) -> None:
    """Refuse chunks that cannot be decompressed here, or not within bounds.

    Raises
    ------
    InvalidVolumeError
        If a filter is not installed, or if the chunks were compressed twice.
    """
    for step in pipeline.filters:
        if not h5py.h5z.filter_avail(step.code):
            name = _NAMES.get(step.code) or step.name.partition(";")[0] or "of unknown name"
            raise InvalidVolumeError(
                f"{where}: its chunks are compressed with HDF5 filter {step.code} ({name}), which "
                "is not installed; pip install hdf5plugin (or ctray[formats]) and run again"
            )
    packers = [step.code for step in pipeline.filters if step.code not in _SAME_SIZE]
    if len(packers) > 1:
        raise InvalidVolumeError(
            f"{where}: its chunks are compressed by {len(packers)} filters "
            f"({', '.join(map(str, packers))}), and ctray reads one; repack it with h5repack"
        )


def unpack(data: bytes, mask: int, pipeline: Pipeline) -> np.ndarray:
    """Decompress a chunk of a pipeline that `is_ours`.

    Parameters
    ----------
    data
        Stored bytes.
    mask
        Bit i is set if filter i was skipped for this chunk.

    Returns
    -------
    Voxels, in the shape of a chunk.

    Raises
    ------
    ValueError
        If the bytes are damaged, or if their decompressed size differs from the chunk's.
    """
    size = pipeline.num_bytes
    found: Any = data
    for i, step in reversed(list(enumerate(pipeline.filters))):
        if mask >> i & 1:
            continue
        try:
            if step.code == h5py.h5z.FILTER_DEFLATE:
                found = imagecodecs.deflate_decode(found, out=size)
            elif step.code == _LZF:
                found = imagecodecs.lzf_decode(found, out=size)
            else:
                found = _unshuffle(found, pipeline.dtype.itemsize)
        except (imagecodecs.DeflateError, imagecodecs.LzfError) as error:
            raise ValueError(f"does not decompress to {size} bytes ({error})") from error
    if memoryview(found).nbytes != size:
        raise ValueError(f"a chunk has {memoryview(found).nbytes} bytes instead of {size}")
    return np.frombuffer(found, pipeline.dtype).reshape(pipeline.chunk)


def check_claim(data: bytes, mask: int, pipeline: Pipeline) -> None:
    """Raise `ValueError` if HDF5 would decompress a chunk to more than its size."""
    size = pipeline.num_bytes
    # Checksums and headers add a few bytes; incompressible data are as large as the chunk.
    limit = size + 4 * len(pipeline.filters)
    for i, step in reversed(list(enumerate(pipeline.filters))):
        if mask >> i & 1 or step.code in _SAME_SIZE:
            continue
        if step.code == h5py.h5z.FILTER_DEFLATE:
            if len(data) * _DEFLATE_MOST > 2 * limit:
                _inflate(_without_checksum(data, mask, i, pipeline), limit)
        elif step.code == _BZIP2:
            packed = bz2.BZ2Decompressor()
            if len(packed.decompress(data, limit + 1)) > limit:
                raise ValueError(f"a chunk decompresses to more than {size} bytes")
        elif step.code == _LZF:
            imagecodecs.lzf_decode(_without_checksum(data, mask, i, pipeline), out=limit)
        else:
            _check_header(step.code, data, limit)


def is_bounded(data: h5py.Dataset) -> bool:
    """Whether HDF5 can read a small chunked dataset without decompressing too much."""
    pipeline = pipeline_of(data)
    if not pipeline.filters:
        return True
    if data.id.get_num_chunks() > _MAX_SMALL_CHUNKS:
        return False
    try:
        check_filters(str(data.name), pipeline)
        for i in range(data.id.get_num_chunks()):
            offset = data.id.get_chunk_info(i).chunk_offset
            mask, packed = data.id.read_direct_chunk(offset)
            check_claim(packed, mask, pipeline)
    except (InvalidVolumeError, ValueError, zlib.error, imagecodecs.LzfError):
        return False
    return True


def _check_header(code: int, data: bytes, limit: int) -> None:
    if code in (_LZ4, _BITSHUFFLE):
        # Both begin with the decompressed size: 8 bytes, big-endian.
        told = int.from_bytes(data[:8], "big")
    elif code == _BLOSC:
        told = int.from_bytes(data[4:8], "little") if len(data) >= _BLOSC_HEADER else 0
    elif code == _BLOSC2:
        # Whole blocks are compressed, so chunks are padded.
        told = int.from_bytes(data[_BLOSC2_SIZE], "big") if data[2:9] == b"b2frame" else 0
        limit = 2 * limit + _BLOSC2_PADDING
    elif code == _ZSTD:
        return check_unpacked_size("zstd", data, limit)
    elif code == h5py.h5z.FILTER_SZIP:
        told = int.from_bytes(data[:4], "little")
    else:
        return None
    if told > limit:
        raise ValueError(f"a chunk declares {told} decompressed bytes; the limit is {limit}")
    return None


def _without_checksum(data: bytes, mask: int, upto: int, pipeline: Pipeline) -> bytes:
    """Bytes of a chunk without the checksums of the filters after number `upto`."""
    for i, step in reversed(list(enumerate(pipeline.filters))):
        if i > upto and step.code == h5py.h5z.FILTER_FLETCHER32 and not mask >> i & 1:
            data = data[:-4]
    return data


def _inflate(data: Any, limit: int) -> bytes:
    unpacker = zlib.decompressobj()
    found = unpacker.decompress(data, limit + 1)
    if len(found) > limit:
        raise ValueError(f"a chunk decompresses to more than {limit} bytes")
    if not unpacker.eof:
        raise ValueError("a deflate chunk is truncated")
    return found


def _unshuffle(data: Any, itemsize: int) -> bytes:
    if itemsize == 1:
        return bytes(data)
    planes = np.frombuffer(data, np.uint8).reshape(itemsize, -1)  # ValueError for a rest
    return np.ascontiguousarray(planes.T).tobytes()


def chunk_grid(shape: Sequence[int], chunk: Sequence[int]) -> tuple[int, ...]:
    """Number of chunks along each axis."""
    return tuple(-(-n // c) for n, c in zip(shape, chunk, strict=True))
