"""The ``ctray`` attributes of a crop: what its volume's `VolumeRecord` says of it, and back.

Names and units are in docs/data-contract.md. `ctray.crops.cutting.write_crop` adds what only the
cutting knows: `crop_box`, `asked_box`, checksum, and what `ctray restore` needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ctray.core.geometry import AxisFaces, Box
from ctray.records.volume_record import VolumeRecord

_OF_VOLUME = (
    "method",
    "model_digest",
    "box_settings_digest",
    "promise",
    "max_loss",
    "coverage",
)


def crop_attributes(record: VolumeRecord, specimen: int = 0) -> dict[str, Any]:
    """JSON values for the crop of a volume, or of one of its specimens, counted from 1.

    Of a volume that belongs to no run, `write_crop` names the source.
    """
    part = record.parts[specimen]
    attributes = {name: getattr(record, name) for name in _OF_VOLUME}
    attributes |= {
        "sample_box": part.sample_box.ranges if part.sample_box else None,
        "confidence": min(part.face_confidence) if part.face_confidence else None,
        "margins": list(part.margins) if part.margins else None,
    }
    if record.volume_id:
        attributes |= {
            "volume_id": record.volume_id,
            "source_url": record.source_url,
            "imported_url": record.imported_url,
            "source_stamp": record.source.get("stamp"),
            "crop_settings": record.crop_settings,
        }
    if specimen:
        attributes |= {
            "specimen": specimen,
            "num_specimens": len(record.specimens or []),
            "all_specimens_box": record.sample_box.ranges if record.sample_box else None,
        }
    return attributes


def crop_fields(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a `VolumeRecord` or `SpecimenRecord` from the attributes of its crop."""
    margins = attributes.get("margins")
    return {
        "asked_box": Box.from_ranges(attributes["asked_box"]),
        "crop_box": Box.from_ranges(attributes["crop_box"]),
        "margins": None if margins is None else AxisFaces.of(margins, "margins"),
        "checksum": attributes["checksum"],
    }


def promise_fields(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a `VolumeRecord` with what the attributes of its crop promise."""
    return {name: attributes.get(name) for name in ("promise", "max_loss", "coverage")}
