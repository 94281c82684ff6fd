"""`ctray calibrate`: margins from a run's own volumes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result

from ctray.cli.main import cli
from ctray.config import load_config
from ctray.storage import store
from ctray.storage.phantoms import write_phantoms
from ctray.storage.run_folder import Receipt, RunFolder


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
            Receipt(
                volume_id=record.volume_id,
                source_url=record.url,
                status="located",
                box=ranges,
                scales=[1.0] * 6,
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
    assert store.read_json(run.calibration)["scores"]["0"] == [1.125] * 3


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
