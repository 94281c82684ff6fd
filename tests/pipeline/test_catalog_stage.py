"""The first stage of a run: which volumes it covers, what it says of the rest, and their ids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from ctray.archive.catalog import Catalog, CatalogEntry, read_coverage
from ctray.config import RunConfig, override
from ctray.pipeline.choosing import keep_ids
from ctray.pipeline.run import catalog_stage, open_run
from ctray.pipeline.taking_up import take_up
from ctray.records.events import Event
from ctray.records.run_folder import RunFolder
from ctray.storage import store

VOLUME = np.arange(6 * 7 * 8, dtype=np.uint16).reshape(6, 7, 8)


def begin(archive: Path, out: Path) -> tuple[RunFolder, Catalog, list[Event]]:
    config, events = RunConfig(), list[Event]()
    run = open_run(str(archive), str(out), config)
    return run, catalog_stage(run, str(archive), config, events.append), events


def test_what_a_run_covers_is_told_and_kept(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    (archive / "gap").mkdir(parents=True)
    for z in (0, 1, 2, 4, 5):
        tifffile.imwrite(archive / "gap" / f"s_{z}.tif", VOLUME[z], photometric="minisblack")
    tifffile.imwrite(archive / "good.tif", VOLUME, photometric="minisblack")
    tifffile.imwrite(archive / "good_mask.tif", VOLUME, photometric="minisblack")
    tifffile.imwrite(archive / "photo.tif", VOLUME[0], photometric="minisblack")
    (archive / "v.ims").write_bytes(b"any")
    (archive / "bad.tif").write_bytes(b"words")
    run, catalog, events = begin(archive, tmp_path / "run")
    told = "\n".join(event.text for event in events if event.stays)
    for words in (
        "note on gap: 1 slices missing in the numbering (3)",
        "1 Imaris (.ims)",
        "photo.tif",
        "1 skipped because of names like masks or labels, such as good_mask.tif",
    ):
        assert words in told
    assert store.read_json(run.manifest)["coverage"] == {
        "volumes": 2,
        "failed": 1,
        "excluded": 1,
        "without_volume": 1,
        "other_formats": {"Imaris (.ims)": 1},
    }
    assert read_coverage(run.catalog) == catalog.coverage
    receipt = run.read_receipt("bad")
    assert receipt is not None
    assert receipt.status == "failed"
    # Once more, over the same: nothing is written anew, and the run is taken up.
    before = Path(run.manifest).stat().st_mtime_ns
    begin(archive, tmp_path / "run")
    assert Path(run.manifest).stat().st_mtime_ns == before


def test_volumes_that_come_later_leave_ids_as_they_are(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    tifffile.imwrite(archive / "Ant.tif", VOLUME, photometric="minisblack")
    tifffile.imwrite(archive / "a b.tif", VOLUME, photometric="minisblack")
    _, first, _ = begin(archive, tmp_path / "run")
    assert [e.volume_id for e in first] == ["a_b", "Ant"]
    for name in ("ant", "a_b", "A_B", "a_b_2"):
        tifffile.imwrite(archive / f"{name}.tif", VOLUME, photometric="minisblack")
    _, second, _ = begin(archive, tmp_path / "run")
    ids = {e.url: e.volume_id for e in second}
    assert {e.url: e.volume_id for e in first}.items() <= ids.items()
    assert len({i.casefold() for i in ids.values()}) == 6


def test_other_settings_of_crops_leave_the_coverage_in_the_run(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    tifffile.imwrite(archive / "good.tif", VOLUME, photometric="minisblack")
    run, _, _ = begin(archive, tmp_path / "run")
    before = store.read_json(run.manifest)["coverage"]
    take_up(run, override(RunConfig(), ("crop.margin=0.1",)))
    after = store.read_json(run.manifest)
    assert after["config"]["crop"]["margin"] == 0.1
    assert after["coverage"] == before


@pytest.mark.parametrize("mended", [True, False])
def test_volume_that_is_mended_or_breaks_keeps_its_id(mended: bool) -> None:
    bad = CatalogEntry(volume_id="scan", url="/a/scan.h5", kind="hdf5", status="failed", reason="x")
    good = CatalogEntry(volume_id="scan", url="/a/scan.h5", kind="hdf5", dataset="/entry/data")
    before, after = (bad, good) if mended else (good, bad)
    assert keep_ids([before], [after]) == (after,)
    other = CatalogEntry(volume_id="scan", url="/a/scan.h5", kind="hdf5", dataset="/other")
    assert keep_ids([good], [other])[0].volume_id == "scan_2", "another dataset, another volume"
