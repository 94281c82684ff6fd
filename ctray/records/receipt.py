"""The receipt of a volume: its `VolumeRecord` as a JSON object, and reading it back with checks.

Names and units are in docs/data-contract.md.
"""

from __future__ import annotations

import math
from dataclasses import fields
from functools import cache
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from ctray.core.errors import CtrayError
from ctray.core.geometry import AxisFaces, Box
from ctray.records.volume_record import SpecimenRecord, VolumeRecord

# A receipt of the finest working level is under a megabyte.
MAX_RECEIPT_BYTES = 32 * 2**20
_BOXES = ("sample_box", "asked_box", "crop_box")
_FACES = ("face_confidence", "scales", "margins")


def to_receipt(record: VolumeRecord) -> dict[str, Any]:
    """Receipt of a volume as plain JSON values; boxes as [start, stop] pairs, faces as lists."""
    receipt = _plain(record)
    if record.specimens is not None:
        receipt["specimens"] = [_plain(specimen) for specimen in record.specimens]
    return receipt


def from_receipt(receipt: Any, volume_id: str) -> VolumeRecord:
    """Record of the volume `volume_id` from its receipt; unknown keys are ignored.

    Raises
    ------
    CtrayError
        If `receipt` is not a receipt, belongs to another volume, or has invalid values.
    """
    try:
        values = _values(VolumeRecord, receipt)
        if values.get("specimens") is not None:
            values["specimens"] = [
                SpecimenRecord(**_values(SpecimenRecord, told)) for told in values["specimens"]
            ]
        record = VolumeRecord(**values)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise CtrayError(str(error)) from error
    _check(record, volume_id)
    return record


def _plain(record: VolumeRecord | SpecimenRecord) -> dict[str, Any]:
    return {f.name: _plain_value(getattr(record, f.name)) for f in fields(record)}


def _plain_value(value: Any) -> Any:
    if isinstance(value, Box):
        return value.ranges
    return list(value) if isinstance(value, AxisFaces) else value


def _values(kind: type[Any], told: dict[str, Any]) -> dict[str, Any]:
    """Values of the fields of `kind`, with boxes and faces converted from lists."""
    known = {f.name for f in fields(kind)}
    values = {name: value for name, value in told.items() if name in known}
    for name in known.intersection(_BOXES):
        if values.get(name) is not None:
            values[name] = Box.from_ranges(values[name])
    for name in known.intersection(_FACES):
        if values.get(name) is not None:
            values[name] = AxisFaces.of(values[name], name)
    return values


def _check(record: VolumeRecord, volume_id: str) -> None:
    """Raise `CtrayError` if a record belongs to another volume or has invalid values."""
    parts: list[VolumeRecord | SpecimenRecord] = [record, *(record.specimens or [])]
    for part in parts:
        _check_types(part)
    if record.volume_id != volume_id:
        raise CtrayError(f"it is of volume {record.volume_id}")
    shape = record.shape
    if shape is not None and (len(shape) != 3 or min(shape) < 1):
        raise CtrayError(f"shape {shape} is none of three axes")
    for part in parts:
        for name in (f.name for f in fields(part)):
            value = getattr(part, name)
            if isinstance(value, AxisFaces) and not all(map(math.isfinite, value)):
                raise CtrayError(f"{name} {list(value)} must be finite")
            if isinstance(value, Box) and shape is not None:
                value.check_inside(shape)


def _check_types(part: VolumeRecord | SpecimenRecord) -> None:
    """Raise `CtrayError` if a value does not have the declared type of its field."""
    values = {f.name: getattr(part, f.name) for f in fields(part)}
    kind: Any = type(part)
    try:
        _model_of(kind).model_validate(values, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(name) for name in first["loc"])
        raise CtrayError(f"{where}: {first['msg']}") from error


@cache
def _model_of(kind: type[Any]) -> type[BaseModel]:
    hints = get_type_hints(kind)
    declared: dict[str, Any] = {f.name: (hints[f.name], ...) for f in fields(kind)}
    config = ConfigDict(arbitrary_types_allowed=True)
    return create_model(kind.__name__, __config__=config, **declared)
