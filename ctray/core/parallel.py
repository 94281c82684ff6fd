"""Threads over shards, bounded by the bytes that they hold."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

BYTES_IN_FLIGHT = 256 * 2**20
MAX_THREADS = 4


def bounded_map(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    bytes_per_item: int,
    bytes_in_flight: int = BYTES_IN_FLIGHT,
    max_threads: int | None = None,
) -> Iterator[Result]:
    """Results of `work` in the order of `items`, a few at a time.

    As many run as fit in `bytes_in_flight`, at least one, at most 4: zarr itself decodes the
    chunks of one call in parallel, so that more threads would only hold more memory. Work that
    waits for a store more than it computes may ask for more with `max_threads`. The first
    error is raised after those that already run have ended; nothing is started after it.
    """
    fit = max(1, bytes_in_flight // max(1, bytes_per_item))
    threads = min(fit, max_threads or min(MAX_THREADS, max(2, os.cpu_count() or 1)))
    if threads == 1:
        yield from map(work, items)
        return
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="ctray-shard") as pool:
        try:
            for item in items:
                pending.append(pool.submit(work, item))
                if len(pending) >= threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
