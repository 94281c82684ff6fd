"""Reading receipts: one guard for whatever may lie there in place of one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from ctray.errors import (
    CtrayError,
    GeometryError,
    NotFoundError,
    StorageError,
    StoreUnavailableError,
    one_line,
)
from ctray.geometry import Box
from ctray.storage import store

if TYPE_CHECKING:
    from ctray.storage.instance_receipt import InstanceReceipt
    from ctray.storage.run_folder import Receipt

# A receipt of the finest working level is under a megabyte.
MAX_RECEIPT_BYTES = 32 * 2**20


def read_receipt(url: str, volume_id: str) -> Receipt | None:
    """Receipt of a volume, None where there is none.

    Raises
    ------
    CtrayError
        If what is there is no receipt of that volume: too large, no JSON, of other types, or with
        boxes that are none. The message names it.
    """
    try:
        data = store.read_at_most(url, MAX_RECEIPT_BYTES)
    except NotFoundError:
        return None
    except StoreUnavailableError:
        raise
    except StorageError as error:
        raise StorageError(f"{one_line(error)}; delete it to do the volume anew") from error
    try:
        # Fields that a later version has are left out.
        receipt = _adapter().validate_json(data, strict=True)
        _check(receipt, volume_id)
    except ValidationError as error:
        raise _no_receipt(url, _first_of(error)) from error
    except CtrayError as error:
        raise _no_receipt(url, str(error)) from error
    return receipt


@cache
def _adapter() -> TypeAdapter[Receipt]:
    # Its module reads receipts through this one.
    from ctray.storage.run_folder import Receipt

    return TypeAdapter(Receipt)


def _first_of(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return f"no valid JSON: {first['ctx']['error']}"
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else first["msg"]


def _no_receipt(url: str, why: str) -> CtrayError:
    return CtrayError(f"{url} is no receipt ({why}); delete it to do the volume anew")


def _check(receipt: Receipt, volume_id: str) -> None:
    """Raise `CtrayError` for values of the right types that are none of a receipt."""
    if receipt.volume_id != volume_id:
        raise CtrayError(f"it is of volume {receipt.volume_id}")
    if receipt.shape is not None and (len(receipt.shape) != 3 or min(receipt.shape) < 1):
        raise CtrayError(f"shape {receipt.shape} is none of three axes")
    _check_faces("face_confidence", receipt.face_confidence)
    parts: list[Receipt | InstanceReceipt] = [receipt, *(receipt.instances or [])]
    for part in parts:
        _check_faces("scales", part.scales)
        _check_faces("margins", part.margins)
        for name in ("box", "crop_box"):
            _check_box(name, getattr(part, name), receipt.shape)
    for instance in receipt.instances or []:
        _check_faces("certainty", instance.certainty)


def _check_faces(name: str, values: Sequence[float] | None) -> None:
    if values is not None and (len(values) != 6 or not all(map(math.isfinite, values))):
        raise CtrayError(f"{name} {values} is none of six faces")


def _check_box(name: str, ranges: Any, shape: list[int] | None) -> None:
    if ranges is None:
        return
    if [len(pair) for pair in ranges] != [2, 2, 2]:
        raise CtrayError(f"{name} {ranges} is none of three ranges")
    try:
        box = Box.from_ranges(ranges)
        if shape is not None:
            box.check_inside(shape)
    except GeometryError as error:
        raise CtrayError(f"{name} {ranges}: {error}") from error
