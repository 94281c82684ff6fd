"""Queries over the receipts of a run: one small row per receipt, few receipts in memory at once."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
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
# Columns computed from other fields: number of crops, URL of the first crop, voxels of the volume,
# fraction of these voxels in the crops, box of the sample, box of the first crop.
DERIVED = ("crops", "crop_url", "voxels", "kept_fraction", *FACES, *CROP_FACES)


class RowFilter:
    """Conditions on rows in the expression language of SQLite, such as ``confidence < 0.5``.

    SQLite evaluates them in memory, on one row at a time. The columns are `FIELDS` and `DERIVED`.

    Parameters
    ----------
    conditions
        Conditions that a row must all meet.

    Raises
    ------
    ConfigError
        If a condition is not an SQLite expression or names an unknown column.
    """

    def __init__(self, conditions: Sequence[str] = ()) -> None:
        # The database contains only this one row, and every statement is one SELECT.
        self._database = sqlite3.connect(":memory:", check_same_thread=False)
        row = ", ".join(f":{name} AS {name}" for name in (*FIELDS, *DERIVED))
        self._select = f"SELECT 1 FROM (SELECT {row}) WHERE "  # noqa: S608
        self._where = " AND ".join(f"({text})" for text in conditions) or "1"
        for text in conditions:
            self._check(text)

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def accepts(self, row: dict[str, Any]) -> bool:
        """Whether a row meets all conditions."""
        return self._database.execute(self._select + self._where, row).fetchone() is not None

    def _check(self, text: str) -> None:
        nothing: dict[str, Any] = dict.fromkeys((*FIELDS, *DERIVED))
        try:
            self._database.execute(f"{self._select}({text})", nothing)
        except (sqlite3.Error, sqlite3.Warning) as error:
            self.close()
            columns = ", ".join((*FIELDS, *DERIVED))
            raise ConfigError(
                f"--where {text!r}: {error}; write an SQL expression, with text in single quotes, "
                f"over the columns {columns}"
            ) from error


def all_receipts(run: RunFolder) -> Iterator[tuple[str, VolumeRecord | CtrayError]]:
    """Yield volume id and receipt of all volumes, sorted by id; an error for an unreadable receipt.

    Only a few receipts are in memory at a time.

    Raises
    ------
    NotFoundError
        If `run` is not a run.
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
    where: Sequence[str] = (),
) -> Iterator[dict[str, Any]]:
    """Yield the rows of receipts that meet all conditions, sorted by volume id.

    A row has the fields `FIELDS` of a receipt and the fields `DERIVED`. The row of a receipt that
    cannot be read has the status `unreadable` and the reason. For `where` see `RowFilter`.
    """
    with closing(RowFilter(where)) as chosen:
        for volume_id, receipt in all_receipts(run):
            if volumes and volume_id not in volumes:
                continue
            row = _row(volume_id, receipt)
            if statuses and row["status"] not in statuses:
                continue
            if chosen.accepts(row):
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
