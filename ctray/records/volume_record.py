"""The record of one volume, with everything that is known about it.

Three places contain it: the receipt (`ctray.records.receipt`), the table of boxes
(`ctray.records.box_table`) and the attributes of the crop (`ctray.records.crop_attributes`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from ctray.core.geometry import AXES, AxisFaces, Box, Triple

Status = Literal["located", "empty", "uncertain", "failed"]
PromiseKind = Literal["calibrated", "not calibrated", "fixed margin"]

_STATES_NO_RATE: dict[str, str] = {
    "not calibrated": "not calibrated: no loss rate is stated",
    "fixed margin": "fixed margin: no loss rate is stated",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class SpecimenRecord:
    """Record of one of several specimens in a volume. Fields are as in `VolumeRecord`."""

    sample_box: Box
    face_confidence: AxisFaces[float]
    scales: AxisFaces[float]
    margins: AxisFaces[int] | None = None
    crop_url: str | None = None
    asked_box: Box | None = None
    crop_box: Box | None = None
    checksum: str | None = None
    bytes_written: int = 0


@dataclass(frozen=True, kw_only=True, repr=False)
class VolumeRecord:
    """Record of one volume.

    Boxes are at level 0. Values of the six faces are in the order z0, z1, y0, y1, x0, x1.

    Parameters
    ----------
    volume_id, source_url
        `volume_id` names the volume within its run; it is empty outside a run. `source_url` is the
        archive's own file or folder.
    imported_url
        Zarr that was made from the source. None if the source is a Zarr and was read directly.
    status, reason
        `located`; or `empty`, `uncertain` or `failed` with the reason in one line. See
        `ctray.localization.decide`.
    notes
        Irregularities of the source that are not failures, such as missing slice numbers.
    method, model_digest, box_settings_digest
        Pretext task, digest of the networks' weights, and digest of the settings that move a box
        (`ctray.config.box_settings`).
    sample_box
        Box of the sample without margins. It encloses all specimens if there are several, and is a
        guess if the volume is uncertain. On real scans it cuts a few percent of the sample.
    asked_box, crop_box
        `asked_box` is `sample_box` with its margins. `crop_box` is the box of the crop, which grew
        outward to fit stored voxels and chunks. Before a crop is written, both are None in a run,
        and `ctray.localize` returns `sample_box` with its margins for both.
    confidence, face_confidence
        Confidence in [0, 1] of the least certain face, and of each face.
    scales, margins
        Scale (how open the face is; None without self-training) and margin of each face, level-0
        voxels.
    promise
        `calibrated`, `not calibrated` or `fixed margin`; None if there is nothing to crop.
    max_loss, coverage
        A `calibrated` crop loses at most the fraction `max_loss` of the sample's voxels, in at
        least the fraction `coverage` of volumes. None if no rate is stated.
    shape, dtype, voxel_size_um
        Shape and dtype of level 0, and its voxel edges in micrometres, (z, y, x).
    plain_scale
        Voxel size in words if the metadata give numbers without a unit of length.
    bytes_total, bytes_read, bytes_written
        Bytes of level 0 without compression, bytes fetched for localizing and cropping, and bytes
        stored in the crop.
    seconds
        Wall time of localizing and cropping.
    crop_url, checksum
        URL and checksum of the crop.
    specimens
        Several specimens, the largest first. Each has its own crop, and the volume has none. Empty
        if there is only one; None if specimens were not searched for.
    map_url
        URL of the uncertainty map of the sorting task.
    profiles, stretches
        By axis: certainty of each slice of the working level (for the sorting task, its largest
        relative variance), and the range, threshold and background found from it.
    refined
        Result of self-training: probability of sample in each slice, and faces.
    working
        Shape, factors, grey value window and field of view of the working level.
    source
        State of the source: a `ctray.archive.source_record.SourceRecord`.
    crop_settings
        Digest of the settings of the crop.
    ctray_version
        Version of ctray that wrote the record.
    """

    volume_id: str
    source_url: str
    status: Status
    reason: str | None = None
    notes: str | None = None
    imported_url: str | None = None
    method: str | None = None
    model_digest: str | None = None
    box_settings_digest: str | None = None
    sample_box: Box | None = None
    asked_box: Box | None = None
    crop_box: Box | None = None
    confidence: float | None = None
    face_confidence: AxisFaces[float] | None = None
    scales: AxisFaces[float] | None = None
    margins: AxisFaces[int] | None = None
    promise: PromiseKind | None = None
    max_loss: float | None = None
    coverage: float | None = None
    shape: list[int] | None = None
    dtype: str | None = None
    voxel_size_um: list[float] | None = None
    plain_scale: str | None = None
    bytes_total: int | None = None
    bytes_read: int = 0
    bytes_written: int = 0
    seconds: float = 0.0
    crop_url: str | None = None
    checksum: str | None = None
    specimens: list[SpecimenRecord] | None = None
    map_url: str | None = None
    profiles: dict[str, list[float]] = field(default_factory=dict)
    stretches: dict[str, Any] = field(default_factory=dict)
    refined: dict[str, Any] = field(default_factory=dict)
    working: dict[str, Any] = field(default_factory=dict)
    source: dict[str, Any] = field(default_factory=dict)
    crop_settings: str | None = None
    ctray_version: str | None = None

    @property
    def cut_url(self) -> str | None:
        """URL of the Zarr whose voxels were read; None if the volume failed."""
        return None if self.status == "failed" else self.imported_url or self.source_url

    @property
    def parts(self) -> dict[int, VolumeRecord | SpecimenRecord]:
        """Records with their own crop: the volume as 0, or each of several specimens from 1."""
        return dict(enumerate(self.specimens, start=1)) if self.specimens else {0: self}

    @property
    def crops(self) -> list[str | None]:
        """URLs of all crops that a located volume should have; None for each missing crop."""
        if self.status != "located":
            return []
        return [part.crop_url for part in self.parts.values()]

    @property
    def crop_boxes(self) -> list[Box]:
        """Boxes of the crops that were written."""
        boxes = [part.crop_box for part in self.parts.values()]
        return [box for box in boxes if box is not None]

    @property
    def promise_text(self) -> str:
        """Promise of the crop in one line; empty if there is nothing to crop."""
        if self.promise == "calibrated" and self.max_loss is not None and self.coverage is not None:
            return f"at most {self.max_loss:.2%} lost, stated for {self.coverage:.0%} of volumes"
        return _STATES_NO_RATE.get(self.promise or "", "")

    def __repr__(self) -> str:
        """One line: status and reason, boxes, confidence, promise."""
        parts = [self.status if self.reason is None else f"{self.status}: {self.reason}"]
        parts += [
            f"{name} {_ranges(box)}"
            for name, box in (("sample_box", self.sample_box), ("crop_box", self.crop_box))
            if box is not None
        ]
        parts += [] if self.confidence is None else [f"confidence {self.confidence:.2f}"]
        parts += [self.promise_text] if self.promise_text else []
        return f"<{type(self).__name__} {'; '.join(parts)}>"


def box_to_cut(record: VolumeRecord | SpecimenRecord, shape: Triple) -> Box:
    """Box of the sample with its margins, within a volume of `shape` (z, y, x)."""
    assert record.sample_box is not None, "volumes without a box have no crop"
    assert record.margins is not None, "margins come before crops"
    return record.sample_box.expand(record.margins, shape)


def _ranges(box: Box) -> str:
    pairs = zip(AXES, box.ranges, strict=True)
    return " ".join(f"{axis} {start}:{stop}" for axis, (start, stop) in pairs)
