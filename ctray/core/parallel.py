"""A bounded thread pool: few items at a time, by the bytes that they hold."""

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

    As many items run at once as fit in `bytes_in_flight`: at least one, and at most 4 by default,
    because zarr decodes the chunks of one call in parallel and more threads would only hold more
    memory. Set `max_threads` for work that mostly waits for a store. The first error is raised
    after the running items have ended; no item starts after it.
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
