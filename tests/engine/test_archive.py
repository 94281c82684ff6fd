"""Whole runs over small archives: what comes out, what a rerun does, and what survives a kill."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
import zarr

from ctray.config import RunConfig, parse_config
from ctray.engine.archive import Event, run_archive, status_counts
from ctray.errors import ConfigError, DiskFullError, InvalidVolumeError
from ctray.geometry import Box
from ctray.phantom import Phantom
from ctray.pretext.checkpoint import checkpoint_step, load_model
from ctray.storage.catalog import read_catalog
from ctray.storage.run_folder import Receipt, RunFolder, read_localizations
from ctray.storage.volume import open_volume

from .conftest import VOXEL_UM, write_tiff_folder

pytestmark = pytest.mark.ray

Mixed = tuple[Path, dict[str, np.ndarray]]


def times(folder: Path) -> dict[str, int]:
    """When each file below `folder` was last written."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in files}


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def by_id(receipts: list[Receipt]) -> dict[str, Receipt]:
    return {receipt.volume_id: receipt for receipt in receipts}


def test_whole_run_over_a_mixed_archive(
    ray_cpus: int, mixed_archive: Mixed, archive_config: RunConfig, tmp_path: Path
) -> None:
    archive, voxels = mixed_archive
    before = contents(archive)
    events: list[Event] = []
    run, receipts = run_archive(
        str(archive), str(tmp_path / "run"), archive_config, on_event=events.append
    )
    check_receipts(run, receipts, voxels)
    check_crops(run, by_id(receipts), voxels)
    check_table(run, receipts)
    assert load_model(run.checkpoint).step == archive_config.train.steps
    assert contents(archive) == before, "the archive stays as it is"
    stages = [event.stage for event in events]
    assert set(stages) == {"catalog", "prepare", "pretrain", "localize"}
    assert stages == sorted(stages, key=["catalog", "prepare", "pretrain", "localize"].index)
    last = events[-1]
    assert last.done == last.total

    check_second_run(archive, run, archive_config)
    check_volume_that_came_later(archive, voxels, run, archive_config)


def check_receipts(run: RunFolder, receipts: list[Receipt], voxels: dict[str, np.ndarray]) -> None:
    assert status_counts(receipts) == {"located": 3, "failed": 1}
    found = by_id(receipts)
    assert set(found) == {*voxels, "cut_off"}
    assert found["cut_off"].reason
    assert "\n" not in found["cut_off"].reason
    assert found["cut_off"].crop_url is None
    for volume_id, source in voxels.items():
        receipt = found[volume_id]
        assert receipt == run.read_receipt(volume_id)
        assert receipt.shape == list(source.shape)
        assert receipt.dtype == str(source.dtype)
        assert receipt.bytes_total == source.nbytes
        assert receipt.method == "rotation"
        assert receipt.model_digest == load_model(run.checkpoint).digest
        assert receipt.seconds > 0
        assert receipt.bytes_read > 0
        assert receipt.sample_box is not None
        receipt.sample_box.check_inside(source.shape)
        assert {axis: len(p) for axis, p in receipt.profiles.items()} == dict(
            zip("zyx", receipt.working["shape"], strict=True)
        )
        assert set(run.read_preview(volume_id)) == {
            f"{what}-{axis}" for what in ("slice", "projection") for axis in "zyx"
        }


def check_crops(
    run: RunFolder, receipts: dict[str, Receipt], voxels: dict[str, np.ndarray]
) -> None:
    sizes = 0
    for volume_id, source in voxels.items():
        receipt = receipts[volume_id]
        assert receipt.crop_url == run.crop(volume_id)
        assert receipt.crop_box is not None
        assert receipt.sample_box is not None
        box = Box.from_ranges(receipt.crop_box)
        assert box.contains(receipt.sample_box)
        sizes += box.num_voxels
        # With zarr alone, as anyone would who knows nothing of ctray.
        group = zarr.open_group(receipt.crop_url, mode="r")
        array = group[group.attrs.asdict()["ome"]["multiscales"][0]["datasets"][0]["path"]]
        np.testing.assert_array_equal(array[:], source[box.slices])
        crop, whole = open_volume(receipt.crop_url), open_volume(str(receipt.volume_url))
        edge = whole.voxel_size.um if whole.voxel_size else (1.0, 1.0, 1.0)
        place = [o + a * e for o, a, e in zip(whole.origin_um, box.start, edge, strict=True)]
        assert crop.origin_um == pytest.approx(place)
        assert crop.attributes["sample_box"] == receipt.box
        assert crop.attributes["model_digest"] == receipt.model_digest
        assert crop.attributes["checksum"] == receipt.checksum
    # Otherwise nothing was cut, and equality says little.
    assert sizes < sum(source.size for source in voxels.values())
    tiff = open_volume(str(receipts["embryo_a"].volume_url))
    assert tiff.voxel_size is not None
    assert tiff.voxel_size.um[1:] == pytest.approx((VOXEL_UM, VOXEL_UM), rel=1e-3)


def check_table(run: RunFolder, receipts: list[Receipt]) -> None:
    rows = read_localizations(run.localizations)
    entries = read_catalog(run.catalog).entries
    assert [row["volume_id"] for row in rows] == [entry.volume_id for entry in entries]
    for row, receipt in zip(rows, receipts, strict=True):
        box = receipt.sample_box
        faces = list(box.faces) if box else [None] * 6
        assert [row[name] for name in ("z0", "z1", "y0", "y1", "x0", "x1")] == faces
        for name in ("volume_id", "source_url", "status", "reason", "crop_url", "confidence"):
            assert row[name] == getattr(receipt, name)


def check_second_run(archive: Path, run: RunFolder, config: RunConfig) -> None:
    folder = Path(run.url)
    before = times(folder)
    # Volumes are worked on by another pool: that changes nothing of what was found.
    other = config.model_copy(update={"pool": config.pool.model_copy(update={"max_size": 1})})
    _, receipts = run_archive(str(archive), run.url, other)
    after = times(folder)
    assert len(receipts) == 4
    rewritten = {name for name in before if after[name] != before[name]}
    assert rewritten <= {"catalog.parquet", "localizations.parquet"}
    assert after.keys() == before.keys()


def check_volume_that_came_later(
    archive: Path, voxels: dict[str, np.ndarray], run: RunFolder, config: RunConfig
) -> None:
    """It is localized with the model that is there; the others keep their receipts."""
    write_tiff_folder(archive / "embryo_later", voxels["embryo_a"][:, ::-1])
    folder = Path(run.url)
    before = times(folder)
    _, receipts = run_archive(str(archive), run.url, config)
    after = times(folder)
    assert by_id(receipts)["embryo_later"].status == "located"
    assert "receipts/embryo_later.json" in after
    for name, when in before.items():
        if name.startswith(("receipts/", "crops/", "checkpoint/", "imported/")):
            assert after[name] == when, name


# --- what a run refuses ---------------------------------------------------------------------


def test_run_of_another_configuration_is_refused(
    mixed_archive: Mixed, archive_config: RunConfig, tmp_path: Path
) -> None:
    from ctray.engine.archive import catalog_stage, open_run

    archive, _ = mixed_archive
    out = str(tmp_path / "run")
    run = open_run(str(archive), out, archive_config)
    catalog_stage(run, str(archive), archive_config)
    data = archive_config.model_dump(mode="json")
    data["train"]["seed"] = 5
    data["encoder"]["dropout"] = 0.2
    with pytest.raises(ConfigError, match=r"another encoder\.dropout, train\.seed; give"):
        open_run(str(archive), out, parse_config(data))
    (tmp_path / "other").mkdir()
    with pytest.raises(ConfigError, match=r"is a run over .*archive"):
        open_run(str(tmp_path / "other"), out, archive_config)
    assert open_run(str(archive), out, archive_config).url == out


def test_archive_of_bad_volumes_alone_is_an_error(
    mixed_archive: Mixed, archive_config: RunConfig, tmp_path: Path
) -> None:
    archive, voxels = mixed_archive
    for volume_id in voxels:
        for path in archive.glob(f"{volume_id}*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(InvalidVolumeError, match="can be read"):
        run_archive(str(archive), str(tmp_path / "run"), archive_config)


# --- a full disk ----------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MB."""
    if os.geteuid() != 0 or sys.platform != "linux":
        pytest.skip("a small file system can be mounted by root on Linux alone")
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True
    )
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


def test_full_disk_is_one_clear_error_and_loses_nothing(
    ray_cpus: int, archive_config: RunConfig, tmp_path: Path, small_disk: Path
) -> None:
    archive = tmp_path / "noisy"
    rng = np.random.default_rng(0)
    for i in range(3):
        # 512 KiB each that do not compress.
        noise = rng.integers(0, 2**16, (64, 64, 64), dtype=np.uint16)
        write_tiff_folder(archive / f"scan_{i}", noise)
    before = contents(archive)
    out = str(small_disk / "run")
    with pytest.raises((DiskFullError, Exception), match="no space left") as caught:
        run_archive(str(archive), out, archive_config)
    assert "\n" not in str(caught.value)
    assert contents(archive) == before
    # No volume is to blame, so none has a receipt; with room the same command goes on.
    assert RunFolder(url=out).receipts() == []
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    _, receipts = run_archive(str(archive), out, archive_config)
    assert len(receipts) == 3
    assert "failed" not in status_counts(receipts)


# --- killed ---------------------------------------------------------------------------------

COMMAND = "from ctray.cli.main import main; main()"


def processes_of(session: int) -> list[int]:
    """Living processes of a session; a command's whole offspring, whatever their groups."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            state, _, _, sid = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(sid) == session and state != "Z":
                found.append(int(entry.name))
    return found


class Killable:
    """`ctray run` in a session of its own, whose processes can be killed all at once."""

    def __init__(self, archive: Path, out: Path, config: Path, scratch: str) -> None:
        self._log = (out.parent / "output.log").open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, "run", archive, "--out", out, "--config", config],
            stdout=self._log,
            stderr=self._log,
            env={**os.environ, "RAY_TMPDIR": scratch},
            start_new_session=True,
        )

    def kill_when(self, reached: Callable[[], bool], timeout_s: float = 240) -> None:
        """Kill as soon as `reached`; a run that ends before is a failure of the test."""
        began = time.monotonic()
        while not reached():
            assert self._process.poll() is None, "the run ended before the kill"
            assert time.monotonic() - began < timeout_s, "the run did not get there"
            time.sleep(0.005)
        self.kill()

    def finish(self, timeout_s: float = 300) -> int:
        return self._process.wait(timeout_s)

    def kill(self) -> None:
        """SIGKILL to every process of the session, until none is left."""
        deadline = time.monotonic() + 30
        while alive := processes_of(self._process.pid):
            assert time.monotonic() < deadline, f"still alive: {alive}"
            for pid in alive:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        self._process.wait()
        self._log.close()


@pytest.fixture
def start(tmp_path: Path, archive_settings: dict[str, Any]) -> Iterator[Callable[..., Killable]]:
    """Starts killable runs, and kills what is left of them at the end."""
    scratch = tempfile.mkdtemp(prefix="ck-", dir="/tmp")
    started: list[Killable] = []

    def begin(archive: Path, out: Path, settings: dict[str, Any]) -> Killable:
        config = tmp_path / "run.yaml"
        config.write_text(yaml.safe_dump(settings))
        started.append(Killable(archive, out, config, scratch))
        return started[-1]

    yield begin
    for run in started:
        run.kill()
    shutil.rmtree(scratch, ignore_errors=True)


@pytest.mark.slow
def test_killed_anywhere_the_same_command_finishes_the_work(
    ray_cpus: int,
    start: Callable[..., Killable],
    phantom_of: Callable[..., Phantom],
    archive_settings: dict[str, Any],
    tmp_path: Path,
) -> None:
    """Killed while importing, while training and while localizing; then left alone."""
    archive, out = tmp_path / "archive", tmp_path / "killed"
    for i in range(5):
        write_tiff_folder(archive / f"scan_{i}", phantom_of(i).volume)
    # Long enough that there is something to kill.
    settings = {**archive_settings, "pool": {"num_cpus": 0.5, "max_size": 1}}
    settings["train"] = {**archive_settings["train"], "steps": 150, "checkpoint_every": 20}
    run = RunFolder(url=str(out))

    start(archive, out, settings).kill_when(lambda: Path(run.at("imported")).exists())
    assert checkpoint_step(run.checkpoint) is None
    imported = committed(out)

    start(archive, out, settings).kill_when(lambda: checkpoint_step(run.checkpoint) is not None)
    stopped_at = checkpoint_step(run.checkpoint)
    assert stopped_at is not None
    assert 0 < stopped_at < 150
    kept = times(out)
    assert all(kept[name] == when for name, when in imported.items())
    imported = committed(out)

    start(archive, out, settings).kill_when(lambda: bool(receipts_in(out)))
    done = receipts_in(out)
    assert 0 < len(done) < 5

    assert start(archive, out, settings).finish() == 0
    kept = times(out)
    for name, when in {**imported, **done}.items():
        assert kept[name] == when, f"{name} was done again"

    _, expected = run_archive(str(archive), str(tmp_path / "whole"), parse_config(settings))
    same_result(run, RunFolder(url=str(tmp_path / "whole")), expected)


def committed(out: Path) -> dict[str, int]:
    """Imported volumes that are finished: their group says so, and is written last."""
    return {
        name: when
        for name, when in times(out).items()
        if name.startswith("imported/") and name.count("/") == 2 and name.endswith("zarr.json")
    }


def receipts_in(out: Path) -> dict[str, int]:
    folder = out / "receipts"
    if not folder.exists():
        return {}
    return {f"receipts/{p.name}": p.stat().st_mtime_ns for p in folder.glob("*.json")}


def same_result(killed: RunFolder, whole: RunFolder, expected: list[Receipt]) -> None:
    assert load_model(killed.checkpoint).digest == load_model(whole.checkpoint).digest
    assert len(expected) == 5
    for receipt in expected:
        other = killed.read_receipt(receipt.volume_id)
        assert other is not None
        # Times and places differ between two runs, what was found does not.
        own = {"seconds": 0.0, "bytes_read": 0, "crop_url": None, "volume_url": None}
        assert replace(other, **own) == replace(receipt, **own)
        assert other.crop_url is not None
        mine, theirs = open_volume(other.crop_url), open_volume(str(receipt.crop_url))
        whole_box = Box.whole(mine.shape)
        np.testing.assert_array_equal(mine.read(whole_box), theirs.read(whole_box))
    rows = read_localizations(killed.localizations)
    assert [row["volume_id"] for row in rows] == [r.volume_id for r in expected]
