"""A time limit for each entry of an archive: an entry that hangs does not stop the others."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar, cast

from ctray.core.errors import ConfigError, StorageError

Item = TypeVar("Item")
Result = TypeVar("Result")

# Longer than all retries of a failing store, whose own error is more useful than this limit.
_LIMIT_S = 600.0
# A year: timers accept no more.
_MOST_S = 3.2e7
_LOOK_EVERY_S = 0.2


class OverdueError(StorageError):
    """An entry that took longer than the limit."""


def entry_limit_s() -> float:
    """Time limit for opening one entry: `CTRAY_ENTRY_TIMEOUT_S`, else ten minutes."""
    text = os.environ.get("CTRAY_ENTRY_TIMEOUT_S", "")
    try:
        limit = float(text) if text else _LIMIT_S
    except ValueError as error:
        raise ConfigError(
            f"CTRAY_ENTRY_TIMEOUT_S={text!r} is not a number; set it to seconds"
        ) from error
    if not 0 < limit < _MOST_S:
        raise ConfigError(
            f"CTRAY_ENTRY_TIMEOUT_S={text} must be above 0 and below {_MOST_S:,.0f} seconds"
        )
    return limit


def guarded_map(
    function: Callable[[Item], Result], items: Sequence[Item], *, max_workers: int
) -> Iterator[Result | BaseException]:
    """Call `function` for each item, several at once; results and errors in the order of `items`.

    A call that takes longer than `entry_limit_s` yields an `OverdueError`. A thread cannot be
    stopped from outside, so another thread replaces it. It does not keep the process from ending.
    """
    pool = _Pool(function, items, max_workers=max_workers)
    try:
        yield from pool.results()
    finally:
        pool.stop()


def within_limit(url: str, call: Callable[[], Result]) -> Result:
    """Result of `call`, which opens `url`; `OverdueError` after `entry_limit_s`."""
    (outcome,) = guarded_map(lambda _: call(), [url], max_workers=1)
    if isinstance(outcome, OverdueError):
        raise OverdueError(f"{url}: {outcome}")
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


class _Task(Generic[Item, Result]):
    def __init__(self, item: Item) -> None:
        self.item = item
        self.began: float | None = None
        self.done = threading.Event()
        self.outcome: Result | BaseException | None = None
        self._lock = threading.Lock()

    def finish(self, outcome: Result | BaseException) -> bool:
        """Take the first outcome; an outcome after the limit is ignored."""
        with self._lock:
            if self.done.is_set():
                return False
            self.outcome = outcome
            self.done.set()
            return True


class _Pool(Generic[Item, Result]):
    def __init__(
        self,
        function: Callable[[Item], Result],
        items: Sequence[Item],
        *,
        max_workers: int,
    ) -> None:
        self._function = function
        self._limit_s = entry_limit_s()
        self._tasks: list[_Task[Item, Result]] = [_Task(item) for item in items]
        self._waiting: queue.SimpleQueue[_Task[Item, Result]] = queue.SimpleQueue()
        for task in self._tasks:
            self._waiting.put(task)
        self._running: set[_Task[Item, Result]] = set()
        self._stopped = False
        for _ in range(min(max_workers, len(items))):
            self._start()

    def results(self) -> Iterator[Result | BaseException]:
        for task in self._tasks:
            while not task.done.wait(_LOOK_EVERY_S):
                self._end_overdue()
            yield cast("Result | BaseException", task.outcome)

    def stop(self) -> None:
        """Let the threads end after their current call."""
        self._stopped = True

    def _start(self) -> None:
        # A daemon thread: if it hangs, the process can still end.
        threading.Thread(target=self._work, name="ctray-catalog", daemon=True).start()

    def _work(self) -> None:
        while not self._stopped:
            try:
                task = self._waiting.get_nowait()
            except queue.Empty:
                return
            task.began = time.monotonic()
            self._running.add(task)
            try:
                outcome: Result | BaseException = self._function(task.item)
            except BaseException as error:  # also the panic of a library, which is not an Exception
                outcome = error
            self._running.discard(task)
            if not task.finish(outcome):
                return  # too late: another thread has replaced this one

    def _end_overdue(self) -> None:
        now = time.monotonic()
        for task in tuple(self._running):
            overdue = task.began is not None and now - task.began > self._limit_s
            if overdue and task.finish(OverdueError(overdue_reason(self._limit_s))):
                self._running.discard(task)
                self._start()


def overdue_reason(limit_s: float) -> str:
    """Message for an entry that took longer than the limit."""
    return (
        f"not opened within {limit_s:g} s; check this file, or set CTRAY_ENTRY_TIMEOUT_S to more "
        "seconds"
    )
