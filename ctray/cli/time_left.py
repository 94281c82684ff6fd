"""How long a stage still takes, from its recent rate; None where that cannot be known yet."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

# Fewer reports, or in less time, tell of the start alone: a pool grows, caches are cold.
_FEWEST_REPORTS = 8
_SHORTEST_S = 10.0
# Rates of the window's halves that differ by more say that nobody knows.
_STEADY = 2.0
_WINDOW = 64


class TimeLeft:
    """Estimate from the last reports, so that a slow start or a resumed run does not count.

    Parameters
    ----------
    clock
        Seconds since any moment.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._reports: deque[tuple[float, float]] = deque(maxlen=_WINDOW)

    def report(self, work_done: float) -> None:
        """Note that `work_done` of the work, in any unit, is done by now."""
        self._reports.append((self._clock(), work_done))

    def seconds(self, work_total: float) -> float | None:
        """Seconds until `work_total` is done, None as long as they cannot be known."""
        if len(self._reports) < _FEWEST_REPORTS:
            return None
        first, middle, last = (self._reports[i] for i in (0, len(self._reports) // 2, -1))
        if last[0] - first[0] < _SHORTEST_S:
            return None
        rates = [_rate(a, b) for a, b in ((first, middle), (middle, last))]
        if min(rates) <= 0 or max(rates) > _STEADY * min(rates):
            return None
        # What the last report is old by now has passed.
        since = self._clock() - last[0]
        return max(0.0, (work_total - last[1]) / _rate(first, last) - since)


def in_words(seconds: float) -> str:
    """Such as `about 3 h left`: no more digits than are known."""
    if seconds < 90:
        return f"about {max(1, round(seconds))} s left"
    minutes = seconds / 60
    if minutes < 90:
        return f"about {round(minutes)} min left"
    hours = minutes / 60
    return f"about {round(hours)} h left" if hours < 48 else f"about {round(hours / 24)} days left"


def _rate(first: tuple[float, float], last: tuple[float, float]) -> float:
    return (last[1] - first[1]) / max(last[0] - first[0], 1e-9)
