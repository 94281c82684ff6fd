"""One guard around each entry of an archive: nothing that one of them does stops the others."""

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

# Longer than a store that fails is asked again: its own error says more than this limit.
_LIMIT_S = 600.0
# A year: timers take no more.
_MOST_S = 3.2e7
_LOOK_EVERY_S = 0.2


class OverdueError(StorageError):
    """An entry that was worked on for longer than the limit."""


def entry_limit_s() -> float:
    """Longest time for opening one entry: `CTRAY_ENTRY_TIMEOUT_S`, else ten minutes."""
    text = os.environ.get("CTRAY_ENTRY_TIMEOUT_S", "")
    try:
        limit = float(text) if text else _LIMIT_S
    except ValueError as error:
        raise ConfigError(f"CTRAY_ENTRY_TIMEOUT_S={text!r} is no number") from error
    if not 0 < limit < _MOST_S:
        raise ConfigError(f"CTRAY_ENTRY_TIMEOUT_S={text} must be above 0 and below {_MOST_S:,.0f}")
    return limit


def guarded_map(
    function: Callable[[Item], Result], items: Sequence[Item], *, max_workers: int
) -> Iterator[Result | BaseException]:
    """Results in the order of `items`, several at once; what one raises stands in its place.

    A call that takes longer than `entry_limit_s` counts as failed with `OverdueError`. A thread
    cannot be stopped from outside: that one is left to itself, another takes its place, and it
    does not keep the process from ending.
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
        """Take the first outcome; what comes after the limit is too late."""
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
        """Let the threads end after what they are at."""
        self._stopped = True

    def _start(self) -> None:
        # A daemon: one that hangs must not keep the process from ending.
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
            except BaseException as error:  # also a panic of a library, which is no Exception
                outcome = error
            self._running.discard(task)
            if not task.finish(outcome):
                return  # too late: another thread has this one's place

    def _end_overdue(self) -> None:
        now = time.monotonic()
        for task in tuple(self._running):
            overdue = task.began is not None and now - task.began > self._limit_s
            if overdue and task.finish(OverdueError(overdue_reason(self._limit_s))):
                self._running.discard(task)
                self._start()


def overdue_reason(limit_s: float) -> str:
    """What is said of an entry that took longer than the limit."""
    return (
        f"not opened within {limit_s:g} s; look at it by itself, or set CTRAY_ENTRY_TIMEOUT_S "
        "to more seconds"
    )
