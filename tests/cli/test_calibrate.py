"""`ctray calibrate`: margins from a run's own volumes, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from click.testing import CliRunner, Result

from ctray.cli.main import cli
from ctray.config import load_config
from ctray.config.box_settings import box_settings_digest
from ctray.core.geometry import AxisFaces, Box
from ctray.evaluate.phantom_archive import write_phantoms
from ctray.records.run_folder import RunFolder
from ctray.records.volume_record import VolumeRecord
from ctray.storage import store


def calibrate(*args: str) -> Result:
    return CliRunner().invoke(cli, ["calibrate", *args], prog_name="ctray")


def run_of(folder: Path, coverage: float) -> tuple[RunFolder, str]:
    """A run over three phantoms whose boxes are all two voxels short at x1."""
    archive = str(folder / "archive")
    records = write_phantoms(archive, count=3, size=24, seed=8, reconstruction_circle=False)
    run = RunFolder(url=str(folder / "run"))
    config = load_config(None, (f"crop.coverage={coverage}", "crop.max_loss=0"))
    store.write_json(run.manifest, {"archive": archive, "config": config.model_dump(mode="json")})
    for record in records:
        assert record.box is not None
        ranges = record.box.ranges
        ranges[2][1] -= 2
        run.write_receipt(
            VolumeRecord(
                volume_id=record.volume_id,
                source_url=record.url,
                status="located",
                sample_box=Box.from_ranges(ranges),
                box_settings_digest=box_settings_digest(config),
                scales=AxisFaces.of([1.0] * 6),
                shape=[24, 24, 24],
            )
        )
    return run, archive


def test_margins_are_fitted_to_the_runs_own_volumes(tmp_path: Path) -> None:
    run, archive = run_of(tmp_path, 0.5)
    result = calibrate(run.url, "--truth", archive, "--json")
    assert result.exit_code == 0, result.stderr
    # More than one scale of one voxel: a second one is needed.
    assert json.loads(result.stdout)["factor"] == 1.125
    written = store.read_json(run.calibration)
    assert written["scores"]["0"] == [1.125] * 3
    # Whoever reads it later sees what it holds for, and where and when it was made.
    assert written["box_settings_digest"] == box_settings_digest(load_config(None))
    assert written["box_settings"]["train.steps"] == 1500
    assert written["machine"]["cores"]
    assert written["date"]


def test_calibration_goes_where_it_is_asked_to(tmp_path: Path) -> None:
    run, archive = run_of(tmp_path, 0.5)
    elsewhere = tmp_path / "mine.json"
    result = calibrate(run.url, "--truth", archive, "--out", str(elsewhere))
    assert result.exit_code == 0, result.stderr
    assert elsewhere.exists()
    assert not store.exists(run.calibration)


def test_volume_that_only_an_open_face_kept_back_counts(tmp_path: Path) -> None:
    """Else no calibration could ever come to know faces that are as open."""
    run, archive = run_of(tmp_path, 0.5)
    first, second, _ = run.receipts()
    run.write_receipt(replace(first, status="uncertain", promise="not calibrated"))
    # For review for any other reason: its box is no better than a guess.
    run.write_receipt(replace(second, status="uncertain", promise=None))
    result = calibrate(run.url, "--truth", archive, "--json")
    assert result.exit_code == 0, result.stderr
    assert len(store.read_json(run.calibration)["scores"]["0"]) == 2


def test_boxes_of_different_settings_are_not_mixed(tmp_path: Path) -> None:
    run, archive = run_of(tmp_path, 0.5)
    run.write_receipt(replace(run.receipts()[1], box_settings_digest="sha256:other"))
    result = calibrate(run.url, "--truth", archive)
    assert result.exit_code == 2
    assert "different settings" in result.stderr
    assert not store.exists(run.calibration)


def test_too_few_volumes_for_the_coverage_are_one_line(tmp_path: Path) -> None:
    run, archive = run_of(tmp_path, 0.9)
    result = calibrate(run.url, "--truth", archive)
    assert result.exit_code == 2
    assert "from 3 calibration volumes; at most 0.750" in result.stderr.splitlines()[-1]
    assert not store.exists(run.calibration)


def test_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    result = calibrate(str(tmp_path), "--truth", str(tmp_path))
    assert result.exit_code != 0
    assert "is no run" in result.stderr
