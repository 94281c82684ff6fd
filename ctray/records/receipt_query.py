"""Questions to the receipts of a run: one small row for each volume, a few read at a time."""

from __future__ import annotations

import difflib
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ctray.core.errors import ConfigError, CtrayError, NotFoundError, one_line
from ctray.core.geometry import FACES
from ctray.core.parallel import bounded_map
from ctray.records.box_table import CROP_FACES, box_columns
from ctray.records.receipt_list import RECEIPT_BYTES, RECEIPTS_AT_ONCE
from ctray.records.run_folder import RunFolder
from ctray.records.volume_record import VolumeRecord
from ctray.storage import store

FIELDS = (
    "volume_id",
    "source_url",
    "imported_url",
    "status",
    "reason",
    "notes",
    "method",
    "model_digest",
    "box_settings_digest",
    "confidence",
    "promise",
    "max_loss",
    "coverage",
    "dtype",
    "bytes_total",
    "bytes_read",
    "bytes_written",
    "seconds",
    "checksum",
    "ctray_version",
)
# Made of the others: crops written, URL of the first crop, voxels, the fraction of them that is
# kept; the sample's box, and the box of the first crop.
DERIVED = ("crops", "crop_url", "voxels", "kept_fraction", *FACES, *CROP_FACES)

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "!=": operator.ne,
    "=": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
    "~": lambda value, part: str(part).lower() in str(value).lower(),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Condition:
    """A comparison that a row must meet, such as ``confidence<0.5`` or ``reason~timeout``.

    A row whose field is empty meets ``!=`` alone.
    """

    field: str
    sign: str
    value: Any

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Condition of `text`; `ConfigError` for an unknown field or sign."""
        at = [(text.find(sign), -len(sign), sign) for sign in _OPERATORS if sign in text]
        if not at:
            known = " ".join(_OPERATORS)
            raise ConfigError(
                f"--where {text!r} compares nothing; write FIELD<VALUE, signs {known}"
            )
        place, _, sign = min(at)
        name, value = text[:place].strip(), text[place + len(sign) :].strip()
        if name not in (*FIELDS, *DERIVED):
            near = difflib.get_close_matches(name, (*FIELDS, *DERIVED), n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"fields: {', '.join(FIELDS + DERIVED)}"
            raise ConfigError(f"--where {text!r}: unknown field {name}; {hint}")
        return cls(field=name, sign=sign, value=_number(value) if sign != "~" else value)

    def holds(self, row: dict[str, Any]) -> bool:
        """Whether a row meets it."""
        value = row[self.field]
        if value is None:
            return self.sign == "!="
        same_kind = isinstance(value, str) == isinstance(self.value, str)
        if not same_kind and self.sign != "~":
            # A checksum of digits alone is a text all the same.
            return _OPERATORS[self.sign](str(value), str(self.value))
        return _OPERATORS[self.sign](value, self.value)


def all_receipts(run: RunFolder) -> Iterator[tuple[str, VolumeRecord | CtrayError]]:
    """Id and record of all volumes that have a receipt, by id; the error for an unreadable one.

    A few are held at a time.

    Raises
    ------
    NotFoundError
        If `run` is no run.
    """
    try:
        ids = run.receipt_ids()
    except NotFoundError:
        if not store.exists(run.manifest):
            raise NotFoundError(f"{run.url} is no run: there is no run.json; check it") from None
        return

    def read(volume_id: str) -> tuple[str, VolumeRecord | CtrayError] | None:
        try:
            record = run.read_receipt(volume_id)
        except CtrayError as error:
            return volume_id, error
        return None if record is None else (volume_id, record)

    found = bounded_map(read, ids, bytes_per_item=RECEIPT_BYTES, max_threads=RECEIPTS_AT_ONCE)
    yield from (item for item in found if item is not None)


def query_receipts(
    run: RunFolder,
    *,
    statuses: Sequence[str] = (),
    volumes: Sequence[str] = (),
    where: Sequence[Condition] = (),
) -> Iterator[dict[str, Any]]:
    """Rows of the receipts that meet all that is asked, by volume id.

    A row has the fields `FIELDS` of a record and `DERIVED`. For an unreadable receipt the status is
    `unreadable`, with the reason.
    """
    for volume_id, record in all_receipts(run):
        if volumes and volume_id not in volumes:
            continue
        row = _row(volume_id, record)
        if statuses and row["status"] not in statuses:
            continue
        if all(condition.holds(row) for condition in where):
            yield row


def _row(volume_id: str, record: VolumeRecord | CtrayError) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys((*FIELDS, *DERIVED))
    if isinstance(record, CtrayError):
        told = {"volume_id": volume_id, "status": "unreadable", "reason": one_line(record)}
        return {**row, **told}
    row |= {name: getattr(record, name) for name in FIELDS}
    written = [url for url in record.crops if url is not None]
    voxels = math.prod(record.shape) if record.shape else None
    boxes = record.crop_boxes
    kept = sum(box.num_voxels for box in boxes)
    return {
        **row,
        **box_columns(
            record.sample_box if record.status == "located" else None,
            boxes[0] if boxes else None,
        ),
        "crops": len(written),
        "crop_url": written[0] if written else None,
        "voxels": voxels,
        "kept_fraction": kept / voxels if voxels and kept else None,
    }


def _number(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text
