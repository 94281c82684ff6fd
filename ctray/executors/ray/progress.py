"""Ray actors that carry the progress of training between its processes.

This module imports nothing large, so that the processes of these actors start at once.
"""

from __future__ import annotations

from ctray.core.errors import CtrayError
from ctray.executors.progress import Row


class Progress:
    """Carries rows of metrics and a lasting error from a training worker to the driver."""

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self._step: int | None = None
        self._failure: CtrayError | None = None

    def add(self, row: Row) -> None:
        """Keep a row until the driver takes it."""
        self._rows.append(row)

    def reach(self, step: int) -> None:
        """Note that `step` steps are finished."""
        self._step = step

    def take(self) -> tuple[list[Row], int | None]:
        """Return the rows and the last step that came since the last call."""
        rows, self._rows = self._rows, []
        step, self._step = self._step, None
        return rows, step

    def fail(self, error: CtrayError) -> None:
        """Keep the error that ended training for good."""
        self._failure = error

    def failure(self) -> CtrayError | None:
        """Return the error that `fail` kept; None without one."""
        return self._failure


class Pace:
    """Tells readers which round training works on, so that they do not run ahead.

    Ray Data's own back-pressure would also hold readers back. But its scheduling loop then spins
    inside the training process: it takes a whole core and Python's lock (seen with Ray 2.60).
    """

    def __init__(self) -> None:
        self._round: dict[int, int] = {}

    def advance(self, rank: int, round_index: int) -> None:
        """Note that worker `rank` begins round `round_index`."""
        self._round[rank] = round_index

    def current(self, rank: int) -> int:
        """Return the round that worker `rank` works on; -1 before its first."""
        return self._round.get(rank, -1)
