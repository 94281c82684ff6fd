"""How far training is, told between its processes.

A module of its own that imports nothing large: the processes of these actors start at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ctray.core.errors import CtrayError

Row = dict[str, float]
# How often training tells its step where steps take so long that metrics are rare.
_STEP_EVERY_S = 5.0


class Seldom:
    """True once in `every_s` seconds, first after as many; False between.

    Parameters
    ----------
    every_s
        Seconds.
    clock
        Seconds since any moment.
    """

    def __init__(
        self, every_s: float = _STEP_EVERY_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._every_s, self._clock = every_s, clock
        self._last = clock()

    def __call__(self) -> bool:
        """Whether it is time again."""
        now = self._clock()
        if now - self._last < self._every_s:
            return False
        self._last = now
        return True


class Progress:
    """Carries rows of metrics, and an error that will not heal, to the driver; a Ray actor."""

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self._step: int | None = None
        self._failure: CtrayError | None = None

    def add(self, row: Row) -> None:
        """Keep a row until it is taken."""
        self._rows.append(row)

    def reach(self, step: int) -> None:
        """So many steps are done."""
        self._step = step

    def take(self) -> tuple[list[Row], int | None]:
        """Rows that came since the last call, and the step that was told since."""
        rows, self._rows = self._rows, []
        step, self._step = self._step, None
        return rows, step

    def fail(self, error: CtrayError) -> None:
        """Keep the error that ended training for good."""
        self._failure = error

    def failure(self) -> CtrayError | None:
        """What `fail` was told, None while all is well."""
        return self._failure


class Pace:
    """Tells readers how far training is, so that they do not run ahead; a Ray actor.

    Ray Data's own back-pressure would hold readers back as well, but its scheduling loop then
    turns without a pause, inside the training process: a whole core lost, and Python's lock with
    it (seen with Ray 2.60).
    """

    def __init__(self) -> None:
        self._round: dict[int, int] = {}

    def advance(self, rank: int, round_index: int) -> None:
        """Worker `rank` begins round `round_index`."""
        self._round[rank] = round_index

    def current(self, rank: int) -> int:
        """Round that worker `rank` works on; -1 before its first."""
        return self._round.get(rank, -1)
