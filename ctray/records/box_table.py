"""The table of boxes, `localizations.parquet`: one row per box, made from the `VolumeRecord`s.

Columns have the names of the record's fields. A box or another list has one column per entry.
Names and units are in docs/data-contract.md.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ctray.core.errors import CtrayError
from ctray.core.geometry import AXES, FACES, Box
from ctray.records.volume_record import VolumeRecord
from ctray.storage import store

CROP_FACES = tuple(f"crop_{face}" for face in FACES)

_ROWS_AT_ONCE = 1000
_SCHEMA = pa.schema(
    [
        ("volume_id", pa.string()),
        ("source_url", pa.string()),
        ("imported_url", pa.string()),
        ("specimen", pa.int64()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("method", pa.string()),
        ("model_digest", pa.string()),
        ("box_settings_digest", pa.string()),
        *[(face, pa.int64()) for face in (*FACES, *CROP_FACES)],
        ("promise", pa.string()),
        ("max_loss", pa.float64()),
        ("coverage", pa.float64()),
        ("confidence", pa.float64()),
        *[(f"confidence_{face}", pa.float64()) for face in FACES],
        *[(f"shape_{axis}", pa.int64()) for axis in AXES],
        *[(f"voxel_size_um_{axis}", pa.float64()) for axis in AXES],
        ("bytes_total", pa.int64()),
        ("bytes_read", pa.int64()),
        ("bytes_written", pa.int64()),
        ("seconds", pa.float64()),
        ("crop_url", pa.string()),
    ]
)


def write_localizations(url: str, records: Iterable[VolumeRecord]) -> None:
    """Write `localizations.parquet`.

    Records are consumed one at a time; only the compressed table is in memory as a whole.
    """
    buffer = io.BytesIO()
    rows = (row for record in records for row in table_rows(record))
    with pq.ParquetWriter(buffer, _SCHEMA) as writer:
        while some := list(itertools.islice(rows, _ROWS_AT_ONCE)):
            writer.write_table(pa.Table.from_pylist(some, schema=_SCHEMA))
    store.write_bytes(url, buffer.getvalue())


def read_localizations(url: str) -> list[dict[str, Any]]:
    """Rows of `localizations.parquet`.

    Raises
    ------
    CtrayError
        If the file is missing or is not Parquet.
    """
    try:
        rows: list[dict[str, Any]] = pq.read_table(io.BytesIO(store.read_bytes(url))).to_pylist()
    except pa.ArrowInvalid as error:
        raise CtrayError(f"{url} is no table of boxes: {error}") from error
    return rows


def table_rows(record: VolumeRecord) -> list[dict[str, Any]]:
    """Rows of a volume: one, or one per specimen if it is located and has several.

    A specimen's row has its number from 1 in `specimen`, and its own boxes, confidence, crop and
    `bytes_written`. All other values belong to the volume.
    """
    if record.status != "located" or not record.specimens:
        return [_row(record)]
    return [
        {
            **_row(record),
            "specimen": number,
            **box_columns(specimen.sample_box, specimen.crop_box),
            "confidence": min(specimen.face_confidence),
            **_columns("confidence_{}", FACES, specimen.face_confidence),
            "bytes_written": specimen.bytes_written,
            "crop_url": specimen.crop_url,
        }
        for number, specimen in enumerate(record.specimens, start=1)
    ]


def box_columns(sample: Box | None, crop: Box | None) -> dict[str, int | None]:
    """Columns of the sample's box and of the crop's box."""
    return {
        **_columns("{}", FACES, sample.faces if sample else None),
        **_columns("crop_{}", FACES, crop.faces if crop else None),
    }


def _row(record: VolumeRecord) -> dict[str, Any]:
    box = record.sample_box if record.status == "located" else None
    return {
        **{name: getattr(record, name) for name in _SCHEMA.names if hasattr(record, name)},
        "specimen": 0,
        **box_columns(box, record.crop_box),
        **_columns("confidence_{}", FACES, record.face_confidence),
        **_columns("shape_{}", AXES, record.shape),
        **_columns("voxel_size_um_{}", AXES, record.voxel_size_um),
    }


def _columns(form: str, entries: Sequence[str], values: Sequence[Any] | None) -> dict[str, Any]:
    names = [form.format(entry) for entry in entries]
    return dict(zip(names, values or [None] * len(names), strict=True))
