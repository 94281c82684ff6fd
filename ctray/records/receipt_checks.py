"""What a receipt must hold: one guard for whatever may lie there in place of one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from functools import cache
from typing import TYPE_CHECKING, Any, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from ctray.core.errors import CtrayError
from ctray.core.geometry import Box

if TYPE_CHECKING:
    from ctray.records.run_folder import Receipt

# A receipt of the finest working level is under a megabyte.
MAX_RECEIPT_BYTES = 32 * 2**20
_FACE_FIELDS = ("face_confidence", "scales", "margins")


def check_receipt(receipt: Receipt, volume_id: str) -> None:
    """Raise `CtrayError` for a receipt of another volume, or with values that none can have.

    Parameters
    ----------
    receipt
        As it was read; its fields may be of any type.
    volume_id
        Whose it must be.
    """
    _check_types(receipt)
    if receipt.volume_id != volume_id:
        raise CtrayError(f"it is of volume {receipt.volume_id}")
    shape = receipt.shape
    if shape is not None and (len(shape) != 3 or min(shape) < 1):
        raise CtrayError(f"shape {shape} is none of three axes")
    for specimen in receipt.specimens or []:
        _check_types(specimen)
    parts: list[Any] = [receipt, *(receipt.specimens or [])]
    for part in parts:
        for name in (f.name for f in fields(part)):
            value = getattr(part, name)
            if name in _FACE_FIELDS:
                _check_faces(name, value)
            elif isinstance(value, Box) and shape is not None:
                value.check_inside(shape)


def _check_types(part: Any) -> None:
    """Raise `CtrayError` if a field of a dataclass has another type than it declares."""
    values = {f.name: getattr(part, f.name) for f in fields(part)}
    kind: Any = type(part)
    try:
        _model_of(kind).model_validate(values, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(name) for name in first["loc"])
        raise CtrayError(f"{where}: {first['msg']}") from error


@cache
def _model_of(dataclass_type: type[Any]) -> type[BaseModel]:
    hints = get_type_hints(dataclass_type)
    declared: dict[str, Any] = {f.name: (hints[f.name], ...) for f in fields(dataclass_type)}
    config = ConfigDict(arbitrary_types_allowed=True)
    return create_model(dataclass_type.__name__, __config__=config, **declared)


def _check_faces(name: str, values: Sequence[float] | None) -> None:
    if values is not None and (len(values) != 6 or not all(map(math.isfinite, values))):
        raise CtrayError(f"{name} {values} is none of six faces")
