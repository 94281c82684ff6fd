"""Where the sample of one volume lies, what its crop would be, and what that promises."""

from __future__ import annotations

from dataclasses import dataclass

from ctray.core.geometry import AXES, Box, Triple
from ctray.localization.margins import expand_faces
from ctray.localization.promise import PromiseKind, promise_text
from ctray.records.run_folder import Status


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Found:
    """Box of the sample, and of its crop.

    Parameters
    ----------
    status, reason
        `located`; `empty` or `uncertain` with the reason in one line.
    box
        Bare box of the sample at level 0; None if empty, a guess at most if uncertain. On real
        scans it cuts a few percent of the sample: use `crop_box` to cut.
    face_confidence
        Certainty of the faces z0, z1, y0, y1, x0, x1, in [0, 1].
    shape
        Of level 0, voxels (z, y, x).
    margins
        What `crop_box` adds to the six faces, level-0 voxels; None without a box.
    promise, max_loss, coverage
        `calibrated`: a crop loses at most the fraction `max_loss` of the sample's voxels, in the
        fraction `coverage` of volumes; `not calibrated` or `fixed margin`: no rate is stated.
    method, model_digest, box_settings_digest
        Pretext task, digest of the networks' weights, and digest of the settings that move a box.
    """

    status: Status
    reason: str | None = None
    box: Box | None = None
    face_confidence: tuple[float, ...] | None = None
    shape: Triple | None = None
    margins: tuple[int, ...] | None = None
    promise: PromiseKind | None = None
    max_loss: float | None = None
    coverage: float | None = None
    method: str | None = None
    model_digest: str | None = None
    box_settings_digest: str | None = None

    @property
    def confidence(self) -> float | None:
        """Certainty of the least certain face."""
        return None if self.face_confidence is None else min(self.face_confidence)

    @property
    def crop_box(self) -> Box | None:
        """Box of the sample with its margins, within the volume: what to keep. None without one."""
        if self.box is None or self.margins is None or self.shape is None:
            return None
        return expand_faces(self.box, self.margins, self.shape)

    @property
    def promise_text(self) -> str:
        """What is promised of the crop, in one line; empty where nothing is."""
        return promise_text(self.promise, self.max_loss, self.coverage)

    def __repr__(self) -> str:
        """One line: status and reason, boxes, certainty, promise."""
        parts = [self.status if self.reason is None else f"{self.status}: {self.reason}"]
        parts += [
            f"{name} {_ranges(box)}"
            for name, box in (("box", self.box), ("crop_box", self.crop_box))
            if box is not None
        ]
        parts += [] if self.confidence is None else [f"confidence {self.confidence:.2f}"]
        parts += [self.promise_text] if self.promise_text else []
        return f"<{type(self).__name__} {'; '.join(parts)}>"


def _ranges(box: Box) -> str:
    pairs = zip(AXES, box.ranges, strict=True)
    return " ".join(f"{axis} {start}:{stop}" for axis, (start, stop) in pairs)
