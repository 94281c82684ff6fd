"""Progress with rate and time left: bars on a terminal, lines at intervals elsewhere."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from ctray.cli.heartbeat import Heartbeat
from ctray.cli.options import first_line_is_out
from ctray.core.errors import printable
from ctray.core.readable import size_text

# A log needs a sign of life, not a line per step.
_PLAIN_EVERY_S = 15.0
# Rate and time left are averages over this time: volumes can take many minutes each.
_AVERAGED_S = 3600.0
# The start of a stage says nothing about its rate: caches are cold, and pools grow.
_UNKNOWN_S = 10.0
_UNITS = {
    "pretrain": "steps",
    "self-train": "steps",
    "import": "bytes",
    "restore": "bytes",
    "baselines": "passes",
}


class _Event(Protocol):
    """Progress of a run, as `ctray.records.events.Event`, which would delay --help."""

    @property
    def stage(self) -> str: ...
    @property
    def done(self) -> int: ...
    @property
    def total(self) -> int: ...
    @property
    def text(self) -> str: ...
    @property
    def bytes_done(self) -> int: ...
    @property
    def bytes_total(self) -> int: ...
    @property
    def stays(self) -> bool: ...


class Reporter:
    """Shows progress on stderr; made by `reporter`.

    Parameters
    ----------
    stream
        Stream for lines.
    bars
        Progress bars of a terminal; None prints lines.
    clock
        Returns seconds since any moment.
    """

    def __init__(
        self,
        stream: TextIO,
        bars: Progress | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream, self._bars, self._clock = stream, bars, clock
        # Without a terminal, it only computes rates and is never shown.
        self._progress = bars or Progress(
            get_time=clock, speed_estimate_period=_AVERAGED_S, auto_refresh=False
        )
        self._stage = ""
        self._task = TaskID(0)
        self._last_line = -math.inf
        self._latest = ""
        self.heartbeat = Heartbeat(self._still_working)

    def __call__(self, event: _Event) -> None:
        """Show an event of a run."""
        if event.stays:
            self.note(event.text)
            return
        self.update(
            event.stage, event.done, event.total, event.text, event.bytes_done, event.bytes_total
        )

    def note(self, text: str) -> None:
        """Print one line that stays."""
        self._latest = text
        self._write(text)
        self.heartbeat.said()

    def update(
        self,
        stage: str,
        done: int,
        total: int,
        text: str = "",
        bytes_done: int = 0,
        bytes_total: int = 0,
    ) -> None:
        """Show that `done` of `total` are finished; `bytes_*` say how much of the work that is."""
        work, whole = (bytes_done, bytes_total) if bytes_total else (done, total)
        if self._stage != stage:
            self._begin(stage, work, whole)
        self._progress.update(self._task, completed=work, total=whole)
        line = self._line(done, total, by_bytes=bytes_total > 0)
        self._latest = f"{stage}: {line}"
        if self._bars is not None:
            self._bars.update(self._task, line=line, text=printable(text))
            return
        now = self._clock()
        if done >= total or now - self._last_line >= _PLAIN_EVERY_S:
            self._last_line = now
            self._write(f"{self._latest}{f'; {text}' if text else ''}")
            self.heartbeat.said()

    def _begin(self, stage: str, work: int, whole: int) -> None:
        # The first line of a stage comes at once.
        self._stage, self._last_line = stage, -math.inf
        for task in self._progress.task_ids:
            self._progress.stop_task(task)
        # What an earlier command finished counts for no rate.
        self._task = self._progress.add_task(
            printable(stage), total=whole, completed=work, line="", text=""
        )

    def _line(self, done: int, total: int, *, by_bytes: bool) -> str:
        """Return count, rate and time left, such as `12/32 volumes, 1.4/s, 0:00:14 left`."""
        unit = _UNITS.get(self._stage, "volumes")
        amount = f"{done:,}/{total:,} {unit}"
        if unit == "bytes":
            amount, by_bytes = f"{size_text(done)} of {size_text(total)}", True
        task = next(t for t in self._progress.tasks if t.id == self._task)
        if not task.speed or (task.elapsed or 0.0) < _UNKNOWN_S:
            return amount
        line = f"{amount}, {_rate(task.speed, by_bytes=by_bytes)}"
        left = task.time_remaining
        return f"{line}, {timedelta(seconds=int(left))} left" if left else line

    def _still_working(self, seconds: float) -> None:
        """Repeat the latest line, unless a bar is moving."""
        if self._bars is not None and any(not task.finished for task in self._bars.tasks):
            return
        self._write(f"{self._latest}; still working after {seconds:.0f} s")

    def _write(self, text: str) -> None:
        text = printable(text)
        if self._bars is not None:
            self._bars.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            self._stream.write(f"{text}\n")
            self._stream.flush()


def _rate(per_second: float, *, by_bytes: bool) -> str:
    if by_bytes:
        return f"{size_text(per_second)}/s"
    return f"{per_second:.1f}/s" if per_second >= 0.1 else f"{60 * per_second:.1f}/min"


@contextmanager
def reporter() -> Iterator[Reporter]:
    """Show progress on stderr during the block."""
    with _own_stderr() as stream:
        first_line_is_out()
        if not stream.isatty():
            shown = Reporter(stream)
            with shown.heartbeat:
                yield shown
            return
        bars = Progress(
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.description:<9}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[line]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[text]}", style="dim", markup=False),
            console=Console(file=stream, emoji=False),
            speed_estimate_period=_AVERAGED_S,
        )
        shown = Reporter(stream, bars)
        with bars, shown.heartbeat:
            yield shown


@contextmanager
def _own_stderr() -> Iterator[TextIO]:
    """A copy of stderr, which stays open while the start of Ray redirects the process's own."""
    try:
        copy = os.dup(sys.stderr.fileno())
    except (OSError, ValueError):
        # Not a file, as in tests and notebooks.
        yield sys.stderr
        return
    with open(copy, "w", encoding=sys.stderr.encoding, errors=sys.stderr.errors) as stream:  # noqa: PTH123
        yield stream
