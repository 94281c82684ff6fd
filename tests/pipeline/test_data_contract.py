"""One name a thing: a real crop, its receipt and its row say the same, as docs/data-contract.md."""

from __future__ import annotations

import csv
import io
import re
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
from click.testing import CliRunner

from ctray.archive.catalog import build_catalog, write_catalog
from ctray.cli.main import cli
from ctray.config import RunConfig
from ctray.core.geometry import AXES, FACES
from ctray.learn.pretext.checkpoint import load_model
from ctray.phantom import Phantom
from ctray.pipeline.volume_work import LocalizeVolume
from ctray.records.box_table import write_localizations
from ctray.records.run_folder import RunFolder
from ctray.records.volume_record import SpecimenRecord, VolumeRecord
from ctray.storage import store
from ctray.volumes.volume import open_volume
from ctray.volumes.writer import create_volume

DOCUMENT = Path(__file__).parents[2] / "docs" / "data-contract.md"
# What flat places write in place of a list.
FLAT = {
    "sample_box": list(FACES),
    "crop_box": [f"crop_{face}" for face in FACES],
    "face_confidence": [f"confidence_{face}" for face in FACES],
    "shape": [f"shape_{axis}" for axis in AXES],
    "voxel_size_um": [f"voxel_size_um_{axis}" for axis in AXES],
}
# A crop has a shape of its own.
IN_CROP = {"shape": "source_shape"}
ONLY_OF_ONE_OF_SEVERAL = {"specimen", "num_specimens", "all_specimens_box"}


@pytest.fixture(scope="module")
def run(
    trained_url: str, held_out: list[Phantom], tmp_path_factory: pytest.TempPathFactory
) -> RunFolder:
    """A run over a TIFF, which is imported, and a Zarr, which is not."""
    folder = tmp_path_factory.mktemp("contract")
    archive = folder / "archive"
    archive.mkdir()
    tifffile.imwrite(archive / "stack.tif", held_out[0].volume, photometric="minisblack")
    voxels = held_out[1].volume
    writer = create_volume(
        str(archive / "plain.zarr"), shape=voxels.shape, dtype=voxels.dtype, voxel_size=None
    )
    for box in writer.grid.shards():
        writer.write(box, voxels[box.slices])
    writer.build_pyramid()
    writer.commit({})
    found = RunFolder(url=str(folder / "run"))
    shutil.copytree(trained_url, found.checkpoint)
    config = settings(found)
    store.write_json(
        found.manifest, {"archive": str(archive), "config": config.model_dump(mode="json")}
    )
    entries = build_catalog(str(archive)).entries
    write_catalog(entries, found.catalog)
    worker = LocalizeVolume(found, config, True, 1)
    for entry in entries:
        assert isinstance(worker(entry), VolumeRecord)
    write_localizations(found.localizations, found.receipts())
    return found


def settings(run: RunFolder) -> RunConfig:
    return load_model(run.checkpoint).config


def receipt_of(run: RunFolder, name: str) -> VolumeRecord:
    """VolumeRecord of an archive's file, whatever id it has."""
    (found,) = [r for r in run.receipts() if r.source_url.endswith(f"/{name}")]
    return found


def rows(run: RunFolder) -> dict[str, dict[str, Any]]:
    table = pq.read_table(io.BytesIO(store.read_bytes(run.localizations)))
    return {row["volume_id"]: row for row in table.to_pylist()}


def documented(column: str) -> dict[str, str]:
    """What the document says of each name in `receipt`, `table` or `crop`, where it says any."""
    lines = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("| `")]
    place = {"receipt": 1, "table": 2, "crop": 3}[column]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {c[0].strip("`"): c[place] for c in cells if len(c) == 6 and c[place]}


def test_receipt_row_and_crop_agree(run: RunFolder) -> None:
    compared = set()
    for source in ("plain.zarr", "stack.tif"):
        volume_id = receipt_of(run, source).volume_id
        receipt = store.read_json(run.receipt(volume_id))
        assert receipt["status"] == "located"
        row, crop = rows(run)[volume_id], open_volume(receipt["crop_url"]).attributes
        for name, value in receipt.items():
            flat = FLAT.get(name, [name])
            values = [value] if name not in FLAT else np.ravel(value) if value else [None] * 6
            for column, one in zip(flat, values, strict=False):
                if column in row:
                    assert row[column] == one, (volume_id, column)
                    compared.add(name)
            told = IN_CROP.get(name, name)
            if told in crop:
                assert crop[told] == value, (volume_id, name)
                compared.add(name)
    # Enough of them, so that the comparison is one.
    assert {
        *("sample_box", "asked_box", "crop_box", "source_url", "imported_url", "margins"),
        *("promise", "max_loss", "box_settings_digest", "model_digest", "checksum", "shape"),
    } <= compared


def test_boxes_are_where_the_crop_lies(run: RunFolder) -> None:
    for receipt in run.receipts():
        assert receipt.crop_box is not None
        assert receipt.asked_box is not None
        assert receipt.sample_box is not None
        assert receipt.crop_box.contains(receipt.asked_box)
        assert receipt.asked_box.contains(receipt.sample_box)
        # 5% of 32 voxels are 2, where the volume does not end before.
        assert receipt.asked_box == receipt.sample_box.expand(2, (32, 32, 32))
        source = open_volume(str(receipt.cut_url)).read_level(0)
        crop = open_volume(str(receipt.crop_url)).read_level(0)
        np.testing.assert_array_equal(crop, source[receipt.crop_box.slices])


def test_source_is_the_archives_own_file(run: RunFolder) -> None:
    archive = store.read_json(run.manifest)["archive"]
    plain, stack = receipt_of(run, "plain.zarr"), receipt_of(run, "stack.tif")
    assert (plain.source_url, plain.imported_url) == (f"{archive}/plain.zarr", None)
    assert (stack.source_url, stack.imported_url) == (
        f"{archive}/stack.tif",
        run.imported(stack.volume_id),
    )
    for receipt in (plain, stack):
        assert receipt.cut_url == (receipt.imported_url or receipt.source_url)
    assert VolumeRecord(volume_id="x", source_url="x", status="failed").cut_url is None


def test_csv_has_the_names_and_values_of_the_table(run: RunFolder) -> None:
    result = CliRunner().invoke(cli, ["receipts", run.url, "--csv"])
    assert result.exit_code == 0, result.stderr
    for row in csv.DictReader(io.StringIO(result.stdout)):
        written = rows(run)[row["volume_id"]]
        common = row.keys() & written.keys()
        assert {*FACES, *FLAT["crop_box"], "promise", "imported_url", "crop_url"} <= common
        for name in common:
            value = written[name]
            assert row[name] == ("" if value is None else str(value)), name
    shown = CliRunner().invoke(cli, ["receipts", run.url]).stdout
    volume_id = receipt_of(run, "stack.tif").volume_id
    (line,) = [line for line in shown.splitlines() if line.startswith(volume_id)]
    for names in (FACES, FLAT["crop_box"]):
        pairs = [rows(run)[volume_id][name] for name in names]
        assert " ".join(f"{a}:{b}" for a, b in zip(pairs[::2], pairs[1::2], strict=True)) in line
    assert "not calibrated" in line


# --- the document ---------------------------------------------------------------------------


def test_document_names_every_field_of_a_receipt() -> None:
    assert set(documented("receipt")) == {f.name for f in fields(VolumeRecord)}
    (of_specimens,) = [
        line for line in DOCUMENT.read_text().splitlines() if line.startswith("| `specimens`")
    ]
    named = set(re.findall(r"`(\w+)`", of_specimens)) - {"specimens"}
    assert named == {f.name for f in fields(SpecimenRecord)}


def test_document_names_every_column_of_the_table(run: RunFolder) -> None:
    columns = set()
    for name, said in documented("table").items():
        if said in ("yes", "a row each"):
            columns |= {name} - {"specimens"}
        else:
            first, last = re.findall(r"`(\w+)`", said)
            assert (first, last) == (FLAT[name][0], FLAT[name][-1])
            columns |= set(FLAT[name])
    assert columns == set(next(iter(rows(run).values())))


def test_document_names_every_attribute_of_a_crop(run: RunFolder) -> None:
    told = {n if said == "yes" else said.strip("`") for n, said in documented("crop").items()}
    crop = set(open_volume(str(receipt_of(run, "stack.tif").crop_url)).attributes)
    assert crop <= told
    # The rest is there where it was asked for, or for one of several specimens.
    assert told - crop == ONLY_OF_ONE_OF_SEVERAL | {"surround"}
