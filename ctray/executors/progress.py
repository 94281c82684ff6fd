"""Progress of training, as every executor reports it.

This module imports nothing large, because new processes import it first.
"""

from __future__ import annotations

import time
from collections.abc import Callable

Row = dict[str, float]
# Steps can take so long that metrics, which come every few steps, are rare.
_STEP_EVERY_S = 5.0


class Throttle:
    """Returns True at most once in `every_s` seconds, and False between.

    Parameters
    ----------
    every_s
        Seconds. The first True comes after as many.
    clock
        Returns seconds since any moment.
    """

    def __init__(
        self, every_s: float = _STEP_EVERY_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._every_s, self._clock = every_s, clock
        self._last = clock()

    def __call__(self) -> bool:
        """Whether enough time has passed since the last True."""
        now = self._clock()
        if now - self._last < self._every_s:
            return False
        self._last = now
        return True
