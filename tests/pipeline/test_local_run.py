"""A run in plain processes: the boxes of a run on Ray, bit for bit, and no Ray anywhere."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from ctray.archive.catalog import CatalogEntry
from ctray.config import RunConfig, parse_config
from ctray.core.errors import CheckpointError, CtrayError, InvalidVolumeError, TrainingError
from ctray.executors.local.executor import LocalExecutor
from ctray.executors.local.training import train_encoder
from ctray.learn.pretext.checkpoint import load_model, read_metrics, save_checkpoint
from ctray.learn.pretext.training import Trainer
from ctray.learn.pretext.work import EncoderTraining
from ctray.learn.self_training.checkpoint import load_self_trained
from ctray.pipeline import run as stages
from ctray.pipeline.run import localize_stage, run_archive
from ctray.pipeline.volume_work import LocalizeVolume
from ctray.records.events import Event
from ctray.records.run_folder import RunFolder
from ctray.records.volume_record import VolumeRecord
from ctray.storage import store

pytestmark = pytest.mark.ray

Mixed = tuple[Path, dict[str, np.ndarray]]
# What depends on when and where a run was made, and on nothing else.
_OF_THE_RUN = {"seconds", "imported_url", "crop_url", "map_url"}


def locally(config: RunConfig) -> RunConfig:
    return config.model_copy(update={"ray": config.ray.model_copy(update={"local": True})})


def told(receipt: VolumeRecord) -> dict[str, Any]:
    """Everything that a receipt says of its volume: box, faces, profiles, checksum of the crop."""
    fields = {k: v for k, v in asdict(receipt).items() if k not in _OF_THE_RUN}
    fields["has_crop"] = receipt.crop_url is not None
    return fields


@pytest.mark.slow
@pytest.mark.parametrize("task", ["rotation", "sorting"])
def test_a_run_without_ray_gives_the_same_bits(
    ray_cpus: int,
    mixed_archive: Mixed,
    archive_settings: dict[str, Any],
    tmp_path: Path,
    task: str,
) -> None:
    """Box, faces, profiles, digests and checksums; the bad volume fails with the same reason."""
    own = {"enabled": task == "rotation", "steps": 6, "slabs": 12, "threshold": 0.0}
    own |= {"min_agreement": 0.0, "min_peak": -9.0}
    # Margins that promise nothing: no box is to be refused for what it looks like.
    crop = {"margin": 0.05}
    config = parse_config({**archive_settings, "task": task, "self_train": own, "crop": crop})
    archive, _ = mixed_archive
    events: list[Event] = []
    # Names of one length: crops hold the URL of what they were cut from, and count their bytes.
    on_ray, expected = run_archive(str(archive), str(tmp_path / "ray"), config)
    run, receipts = run_archive(str(archive), str(tmp_path / "own"), locally(config), events.append)
    assert load_model(run.checkpoint).digest == load_model(on_ray.checkpoint).digest
    if config.self_train.enabled:
        slabs = [load_self_trained(r.checkpoint, load_model(r.checkpoint)) for r in (run, on_ray)]
        assert slabs[0].digest == slabs[1].digest  # type: ignore[union-attr]
    for ours, theirs in zip(receipts, expected, strict=True):
        mine, other = told(ours), told(theirs)
        assert {k: (v, other[k]) for k, v in mine.items() if v != other[k]} == {}
    located = [r for r in receipts if r.status == "located"]
    assert located
    assert all(r.checksum for r in located)
    assert [r.volume_id for r in receipts if r.status == "failed"] == ["cut_off"]
    names = ["catalog", "prepare", "pretrain", "boxes", "self-train", "localize", "report"]
    if not config.self_train.enabled:
        names = [name for name in names if name not in ("boxes", "self-train")]
    assert list(dict.fromkeys(event.stage for event in events)) == names
    assert events[-1].done == events[-1].total
    assert store.exists(run.report)


# --- training --------------------------------------------------------------------------------


def test_killed_training_goes_on_from_its_checkpoint(
    config_of: Callable[..., RunConfig], working_urls: list[str], tmp_path: Path
) -> None:
    """Its process dies between two checkpoints, and the weights are those of one that lived."""
    config = config_of(encoder={"dropout": 0.3}, train={"checkpoint_every": 2, "log_every": 1})
    straight, broken = (
        EncoderTraining(
            config=config,
            side=24,
            checkpoint_url=str(tmp_path / name),
            training_urls=working_urls,
            validation_urls=working_urls[:1],
        )
        for name in ("straight", "broken")
    )
    train_encoder(straight, 2, lambda row: None, lambda step: None)
    kills: list[int] = []

    def kill(row: dict[str, float]) -> None:
        if row["step"] == 5 and not kills:
            import multiprocessing

            (child,) = multiprocessing.active_children()
            kills.append(child.pid or 0)
            child.kill()

    train_encoder(broken, 2, kill, lambda step: None)
    assert len(kills) == 1
    found = [load_model(t.checkpoint_url) for t in (straight, broken)]
    assert found[0].digest == found[1].digest
    assert [row["step"] for row in read_metrics(broken.checkpoint_url)] == list(range(1, 10))


def test_damaged_working_volume_is_named(
    config_of: Callable[..., RunConfig], working_urls: list[str], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.npz"
    bad.write_bytes(b"no archive")
    training = EncoderTraining(
        config=config_of(),
        side=24,
        checkpoint_url=str(tmp_path / "checkpoint"),
        training_urls=[*working_urls, str(bad)],
    )
    with pytest.raises(InvalidVolumeError, match=r"bad\.npz is missing or damaged"):
        train_encoder(training, 1, lambda row: None, lambda step: None)


def test_training_that_cannot_begin_is_refused(
    config_of: Callable[..., RunConfig], working_urls: list[str], tmp_path: Path
) -> None:
    executor = LocalExecutor(config_of().ray)
    nothing = EncoderTraining(
        config=config_of(), side=24, checkpoint_url=str(tmp_path / "none"), training_urls=[]
    )
    with pytest.raises(TrainingError, match="no volume to train on"):
        executor.train_encoder(nothing, lambda row: None, lambda step: None)
    url = str(tmp_path / "checkpoint")
    save_checkpoint(url, Trainer(config_of(), 24, device=torch.device("cpu")))
    other = EncoderTraining(
        config=config_of(encoder={"embedding_dim": 16}),
        side=24,
        checkpoint_url=url,
        training_urls=working_urls,
    )
    with pytest.raises(CheckpointError, match="trained with another encoder"):
        executor.train_encoder(other, lambda row: None, lambda step: None)


def test_gpus_that_are_not_there_are_named(
    config_of: Callable[..., RunConfig], working_urls: list[str], tmp_path: Path
) -> None:
    config = config_of(train={"num_gpus_per_worker": 64}, pool={"num_gpus": 32})
    executor = LocalExecutor(config.ray)
    training = EncoderTraining(
        config=config, side=24, checkpoint_url=str(tmp_path), training_urls=working_urls
    )
    with pytest.raises(CtrayError, match=r"training needs 64 GPUs .* lower train\.num_gpus_per"):
        executor.train_encoder(training, lambda row: None, lambda step: None)
    with pytest.raises(CtrayError, match=r"pool needs 32 GPUs .* lower pool\.num_gpus"):
        executor.run_pool(LocalizeVolume, (), [], config.pool)


# --- localizing ------------------------------------------------------------------------------


class DyingOfEmbryoB(LocalizeVolume):
    """Out of memory, a segmentation fault in a codec: the process is gone without a word."""

    def __call__(self, entry: CatalogEntry) -> VolumeRecord | CtrayError:
        if entry.volume_id == "embryo_b":
            os._exit(1)
        return super().__call__(entry)


def test_volume_whose_process_dies_becomes_a_failed_receipt(
    begun: tuple[RunFolder, Any], archive_config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, catalog = begun
    monkeypatch.setattr(stages, "LocalizeVolume", DyingOfEmbryoB)
    executor = LocalExecutor(archive_config.ray)
    receipts = localize_stage(run, archive_config, catalog.entries, executor=executor)
    status = {receipt.volume_id: receipt.status for receipt in receipts}
    assert status.pop("embryo_b") == "failed"
    assert status.pop("cut_off") == "failed"
    assert set(status.values()) == {"located"}
    assert "its worker died" in str(run.read_receipt("embryo_b"))


def test_output_that_cannot_be_written_ends_the_run(
    begun: tuple[RunFolder, Any], archive_config: RunConfig
) -> None:
    run, catalog = begun
    Path(run.at("crops")).write_text("in the way")
    executor = LocalExecutor(archive_config.ray)
    with pytest.raises(CtrayError, match="crops"):
        localize_stage(run, archive_config, catalog.entries, executor=executor)
    assert [r.volume_id for r in run.receipts() if r.status == "failed"] == ["cut_off"]


# --- the command -----------------------------------------------------------------------------


# A shell's background jobs ignore Ctrl-C, and hand that on to what they start.
HEEDING = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
MAIN = "from ctray.cli.main import main; main()"


def alive_in_group(group: int) -> list[str]:
    """Processes of a group, without those that are dead and that nobody waited for."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # After the name, which may hold anything: state, parent, group.
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(its_group) == group and state != "Z":
            found.append(stat.parent.name)
    return found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_ctrl_c_in_training_ends_all_and_the_same_command_goes_on(
    mixed_archive: Mixed, settings_of: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    archive, _ = mixed_archive
    settings = tmp_path / "settings.yaml"
    # Long enough to be stopped in its middle.
    given = settings_of(
        localize={"threshold": "otsu", "min_peak": 0.0},
        train={"steps": 400, "checkpoint_every": 20},
        ray={"local": True},
    )
    settings.write_text(yaml.safe_dump(given))
    out = tmp_path / "run"
    words = ["run", str(archive), "--out", str(out), "--config", str(settings)]
    process = subprocess.Popen(
        [sys.executable, "-c", HEEDING + MAIN, *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 240
    while not (out / "checkpoint" / "checkpoint.json").exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    # The terminal sends it to the whole group.
    os.killpg(process.pid, signal.SIGINT)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 130
    assert messages.splitlines()[-1] == "interrupted; the same command resumes"
    assert "Traceback" not in messages
    while alive_in_group(process.pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert load_model(f"{out}/checkpoint").step < 400
    done = subprocess.run(
        [sys.executable, "-c", MAIN, *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3, done.stderr
    assert "4 volumes: 3 located, 1 failed" in done.stdout
    assert load_model(f"{out}/checkpoint").step == 400


@pytest.mark.slow
def test_the_command_does_without_ray(
    mixed_archive: Mixed, archive_settings: dict[str, Any], tmp_path: Path
) -> None:
    """Its processes, too: Python cannot import it at all."""
    archive, _ = mixed_archive
    barred = tmp_path / "barred"
    barred.mkdir()
    (barred / "ray.py").write_text("raise ImportError('there is no Ray')\n")
    settings = tmp_path / "settings.yaml"
    settings.write_text(yaml.safe_dump(archive_settings))
    paths = os.pathsep.join([str(barred), *sys.path])
    out = tmp_path / "run"

    def ctray(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", MAIN, *words],
            env={**os.environ, "PYTHONPATH": paths},
            capture_output=True,
            text=True,
        )

    done = ctray("run", str(archive), "--out", str(out), "--config", str(settings), "--local")
    assert done.returncode == 3, done.stderr
    assert "4 volumes: 3 located, 1 failed" in done.stdout
    # The stages alone take it up: what the run was begun with holds, --local too.
    store.delete_file(RunFolder(url=str(out)).receipt("embryo_a"))
    again = ctray("localize", str(out), "--debug")
    assert again.returncode == 3, again.stderr
    assert "4 volumes: 3 located, 1 failed" in again.stdout
    assert ctray("crop", str(out)).returncode == 3
    # With Ray it would not even start.
    failed = ctray("localize", str(out), "--no-local")
    assert "there is no Ray" in failed.stderr
