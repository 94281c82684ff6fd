"""Crops follow the settings of the day until they are written, and then say what cut them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from ctray.archive.catalog import CatalogEntry, build_catalog, write_catalog
from ctray.config import RunConfig, override
from ctray.learn.pretext.checkpoint import load_model
from ctray.phantom import Phantom
from ctray.pipeline.volume_work import LocalizeVolume
from ctray.records.run_folder import RunFolder
from ctray.records.volume_record import VolumeRecord
from ctray.storage import store
from ctray.volumes.volume import open_volume
from ctray.volumes.writer import create_volume


@pytest.fixture
def localized(
    trained_url: str, held_out: list[Phantom], tmp_path: Path
) -> tuple[RunFolder, CatalogEntry, RunConfig]:
    """A run with the receipt of one volume that is located and not cropped."""
    voxels = held_out[0].volume
    writer = create_volume(
        str(tmp_path / "archive" / "a.zarr"),
        shape=voxels.shape,
        dtype=voxels.dtype,
        voxel_size=None,
    )
    for box in writer.grid.shards():
        writer.write(box, voxels[box.slices])
    writer.build_pyramid()
    writer.commit({})
    run = RunFolder(url=str(tmp_path / "run"))
    shutil.copytree(trained_url, run.checkpoint)
    config = load_model(run.checkpoint).config
    told = {"archive": str(tmp_path / "archive"), "config": config.model_dump(mode="json")}
    store.write_json(run.manifest, told)
    (entry,) = build_catalog(str(tmp_path / "archive")).entries
    write_catalog([entry], run.catalog)
    receipt = work(run, entry, config, crop=False)
    assert (receipt.status, receipt.promise) == ("located", "not calibrated")
    assert receipt.crop_url is None
    return run, entry, config


def work(run: RunFolder, entry: CatalogEntry, config: RunConfig, crop: bool = True) -> VolumeRecord:
    receipt = LocalizeVolume(run, config, crop, 1)(entry)
    assert isinstance(receipt, VolumeRecord)
    assert receipt == run.read_receipt(entry.volume_id)
    return receipt


def test_margin_may_change_and_the_crop_is_cut_again(
    localized: tuple[RunFolder, CatalogEntry, RunConfig],
) -> None:
    run, entry, config = localized
    wide = override(config, ("crop.margin=0.25",))
    receipt = work(run, entry, wide)
    # A quarter of 32 voxels.
    assert (receipt.promise, receipt.margins) == ("fixed margin", (8,) * 6)
    assert receipt.sample_box is not None
    assert receipt.asked_box == receipt.sample_box.expand(8, (32, 32, 32))
    again = work(run, entry, config)
    assert (again.promise, again.margins) == ("not calibrated", (2,) * 6)


def test_crop_of_an_interrupted_run_says_itself_how_it_was_cut(
    localized: tuple[RunFolder, CatalogEntry, RunConfig],
) -> None:
    """The crop is finished, and its receipt was never written."""
    run, entry, config = localized
    before = run.read_receipt(entry.volume_id)
    assert before is not None
    first = work(run, entry, config)
    run.write_receipt(before)

    receipt = work(run, entry, config)

    assert replace(receipt, seconds=0, bytes_read=0) == replace(first, seconds=0, bytes_read=0)
    told = open_volume(str(receipt.crop_url)).attributes
    assert told["promise"] == receipt.promise
    assert tuple(told["margins"]) == receipt.margins
