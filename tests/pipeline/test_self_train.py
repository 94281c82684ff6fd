"""Self-training as a stage of a run: what it leaves behind, and what a rerun does."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import ActorUnavailableError

from ctray.archive.catalog import read_catalog
from ctray.config import RunConfig, override, parse_config
from ctray.config.box_settings import box_settings, box_settings_digest
from ctray.core.errors import ConfigError, NotFoundError, TrainingError
from ctray.core.geometry import AxisFaces, Box
from ctray.evaluate.calibrating import calibrate_run
from ctray.evaluate.phantom_archive import write_phantoms
from ctray.executors.ray import self_training as ray_self_train
from ctray.learn.pretext.checkpoint import load_model
from ctray.learn.self_training.checkpoint import load_self_trained
from ctray.localization.margins import LOSSES, Calibration
from ctray.localization.promise import calibration_of, with_promise
from ctray.pipeline import self_training as stage
from ctray.pipeline.run import check_trained, open_run, pretrain_stage, run_archive
from ctray.records.run_folder import RunFolder
from ctray.records.volume_record import VolumeRecord, box_to_cut
from ctray.storage import store

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def config(archive_settings: dict[str, Any]) -> RunConfig:
    # Few steps teach nothing: no box is to be refused for what it looks like.
    settings = {"enabled": True, "steps": 6, "slabs": 12, "threshold": 0.0}
    settings |= {"min_agreement": 0.0, "min_peak": -9.0}
    return parse_config({**archive_settings, "self_train": settings})


@pytest.fixture(scope="module")
def finished(
    ray_cpus: int, config: RunConfig, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, RunFolder, list[VolumeRecord]]:
    folder = tmp_path_factory.mktemp("self-training")
    archive = str(folder / "archive")
    write_phantoms(archive, count=3, size=24, seed=8, reconstruction_circle=False)
    run, receipts = run_archive(archive, str(folder / "run"), config)
    return archive, run, receipts


def test_receipts_tell_the_faces_and_what_is_promised(
    finished: tuple[str, RunFolder, list[VolumeRecord]], config: RunConfig
) -> None:
    _, run, receipts = finished
    slabs = load_self_trained(run.checkpoint, load_model(run.checkpoint))
    assert slabs is not None
    for receipt in receipts:
        assert receipt.model_digest == slabs.digest
        assert receipt.box_settings_digest == box_settings_digest(config)
        assert {len(p) for p in receipt.refined["profiles"].values()} == {24}
        assert receipt.scales is not None
        assert min(receipt.scales) >= 1
        if receipt.status == "located":
            assert receipt.margins is not None
            # Few steps at a small size are not what the package's calibration is of.
            assert receipt.promise == "not calibrated"
            assert (receipt.max_loss, receipt.coverage) == (None, None)
            assert receipt.crop_url is not None
        else:
            assert receipt.status == "uncertain"
            assert receipt.reason
            assert receipt.crop_url is None


def test_second_run_trains_nothing_and_a_lost_network_comes_back_the_same(
    finished: tuple[str, RunFolder, list[VolumeRecord]], config: RunConfig
) -> None:
    archive, run, _ = finished
    manifest = Path(run.checkpoint) / "self-trained.json"
    before, written = store.read_json(str(manifest)), manifest.stat().st_mtime_ns
    catalog = read_catalog(run.catalog)

    pretrain_stage(run, config, catalog)
    assert manifest.stat().st_mtime_ns == written

    manifest.unlink()
    with pytest.raises(NotFoundError, match="self-training is not finished"):
        check_trained(run, config, archive)
    pretrain_stage(run, config, catalog)
    assert store.read_json(str(manifest))["digest"] == before["digest"]
    check_trained(run, config, archive)


def test_boxes_to_learn_from_follow_the_settings_of_the_run(
    finished: tuple[str, RunFolder, list[VolumeRecord]], config: RunConfig
) -> None:
    """Not those that the pretext task was trained with, which another run may have been."""
    _, run, _ = finished
    record = store.read_json(run.training_index)[0]
    found = {}
    for threshold in (0.0, 1.0):
        settings = (f"localize.threshold={threshold}", "localize.min_peak=0")
        find = stage.FindRanges(run, override(config, settings), 1)
        found[threshold] = find(record)["ranges"]
    assert found == {0.0: [[0, 24]] * 3, 1.0: None}


def test_promise_that_nothing_keeps_is_refused_before_anything_is_done(
    finished: tuple[str, RunFolder, list[VolumeRecord]],
    config_of: Callable[..., RunConfig],
    tmp_path: Path,
) -> None:
    archive, _, _ = finished
    greedy = config_of(self_train={"enabled": True}, crop={"coverage": 0.9999})
    with pytest.raises(ConfigError, match="cannot be promised"):
        run_archive(archive, str(tmp_path / "run"), greedy)
    assert not (tmp_path / "run" / "checkpoint").exists()


def test_margins_follow_the_runs_own_calibration_while_nothing_is_cropped(
    finished: tuple[str, RunFolder, list[VolumeRecord]], config: RunConfig, tmp_path: Path
) -> None:
    _, _, receipts = finished
    own = RunFolder(url=str(tmp_path / "own"))
    plain = replace(
        receipts[0],
        status="located",
        scales=AxisFaces.of([1.0, 2.0, 1.0, 1.0, 1.0, 3.0]),
        shape=[128] * 3,
        sample_box=Box(start=(40, 40, 40), stop=(60, 60, 60)),
    )
    fitted = Calibration(
        scores=dict.fromkeys(LOSSES, (1.5,) * 40),
        largest_scale=0.5,
        about="by hand",
        box_settings_digest=box_settings_digest(config),
    )
    store.write_json(own.calibration, fitted.to_json())
    promised = with_promise(plain, config.crop, calibration_of(own))
    assert promised.margins == tuple(math.ceil(1.5 * s) for s in (1, 2, 1, 1, 1, 3))
    assert (promised.promise, promised.max_loss) == ("calibrated", config.crop.max_loss)
    kept = box_to_cut(promised, (128, 128, 128))
    assert kept.ranges == [[38, 63], [38, 62], [38, 65]]


def test_it_begins_anew_where_its_node_died(
    ray_cpus: int, config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only then, not for ever, and with what it asked for at first."""
    run, asked = RunFolder(url=str(tmp_path)), []
    deaths = 2

    def die(*arguments: Any) -> None:
        asked.append(arguments[3])
        if len(asked) <= deaths:
            raise ActorUnavailableError("its node is out of reach", None)

    monkeypatch.setattr(ray_self_train, "_train", die)
    ray_self_train.train_slabs(run, config, [], lambda event: None)
    assert asked == [{"CPU": 1.0, "GPU": 0.0}] * 3

    asked.clear()
    deaths = 99
    with pytest.raises(TrainingError, match="self-training failed"):
        ray_self_train.train_slabs(run, config, [], lambda event: None)
    assert len(asked) == 5


def test_run_is_calibrated_on_its_own_truth(
    finished: tuple[str, RunFolder, list[VolumeRecord]], config: RunConfig, tmp_path: Path
) -> None:
    archive, run, receipts = finished
    own = RunFolder(url=str(tmp_path / "own"))
    for receipt in receipts:
        own.write_receipt(replace(receipt, status="located", sample_box=Box.whole((24,) * 3)))
    store.write_json(own.manifest, store.read_json(run.manifest))
    whole = calibrate_run(own, archive)
    # Nothing lies outside the whole volume.
    assert whole.scores[0.0] == (0.0, 0.0, 0.0)
    assert whole.holds_for(box_settings_digest(config))
    assert whole.box_settings == box_settings(config)
    with pytest.raises(NotFoundError, match="shares no located volume"):
        calibrate_run(RunFolder(url=str(tmp_path / "none")), archive)
    assert open_run(archive, run.url, config).url == run.url
