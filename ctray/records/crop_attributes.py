"""The ``ctray`` attributes of a crop: conversion from the `VolumeRecord` of its volume, and back.

Names and units are in docs/data-contract.md. `ctray.crops.cutting.write_crop` adds values that are
known only after cutting: `crop_box`, `asked_box`, the checksum, and data for `ctray restore`.
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

    If the volume does not belong to a run, `write_crop` adds the source.
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
    """Fields of a `VolumeRecord` with the promise in the attributes of its crop."""
    return {name: attributes.get(name) for name in ("promise", "max_loss", "coverage")}
