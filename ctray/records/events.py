"""Progress of a run as events, and the functions that listen to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ctray.archive.catalog import CatalogEntry

STAGES = ("catalog", "prepare", "pretrain", "boxes", "self-train", "localize", "report")


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Progress of a run.

    Parameters
    ----------
    stage
        One of `STAGES`.
    done, total
        Number of volumes or steps.
    text
        One short line: the work that was just done, or the reason why the stage waits.
    bytes_done, bytes_total
        Bytes of the finished volumes, and of all volumes; 0 if unknown.
    volume_id, status
        Volume that was just done, and its status; empty if the event is not about a volume.
    bytes_read, bytes_written
        Bytes of that volume.
    metrics
        Row of metrics of a training step.
    stays
        Whether `text` must stay visible, instead of being a passing state.
    """

    stage: str
    done: int
    total: int
    text: str = ""
    bytes_done: int = 0
    bytes_total: int = 0
    volume_id: str = ""
    status: str = ""
    bytes_read: int = 0
    bytes_written: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    stays: bool = False


OnEvent = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Drop the event."""


def nobody(text: str) -> None:
    """Drop the line."""


def training_event(stage: str, row: Mapping[str, float], steps: int) -> Event:
    """Event of a row of training metrics."""
    text = ", ".join(_METRICS[name].format(row[name]) for name in _METRICS if name in row)
    return Event(stage=stage, done=int(row["step"]), total=steps, text=text, metrics=row)


# Format of each metric in the progress line.
_METRICS = {
    "loss": "loss {:.3f}",
    "accuracy": "accuracy {:.0%}",
    "displacement": "displacement {:.2f}",
    "validation_accuracy": "held out {:.0%}",
    "validation_displacement": "held out {:.2f}",
    "slices_per_second": "{:.0f} slices/s",
}


class Volumes:
    """Counts the volumes of a stage and sends an event for each.

    Parameters
    ----------
    stage
        One of `STAGES`.
    entries
        All volumes of the stage.
    on_event
        Called with every event.
    """

    def __init__(self, stage: str, entries: Sequence[CatalogEntry], on_event: OnEvent) -> None:
        self._stage, self._on_event = stage, on_event
        self._sizes = {entry.volume_id: entry.num_bytes or 0 for entry in entries}
        self._total_bytes = sum(self._sizes.values())
        self._count = self._bytes = 0

    def done(
        self, volume_id: str, status: str = "", bytes_read: int = 0, bytes_written: int = 0
    ) -> None:
        """Count a volume that ended with `status`."""
        self._count += 1
        self._bytes += self._sizes[volume_id]
        event = replace(
            self._event(f"{volume_id} {status}".rstrip()),
            volume_id=volume_id,
            status=status,
            bytes_read=bytes_read,
            bytes_written=bytes_written,
        )
        self._on_event(event)

    def wait(self, text: str) -> None:
        """Send an event with a line that says why the stage waits."""
        self._on_event(self._event(text))

    def _event(self, text: str) -> Event:
        return Event(
            stage=self._stage,
            done=self._count,
            total=len(self._sizes),
            text=text,
            bytes_done=self._bytes,
            bytes_total=self._total_bytes,
        )
