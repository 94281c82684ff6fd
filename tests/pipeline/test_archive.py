"""Whole runs over small archives: what comes out, what a rerun does, and what a run refuses."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import zarr

from ctray.archive.catalog import read_catalog
from ctray.config import RunConfig, parse_config
from ctray.core.errors import ConfigError, CtrayError, InvalidVolumeError
from ctray.evaluate.phantom_archive import write_phantoms
from ctray.learn.pretext.checkpoint import load_model, read_metrics
from ctray.pipeline.run import run_archive, status_counts
from ctray.records.box_table import read_localizations
from ctray.records.events import Event
from ctray.records.run_folder import RunFolder
from ctray.records.volume_record import VolumeRecord
from ctray.storage import store
from ctray.volumes.volume import open_volume

pytestmark = pytest.mark.ray

Mixed = tuple[Path, dict[str, np.ndarray]]
WriteFolder = Callable[[Path, np.ndarray], None]
VOXEL_UM = 2.5


def times(folder: Path) -> dict[str, int]:
    """When each file below `folder` was last written."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in files}


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def by_id(receipts: list[VolumeRecord]) -> dict[str, VolumeRecord]:
    return {receipt.volume_id: receipt for receipt in receipts}


def test_whole_run_over_a_mixed_archive(
    ray_cpus: int,
    mixed_archive: Mixed,
    archive_config: RunConfig,
    write_tiff_folder: WriteFolder,
    tmp_path: Path,
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
    names = ["catalog", "prepare", "pretrain", "localize", "report"]
    assert set(stages) == set(names)
    assert stages == sorted(stages, key=names.index)
    last = events[-1]
    assert last.done == last.total

    check_second_run(archive, run, archive_config)
    # Volumes come later: localized with the model that is there, the others stay.
    write_tiff_folder(archive / "embryo_later", voxels["embryo_a"][:, ::-1])
    check_volume_that_came_later(archive, run, archive_config)


def test_sorting_run_holds_volumes_out_and_keeps_its_maps(
    ray_cpus: int, config_of: Callable[..., RunConfig], tmp_path: Path
) -> None:
    archive = tmp_path / "archive"
    write_phantoms(str(archive), count=4, size=24, kind="fish")
    config = config_of(
        task="sorting",
        encoder={"dropout": 0.2},
        uncertainty={"samples": 3, "shifts": 2},
    )
    run, receipts = run_archive(str(archive), str(tmp_path / "run"), config)
    assert len(run.training_ids()) == 3
    rows = read_metrics(run.checkpoint)
    assert {"validation_displacement", "training_displacement"} <= rows[-1].keys()
    assert {r.status for r in receipts} <= {"located", "empty"}
    for receipt in receipts:
        assert receipt.method == "sorting"
        assert receipt.map_url == run.map(receipt.volume_id)
        found = open_volume(receipt.map_url)
        about = receipt.working["uncertainty"]
        assert list(found.shape) == about["shape"]
        assert found.attributes["model_digest"] == receipt.model_digest
        assert about["cell"] == [1, 2, 2]
        shown = {"slice", "projection", "variance"}
        shown |= {"region"} if receipt.status == "located" else set()
        assert set(run.read_preview(receipt.volume_id)) == {
            f"{w}-{a}" for w in shown for a in "zyx"
        }
    # A receipt that was lost after its map was written: the volume is done anew, the map stays.
    first = receipts[0]
    Path(run.receipt(first.volume_id)).unlink()
    _, again = run_archive(str(archive), run.url, config)
    assert again[0].sample_box == first.sample_box
    assert again[0].map_url == first.map_url


def check_receipts(
    run: RunFolder, receipts: list[VolumeRecord], voxels: dict[str, np.ndarray]
) -> None:
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
    run: RunFolder, receipts: dict[str, VolumeRecord], voxels: dict[str, np.ndarray]
) -> None:
    sizes = 0
    for volume_id, source in voxels.items():
        receipt = receipts[volume_id]
        assert receipt.crop_url == run.crop(volume_id)
        assert receipt.crop_box is not None
        assert receipt.sample_box is not None
        box = receipt.crop_box
        assert box.contains(receipt.sample_box)
        sizes += box.num_voxels
        # With zarr alone, as anyone would who knows nothing of ctray.
        group = zarr.open_group(receipt.crop_url, mode="r")
        array = group[group.attrs.asdict()["ome"]["multiscales"][0]["datasets"][0]["path"]]
        np.testing.assert_array_equal(array[:], source[box.slices])
        crop, whole = open_volume(receipt.crop_url), open_volume(str(receipt.cut_url))
        edge = whole.voxel_size.um if whole.voxel_size else (1.0, 1.0, 1.0)
        place = [o + a * e for o, a, e in zip(whole.origin_um, box.start, edge, strict=True)]
        assert crop.origin_um == pytest.approx(place)
        assert crop.attributes["sample_box"] == receipt.sample_box.ranges
        assert crop.attributes["model_digest"] == receipt.model_digest
        assert crop.attributes["checksum"] == receipt.checksum
    # Otherwise nothing was cut, and equality says little.
    assert sizes < sum(source.size for source in voxels.values())
    tiff = open_volume(str(receipts["embryo_a"].imported_url))
    assert tiff.voxel_size is not None
    assert tiff.voxel_size.um[1:] == pytest.approx((VOXEL_UM, VOXEL_UM), rel=1e-3)


def check_table(run: RunFolder, receipts: list[VolumeRecord]) -> None:
    rows = read_localizations(run.localizations)
    entries = read_catalog(run.catalog)
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
    page = {"report/index.html", "report/located.png"}
    assert rewritten <= {"catalog.parquet", "localizations.parquet", *page}
    assert after.keys() == before.keys()


def check_volume_that_came_later(archive: Path, run: RunFolder, config: RunConfig) -> None:
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
    from ctray.pipeline.run import catalog_stage, open_run

    archive, _ = mixed_archive
    out = str(tmp_path / "run")
    run = open_run(str(archive), out, archive_config)
    catalog_stage(run, str(archive), archive_config)
    data = archive_config.model_dump(mode="json")
    data["train"]["seed"] = 5
    data["encoder"]["dropout"] = 0.2
    with pytest.raises(ConfigError, match=r"another encoder\.dropout, train\.seed; leave"):
        open_run(str(archive), out, parse_config(data))
    (tmp_path / "other").mkdir()
    with pytest.raises(ConfigError, match=r"is a run over .*archive"):
        open_run(str(tmp_path / "other"), out, archive_config)
    assert open_run(str(archive), out, archive_config).url == out
    # A run that was begun before there was a setting goes on with its default.
    manifest = store.read_json(run.manifest)
    del manifest["config"]["crop"]["snap_chunks"]
    store.write_json(run.manifest, manifest)
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
    ray_cpus: int,
    archive_config: RunConfig,
    as_trained: Callable[[RunFolder, RunConfig], None],
    write_tiff_folder: WriteFolder,
    tmp_path: Path,
    small_disk: Path,
) -> None:
    archive = tmp_path / "noisy"
    rng = np.random.default_rng(0)
    for i in range(3):
        # 512 KiB each that do not compress.
        noise = rng.integers(0, 2**16, (64, 64, 64), dtype=np.uint16)
        write_tiff_folder(archive / f"scan_{i}", noise)
    before = contents(archive)
    out = str(small_disk / "run")
    with pytest.raises(CtrayError, match="no space left") as caught:
        run_archive(str(archive), out, archive_config)
    assert "\n" not in str(caught.value)
    assert contents(archive) == before
    # No volume is to blame, so none has a receipt; with room the same command goes on.
    assert RunFolder(url=out).receipts() == []
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    as_trained(RunFolder(url=out), archive_config)
    _, receipts = run_archive(str(archive), out, archive_config)
    assert len(receipts) == 3
    assert "failed" not in status_counts(receipts)
