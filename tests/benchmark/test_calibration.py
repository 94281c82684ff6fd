"""The calibration that the package ships, made anew on a few phantoms."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ctray.archive.catalog import read_catalog, write_catalog
from ctray.benchmark.calibration import run_calibration, ship_calibration
from ctray.benchmark.plan import BenchmarkPlan
from ctray.config import RunConfig, override
from ctray.config.box_settings import box_settings_digest
from ctray.core.errors import ConfigError, StorageError
from ctray.localization import margins
from ctray.localization.margins import Calibration, shipped_calibration
from ctray.phantom.scenes import benchmark_seed
from ctray.pipeline.run import localize_stage
from ctray.records.run_folder import RunFolder
from ctray.storage import store

SIZE = 32
PLAN = BenchmarkPlan(
    purpose="calibration", families=("embryo",), scenes=("easy",), count=3, size=SIZE
)


@pytest.fixture
def config(config_of: Callable[..., RunConfig]) -> RunConfig:
    """Few steps teach nothing: no box is to be refused for what it looks like."""
    return config_of(
        preprocess={"working_size": SIZE},
        localize={"threshold": "otsu", "min_peak": 0.0},
        self_train={
            "enabled": True,
            "steps": 4,
            "slabs": 12,
            "min_agreement": 0.0,
            "min_peak": -9.0,
        },
        crop={"coverage": 0.5, "max_loss": 0.05},
    )


@pytest.mark.ray
@pytest.mark.slow
def test_calibration_holds_for_its_settings_and_is_taken_up_again(
    ray_cpus: int, config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = str(tmp_path / "out")
    found = run_calibration(out, PLAN, config, command="ctray benchmark calibration")
    assert found.num_volumes == 3
    assert found.holds_for(box_settings_digest(config))
    assert not found.holds_for(box_settings_digest(RunConfig()))
    assert found.made["command"] == "ctray benchmark calibration"
    assert Calibration.from_json(store.read_json(f"{out}/calibration.json")).holds_for(
        found.box_settings_digest
    )
    # No margin of an earlier calibration kept anything out of this one.
    run = RunFolder(url=f"{out}/runs/phantoms/main")
    assert {r.promise for r in run.receipts()} == {"fixed margin"}
    truth = store.read_json(f"{out}/archives/phantoms/truth/embryo-easy-0000.json")
    assert truth["spec"]["seed"] == benchmark_seed("calibration", "embryo", "easy")

    again = run_calibration(out, PLAN, config)
    assert again.scores == found.scores

    check_run_with_it(tmp_path, run, config, found)
    check_shipping(tmp_path, found, monkeypatch)


def check_run_with_it(
    tmp_path: Path, calibrated: RunFolder, config: RunConfig, found: Calibration
) -> None:
    """Boxes of the same networks: with their calibration a rate is stated, else none."""
    import shutil

    kept = {}
    for name, changes in (("same", ()), ("other", ("self_train.min_peak=-8",))):
        run = RunFolder(url=str(tmp_path / name))
        shutil.copytree(calibrated.checkpoint, run.checkpoint)
        store.write_json(run.calibration, found.to_json())
        settings = override(config, changes)
        entries = read_catalog(calibrated.catalog)
        write_catalog(entries, run.catalog)
        kept[name] = list(localize_stage(run, settings, entries))
    for same, other in zip(kept["same"], kept["other"], strict=True):
        assert same.sample_box == other.sample_box
        assert (same.promise, same.max_loss, same.coverage) == ("calibrated", 0.05, 0.5)
        assert (other.promise, other.max_loss) == ("not calibrated", None)
        assert same.margins is not None
        assert other.margins is not None
        assert all(a <= b for a, b in zip(same.margins, other.margins, strict=True))
        # 5% of 32 voxels, in whole voxels.
        assert min(other.margins) >= 2


def check_shipping(tmp_path: Path, found: Calibration, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "package"
    package.mkdir()
    monkeypatch.setattr(margins, "__file__", str(package / "margins.py"))
    written = ship_calibration(found)
    assert written == str(package / "calibration.json")
    monkeypatch.undo()
    assert Calibration.from_json(store.read_json(written)).scores == found.scores
    assert shipped_calibration().scores != found.scores
    monkeypatch.setattr(margins, "__file__", str(tmp_path / "none" / "margins.py"))
    with pytest.raises(StorageError, match="cannot be written"):
        ship_calibration(found)


def test_margins_are_fitted_to_calibration_seeds_alone(config: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="seeds, not those of final"):
        run_calibration(
            str(tmp_path), BenchmarkPlan(purpose="final", scenes=("easy",), count=1), config
        )
