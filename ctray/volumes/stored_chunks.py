"""Chunks of an array as stored bytes."""

from __future__ import annotations

import itertools
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from ctray.core.errors import NotFoundError
from ctray.core.geometry import Triple, as_triple
from ctray.storage import store
from ctray.volumes.encoding import ChunkEncoding, encoding_of
from ctray.volumes.sharding import MISSING, index_bytes, parse_index
from ctray.volumes.unpacking import allowed
from ctray.volumes.zarr_internals import chunk_key, has_index_at_start, has_usual_index

# Chunks no further apart than this are fetched in one request.
_GAP_BYTES = 32 * 2**10
_MAX_INDICES = 256
# Offset and length of every chunk of a shard; None if the shard does not exist.
_Index = npt.NDArray[np.uint64] | None


class StoredChunks:
    """Reader of one array's encoded chunks; safe in threads.

    Parameters
    ----------
    url
        The array.
    array, axes
        The opened array, and the positions of z, y, x among its axes; others have length 1.
    encoding
        How its chunks are stored.
    count
        Called with the number of bytes of each fetch.
    """

    def __init__(
        self,
        url: str,
        array: zarr.Array[Any],
        axes: Triple,
        encoding: ChunkEncoding,
        count: Callable[[int], None],
    ) -> None:
        self.url = store.normalize(url)
        self.encoding = encoding
        self.shape = as_triple([array.shape[a] for a in axes], "shape")
        shard = array.shards or array.chunks
        self.shard = as_triple([shard[a] for a in axes], "shard")
        self.is_sharded = array.shards is not None
        counts = [s // c for s, c in zip(self.shard, encoding.chunk, strict=True)]
        self.counts = as_triple(counts, "counts")
        self.index_at_start = has_index_at_start(array)
        self._array = array
        self._axes = axes
        self._count = count
        self._indices: OrderedDict[Triple, Future[_Index]] = OrderedDict()
        self._lock = threading.Lock()

    @classmethod
    def of(
        cls, url: str, array: zarr.Array[Any], axes: Triple, count: Callable[[int], None]
    ) -> StoredChunks | None:
        """Reader of an array's chunks; None if no other array can hold the same bytes."""
        if tuple(axes) != tuple(sorted(axes)):
            # The chunks hold their voxels in another order than the volume.
            return None
        encoding = encoding_of(array, axes)
        others = [n for axis, n in enumerate(array.chunks) if axis not in axes]
        if encoding is None or not has_usual_index(array) or any(n != 1 for n in others):
            return None
        return cls(url, array, axes, encoding, count)

    def home(self, cell: Triple) -> Triple:
        """Place, in the grid of objects, of the object that holds a chunk."""
        if not self.is_sharded:
            return cell
        return as_triple([n // c for n, c in zip(cell, self.counts, strict=True)], "shard")

    def object_url(self, cell: Triple) -> str:
        """URL of a shard, or of a chunk if there are no shards."""
        place = [0] * self._array.ndim
        for axis, n in zip(self._axes, cell, strict=True):
            place[axis] = n
        # Not `store.join`, which costs a tenth of unpacking the chunk; `url` is normalized.
        return f"{self.url}/{chunk_key(self._array, place)}"

    def whole_object(self, cell: Triple) -> bytes | memoryview | None:
        """Bytes of a whole shard, with every chunk verified; None if it does not exist."""
        url = self.object_url(cell)
        try:
            data = store.read_view(url, max_bytes=self._most_bytes(math.prod(self.counts)))
        except NotFoundError:
            return None
        self._count(len(data))
        with store.mapped_errors(url, "read"):
            size = index_bytes(self.counts)
            index = parse_index(data[:size] if self.index_at_start else data[-size:], self.counts)
            view = memoryview(data)
            for offset, length in index.reshape(-1, 2).tolist():
                if (offset, length) != (MISSING, MISSING):
                    self._check_length(length, len(view) - offset)
                    self.encoding.check(view[offset : offset + length])
        return data

    def fetch(self, cells: Sequence[Triple]) -> list[bytes | memoryview | None]:
        """Bytes of stored chunks, not verified; None for a missing chunk."""
        if not self.is_sharded:
            return [self._chunk_object(cell) for cell in cells]
        by_shard: dict[Triple, list[int]] = {}
        for number, cell in enumerate(cells):
            by_shard.setdefault(self.home(cell), []).append(number)
        found: list[bytes | memoryview | None] = [None] * len(cells)
        for home, numbers in by_shard.items():
            index = self._index(home)
            if index is None:
                continue
            places = {}
            for number in numbers:
                within = tuple(n % c for n, c in zip(cells[number], self.counts, strict=True))
                offset, length = (int(v) for v in index[within])
                if (offset, length) != (MISSING, MISSING):
                    places[number] = (offset, length)
            for number, data in self._parts(home, places).items():
                found[number] = data
        return found

    def _parts(self, home: Triple, places: dict[int, tuple[int, int]]) -> dict[int, memoryview]:
        """Parts of one object, fetched in few requests."""
        runs: list[tuple[int, int]] = []
        ordered = sorted(places.items(), key=lambda item: item[1])
        url = self.object_url(home)
        for _, (offset, length) in ordered:
            with store.mapped_errors(url, "read"):
                self._check_length(length, present=length)
            if runs and offset <= runs[-1][1] + _GAP_BYTES:
                runs[-1] = (runs[-1][0], max(runs[-1][1], offset + length))
            else:
                runs.append((offset, offset + length))
        if not runs:
            return {}
        pieces = store.read_ranges(url, runs)
        self._count(sum(len(piece) for piece in pieces))
        found, run = {}, 0
        with store.mapped_errors(url, "read"):
            for number, (offset, length) in ordered:
                while offset >= runs[run][1]:
                    run += 1
                start = offset - runs[run][0]
                part = memoryview(pieces[run])[start : start + length]
                self._check_length(length, len(part))
                found[number] = part
        return found

    def _index(self, home: Triple) -> _Index:
        """Index of a shard; threads that want the same one wait for a single request."""
        with self._lock:
            known = self._indices.get(home)
            if known is None:
                loading = self._indices[home] = Future()
                if len(self._indices) > _MAX_INDICES:
                    self._indices.popitem(last=False)
        if known is not None:
            return known.result()
        try:
            index = self._load_index(home)
        except BaseException as error:
            with self._lock:
                # The next caller tries again.
                if self._indices.get(home) is loading:
                    del self._indices[home]
            loading.set_exception(error)
            raise
        loading.set_result(index)
        return index

    def _load_index(self, home: Triple) -> _Index:
        url, size = self.object_url(home), index_bytes(self.counts)
        try:
            if self.index_at_start:
                data = store.read_ranges(url, [(0, size)])[0]
            else:
                data = store.read_suffix(url, size)
        except NotFoundError:
            return None
        self._count(len(data))
        with store.mapped_errors(url, "read"):
            return parse_index(data, self.counts)

    def _chunk_object(self, cell: Triple) -> bytes | memoryview | None:
        try:
            data = store.read_view(self.object_url(cell), max_bytes=self._most_bytes(1))
        except NotFoundError:
            return None
        self._count(len(data))
        return data

    def _check_length(self, length: int, present: int) -> None:
        """Refuse a chunk that is cut short, or longer than any compressor makes it."""
        if length > present:
            raise ValueError(f"only {max(present, 0)} bytes of a chunk of {length}")
        if length > allowed(self.encoding.num_bytes):
            raise ValueError(
                f"a chunk of {self.encoding.num_bytes} bytes takes {length} bytes in its store"
            )

    def _most_bytes(self, num_chunks: int) -> int:
        """Most bytes that an object of so many chunks can have, including a shard's index."""
        return num_chunks * (allowed(self.encoding.num_bytes) + 16) + 4


def cells_of(start: Triple, stop: Triple) -> Iterator[Triple]:
    """Cells of a grid in [start, stop), z slowest."""
    # Not a list: a region may have millions of cells.
    ranges = [range(a, b) for a, b in zip(start, stop, strict=True)]
    return itertools.product(*ranges)  # type: ignore[return-value]
