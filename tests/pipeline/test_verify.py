"""Crops of a run against checksums and sources, and questions to its receipts."""

from __future__ import annotations

import csv
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from click.testing import CliRunner, Result

from ctray.cli.main import cli
from ctray.core.errors import ConfigError, NotFoundError
from ctray.core.geometry import AxisFaces, Box
from ctray.crops.cutting import write_crop
from ctray.pipeline.verifying import verify_run
from ctray.records.receipt_query import RowFilter, query_receipts
from ctray.records.run_folder import RunFolder
from ctray.records.volume_record import SpecimenRecord, VolumeRecord
from ctray.storage import store
from ctray.volumes.volume import open_volume
from ctray.volumes.writer import create_volume

SHAPE = (30, 26, 34)
BOX = Box(start=(2, 4, 6), stop=(25, 23, 30))
NAMES = ("a", "b", "c", "d", "e", "f")


def fill_run(base: str) -> RunFolder:
    """Six volumes with a crop each, one with two specimens, one empty, one failed."""
    run = RunFolder(url=store.join(base, "run"))
    store.write_json(run.manifest, {})
    for number, name in enumerate((*NAMES, "two")):
        url = store.join(base, "archive", name)
        array = np.random.default_rng(number).integers(1, 900, SHAPE).astype(np.uint16)
        writer = create_volume(url, shape=SHAPE, dtype=np.uint16, voxel_size=None)
        writer.write(Box.whole(SHAPE), array)
        writer.commit({})
        source = open_volume(url)
        receipt = VolumeRecord(
            volume_id=name,
            source_url=url,
            status="located",
            shape=list(SHAPE),
            confidence=0.1 * number,
            bytes_total=source.num_bytes,
            seconds=1.5,
        )
        if name == "two":
            parts = [write_crop(source, BOX, run.crop(name, n), provenance={}) for n in (1, 2)]
            receipt = replace(
                receipt,
                specimens=[
                    SpecimenRecord(
                        sample_box=BOX,
                        face_confidence=AxisFaces.of([0.5] * 6),
                        scales=AxisFaces.of([0.0] * 6),
                        margins=AxisFaces.of([0] * 6),
                        crop_box=p.box,
                        crop_url=p.url,
                        checksum=p.checksum,
                    )
                    for p in parts
                ],
            )
        else:
            crop = write_crop(source, BOX, run.crop(name), provenance={})
            receipt = replace(receipt, crop_url=crop.url, checksum=crop.checksum, crop_box=crop.box)
        run.write_receipt(receipt)
    run.write_receipt(VolumeRecord(volume_id="void", source_url="x", status="empty"))
    run.write_receipt(
        VolumeRecord(volume_id="poor", source_url="x", status="failed", reason="read: timed out")
    )
    # Located and never cropped: nothing to check.
    run.write_receipt(VolumeRecord(volume_id="later", source_url="x", status="located"))
    return run


def ctray(*args: Any) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in args])


def test_a_sound_run_is_sound(base_url: str) -> None:
    run = fill_run(base_url)
    checks = list(verify_run(run, sources=True))
    assert [(c.volume_id, c.specimen) for c in checks] == [
        *((name, 0) for name in NAMES),
        ("two", 1),
        ("two", 2),
    ]
    assert [c.problem for c in checks] == [None] * 8
    assert {c.voxels_compared for c in checks} == {BOX.num_voxels}


def break_some(base: Path, run: RunFolder) -> None:
    """Crop b loses its end, c is gone, d's source has other voxels, e is another crop."""
    shard = Path(run.crop("b"), "0/c/0/0/0")
    shard.write_bytes(shard.read_bytes()[:-7])
    shutil.rmtree(run.crop("c"))
    zarr.open_array(base / "archive" / "d" / "0", mode="r+")[3, 5, 7] = 901
    receipt = run.read_receipt("e")
    assert receipt is not None
    run.write_receipt(replace(receipt, checksum="sha256:00"))
    shutil.rmtree(base / "archive" / "f")
    Path(run.crop("two", 2), "0/zarr.json").unlink()
    Path(run.receipt("torn")).write_text('{"volume_id"')


def test_every_bad_crop_is_named(tmp_path: Path) -> None:
    run = fill_run(str(tmp_path))
    break_some(tmp_path, run)
    found = {(c.volume_id, c.specimen): c.problem for c in verify_run(run)}
    assert [key for key, problem in found.items() if problem is None] == [
        ("a", 0),
        ("d", 0),
        ("f", 0),
        ("two", 1),
    ]
    told = {key[0]: problem for key, problem in found.items() if problem is not None}
    assert told["b"] == "0/c/0/0/0 has changed"
    assert str(told["c"]).startswith("missing (")
    assert "is not sha256:00 of the receipt" in str(told["e"])
    assert "two-2.zarr: its metadata name level '0'" in str(told["two"])
    assert "no valid JSON" in str(told["torn"])
    with_sources = {c.volume_id: c.problem for c in verify_run(run, sources=True)}
    assert "1 of 10,488 voxels differ from source" in str(with_sources["d"])
    assert "source is missing" in str(with_sources["f"])
    assert with_sources["a"] is None


def test_a_source_of_another_shape_has_changed(tmp_path: Path) -> None:
    run = fill_run(str(tmp_path))
    shutil.rmtree(tmp_path / "archive" / "a")
    writer = create_volume(
        str(tmp_path / "archive" / "a"), shape=(9, 9, 9), dtype=np.uint16, voxel_size=None
    )
    writer.commit({})
    problem = next(verify_run(run, sources=True)).problem
    assert "it is uint16 of shape (9, 9, 9) instead of" in str(problem)


def test_verify_tells_people_and_machines(tmp_path: Path) -> None:
    run = fill_run(str(tmp_path))
    good = ctray("verify", run.url, "--sample", "0.1")
    assert good.exit_code == 0, good.stderr
    assert "8 crops: 8 sound, 0 bad, 83,904 voxels compared" in good.stdout
    break_some(tmp_path, run)
    bad = ctray("verify", run.url)
    assert bad.exit_code == 1
    lines = [line for line in bad.stderr.splitlines() if line.startswith("bad ")]
    assert len(lines) == 5
    assert f"bad {run.crop('b')}: 0/c/0/0/0 has changed" in lines
    assert "9 crops: 4 sound, 5 bad" in bad.stdout
    machine = ctray("verify", run.url, "--sources", "--json")
    assert machine.exit_code == 1
    document = json.loads(machine.stdout)
    assert (document["sound"], document["bad"]) == (2, 7)
    nowhere = ctray("verify", tmp_path / "nothing")
    assert nowhere.exit_code == 1
    assert "is no run" in nowhere.stderr


def test_receipts_are_found_by_what_they_say(tmp_path: Path) -> None:
    run = fill_run(str(tmp_path))

    def ids(*where: str, **asked: Any) -> list[str]:
        return [row["volume_id"] for row in query_receipts(run, where=where, **asked)]

    assert ids() == sorted([*NAMES, "two", "void", "poor", "later"])
    assert ids(statuses=["failed", "empty"]) == ["poor", "void"]
    assert ids(volumes=["b", "void"]) == ["b", "void"]
    assert ids("confidence<0.15") == ["a", "b"]
    assert ids("confidence >= 0.3", "crops=1") == ["d", "e", "f"]
    assert ids("confidence >= 0.3 AND crops = 1 OR volume_id = 'a'") == ["a", "d", "e", "f"]
    # Conditions are joined by AND, each as a whole.
    assert ids("status = 'failed' OR confidence < 0.15", "crops = 1") == ["a", "b"]
    assert ids("reason LIKE '%TIME%'") == ["poor"]
    assert ids("status != 'located'") == ["poor", "void"]
    assert ids("confidence IS NULL AND status <> 'located'") == ["poor", "void"]
    assert ids("crops=2") == ["two"]
    (row,) = query_receipts(run, volumes=["a"])
    assert row["voxels"] == 30 * 26 * 34
    assert row["kept_fraction"] == BOX.num_voxels / (30 * 26 * 34)
    with pytest.raises(NotFoundError, match="is no run"):
        list(query_receipts(RunFolder(url=str(tmp_path / "nothing"))))


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("confidense < 1", "no such column: confidense"),
        ("status = failed", "text in single quotes"),
        ("confidence <", "syntax error"),
        ("", "syntax error"),
        ("1; DROP TABLE x", "syntax error"),
        ("volume_id IN (SELECT name FROM other)", "no such table"),
        ("load_extension('x')", "not authorized"),
        ("writefile('/tmp/x', 'x')", "no such function"),
    ],
)
def test_a_condition_is_one_expression_and_nothing_else(where: str, words: str) -> None:
    with pytest.raises(ConfigError, match=f"--where .*{words}.* over the columns volume_id, "):
        RowFilter([where])


def test_receipts_as_table_json_and_csv(tmp_path: Path) -> None:
    run = fill_run(str(tmp_path))
    Path(run.receipt("torn")).write_text("[")
    table = ctray("receipts", run.url, "--status", "failed,unreadable")
    assert table.exit_code == 0, table.stderr
    assert "read: timed out" in table.stdout
    assert "2 receipts" in table.stdout
    document = json.loads(ctray("receipts", run.url, "--volume", "a", "--json").stdout)
    assert [r["volume_id"] for r in document["receipts"]] == ["a"]
    text = ctray("receipts", run.url, "--where", "confidence<0.15", "--csv").stdout
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(r["volume_id"], r["crops"]) for r in rows] == [("a", "1"), ("b", "1")]
    wrong = ctray("receipts", run.url, "--status", "lost")
    assert wrong.exit_code == 2
    assert "--status 'lost' is unknown" in wrong.stderr


def test_restore_from_the_command_line(tmp_path: Path) -> None:
    run = fill_run(str(tmp_path))
    out = tmp_path / "back"
    done = ctray("restore", run.crop("a"), "--out", out, "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["surround_factors"] is None
    assert open_volume(str(out)).shape == SHAPE
    again = ctray("restore", run.crop("a"), "--out", out)
    assert again.exit_code == 1
    assert "finished volume" in again.stderr
