"""Figures for Prometheus, counted from the events of a run."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ctray.executors.ray.metrics import RunMetrics
from ctray.records.events import Event


class Figures:
    """Takes what Ray's metrics would, and refuses what they refuse."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, ...]] = Counter()
        self.values: dict[tuple[str, ...], float] = {}

    def make(self, name: str, *, description: str, tag_keys: tuple[str, ...]) -> Any:
        assert description.endswith(".")
        figures = self

        class Figure:
            def inc(self, value: float, tags: dict[str, str]) -> None:
                assert value > 0
                figures.counts[self._key(tags)] += value  # type: ignore[assignment]

            def set(self, value: float, tags: dict[str, str]) -> None:
                figures.values[self._key(tags)] = value

            def _key(self, tags: dict[str, str]) -> tuple[str, ...]:
                assert set(tags) == set(tag_keys)
                return (name, *(tags[key] for key in tag_keys))

        return Figure()


def test_events_become_figures() -> None:
    figures, now = Figures(), [100.0]
    metrics = RunMetrics("RUN", lambda: now[0], figures.make, figures.make)
    for stage, seconds, changes in (
        ("pretrain", 3, {"metrics": {"step": 5, "loss": 0.25, "slices_per_second": 70}}),
        ("pretrain", 5, {"metrics": {"step": 9, "loss": 0.125}}),
        ("localize", 7, {"status": "located", "bytes_read": 11, "bytes_written": 13}),
        ("localize", 2, {"status": "located", "bytes_read": 17}),
        ("localize", 1, {"status": "failed"}),
    ):
        now[0] += seconds
        metrics.event(Event(stage=stage, done=seconds, total=19, **changes))  # type: ignore[arg-type]
    assert figures.counts == {
        ("ctray_stage_seconds", "RUN", "pretrain"): 3 + 5,
        ("ctray_stage_seconds", "RUN", "localize"): 7 + 2 + 1,
        ("ctray_volumes", "RUN", "located"): 2,
        ("ctray_volumes", "RUN", "failed"): 1,
        ("ctray_bytes_read", "RUN"): 11 + 17,
        ("ctray_bytes_written", "RUN"): 13,
    }
    assert figures.values == {
        ("ctray_stage_done", "RUN", "pretrain"): 5,
        ("ctray_stage_size", "RUN", "pretrain"): 19,
        ("ctray_stage_done", "RUN", "localize"): 1,
        ("ctray_stage_size", "RUN", "localize"): 19,
        ("ctray_training_loss", "RUN", "pretrain"): 0.125,
        ("ctray_slices_per_second", "RUN", "pretrain"): 70,
    }
