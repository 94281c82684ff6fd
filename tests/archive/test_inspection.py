"""Candidates are opened one by one; parts of other volumes are recognized."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import tifffile

from ctray.archive import importing as importing_module
from ctray.archive import inspection as inspection_module
from ctray.archive.catalog import Catalog, build_catalog
from ctray.archive.importing import import_volume
from ctray.archive.inspection import Inspected, parts_of_others
from ctray.archive.time_limit import OverdueError

VOLUME = np.arange(6 * 7 * 8, dtype=np.uint16).reshape(6, 7, 8)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """An archive with one good volume, to which each test adds something."""
    folder = tmp_path / "beamtime"
    folder.mkdir()
    tifffile.imwrite(folder / "good.tif", VOLUME, photometric="minisblack")
    return folder


def statuses(catalog: Catalog) -> dict[str, str]:
    return {entry.volume_id: entry.status for entry in catalog}


def test_an_entry_that_takes_for_ever_is_a_failed_one(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CTRAY_ENTRY_TIMEOUT_S", "0.5")
    tifffile.imwrite(archive / "slow.tif", VOLUME, photometric="minisblack")
    never = threading.Event()
    real = inspection_module.open_as

    def slow(url: str, *args: object, **options: object) -> object:
        if url.endswith("slow.tif"):
            never.wait()
        return real(url, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(inspection_module, "open_as", slow)
    catalog = build_catalog(str(archive))
    never.set()
    assert statuses(catalog) == {"good": "ok", "slow": "failed"}
    assert "slow.tif: not opened within 0.5 s" in str(catalog.failed[0].reason)


def test_an_import_that_never_opens_is_given_up(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CTRAY_ENTRY_TIMEOUT_S", "0.5")
    never = threading.Event()
    monkeypatch.setattr(importing_module, "open_source", lambda *_, **__: never.wait())
    with pytest.raises(OverdueError, match=r"good\.tif: not opened within 0\.5 s"):
        import_volume(str(archive / "good.tif"), str(tmp_path / "out.zarr"))
    never.set()


def test_parts_of_others() -> None:
    candidates = {
        "a": Inspected(voxels_ids=("a",), part_ids=("b", "c")),
        "b": Inspected(voxels_ids=("b",), part_ids=("a",)),
        "c": Inspected(voxels_ids=("c",)),
        "d": Inspected(voxels_ids=("d", "c")),
        "e": Inspected(),
        "f": Inspected(part_ids=("d", "x")),
    }
    assert parts_of_others(candidates) == {"b", "c", "d"}
    assert parts_of_others({"a": Inspected(voxels_ids=("a",), part_ids=("a",))}) == frozenset()
