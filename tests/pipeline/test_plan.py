"""The plan of a run: what it counts, what its figures rest on, that it changes nothing."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ctray.archive.catalog import Catalog, build_catalog, read_catalog, write_catalog
from ctray.cli import commands_run
from ctray.cli.main import cli
from ctray.cli.tables import plan_lines
from ctray.config import RunConfig, override
from ctray.core.geometry import AxisFaces, Box
from ctray.evaluate.phantom_archive import write_phantoms
from ctray.learn.pretext.checkpoint import load_model, save_checkpoint
from ctray.learn.pretext.training import Trainer
from ctray.pipeline.choosing import with_known_ids
from ctray.pipeline.cropping import crop_digest
from ctray.pipeline.plan import plan_archive, ratio_interval
from ctray.pipeline.plan_looks import looks_of_receipts
from ctray.pipeline.plan_training import measure_speeds, working_shape
from ctray.records.run_folder import RunFolder
from ctray.records.run_manifest import RunManifest, write_manifest
from ctray.records.volume_record import VolumeRecord

COUNT = 7


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven phantoms of 48 voxels and a file that is no TIFF."""
    folder = tmp_path_factory.mktemp("plan") / "archive"
    write_phantoms(str(folder), count=COUNT, size=48, seed=2, reconstruction_circle=False)
    (folder / "broken.tif").write_bytes(b"II*\0 and no more")
    return folder


@pytest.fixture(scope="module")
def catalog(archive: Path) -> Catalog:
    return build_catalog(str(archive))


def contents(folder: Path) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in folder.rglob("*")}


def receipt(volume_id: str, *, kept: int | None, seconds: float = 2.0) -> VolumeRecord:
    """Of a volume of 48 voxels a side, of which a crop keeps `kept` slices."""
    box = None if kept is None else Box(start=(0, 0, 0), stop=(kept, 48, 48))
    return VolumeRecord(
        volume_id=volume_id,
        source_url=volume_id,
        status="located" if box else "uncertain",
        shape=[48, 48, 48],
        sample_box=box,
        crop_box=box,
        crop_url="there" if box else None,
        crop_settings=crop_digest(RunConfig()),
        seconds=seconds,
    )


def test_guess_without_a_run(
    archive: Path, catalog: Catalog, config_of: Callable[..., RunConfig]
) -> None:
    before = contents(archive)
    seen: list[tuple[int, int, str]] = []
    found = plan_archive(
        catalog, config_of(), num_sample=4, on_look=lambda *told: seen.append(told)
    )
    assert contents(archive) == before
    assert (found.num_volumes, found.num_unreadable) == (COUNT, 1)
    assert found.kinds == {"ome-zarr uint8": COUNT}
    assert found.unreadable[0][0].endswith("broken.tif")
    assert found.bytes_total == COUNT * 48**3
    assert [told[:2] for told in seen] == [(n, 4) for n in (1, 2, 3, 4)]
    assert (found.basis, found.num_looked_at) == ("threshold", 4)
    # Bright samples whose boxes take 15 to 30% of the volume.
    assert found.saved is not None
    assert 0.5 < found.saved.value < 0.95
    assert found.bytes_stored is not None
    files = sum(p.stat().st_size for p in archive.glob("*.zarr/**/*") if p.is_file())
    assert found.bytes_stored.value == pytest.approx(files, rel=0.1)
    assert found.hours is not None
    assert found.hours.value > 0
    assert any("rough guess" in line for line in found.assumptions)
    # Nine steps, and each volume prepared and localized: little, and not nothing.
    assert 0 < found.training_hours < 0.5
    assert any(
        "9 steps of" in line and "timed on this machine" in line for line in found.assumptions
    )


def test_training_that_is_under_way_counts_what_is_left_at_its_own_speed(
    catalog: Catalog, config_of: Callable[..., RunConfig], tmp_path: Path
) -> None:
    config = config_of(train={"steps": 1000})
    run = RunFolder(url=str(tmp_path / "run"))
    trainer = Trainer(config, 48, device=torch.device("cpu"))
    trainer.step = 400
    # 8 pairs a step: 2 seconds each.
    trainer.metrics = [{"step": 200.0, "slices_per_second": 8.0}, {"step": 400.0}]
    save_checkpoint(run.checkpoint, trainer)
    found = plan_archive(catalog, config, run, num_sample=2)
    assert found.training_hours == pytest.approx(600 * 2 / 3600)
    assert any("600 steps of 2.0 s (as in the run so far)" in a for a in found.assumptions)
    assert "20 min to train" in "\n".join(plan_lines(found))


@pytest.mark.parametrize("task", ["rotation", "sorting"])
def test_everything_that_a_run_computes_is_timed(
    config_of: Callable[..., RunConfig], task: str
) -> None:
    """Of slices smaller than the smallest phantom, too."""
    config = config_of(task=task, self_train={"enabled": task == "rotation", "slabs": 12})
    speeds = measure_speeds(config, 16)
    assert min(speeds.prepare, speeds.step, speeds.find) > 0
    assert (speeds.slab_step > 0) == (speeds.self_train > 0) == config.self_train.enabled


@pytest.mark.parametrize(
    ("shape", "size", "expected"),
    [
        ((100, 90, 80), 128, (100, 90, 80)),
        ((256, 200, 101), 128, (128, 100, 51)),
        # An elongated volume keeps half of the size in width.
        ((6100, 2000, 2000), 128, (191, 63, 63)),
    ],
)
def test_working_shape_is_the_one_that_halving_brings_nearest(
    shape: tuple[int, int, int], size: int, expected: tuple[int, int, int]
) -> None:
    assert working_shape(shape, size) == expected


def test_receipts_of_all_volumes_leave_no_doubt(
    catalog: Catalog, config_of: Callable[..., RunConfig], tmp_path: Path
) -> None:
    run = RunFolder(url=str(tmp_path / "run"))
    for n, entry in enumerate(catalog.ok):
        # One is left for review: it is kept whole.
        run.write_receipt(receipt(entry.volume_id, kept=None if n == 0 else 12))
    found = plan_archive(catalog, config_of(), run)
    assert (found.basis, found.num_done, found.num_looked_at) == ("receipts", COUNT, COUNT)
    assert found.saved is not None
    assert found.saved.value == pytest.approx(6 / 7 * 0.75)
    assert found.saved.low == found.saved.high == found.saved.value
    # Nothing is left to do.
    assert found.hours is not None
    assert found.hours.value == 0
    assert "all volumes are finished" in plan_lines(found)


def test_volumes_that_a_run_knows_by_other_names_are_done(
    catalog: Catalog, config_of: Callable[..., RunConfig], tmp_path: Path
) -> None:
    """A volume that came later took the name that a fresh catalog gives to another one."""
    run = RunFolder(url=str(tmp_path / "run"))
    named = [replace(e, volume_id=f"{e.volume_id}_2") for e in catalog.entries]
    write_catalog(named, run.catalog)
    for entry in (e for e in named if e.status == "ok"):
        run.write_receipt(receipt(entry.volume_id, kept=12))
    known = with_known_ids(catalog, run)
    assert {e.volume_id for e in known} == {e.volume_id for e in read_catalog(run.catalog)}
    found = plan_archive(catalog, config_of(), run)
    assert (found.basis, found.num_done, found.num_looked_at) == ("receipts", COUNT, COUNT)


def test_what_a_run_would_do_again_is_not_done(
    catalog: Catalog, config_of: Callable[..., RunConfig], tmp_path: Path
) -> None:
    run, config = RunFolder(url=str(tmp_path / "run")), config_of()
    write_manifest(run, RunManifest(archive="/archive", config=config))
    located, other, doubtful, open_face, *_ = [e.volume_id for e in catalog.ok]
    run.write_receipt(receipt(located, kept=12))
    run.write_receipt(replace(receipt(other, kept=12), crop_settings="other settings"))
    run.write_receipt(receipt(doubtful, kept=None))
    too_open = replace(
        receipt(open_face, kept=None),
        sample_box=Box(start=(0, 0, 0), stop=(9, 9, 9)),
        scales=AxisFaces.of([40.0] * 6),
        promise="not calibrated",
    )
    run.write_receipt(too_open)

    done = looks_of_receipts(run, config, catalog.ok)
    assert set(done) == {located, doubtful, open_face}
    # Not kept in run.json yet: the plan comes before that.
    done = looks_of_receipts(run, override(config, ("crop.margin=0.2",)), catalog.ok)
    assert set(done) == {doubtful}


def test_hours_are_those_of_what_is_left(
    catalog: Catalog, config_of: Callable[..., RunConfig], tmp_path: Path
) -> None:
    run = RunFolder(url=str(tmp_path / "run"))
    for entry in catalog.ok[:5]:
        run.write_receipt(receipt(entry.volume_id, kept=24, seconds=3600.0))
    found = plan_archive(catalog, config_of(pool={"num_cpus": 0.5, "max_size": 2}), run)
    assert found.hours is not None
    assert found.hours.value == pytest.approx(2 * 1.0 / found.num_actors)
    assert found.saved is not None
    # Five alike say that all are alike.
    assert found.saved.low == pytest.approx(0.5)


def test_trained_model_looks_at_the_sample(
    catalog: Catalog, trained_url: str, tmp_path: Path
) -> None:
    run = RunFolder(url=str(tmp_path / "run"))
    Path(run.url).mkdir()
    Path(run.checkpoint).symlink_to(trained_url)
    found = plan_archive(catalog, load_model(trained_url).config, run, num_sample=2)
    assert (found.basis, found.num_looked_at) == ("model", 2)
    assert not any("training" in line for line in found.assumptions)
    assert sorted(p.name for p in Path(run.url).iterdir()) == ["checkpoint"]


def test_interval_holds_what_it_says() -> None:
    """Of archives of 200 volumes of uneven size, samples of 10: 95%, less what skew costs."""
    rng = np.random.default_rng(4)
    hits = 0
    for _ in range(400):
        sizes = rng.uniform(1, 20, 200)
        values = sizes * rng.beta(8, 3, 200)
        chosen = rng.choice(200, 10, replace=False)
        found = ratio_interval(list(values[chosen]), list(sizes[chosen]), 200)
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= values.sum() / sizes.sum() <= found.high
    assert 0.90 < hits / 400 < 0.98


def test_one_volume_has_no_interval() -> None:
    found = ratio_interval([3.0], [4.0], 2)
    assert found is not None
    assert (found.value, found.low, found.high) == (0.75, None, None)
    assert ratio_interval([], [], 2) is None


def run_cli(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        cli(list(arguments))
    return int(caught.value.code or 0)


def test_plan_on_the_command_line(archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("plan", str(archive), "--sample", "3", "--json") == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert document["num_volumes"] == COUNT
    assert document["saved"]["low"] <= document["saved"]["value"] <= document["saved"]["high"]
    assert run_cli("plan", str(archive), "--sample", "3") == 0
    out = capsys.readouterr().out
    assert "7 volumes, 774.1 kB of voxels" in out
    assert "unreadable" in out
    assert "; a rough guess" in out
    assert " to train, then " in out


# --- ctray run over a large archive


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands_run, "LARGE_VOLUMES", COUNT - 1)


@pytest.mark.parametrize("command", ["run", "archive"])
@pytest.mark.parametrize("more", [(), ("--json",)])
def test_a_large_archive_needs_a_terminal_or_yes(
    archive: Path,
    tmp_path: Path,
    large: None,
    capsys: pytest.CaptureFixture[str],
    command: str,
    more: tuple[str, ...],
) -> None:
    out = tmp_path / "run"
    assert run_cli(command, str(archive), "--out", str(out), *more) == 2
    told = capsys.readouterr().err
    assert "The archive is large (7 volumes, 774.1 kB)" in told
    assert "Cannot prompt without a terminal; pass --yes to start; see " in told
    assert not out.exists()


def test_a_large_archive_is_planned_and_a_no_writes_nothing(
    archive: Path,
    tmp_path: Path,
    large: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "run"
    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    assert run_cli("run", str(archive), "--out", str(out), "--sample", "1") == 130
    told = capsys.readouterr()
    assert told.out == ""
    assert "7 volumes, 774.1 kB of voxels" in told.err
    assert "Start the run?" in told.err
    assert not out.exists()


@pytest.mark.parametrize(
    ("volumes", "num_bytes", "is_large"), [(7, 774_144, False), (6, 10**9, True), (9, 9, True)]
)
def test_many_volumes_or_many_bytes_are_large(
    catalog: Catalog,
    monkeypatch: pytest.MonkeyPatch,
    volumes: int,
    num_bytes: int,
    is_large: bool,
) -> None:
    monkeypatch.setattr(commands_run, "LARGE_VOLUMES", volumes)
    monkeypatch.setattr(commands_run, "LARGE_BYTES", num_bytes)
    assert commands_run._is_large(catalog) == is_large


def test_what_is_large_stands_in_the_help() -> None:
    limits = f"more than {commands_run.LARGE_VOLUMES} volumes or "
    limits += f"{commands_run.LARGE_BYTES // 10**9} GB of voxels"
    for command in (commands_run.run, commands_run.archive_):
        assert limits in " ".join((command.help or "").split())


def test_archive_is_another_name_of_run() -> None:
    run, archive = cli.commands["run"], cli.commands["archive"]
    assert (archive.params, archive.callback) == (run.params, run.callback)
