"""A sign of life during long silences, so that work does not look like a hang."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

# A minute without a line looks like a hang.
EVERY_S = 30.0


class Heartbeat:
    """Calls a function from its own thread whenever nothing was printed for a while.

    Parameters
    ----------
    beat
        Called with the seconds since the last line.
    every_s
        Seconds of silence before each call.
    """

    def __init__(self, beat: Callable[[float], None], every_s: float = EVERY_S) -> None:
        self._beat, self._every_s = beat, every_s
        self._over = threading.Event()
        self._said = time.monotonic()
        self._thread = threading.Thread(target=self._watch, name="ctray-heartbeat", daemon=True)

    def said(self) -> None:
        """Note that a line was just printed."""
        self._said = time.monotonic()

    def __enter__(self) -> Self:
        self.said()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        since, beats = self._said, 0
        while True:
            if self._said != since:
                since, beats = self._said, 0
            due = since + (beats + 1) * self._every_s
            if self._over.wait(max(0.0, due - time.monotonic())):
                return
            if self._said == since:
                beats += 1
                self._beat(time.monotonic() - since)
