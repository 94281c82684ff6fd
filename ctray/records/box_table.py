"""The table of boxes, `localizations.parquet`: one row a box, for readers outside.

Its columns have the names of a receipt's fields; a box or another list has a column an entry.
docs/data-contract.md tells what they mean.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ctray.core.errors import CtrayError
from ctray.core.geometry import AXES, Box
from ctray.records.run_folder import FACES, Receipt
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


def write_localizations(url: str, receipts: Iterable[Receipt]) -> None:
    """Write `localizations.parquet`.

    A volume of several specimens has a row each, `specimen` 1 and on, with boxes, certainty, crop
    and `bytes_written` of the specimen, and everything else of the volume. Receipts are taken one
    by one: only the compressed table is held whole.
    """
    buffer = io.BytesIO()
    rows = (row for receipt in receipts for row in _rows(receipt))
    with pq.ParquetWriter(buffer, _SCHEMA) as writer:
        while some := list(itertools.islice(rows, _ROWS_AT_ONCE)):
            writer.write_table(pa.Table.from_pylist(some, schema=_SCHEMA))
    store.write_bytes(url, buffer.getvalue())


def read_localizations(url: str) -> list[dict[str, Any]]:
    """Rows of `localizations.parquet`.

    Raises
    ------
    CtrayError
        If there is no such file, or it is no Parquet.
    """
    try:
        rows: list[dict[str, Any]] = pq.read_table(io.BytesIO(store.read_bytes(url))).to_pylist()
    except pa.ArrowInvalid as error:
        raise CtrayError(f"{url} is no table of boxes: {error}") from error
    return rows


def _rows(receipt: Receipt) -> list[dict[str, Any]]:
    whole = _row(receipt)
    if receipt.status != "located" or not receipt.specimens:
        return [whole]
    return [
        {
            **whole,
            "specimen": number,
            **box_columns(specimen.sample_box, specimen.crop_box),
            "confidence": min(specimen.face_confidence),
            **_spread([f"confidence_{face}" for face in FACES], specimen.face_confidence),
            "bytes_written": specimen.bytes_written,
            "crop_url": specimen.crop_url,
        }
        for number, specimen in enumerate(receipt.specimens, start=1)
    ]


def box_columns(sample: Box | None, crop: Box | None) -> dict[str, int | None]:
    """Columns of the sample's box and of the crop's."""
    return {
        **_spread(FACES, sample.faces if sample else None),
        **_spread(CROP_FACES, crop.faces if crop else None),
    }


def _spread(names: Sequence[str], values: Sequence[Any] | None) -> dict[str, Any]:
    return dict(zip(names, values or [None] * len(names), strict=True))


def _row(receipt: Receipt) -> dict[str, Any]:
    box = receipt.sample_box if receipt.status == "located" else None
    return {
        **{name: getattr(receipt, name) for name in _SCHEMA.names if hasattr(receipt, name)},
        "specimen": 0,
        **box_columns(box, receipt.crop_box),
        **_spread([f"confidence_{face}" for face in FACES], receipt.face_confidence),
        **_spread([f"shape_{axis}" for axis in AXES], receipt.shape),
        **_spread([f"voxel_size_um_{axis}" for axis in AXES], receipt.voxel_size_um),
    }
