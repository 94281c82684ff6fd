"""A whole run over an archive of odd names and formats: nothing ends it, nothing goes unsaid."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from ctray.config import RunConfig
from ctray.engine.archive import open_run, run_archive
from ctray.engine.events import Event
from ctray.phantom import Phantom
from ctray.report import write_report
from ctray.storage import store
from ctray.storage.box_table import read_localizations
from ctray.storage.catalog import read_catalog, read_coverage
from ctray.storage.run_folder import RunFolder
from ctray.storage.volume import open_volume
from ctray.storage.volume_ids import MAX_BYTES

pytestmark = pytest.mark.ray


@pytest.fixture
def odd_archive(tmp_path: Path, phantom_of: Callable[..., Phantom]) -> tuple[Path, np.ndarray]:
    folder = tmp_path / "beamtime"
    folder.mkdir()
    volume = phantom_of(0, 24).volume
    for name in ("昆虫の標本", "x" * 240, "A b", "a_b", "-n*"):
        tifffile.imwrite(folder / f"{name}.tif", volume, photometric="minisblack")
    (folder / "raw\x1b[2J").mkdir()
    (folder / "raw\x1b[2J" / "v.raw").write_bytes(volume.tobytes())
    kind = {"uint8": "MET_UCHAR", "uint16": "MET_USHORT", "float32": "MET_FLOAT"}[str(volume.dtype)]
    z, y, x = volume.shape
    (folder / "raw\x1b[2J" / "v.mhd").write_text(
        f"ObjectType = Image\nNDims = 3\nDimSize = {x} {y} {z}\nElementType = {kind}\n"
        "ElementSpacing = 0.002 0.002 0.002\nElementDataFile = v.raw\n"
    )
    (folder / "gap").mkdir()
    for i, plane in enumerate(volume):
        if i != 20:
            tifffile.imwrite(folder / "gap" / f"s_{i:02d}.tif", plane, photometric="minisblack")
    (folder / "v.ims").write_bytes(b"any")
    tifffile.imwrite(folder / "photo.tif", volume[0], photometric="minisblack")
    return folder, volume


def test_every_name_comes_through_and_what_is_not_read_is_told(
    ray_cpus: int,
    odd_archive: tuple[Path, np.ndarray],
    archive_config: RunConfig,
    as_trained: Callable[[RunFolder, RunConfig], None],
    tmp_path: Path,
) -> None:
    archive, volume = odd_archive
    as_trained(open_run(str(archive), str(tmp_path / "run"), archive_config), archive_config)
    events: list[Event] = []
    run, receipts = run_archive(str(archive), str(tmp_path / "run"), archive_config, events.append)
    entries = {entry.volume_id: entry for entry in read_catalog(run.catalog)}
    assert len(entries) == 7
    assert {r.volume_id: r.status for r in receipts} == dict.fromkeys(entries, "located")
    for receipt in receipts:
        assert len(receipt.volume_id.encode()) <= MAX_BYTES
        assert receipt.sample_box is not None
        assert receipt.crop_url is not None
        if receipt.volume_id != "gap":
            (box,) = receipt.crop_boxes
            np.testing.assert_array_equal(
                open_volume(receipt.crop_url).read_level(0), volume[box.slices]
            )
    assert {row["volume_id"] for row in read_localizations(run.localizations)} == set(entries)

    gap = next(r for r in receipts if r.volume_id == "gap")
    assert gap.notes == "1 slices missing in the numbering (20)"
    told = [event.text for event in events if event.stays]
    page = Path(write_report(run)).read_text(encoding="utf-8")
    for words in ("1 Imaris (.ims)", "photo.tif", "1 slices missing in the numbering (20)"):
        assert any(words in line for line in told)
        assert words in page
    assert read_coverage(run.catalog).other_formats[0].count == 1
    assert store.read_json(run.manifest)["coverage"] == {
        "volumes": 7,
        "failed": 0,
        "excluded": 0,
        "without_volume": 1,
        "other_formats": {"Imaris (.ims)": 1},
    }

    # Scans that come later leave the ids of the others as they are, and take none of them.
    tifffile.imwrite(archive / "A_B.tif", volume[::-1], photometric="minisblack")
    _, again = run_archive(str(archive), run.url, archive_config)
    ids = {entry.volume_id: entry.url for entry in read_catalog(run.catalog)}
    assert {i: ids[i] for i in entries} == {i: e.url for i, e in entries.items()}
    assert len({i.casefold() for i in ids}) == len(again) == 8
