"""What is known of one volume, made once and handed on.

Three places show it: the receipt (`ctray.records.receipt`), the table of boxes
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
    """What is known of one of several specimens in a volume; fields as those of `VolumeRecord`."""

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
    """What is known of one volume.

    Boxes are at level 0, and values of the six faces are in the order z0, z1, y0, y1, x0, x1.

    Parameters
    ----------
    volume_id, source_url
        `volume_id` names the volume within its run; it is empty for a volume of no run.
        `source_url` is the archive's own file or folder.
    imported_url
        The Zarr that was made of the source. None if the source is a Zarr and was read itself.
    status, reason
        `located`; or `empty`, `uncertain` or `failed` with the reason in one line. See
        `ctray.localization.decide`.
    notes
        Oddities of the source that are no failure, such as missing slice numbers.
    method, model_digest, box_settings_digest
        Pretext task, digest of the networks' weights, and digest of the settings that move a box
        (`ctray.config.box_settings`).
    sample_box
        Box of the sample without margins: around all specimens if there are several, a guess if
        the volume is uncertain. On real scans it cuts a few percent of the sample.
    asked_box, crop_box
        Box to cut, which is `sample_box` with its margins; and the box that the crop holds, which
        grew outward to what is stored. Where nothing was written yet, both are None in a run, and
        both are the box to cut in what `ctray.localize` returns.
    confidence, face_confidence
        Certainty in [0, 1] of the least certain face, and of each face.
    scales, margins
        Level-0 voxels of each face: how open it is (None without self-training), and the margin.
    promise
        `calibrated`, `not calibrated` or `fixed margin`; None if nothing is to be cropped.
    max_loss, coverage
        A `calibrated` crop loses at most the fraction `max_loss` of the sample's voxels, in at
        least the fraction `coverage` of volumes. None if no rate is stated.
    shape, dtype, voxel_size_um
        Of level 0, (z, y, x); voxel edges in micrometres.
    plain_scale
        Voxel size in words if the metadata give numbers without a unit of length.
    bytes_total, bytes_read, bytes_written
        Bytes of level 0 without compression; fetched for localizing and cropping; stored in the
        crop.
    seconds
        Wall time of localizing and cropping.
    crop_url, checksum
        The crop and its checksum.
    specimens
        Several specimens, the largest first, each with a crop of its own instead of the volume's.
        Empty if there is one; None if nobody looked.
    map_url
        Uncertainty map of the sorting task.
    profiles, stretches
        By axis: certainty of each slice of the working level (for the sorting task its largest
        relative variance); and range, threshold and background found in it.
    refined
        What self-training says: probability of sample in each slice, and faces.
    working
        Shape, factors, grey value window and field of view of the working level.
    source
        What was kept of the source: a `ctray.archive.source_record.SourceRecord`.
    crop_settings
        Digest of the settings that the crop was cut with.
    ctray_version
        Version that wrote it.
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
        """URL of the Zarr whose voxels were read; None if none could be."""
        return None if self.status == "failed" else self.imported_url or self.source_url

    @property
    def parts(self) -> dict[int, VolumeRecord | SpecimenRecord]:
        """What has its own crop: the volume as number 0, or each of several specimens from 1."""
        return dict(enumerate(self.specimens, start=1)) if self.specimens else {0: self}

    @property
    def crops(self) -> list[str | None]:
        """URLs of the crops that a located volume is to have; None for each that is missing."""
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
        """What is promised of the crop, in one line; empty if nothing is to be cropped."""
        if self.promise == "calibrated" and self.max_loss is not None and self.coverage is not None:
            return f"at most {self.max_loss:.2%} lost, stated for {self.coverage:.0%} of volumes"
        return _STATES_NO_RATE.get(self.promise or "", "")

    def __repr__(self) -> str:
        """One line: status and reason, boxes, certainty, promise."""
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
