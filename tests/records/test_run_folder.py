"""The folder of a run: places, receipts, pictures, and the table of boxes."""

from __future__ import annotations

import io
import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ctray.core.errors import CtrayError, InvalidVolumeError, NotFoundError
from ctray.core.geometry import AxisFaces, Box
from ctray.records.box_table import read_localizations, write_localizations
from ctray.records.run_folder import RunFolder
from ctray.records.volume_record import VolumeRecord
from ctray.storage import store

LOCATED = VolumeRecord(
    volume_id="a",
    source_url="/archive/a",
    status="located",
    imported_url="/run/imported/a.zarr",
    method="rotation",
    model_digest="d1",
    box_settings_digest="sha256:5e77",
    sample_box=Box(start=(2, 3, 5), stop=(11, 17, 23)),
    asked_box=Box(start=(1, 2, 4), stop=(12, 18, 24)),
    crop_box=Box(start=(0, 2, 4), stop=(12, 18, 24)),
    margins=AxisFaces.of([1] * 6),
    promise="calibrated",
    confidence=0.25,
    face_confidence=AxisFaces.of([0.25, 0.5, 0.75, 1.0, 0.625, 0.375]),
    shape=[13, 19, 29],
    dtype="uint16",
    voxel_size_um=[1.5, 2.5, 3.5],
    bytes_total=14326,
    bytes_read=700,
    bytes_written=300,
    seconds=1.25,
    crop_url="/run/crops/a.zarr",
    checksum="sha256:00",
    profiles={"z": [0.1, 0.9]},
    stretches={"z": {"range": [2, 11]}, "y": None},
    working={"shape": [13, 19, 29]},
    ctray_version="0.1.0",
)
FAILED = VolumeRecord(volume_id="b", source_url="/archive/b", status="failed", reason="unreadable")
EMPTY = VolumeRecord(volume_id="c", source_url="/archive/c", status="empty", shape=[4, 5, 6])


@pytest.fixture(params=["disk", "memory"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> RunFolder:
    if request.param == "disk":
        return RunFolder(url=str(tmp_path / "run"))
    return RunFolder(url=f"memory://run-folder-tests/{tmp_path.name}")


def test_places(run: RunFolder) -> None:
    parts = {
        run.manifest: "run.json",
        run.catalog: "catalog.parquet",
        run.checkpoint: "checkpoint",
        run.localizations: "localizations.parquet",
        run.report: "report/index.html",
        run.receipt("a"): "receipts/a.json",
        run.crop("a"): "crops/a.zarr",
        run.imported("a"): "imported/a.zarr",
    }
    for url, part in parts.items():
        assert url == f"{run.url}/{part}"


@pytest.mark.parametrize("receipt", [LOCATED, FAILED, EMPTY], ids=lambda r: r.status)
def test_receipt_comes_back(run: RunFolder, receipt: VolumeRecord) -> None:
    assert run.read_receipt(receipt.volume_id) is None
    run.write_receipt(receipt)
    assert run.read_receipt(receipt.volume_id) == receipt


def test_receipt_is_json_with_every_field(run: RunFolder) -> None:
    run.write_receipt(LOCATED)
    told = json.loads(store.read_bytes(run.receipt("a")))
    assert set(told) == {f.name for f in fields(VolumeRecord)}
    assert told["status"] == "located"
    assert told["sample_box"] == [[2, 11], [3, 17], [5, 23]]


def test_receipt_of_a_later_version_is_read(run: RunFolder) -> None:
    run.write_receipt(EMPTY)
    told = store.read_json(run.receipt("c"))
    store.write_json(run.receipt("c"), {**told, "colour": "blue"})
    assert run.read_receipt("c") == EMPTY


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"status": "located"}'])
def test_damaged_receipt_is_an_error_that_names_it(run: RunFolder, text: bytes) -> None:
    store.write_bytes(run.receipt("a"), text)
    with pytest.raises(CtrayError, match=r"receipts/a\.json") as caught:
        run.read_receipt("a")
    assert "\n" not in str(caught.value)


def test_receipts_come_by_id_and_nothing_else(run: RunFolder) -> None:
    assert run.receipts() == []
    for receipt in (EMPTY, LOCATED, FAILED):
        run.write_receipt(receipt)
    store.write_bytes(run.at("receipts", "notes.txt"), b"mine")
    assert run.receipts() == [LOCATED, FAILED, EMPTY]


def test_pictures_come_back(run: RunFolder) -> None:
    assert run.read_preview("a") == {}
    pictures = {
        "slice-z": np.arange(12, dtype=np.uint8).reshape(3, 4),
        "projection-x": np.eye(2, dtype=np.uint8),
    }
    run.write_preview("a", pictures)
    found = run.read_preview("a")
    assert found.keys() == pictures.keys()
    for name, picture in pictures.items():
        np.testing.assert_array_equal(found[name], picture)


@pytest.mark.parametrize("data", [b"", b"no archive", b"PK\x03\x04 cut"])
def test_damaged_pictures_are_an_error(run: RunFolder, data: bytes) -> None:
    store.write_bytes(run.preview("a"), data)
    with pytest.raises(InvalidVolumeError, match=r"previews/a\.npz is damaged"):
        run.read_preview("a")


# --- the table of boxes ---------------------------------------------------------------------

FACES = ["z0", "z1", "y0", "y1", "x0", "x1"]
CROP_FACES = ["crop_z0", "crop_z1", "crop_y0", "crop_y1", "crop_x0", "crop_x1"]


def test_schema_of_the_table(run: RunFolder) -> None:
    """As the storage rules have it; readers outside depend on names and types."""
    write_localizations(run.localizations, [LOCATED, FAILED])
    schema = pq.read_schema(io.BytesIO(store.read_bytes(run.localizations)))
    text, whole, real = pa.string(), pa.int64(), pa.float64()
    expected = {
        **dict.fromkeys(["volume_id", "source_url", "imported_url", "status", "reason"], text),
        **dict.fromkeys(["method", "model_digest", "box_settings_digest", "promise"], text),
        "crop_url": text,
        **dict.fromkeys(["specimen", *FACES, *CROP_FACES, "shape_z", "shape_y", "shape_x"], whole),
        **dict.fromkeys(["bytes_total", "bytes_read", "bytes_written"], whole),
        **dict.fromkeys(["confidence", *(f"confidence_{f}" for f in FACES), "seconds"], real),
        **dict.fromkeys(["max_loss", "coverage"], real),
        **dict.fromkeys([f"voxel_size_um_{axis}" for axis in "zyx"], real),
    }
    assert dict(zip(schema.names, schema.types, strict=True)) == expected


def test_rows_of_the_table(run: RunFolder) -> None:
    write_localizations(run.localizations, [LOCATED, FAILED, EMPTY])
    located, failed, empty = read_localizations(run.localizations)
    assert [located[f] for f in FACES] == [2, 11, 3, 17, 5, 23]
    assert [located[f] for f in CROP_FACES] == [0, 12, 2, 18, 4, 24]
    faces = [located[f"confidence_{f}"] for f in FACES]
    assert faces == [0.25, 0.5, 0.75, 1.0, 0.625, 0.375]
    assert [located[f"shape_{a}"] for a in "zyx"] == [13, 19, 29]
    assert [located[f"voxel_size_um_{a}"] for a in "zyx"] == [1.5, 2.5, 3.5]
    for name in ("volume_id", "source_url", "status", "method", "model_digest", "confidence"):
        assert located[name] == getattr(LOCATED, name)
    for name in ("bytes_total", "bytes_read", "bytes_written", "seconds", "crop_url"):
        assert located[name] == getattr(LOCATED, name)
    assert located["specimen"] == 0
    for row in (failed, empty):
        assert {row[f] for f in (*FACES, *CROP_FACES)} == {None}
        assert row["confidence"] is row["crop_url"] is None
    assert failed["reason"] == "unreadable"
    assert [empty[f"shape_{a}"] for a in "zyx"] == [4, 5, 6]


def test_table_of_no_volume_has_its_columns(run: RunFolder) -> None:
    write_localizations(run.localizations, [])
    assert read_localizations(run.localizations) == []
    table = pq.read_table(io.BytesIO(store.read_bytes(run.localizations)))
    assert "volume_id" in table.column_names


def test_missing_and_damaged_table(run: RunFolder) -> None:
    with pytest.raises(NotFoundError):
        read_localizations(run.localizations)
    store.write_bytes(run.localizations, b"not Parquet")
    with pytest.raises(CtrayError, match=r"localizations\.parquet is no table"):
        read_localizations(run.localizations)
