"""Figures of a run for Prometheus, through Ray's own exporter, which every node of a cluster has.

Ray puts "ray_" before each name, and "_total" behind counters. The driver counts from the events
of the run: what workers did reaches it with them, and a worker that dies loses no count.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ray.util.metrics import Counter, Gauge

from ctray.records.events import Event

# Name, description and tags beside the run.
COUNTERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "ctray_volumes": ("Volumes by what became of them.", ("status",)),
    "ctray_bytes_read": ("Bytes of voxels read to localize and crop.", ()),
    "ctray_bytes_written": ("Bytes written to crops.", ()),
    "ctray_stage_seconds": ("Seconds that the stages of a run took.", ("stage",)),
}
GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "ctray_stage_done": ("Volumes or steps of a stage that are done.", ("stage",)),
    "ctray_stage_size": ("Volumes or steps of a stage.", ("stage",)),
    "ctray_training_loss": ("Training loss.", ("stage",)),
    "ctray_slices_per_second": ("Slices a second that are learned from.", ("stage",)),
}
# Rows of training metrics that become gauges.
_FROM_ROWS = {"loss": "ctray_training_loss", "slices_per_second": "ctray_slices_per_second"}


class RunMetrics:
    """Counts the events of a run.

    Parameters
    ----------
    run
        Folder of the run, a tag of every figure.
    clock
        Seconds since any moment.
    make_counter, make_gauge
        As Ray's: (name, description, tag_keys) to something with `inc(value, tags)` or
        `set(value, tags)`.
    """

    def __init__(
        self,
        run: str,
        clock: Callable[[], float] = time.monotonic,
        make_counter: Callable[..., Any] = Counter,
        make_gauge: Callable[..., Any] = Gauge,
    ) -> None:
        self._run = run
        self._clock = clock
        self._last = clock()
        self._counters = _made(COUNTERS, make_counter)
        self._gauges = _made(GAUGES, make_gauge)

    def event(self, event: Event) -> None:
        """Count one event; the time since the one before is its stage's."""
        now = self._clock()
        self._count("ctray_stage_seconds", now - self._last, stage=event.stage)
        self._last = now
        if event.status:
            self._count("ctray_volumes", 1, status=event.status)
        self._count("ctray_bytes_read", event.bytes_read)
        self._count("ctray_bytes_written", event.bytes_written)
        self._set("ctray_stage_done", event.done, stage=event.stage)
        self._set("ctray_stage_size", event.total, stage=event.stage)
        for name, gauge in _FROM_ROWS.items():
            if name in event.metrics:
                self._set(gauge, event.metrics[name], stage=event.stage)

    def _count(self, name: str, value: float, **tags: str) -> None:
        # Ray refuses to count nothing.
        if value > 0:
            self._counters[name].inc(value, tags={"run": self._run, **tags})

    def _set(self, name: str, value: float, **tags: str) -> None:
        self._gauges[name].set(value, tags={"run": self._run, **tags})


def _made(figures: dict[str, tuple[str, tuple[str, ...]]], make: Callable[..., Any]) -> Any:
    return {
        name: make(name, description=description, tag_keys=("run", *tags))
        for name, (description, tags) in figures.items()
    }
