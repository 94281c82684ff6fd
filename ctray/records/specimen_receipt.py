"""What a receipt says of one of several specimens in a volume."""

from __future__ import annotations

from dataclasses import dataclass

from ctray.core.geometry import Box


@dataclass(frozen=True, kw_only=True, slots=True)
class SpecimenReceipt:
    """What became of one of several specimens in a volume; fields as those of `Receipt`.

    Parameters
    ----------
    sample_box, asked_box, crop_box
        Box of the specimen, the same with its margins, and box of its crop, at level 0.
    face_confidence
        Certainty of z0, z1, y0, y1, x0, x1, in [0, 1].
    scales, margins
        Level-0 voxels of the six faces.
    crop_url, checksum, bytes_written
        Its crop.
    """

    sample_box: Box
    face_confidence: list[float]
    scales: list[float]
    margins: list[int] | None = None
    crop_url: str | None = None
    asked_box: Box | None = None
    crop_box: Box | None = None
    checksum: str | None = None
    bytes_written: int = 0
