"""Progress with rates: bars on a terminal, plain lines at sensible intervals elsewhere."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from ctray.cli.heartbeat import Heartbeat
from ctray.cli.options import first_line_is_out
from ctray.cli.time_left import TimeLeft, in_words
from ctray.core.errors import printable
from ctray.core.readable import size_text

# A log that nobody watches needs a sign of life, not a line a step.
_PLAIN_EVERY_S = 15.0
_UNITS = {
    "pretrain": "steps",
    "self-train": "steps",
    "import": "bytes",
    "restore": "bytes",
    "baselines": "passes",
}


class _Event(Protocol):
    """What a run tells of its progress (`ctray.records.events.Event`, without importing ray)."""

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


class Stage:
    """One stage's count, and its rate since its first report: resumed work counts for none."""

    def __init__(self, name: str, done: int) -> None:
        self.name = name
        self._first = done
        self._began = time.monotonic()
        self._unit = _UNITS.get(name, "volumes")
        self._left = TimeLeft()
        self._reported: int | None = None

    def line(self, done: int, total: int, bytes_done: int = 0, bytes_total: int = 0) -> str:
        """Count, rate, and time left once it is known: `12/32 volumes, 1.4/s, about 14 s left`."""
        known = bytes_total > 0
        work = bytes_done if known else done
        if done == self._first:
            # What was waited for is no work either.
            self._began = time.monotonic()
        if work != self._reported:
            self._reported = work
            self._left.report(work)
        left = self._left.seconds(bytes_total if known else total)
        line = self._amount(done, total)
        return line if left is None or done >= total else f"{line}, {in_words(left)}"

    def _amount(self, done: int, total: int) -> str:
        if self._unit == "bytes":
            amount = f"{size_text(done)} of {size_text(total)}"
        else:
            amount = f"{done:,}/{total:,} {self._unit}"
        elapsed = time.monotonic() - self._began
        # Two reports in one breath tell no rate.
        if done <= self._first or elapsed < 0.5:
            return amount
        return f"{amount}, {self._rate((done - self._first) / elapsed)}"

    def _rate(self, per_second: float) -> str:
        if self._unit == "bytes":
            return f"{size_text(per_second)}/s"
        if per_second >= 0.1:
            return f"{per_second:.1f}/s"
        return f"{60 * per_second:.1f}/min"


class Reporter:
    """Shows progress on stderr; made by `reporter`.

    Parameters
    ----------
    stream
        Where lines go.
    bars
        Bars on a terminal, None elsewhere.
    """

    def __init__(self, stream: TextIO, bars: Progress | None) -> None:
        self._stream, self._bars = stream, bars
        self._stage: Stage | None = None
        self._task: TaskID | None = None
        self._last_line = -math.inf
        self._latest = ""
        self.heartbeat = Heartbeat(self._still_working)

    def __call__(self, event: _Event) -> None:
        """Take an event of a run."""
        if event.stays:
            self.note(event.text)
            return
        self.update(
            event.stage, event.done, event.total, event.text, event.bytes_done, event.bytes_total
        )

    def note(self, text: str) -> None:
        """Say one line that stays."""
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
        """Show that `done` of `total` of a stage are done; by bytes, too, where they differ."""
        if self._stage is None or self._stage.name != stage:
            self._begin(stage, done, total)
        assert self._stage is not None
        line = self._stage.line(done, total, bytes_done, bytes_total)
        self._latest = f"{stage}: {line}"
        if self._bars is not None and self._task is not None:
            self._bars.update(
                self._task, completed=done, total=total, line=line, text=printable(text)
            )
            return
        now = time.monotonic()
        if done >= total or now - self._last_line >= _PLAIN_EVERY_S:
            self._last_line = now
            self._write(f"{self._latest}{f'; {text}' if text else ''}")
            self.heartbeat.said()

    def _begin(self, stage: str, done: int, total: int) -> None:
        self._stage = Stage(stage, done)
        # The first line of a stage comes at once: it says what takes so long.
        self._last_line = -math.inf
        if self._bars is not None:
            if self._task is not None:
                self._bars.stop_task(self._task)
            self._task = self._bars.add_task(printable(stage), total=total, line="", text="")

    def _still_working(self, seconds: float) -> None:
        """Repeat the latest line, unless a bar moves."""
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


@contextmanager
def reporter() -> Iterator[Reporter]:
    """Progress on stderr while the block runs."""
    with _own_stderr() as stream:
        first_line_is_out()
        if not stream.isatty():
            shown = Reporter(stream, None)
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
        )
        shown = Reporter(stream, bars)
        with bars, shown.heartbeat:
            yield shown


@contextmanager
def _own_stderr() -> Iterator[TextIO]:
    """Stderr that stays where it is while Ray's start sends the process's own to nowhere."""
    try:
        copy = os.dup(sys.stderr.fileno())
    except (OSError, ValueError):
        # Not a file: a test's, or a notebook's.
        yield sys.stderr
        return
    with open(copy, "w", encoding=sys.stderr.encoding, errors=sys.stderr.errors) as stream:  # noqa: PTH123
        yield stream
