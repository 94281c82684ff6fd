"""What a later command makes of a run: other settings, sources that changed, damaged receipts.

Volumes are worked on in this process, by what the actors of the pool run.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner
from numpy.typing import NDArray

from ctray.archive.catalog import CatalogEntry, read_catalog
from ctray.cli.main import cli
from ctray.config import Binds, RunConfig, load_config, override, parse_config, settings_digest
from ctray.core.errors import ConfigError, CtrayError, RunInUseError
from ctray.core.geometry import AXES, AxisFaces, Box
from ctray.core.processes import this_process
from ctray.executors.ray.leftovers import remove_leftovers, scratch_folder
from ctray.localization.dropout_map import UncertaintyMap
from ctray.localization.localizer import Localization, PreparedVolume
from ctray.localization.profile_faces import FacePair
from ctray.localization.promise import calibration_of
from ctray.localization.self_trained import SelfTrainedFaces
from ctray.phantom import Phantom
from ctray.pipeline.cropping import Cut, is_open
from ctray.pipeline.run import catalog_stage, open_run
from ctray.pipeline.taking_up import settings_for, take_up
from ctray.pipeline.verifying import verify_run
from ctray.pipeline.volume_work import (
    LocalizeVolume,
    PreparedRecord,
    PrepareVolume,
    ensure_imported,
)
from ctray.records.box_table import write_localizations
from ctray.records.receipt_list import iter_receipts
from ctray.records.receipt_query import query_receipts
from ctray.records.run_folder import LOCK, RunFolder
from ctray.records.run_lock import hold_run
from ctray.records.run_manifest import read_manifest
from ctray.records.volume_record import VolumeRecord
from ctray.report import write_report
from ctray.storage import store
from ctray.volumes.volume import open_volume
from ctray.volumes.writer import create_volume

SIDE = 32
NAMES = ("a", "b")


@pytest.fixture
def config(config_of: Callable[..., RunConfig]) -> RunConfig:
    """Those of `trained_url`, with boxes in every volume."""
    return config_of(
        preprocess={"working_size": SIDE},
        encoder={"widths": [12, 24, 32], "embedding_dim": 32, "pool_grid": 4, "dropout": 0.0},
        train={
            "steps": 400,
            "batch_size": 32,
            "run_length": 32,
            "interleave": 8,
            "log_every": 50,
            "learning_rate": 3e-3,
        },
        localize={"orientations": 1, "threshold": "otsu", "min_peak": 0.0},
    )


@pytest.fixture
def archive(tmp_path: Path, held_out: list[Phantom]) -> Path:
    folder = tmp_path / "archive"
    folder.mkdir()
    for name, phantom in zip(NAMES, held_out, strict=False):
        tifffile.imwrite(folder / f"{name}.tif", phantom.volume)
    return folder


@pytest.fixture
def run(tmp_path: Path, archive: Path, config: RunConfig, trained_url: str) -> RunFolder:
    """Trained, with a catalog and nothing localized."""
    run = open_run(str(archive), str(tmp_path / "run"), config)
    catalog_stage(run, str(archive), config)
    shutil.copytree(trained_url, run.checkpoint)
    return run


def localize(run: RunFolder, config: RunConfig, *, crop: bool = True) -> list[str]:
    """Do what is left to do, as the stage does; ids of the volumes that were worked on."""
    cut = Cut.of(run, config)
    worker = LocalizeVolume(run, config, crop, 1)
    todo = [
        e
        for e in read_catalog(run.catalog)
        if is_open(run.receipt_or_failure(e.volume_id), crop, cut)
    ]
    for entry in todo:
        done = worker(entry)
        assert not isinstance(done, CtrayError)
        assert done.status == "located", done.reason
    return [entry.volume_id for entry in todo]


def receipt_of(run: RunFolder, name: str) -> VolumeRecord:
    receipt = run.read_receipt(name)
    assert receipt is not None
    return receipt


def crop_of(run: RunFolder, name: str) -> tuple[Box, NDArray[Any]]:
    receipt = receipt_of(run, name)
    assert receipt.crop_url is not None
    return receipt.crop_boxes[0], open_volume(receipt.crop_url).read_level(0)


def check_crops(run: RunFolder, archive: Path) -> None:
    for name in NAMES:
        box, voxels = crop_of(run, name)
        np.testing.assert_array_equal(voxels, tifffile.imread(archive / f"{name}.tif")[box.slices])
    assert [c.problem for c in verify_run(run, sources=True)] == [None] * len(NAMES)


# --- other settings -------------------------------------------------------------------------


def test_what_moves_a_box_is_refused_once_there_are_boxes(
    run: RunFolder, config: RunConfig
) -> None:
    training = override(config, ("train.seed=5",))
    with pytest.raises(ConfigError, match=r"another train\.seed; leave that out"):
        take_up(run, training)
    # Nothing is localized: what boxes alone depend on may still change, and is kept.
    take_up(run, override(config, ("self_train.min_peak=2.5",)))
    kept = read_manifest(run)
    assert kept is not None
    assert kept.config.self_train.min_peak == 2.5
    localize(run, kept.config)
    with pytest.raises(ConfigError, match=r"another self_train\.min_peak; leave that out"):
        take_up(run, config)


def test_another_margin_cuts_all_crops_again(
    run: RunFolder, archive: Path, config: RunConfig
) -> None:
    assert localize(run, config) == list(NAMES)
    assert localize(run, config) == []
    before = {name: receipt_of(run, name) for name in NAMES}
    wider = override(config, ("crop.margin=0.2",))
    take_up(run, wider)
    assert localize(run, wider) == list(NAMES)
    for name in NAMES:
        after = receipt_of(run, name)
        assert after.sample_box == before[name].sample_box
        assert after.profiles == before[name].profiles
        assert after.crop_boxes[0].contains(before[name].crop_boxes[0])
        assert after.checksum != before[name].checksum
    check_crops(run, archive)
    # From then on they are those of the run.
    again = settings_for(run.url, parse_config({}))
    assert again.crop.margin == 0.2
    assert localize(run, again) == []


def test_surround_is_kept_by_every_command_once_it_was_asked_for(
    run: RunFolder, config: RunConfig
) -> None:
    localize(run, config)
    surround = override(config, ("crop.keep_surround=true", "crop.surround_size=8"))
    take_up(run, surround)
    assert localize(run, surround) == list(NAMES)
    assert "surround" in open_volume(run.crop("a")).attributes
    later = settings_for(run.url, load_config(None))
    assert later.crop.keep_surround
    assert localize(run, later) == []


def test_cutting_again_that_is_killed_in_between_is_finished(
    run: RunFolder, archive: Path, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    localize(run, config)
    wider = override(config, ("crop.margin=0.2",))
    take_up(run, wider)
    worker = LocalizeVolume(run, wider, True, 1)

    class Killed(BaseException):
        pass

    def kill(*args: Any, **kwargs: Any) -> None:
        raise Killed

    entry = read_catalog(run.catalog)[0]
    with monkeypatch.context() as patch:
        patch.setattr("ctray.pipeline.cropping.write_crop", kill)
        with pytest.raises(Killed):
            worker(entry)
    # Neither a receipt that names a crop that is gone, nor the old crop.
    assert receipt_of(run, "a").crops == [None]
    assert [c.volume_id for c in verify_run(run)] == ["b"]
    assert localize(run, wider) == list(NAMES)
    check_crops(run, archive)


def test_crop_that_no_receipt_names_is_taken_only_if_it_is_the_same(
    run: RunFolder, archive: Path, config: RunConfig
) -> None:
    localize(run, config)
    box = receipt_of(run, "a").sample_box
    assert box is not None
    Path(run.receipt("a")).unlink()
    before = Path(run.crop("a"), "zarr.json").stat().st_mtime_ns
    localize(run, config)
    assert Path(run.crop("a"), "zarr.json").stat().st_mtime_ns == before, "it was finished"
    # One of another box, as a run leaves it that was killed before its receipt.
    metadata = store.read_json(store.join(run.crop("a"), "zarr.json"))
    metadata["attributes"]["ctray"]["sample_box"] = [[0, 1], [0, 1], [0, 1]]
    store.write_json(store.join(run.crop("a"), "zarr.json"), metadata)
    Path(run.receipt("a")).unlink()
    localize(run, config)
    assert open_volume(run.crop("a")).attributes["sample_box"] == box.ranges
    check_crops(run, archive)


def test_settings_of_the_run_are_taken_where_none_are_given(
    run: RunFolder, config: RunConfig, tmp_path: Path
) -> None:
    assert settings_for(run.url, load_config(None)) == config
    given = load_config(None, ("pool.max_size=7",))
    assert settings_for(run.url, given) == override(config, ("pool.max_size=7",))
    assert load_config(run.manifest) == config
    assert settings_for(run.url, load_config(run.manifest)) == config
    # Where it is for and how its cluster is asked for is never the run's.
    job = load_config(None, ("job.run=/there", "kube.cpu_nodes=3"))
    assert settings_for(run.url, job).job.run == "/there"
    assert settings_for(str(tmp_path / "new"), given) == given


def test_how_work_is_done_is_not_kept(run: RunFolder, config: RunConfig) -> None:
    before = Path(run.manifest).stat().st_mtime_ns
    take_up(run, override(config, ("pool.max_size=7", "train.num_readers=5", "ray.num_cpus=3")))
    assert Path(run.manifest).stat().st_mtime_ns == before


def test_choice_of_volumes_may_change(run: RunFolder, config: RunConfig) -> None:
    take_up(run, override(config, ("catalog.exclude=[b*]",)))
    kept = read_manifest(run)
    assert kept is not None
    assert kept.config.catalog.exclude == ("b*",)
    assert settings_digest(kept.config, Binds.CROP) == settings_digest(config, Binds.CROP)


# --- faces that were too open -----------------------------------------------------------------


def too_open(run: RunFolder, name: str, config: RunConfig) -> VolumeRecord:
    """Give a located volume faces that are more open than the calibration knows."""
    located = replace(receipt_of(run, name), scales=AxisFaces.of([0.7 * SIDE] * 6))
    receipt = Cut.of(run, config).decide(located)
    assert receipt.status == "uncertain"
    assert "open over 70% of its axis" in str(receipt.reason)
    run.write_receipt(receipt)
    return receipt


@pytest.mark.parametrize("how", ["margin", "calibration"])
def test_volume_with_a_face_too_open_is_decided_anew_from_its_receipt(
    run: RunFolder, config: RunConfig, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    localize(run, config, crop=False)
    before = too_open(run, "a", config)
    # Another reason to doubt is none that a margin takes away.
    doubt = replace(receipt_of(run, "b"), status="uncertain", reason="two boxes", promise=None)
    run.write_receipt(doubt)
    assert localize(run, config) == []
    if how == "margin":
        config = override(config, ("crop.margin=0.2",))
        take_up(run, config)
    else:
        wide = replace(calibration_of(run), largest_scale=0.8)
        store.write_json(run.calibration, wide.to_json())

    def no(*_: Any) -> None:
        raise AssertionError("its box is known")

    monkeypatch.setattr("ctray.localization.localizer.Localizer.localize", no)
    assert localize(run, config, crop=False) == ["a"]
    located = receipt_of(run, "a")
    assert (located.status, located.reason, located.crop_url) == ("located", None, None)
    assert located.promise == ("fixed margin" if how == "margin" else "not calibrated")
    assert (located.sample_box, located.profiles) == (before.sample_box, before.profiles)
    assert localize(run, config) == ["a"]
    assert receipt_of(run, "a").crop_url == run.crop("a")
    assert localize(run, config) == []
    assert receipt_of(run, "b") == doubt


def test_volume_with_a_face_too_open_is_localized_anew_if_its_source_has_changed(
    run: RunFolder, archive: Path, config: RunConfig, held_out: list[Phantom]
) -> None:
    localize(run, config, crop=False)
    too_open(run, "a", config)
    other_voxels(archive, held_out)
    wider = override(config, ("crop.margin=0.2",))
    take_up(run, wider)
    assert localize(run, wider) == list(NAMES)
    assert receipt_of(run, "a").scales is None
    check_crops(run, archive)


# --- sources that change --------------------------------------------------------------------


def other_voxels(archive: Path, held_out: list[Phantom]) -> None:
    """A better reconstruction of scan a, in its place."""
    tifffile.imwrite(archive / "a.tif", held_out[2].volume[::-1])


def test_source_that_changed_before_its_crop_is_localized_anew(
    run: RunFolder, archive: Path, config: RunConfig, held_out: list[Phantom]
) -> None:
    localize(run, config, crop=False)
    before = {name: receipt_of(run, name) for name in NAMES}
    other_voxels(archive, held_out)
    assert localize(run, config) == list(NAMES)
    assert receipt_of(run, "a").profiles != before["a"].profiles
    assert receipt_of(run, "b").profiles == before["b"].profiles
    check_crops(run, archive)


def test_source_that_changed_after_its_import_is_imported_again(
    run: RunFolder, archive: Path, config: RunConfig, held_out: list[Phantom]
) -> None:
    """As after an import for training, days before the boxes."""
    entry = read_catalog(run.catalog)[0]
    url = ensure_imported(entry, run, config)
    imported = Path(url, "zarr.json").stat().st_mtime_ns
    ensure_imported(entry, run, config)
    assert Path(url, "zarr.json").stat().st_mtime_ns == imported
    other_voxels(archive, held_out)
    localize(run, config)
    np.testing.assert_array_equal(
        open_volume(url).read_level(0), tifffile.imread(archive / "a.tif")
    )
    check_crops(run, archive)


def flat_voxels(archive: Path) -> None:
    """A reconstruction of scan a that went wrong, in its place."""
    tifffile.imwrite(archive / "a.tif", np.zeros((SIDE,) * 3, np.uint8))


def test_pictures_of_a_source_that_has_changed_are_not_kept(
    run: RunFolder, archive: Path, config: RunConfig
) -> None:
    localize(run, config, crop=False)
    assert run.read_preview("a")
    flat_voxels(archive)
    done = LocalizeVolume(run, config, True, 1)(read_catalog(run.catalog)[0])
    assert isinstance(done, VolumeRecord)
    assert done.status == "empty"
    assert run.read_preview("a") == {}


def test_levels_that_were_kept_for_training_are_not_those_of_what_came_later(
    tmp_path: Path, config: RunConfig, trained_url: str, held_out: list[Phantom]
) -> None:
    """A Zarr volume without a pyramid, written anew in the same shape between the two stages."""
    config = override(config, ("pool.write_pyramid=true",))

    def write(phantom: Phantom) -> None:
        # Four voxels for each: coarse enough for its levels to be kept.
        voxels = phantom.volume.repeat(4, 0).repeat(4, 1).repeat(4, 2)
        store.delete_tree(str(tmp_path / "archive" / "a.zarr"))
        writer = create_volume(
            str(tmp_path / "archive" / "a.zarr"),
            shape=voxels.shape,
            dtype=voxels.dtype,
            voxel_size=None,
            num_levels=1,
        )
        writer.write(Box.whole(voxels.shape), voxels)
        writer.commit({})

    def begin(name: str) -> tuple[RunFolder, CatalogEntry]:
        found = open_run(str(tmp_path / "archive"), str(tmp_path / name), config)
        (entry,) = catalog_stage(found, str(tmp_path / "archive"), config).entries
        shutil.copytree(trained_url, found.checkpoint)
        return found, entry

    write(held_out[0])
    run, entry = begin("run")
    prepared = PrepareVolume(run, config)(entry)
    assert isinstance(prepared, PreparedRecord)
    assert prepared.failed is None
    kept = open_volume(run.pyramid("a")).read_level(0)
    write(held_out[2])
    LocalizeVolume(run, config, False, 1)(entry)

    fresh, entry = begin("fresh")
    LocalizeVolume(fresh, config, False, 1)(entry)
    ours, theirs = receipt_of(run, "a"), receipt_of(fresh, "a")
    assert ours.sample_box is not None
    assert (ours.sample_box, ours.profiles) == (theirs.sample_box, theirs.profiles)
    assert not np.array_equal(open_volume(run.pyramid("a")).read_level(0), kept)


def specimens_of(*parts: Box) -> tuple[SelfTrainedFaces, ...]:
    def faces(box: Box) -> dict[str, FacePair | None]:
        return {
            name: FacePair(
                start=float(a), stop=float(b), widths=(0.5, 0.5), thresholds=(-1.0, -1.0)
            )
            for name, (a, b) in zip(AXES, box.ranges, strict=True)
        }

    flat = dict.fromkeys(AXES, np.zeros(SIDE))
    shape = (SIDE,) * 3
    return tuple(
        SelfTrainedFaces(profiles=flat, faces=faces(part), factors=(1, 1, 1), shape=shape)
        for part in parts
    )


def localize_as(
    run: RunFolder, config: RunConfig, level: float, *parts: Box
) -> tuple[VolumeRecord, set[str]]:
    """Localize scan a, which then holds specimens in `parts`, and whose map is all `level`.

    Its receipt, and the names of all crops.
    """
    take_up(run, config)
    worker = LocalizeVolume(run, config, True, 1)
    localizer = worker._localizer
    real = localizer.find
    values = np.full((4, 4, 4), level, np.float32)
    uncertainty = UncertaintyMap(values=values, cell=(8, 8, 8), offset=(0, 0, 0), scale=1.0, axis=0)

    def planted(volume: PreparedVolume) -> Localization:
        found = replace(real(volume), uncertainty=uncertainty)
        return replace(found, specimens=specimens_of(*parts)) if parts else found

    localizer.find = planted  # type: ignore[method-assign]
    done = worker(read_catalog(run.catalog)[0])
    assert isinstance(done, VolumeRecord)
    assert done.status == "located", done.reason
    return done, {path.name for path in Path(run.at("crops")).iterdir()}


def test_specimens_that_a_changed_source_no_longer_holds_leave_no_crops(
    run: RunFolder, archive: Path, config: RunConfig, held_out: list[Phantom]
) -> None:
    parts = [Box(start=(n, n, n), stop=(n + 6, n + 6, n + 6)) for n in (2, 12, 22)]
    first, crops = localize_as(run, config, 1.0, *parts)
    assert crops == {"a-1.zarr", "a-2.zarr", "a-3.zarr"}
    other_voxels(archive, held_out)
    wider = override(config, ("crop.margin=0.2",))

    second, crops = localize_as(run, wider, 2.0, *parts[:2])

    assert crops == {"a-1.zarr", "a-2.zarr"}
    assert second.source != first.source
    assert [c.problem for c in verify_run(run, sources=True)] == [None, None]
    assert (open_volume(str(second.map_url)).read_level(0) == 2).all()
    # One specimen, and a run that was killed before its receipt told of the two.
    Path(run.receipt("a")).unlink()
    third, crops = localize_as(run, wider, 3.0)
    assert crops == {"a.zarr"}
    assert third.specimens is None
    # Nothing takes the place of a crop where its volume cannot be read any more.
    (archive / "a.tif").write_bytes(b"II*\0 and no more")
    widest = override(config, ("crop.margin=0.3",))
    take_up(run, widest)
    failed = LocalizeVolume(run, widest, True, 1)(read_catalog(run.catalog)[0])
    assert isinstance(failed, VolumeRecord)
    assert failed.status == "failed"
    assert Path(run.crop("a"), "zarr.json").exists()
    assert run.read_preview("a") == {}
    # Empty is a result.
    flat_voxels(archive)
    Path(run.receipt("a")).unlink()
    empty = LocalizeVolume(run, widest, True, 1)(read_catalog(run.catalog)[0])
    assert isinstance(empty, VolumeRecord)
    assert empty.status == "empty"
    assert list(Path(run.at("crops")).iterdir()) == []
    assert not Path(run.map("a")).exists()


def test_crop_of_another_volume_is_never_removed(
    run: RunFolder, archive: Path, config: RunConfig
) -> None:
    """Its id is what the crop of a second specimen would be called."""
    shutil.copy(archive / "b.tif", archive / "a-2.tif")
    catalog_stage(run, str(archive), config)
    assert sorted(localize(run, config)) == ["a", "a-2", "b"]
    Path(run.receipt("a")).unlink()
    assert localize(run, config) == ["a"]
    assert {path.name for path in Path(run.at("crops")).iterdir()} == {
        *("a.zarr", "a-2.zarr", "b.zarr")
    }
    assert [c.problem for c in verify_run(run)] == [None] * 3


def test_source_that_changed_after_its_crop_is_told_by_verify(
    run: RunFolder, archive: Path, config: RunConfig, held_out: list[Phantom]
) -> None:
    localize(run, config)
    other_voxels(archive, held_out)
    checks = list(verify_run(run, sources=True))
    assert "voxels differ from source" in str(checks[0].problem)
    assert checks[1].problem is None


def test_source_that_is_gone_is_done_from_its_import(
    run: RunFolder, archive: Path, config: RunConfig
) -> None:
    localize(run, config, crop=False)
    (archive / "a.tif").unlink()
    assert localize(run, config) == list(NAMES)
    told = {c.volume_id: str(c.problem) for c in verify_run(run, sources=True)}
    assert told["a"].startswith("source is missing")


# --- what is damaged ------------------------------------------------------------------------

DAMAGED: dict[str, bytes] = {
    "cut off": b'{"volume_id": "a", "sta',
    "empty": b"",
    "list": b"[1, 2]",
    "number": b"17",
    "null": b"null",
    "deep": b"[" * 100_000,
    "deep inside": b'{"volume_id": "a", "profiles": ' + b'{"z":' * 100_000,
    "huge": b'{"volume_id": "' + b"a" * (33 * 2**20) + b'"}',
    "no text": b"\xff\xfe\x00",
    "of another": b'{"volume_id": "b", "source_url": "x", "status": "empty"}',
    "wrong type": b'{"volume_id": "a", "source_url": "x", "status": "empty", "shape": "big"}',
    "wrong status": b'{"volume_id": "a", "source_url": "x", "status": "fine"}',
    "box of text": b'{"volume_id": "a", "source_url": "x", "status": "located", "sample_box": "z"}',
    "box of two": b'{"volume_id": "a", "source_url": "x", "status": "located", '
    b'"sample_box": [[1, 2], [3, 4]]}',
    "box turned": b'{"volume_id": "a", "source_url": "x", "status": "located", '
    b'"sample_box": [[9, 2], [1, 4], [1, 4]]}',
    "specimen": b'{"volume_id": "a", "source_url": "x", "status": "located", "specimens": [7]}',
    "five faces": b'{"volume_id": "a", "source_url": "x", "status": "located", '
    b'"scales": [1, 2, 3, 4, 5]}',
    "infinite": b'{"volume_id": "a", "source_url": "x", "status": "located", '
    b'"scales": [1, 2, 3, 4, 5, Infinity]}',
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged_receipt_costs_itself_alone(damage: bytes, tmp_path: Path) -> None:
    """In verify, receipts, the table, the page, and in what a rerun does."""
    run = RunFolder(url=str(tmp_path / "run"))
    store.write_json(run.manifest, {"archive": "/archive", "config": {}})
    run.write_receipt(VolumeRecord(volume_id="b", source_url="/b", status="empty"))
    path = Path(run.receipt("a"))
    path.write_bytes(damage)

    (check,) = verify_run(run, sources=True)
    assert "receipts/a.json" in str(check.problem)
    assert "\n" not in str(check.problem)
    rows = list(query_receipts(run))
    assert [(row["volume_id"], row["status"]) for row in rows] == [
        ("a", "unreadable"),
        ("b", "empty"),
    ]
    found = dict(iter_receipts(run, ["a", "b"]))
    assert found["a"] is not None
    assert found["a"].status == "failed"
    assert "delete it to do the volume anew" in str(found["a"].reason)
    cut = Cut.of(RunFolder(url=str(tmp_path / "none")), RunConfig())
    assert not is_open(found["a"], True, cut)
    write_localizations(run.localizations, run.receipts())
    assert "its receipt cannot be read" in Path(write_report(run)).read_text()
    assert path.read_bytes() == damage, "nobody overwrites it"


@pytest.mark.parametrize("data", ["[]", "7", "{}", '{"archive": 3, "config": {}}', "[" * 10_000])
def test_damaged_manifest_is_named(run: RunFolder, config: RunConfig, data: str) -> None:
    Path(run.manifest).write_text(data)
    for call in (lambda: read_manifest(run), lambda: settings_for(run.url, config)):
        with pytest.raises(CtrayError, match=r"run\.json"):
            call()


def test_manifest_with_settings_that_are_none_is_named(run: RunFolder) -> None:
    Path(run.manifest).write_text('{"archive": "/a", "config": {"train": {"steps": "many"}}}')
    with pytest.raises(ConfigError, match=r"run\.json: train\.steps"):
        read_manifest(run)


@pytest.mark.parametrize("data", ["[]", "7", "{}", '{"scores": 3}', "[" * 10_000, "{"])
def test_damaged_calibration_is_named(run: RunFolder, data: str) -> None:
    Path(run.calibration).write_text(data)
    with pytest.raises(CtrayError, match=r"calibration\.json"):
        calibration_of(run)


@pytest.mark.parametrize("data", [b"", b"PAR1", b"[]", os.urandom(500)])
def test_damaged_catalog_is_named(run: RunFolder, data: bytes) -> None:
    Path(run.catalog).write_bytes(data)
    with pytest.raises(CtrayError, match=r"catalog\.parquet"):
        read_catalog(run.catalog)


# --- two processes --------------------------------------------------------------------------


def test_second_command_on_a_run_is_refused_by_name(
    run: RunFolder, archive: Path, config: RunConfig
) -> None:
    """Commands that write into it; those that only look at it work."""
    code = (
        "import sys, time; from ctray.records.run_lock import hold_run\n"
        "with hold_run(sys.argv[1]): print('held', flush=True); time.sleep(100)"
    )
    words = [sys.executable, "-c", code, run.url]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            for command in (
                ["localize", run.url],
                ["crop", run.url],
                ["run", str(archive), "--out", run.url],
                ["pretrain", str(archive), "--out", run.url],
                ["archive", str(archive), "--out", run.url, "--yes"],
                ["evaluate", run.url, "--truth", str(archive)],
                ["calibrate", run.url, "--truth", str(archive)],
            ):
                refused = CliRunner().invoke(cli, command)
                assert refused.exit_code == 1, command
                assert f"in use by process {holder.pid} on " in refused.stderr, command
            for command in (["receipts", run.url], ["verify", run.url], ["report", run.url]):
                assert CliRunner().invoke(cli, command).exit_code == 0, command
        finally:
            holder.kill()


def work(run: RunFolder, config: RunConfig, ready: Any) -> None:
    """A process that does what a command does, begun at once with the other."""
    if ready is not None:
        ready.wait()
    try:
        with hold_run(run.url):
            localize(run, config)
    except RunInUseError:
        os._exit(4)


@pytest.mark.slow
def test_two_processes_and_a_kill_leave_a_run_that_is_right(
    run: RunFolder, archive: Path, config: RunConfig
) -> None:
    """One of the two works, the other is refused; whichever is killed, a rerun finishes."""
    # Forked from one process that has loaded torch, not loaded anew by each of the nine.
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["ctray.pipeline.volume_work"])
    for round_, waited_for in enumerate((None, "imported", "crops")):
        for folder in ("receipts", "crops", "imported", "previews"):
            shutil.rmtree(Path(run.url) / folder, ignore_errors=True)
        ready = server.Barrier(2)
        both = [server.Process(target=work, args=(run, config, ready)) for _ in range(2)]
        for process in both:
            process.start()
        if waited_for is not None:
            while not (Path(run.url) / waited_for).exists():
                assert any(process.is_alive() for process in both)
                time.sleep(0.001)
            time.sleep(0.02 * round_)
            holder = json.loads((Path(run.url) / LOCK).read_bytes())["process"]["pid"]
            next(process for process in both if process.pid == holder).kill()
        for process in both:
            process.join()
        assert sorted(p.exitcode or 0 for p in both) == ([0, 4] if waited_for is None else [-9, 4])
        final = server.Process(target=work, args=(run, config, None))
        final.start()
        final.join()
        assert final.exitcode == 0
        check_crops(run, archive)
        assert not list(Path(run.url).rglob("*.partial"))


# --- folders of processes that were killed --------------------------------------------------


def test_folder_of_a_killed_process_is_removed_by_the_next(tmp_path: Path) -> None:
    code = (
        "import sys, time; from ctray.executors.ray.leftovers import scratch_folder\n"
        "with scratch_folder('ctray-ray-', sys.argv[1]) as f:\n"
        "    open(f + '/session', 'w').write('x'); print(f, flush=True); time.sleep(100)"
    )
    words = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        left = Path(owner.stdout.readline().strip())
        with scratch_folder("ctray-ray-", str(tmp_path)):
            assert (left / "session").exists(), "its process is alive"
        owner.kill()
    (tmp_path / "ctray-ray-being-made").mkdir()
    (tmp_path / "ctray-ray-old").mkdir()
    os.utime(tmp_path / "ctray-ray-old", (1, 1))
    (tmp_path / "others").mkdir()
    with scratch_folder("ctray-ray-", str(tmp_path)) as mine:
        names = {p.name for p in tmp_path.iterdir()}
        assert names == {Path(mine).name, "ctray-ray-being-made", "others"}
        assert json.loads((Path(mine) / "ctray-owner.json").read_text())["pid"] == os.getpid()
    assert not Path(mine).exists()


def test_folder_that_a_worker_still_uses_is_waited_for_and_stays(tmp_path: Path) -> None:
    left = Path(tempfile.mkdtemp(prefix="ctray-ray-", dir=tmp_path))
    dead = replace(this_process(), started="1")
    (left / "ctray-owner.json").write_text(json.dumps(asdict(dead)))
    with (left / "log").open("wb") as log:
        worker = subprocess.Popen(["sleep", "100"], stdout=log)
    try:
        remove_leftovers("ctray-ray-", tmp_path, patience_s=0.3)
        assert left.exists()
    finally:
        worker.kill()
        worker.wait()
    remove_leftovers("ctray-ray-", tmp_path, patience_s=0.3)
    assert not left.exists()


def test_workers_of_a_killed_process_are_ended_before_a_new_one_begins(tmp_path: Path) -> None:
    """They could write beside its own."""
    left = Path(tempfile.mkdtemp(prefix="ctray-ray-", dir=tmp_path))
    dead = replace(this_process(), started="1")
    (left / "ctray-owner.json").write_text(json.dumps(asdict(dead)))
    program = tmp_path / "ray" / "default_worker.py"
    program.parent.mkdir()
    program.write_text("import time; time.sleep(100)")
    with (left / "log").open("wb") as log:
        worker = subprocess.Popen([sys.executable, str(program)], stdout=log)
    remove_leftovers("ctray-ray-", tmp_path, patience_s=0.1)
    assert worker.wait(timeout=10) == -signal.SIGKILL
    assert not left.exists()
