"""Reading a region from its stored chunks.

For the usual layouts this replaces zarr's own pipeline: a quarter less work per voxel, requests and
unpacking at the same time, and no chunk unpacks to more than its size. It reads shards 1.6 to 2.0
times as fast as zarr (`tests/bench/reading.py`). The codecs of zarrs were no faster. tensorstore is
as fast in shards, but would be one more dependency with its own retries and keys.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ctray.core.geometry import Box, Triple, as_triple
from ctray.core.parallel import bounded_map
from ctray.storage import store
from ctray.volumes.stored_chunks import StoredChunks, cells_of

# Voxel bytes that one thread fetches and unpacks at a time: neighbours are fetched together.
_GROUP_BYTES = 4 * 2**20
_BYTES_IN_FLIGHT = 64 * 2**20
_MAX_THREADS = 16


def read_region(chunks: StoredChunks, region: Box, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Voxels of `region`, in the chunks' level.

    Parameters
    ----------
    chunks
        Array to read.
    region
        Inside the array.
    dtype
        Type of the result: that of the chunks in native byte order.

    Raises
    ------
    InvalidVolumeError
        If a chunk is damaged.
    """
    out = np.empty(region.shape, dtype)

    def read(cells: list[Triple]) -> None:
        for cell, data in zip(cells, chunks.fetch(cells), strict=True):
            _put(out, region, chunks, cell, data)

    done = bounded_map(
        read,
        _groups(chunks, region),
        bytes_per_item=max(_GROUP_BYTES, chunks.encoding.num_bytes),
        bytes_in_flight=_BYTES_IN_FLIGHT,
        max_threads=_threads(chunks.url),
    )
    for _ in done:
        pass
    return out


def _threads(url: str) -> int:
    """Threads of one read: threads that wait for a store need no core of their own."""
    return _MAX_THREADS if not store.is_local(url) else min(_MAX_THREADS, max(2, store.NUM_CPUS))


def _groups(chunks: StoredChunks, region: Box) -> Iterator[list[Triple]]:
    """Cells that meet a region, grouped by object as far as memory allows."""
    chunk = chunks.encoding.chunk
    first = [a // c for a, c in zip(region.start, chunk, strict=True)]
    last = [-(-b // c) for b, c in zip(region.stop, chunk, strict=True)]
    if not chunks.is_sharded:
        yield from ([cell] for cell in cells_of(as_triple(first, "cell"), as_triple(last, "cell")))
        return
    most = max(1, _GROUP_BYTES // chunks.encoding.num_bytes)
    homes = cells_of(
        as_triple([a // n for a, n in zip(first, chunks.counts, strict=True)], "home"),
        as_triple([-(-b // n) for b, n in zip(last, chunks.counts, strict=True)], "home"),
    )
    for home in homes:
        start = [max(a, h * n) for a, h, n in zip(first, home, chunks.counts, strict=True)]
        stop = [min(b, (h + 1) * n) for b, h, n in zip(last, home, chunks.counts, strict=True)]
        cells = cells_of(as_triple(start, "cell"), as_triple(stop, "cell"))
        while group := list(itertools.islice(cells, most)):
            yield group


def _put(
    out: npt.NDArray[Any],
    region: Box,
    chunks: StoredChunks,
    cell: Triple,
    data: bytes | memoryview | None,
) -> None:
    """Copy the part of a chunk that lies in `region` to its place in `out`."""
    encoding = chunks.encoding
    origin = [n * c for n, c in zip(cell, encoding.chunk, strict=True)]
    start = [max(a, o) for a, o in zip(region.start, origin, strict=True)]
    stop = [min(b, o + c) for b, o, c in zip(region.stop, origin, encoding.chunk, strict=True)]

    def within(first: list[int]) -> tuple[slice, ...]:
        return tuple(slice(a - f, b - f) for a, b, f in zip(start, stop, first, strict=True))

    target = within(list(region.start))
    if data is None:
        out[target] = encoding.fill_value
        return
    with store.mapped_errors(f"{chunks.object_url(chunks.home(cell))}, chunk {cell}", "read"):
        out[target] = encoding.decode(data)[within(origin)]
