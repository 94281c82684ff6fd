"""Metrics of a run for Prometheus, through the exporter that Ray has on every node of a cluster.

Ray puts "ray_" before each name and "_total" after the names of counters. The driver counts the
events of the run, so a worker that dies loses no count.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ray.util.metrics import Counter, Gauge

from ctray.records.events import Event

# Name, description and tags beside the run.
COUNTERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "ctray_volumes": ("Volumes by status.", ("status",)),
    "ctray_bytes_read": ("Bytes of voxels that localizing and cropping read.", ()),
    "ctray_bytes_written": ("Bytes written to crops.", ()),
    "ctray_stage_seconds": ("Duration of the stages of a run in seconds.", ("stage",)),
}
GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "ctray_stage_done": ("Finished volumes or steps of a stage.", ("stage",)),
    "ctray_stage_size": ("All volumes or steps of a stage.", ("stage",)),
    "ctray_training_loss": ("Training loss.", ("stage",)),
    "ctray_slices_per_second": ("Slices that training uses per second.", ("stage",)),
}
# Training metrics that become gauges.
_FROM_ROWS = {"loss": "ctray_training_loss", "slices_per_second": "ctray_slices_per_second"}


class RunMetrics:
    """Turns the events of a run into metrics.

    Parameters
    ----------
    run
        Folder of the run, a tag of every metric.
    clock
        Returns seconds since any moment.
    make_counter, make_gauge
        Called with (name, description, tag_keys), as Ray's; the result has `inc(value, tags)` or
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
        """Count one event. The time since the event before belongs to its stage."""
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
        # Ray refuses to add 0 to a counter.
        if value > 0:
            self._counters[name].inc(value, tags={"run": self._run, **tags})

    def _set(self, name: str, value: float, **tags: str) -> None:
        self._gauges[name].set(value, tags={"run": self._run, **tags})


def _made(figures: dict[str, tuple[str, tuple[str, ...]]], make: Callable[..., Any]) -> Any:
    return {
        name: make(name, description=description, tag_keys=("run", *tags))
        for name, (description, tags) in figures.items()
    }
