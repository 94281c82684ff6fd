"""Projections with darks and flats are told from volumes by their names; in doubt they stay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiff_inputs import catalog_of, noise, read_all, write_pages, write_slices

from ctray.archive.name_filter import NameFilter
from ctray.archive.raw_scans import ImageGroup, Verdict, judge_scan
from ctray.archive.walk import find_volumes
from ctray.core.errors import NotFoundError

DETECTOR = noise(30, 12, 26)
SLICES = noise(20, 26, 26)


def reasons(folder: Path) -> dict[str, str]:
    """Why candidates are no volumes, by the end of their URL."""
    found = find_volumes(str(folder), NameFilter(), max_workers=2).candidates
    return {f.url.removeprefix(f"{folder}/"): f.no_volume for f in found if f.no_volume is not None}


def test_projections_darks_and_flats_in_one_folder(tmp_path: Path) -> None:
    for name, count in (("proj", 30), ("flat", 5), ("dark", 5)):
        write_slices(tmp_path / "scan7/raw", DETECTOR[:count], name + "_{:04d}.tif")
    write_slices(tmp_path / "scan7/recon", SLICES, "rec_{:04d}.tif")
    catalog = catalog_of(tmp_path)
    (entry,) = catalog.entries
    assert entry.volume_id == "scan7"
    np.testing.assert_array_equal(read_all(entry.url), SLICES)
    assert len(catalog.without_volume) == 3
    told = reasons(tmp_path)
    assert "projections, not reconstructed" in told["scan7/raw/proj_*.tif"]
    assert "dark, flat" in told["scan7/raw/proj_*.tif"]
    assert "flat images of a raw scan" in told["scan7/raw/flat_*.tif"]
    assert "dark images of a raw scan" in told["scan7/raw/dark_*.tif"]


def test_folders_named_so(tmp_path: Path) -> None:
    for name, count in (("projections", 30), ("flats", 5), ("darks", 5)):
        write_slices(tmp_path / "scan" / name, DETECTOR[:count], "img_{:04d}.tif")
    write_slices(tmp_path / "scan" / "reco", SLICES, "img_{:04d}.tif")
    catalog = catalog_of(tmp_path)
    assert [Path(entry.url).name for entry in catalog.entries] == ["reco"]
    assert set(reasons(tmp_path)) == {"scan/projections", "scan/flats", "scan/darks"}


def test_darks_and_flats_below_their_projections(tmp_path: Path) -> None:
    write_slices(tmp_path / "scan", DETECTOR, "tomo_{:04d}.tif")
    write_slices(tmp_path / "scan" / "Dark", DETECTOR[:4], "{:04d}.tif")
    write_slices(tmp_path / "scan" / "FlatField", DETECTOR[:4], "{:04d}.tif")
    with pytest.raises(NotFoundError, match="3 without a volume"):
        catalog_of(tmp_path)


def test_folder_of_any_name_beside_darks_and_flats(tmp_path: Path) -> None:
    """As at neutron sources: sample, open beam, dark field."""
    for name, count in (("sample", 30), ("ob", 5), ("df", 5)):
        write_slices(tmp_path / "scan" / name, DETECTOR[:count], "img_{:04d}.tif")
    write_slices(tmp_path / "scan" / "recon", SLICES, "img_{:04d}.tif")
    (entry,) = catalog_of(tmp_path).entries
    assert Path(entry.url).name == "recon"
    told = reasons(tmp_path)["scan/sample"]
    assert "projections, not reconstructed (dark or flat images beside them: df, ob)" in told
    # With a second folder of any name, nobody knows which is the reconstruction.
    write_slices(tmp_path / "scan" / "output", DETECTOR, "img_{:04d}.tif")
    entries = {Path(entry.url).name: entry.notes for entry in catalog_of(tmp_path).ok}
    assert set(entries) == {"recon", "sample", "output"}
    assert "may not belong to it" in str(entries["sample"])
    assert "may not belong to it" in str(entries["output"])


@pytest.mark.parametrize(
    ("projections", "flats", "darks"),
    [
        ("mouse_{:04d}.tif", "refHST{:04d}.tif", "darkend{:04d}.tif"),
        ("tomo_{:04d}.tif", "ff_{:04d}.tif", "di_{:04d}.tif"),
        ("mouse_{:04d}.tif", "mouse_ref_{:04d}.tif", "mouse_df_{:04d}.tif"),
        ("mouse_proj{:04d}.tif", "mouse_white{:04d}.tif", "mouse_dark{:04d}.tif"),
    ],
)
def test_names_of_facilities(tmp_path: Path, projections: str, flats: str, darks: str) -> None:
    write_slices(tmp_path, DETECTOR, projections)
    write_slices(tmp_path, DETECTOR[:4], flats)
    write_slices(tmp_path, DETECTOR[:4], darks)
    told = reasons(tmp_path)
    assert len(told) == 3
    assert sum("projections, not reconstructed" in reason for reason in told.values()) == 1


def test_one_averaged_dark_and_flat(tmp_path: Path) -> None:
    write_slices(tmp_path, DETECTOR, "scan_{:04d}.tif")
    for name in ("flat.tif", "dark.tif"):
        write_pages(tmp_path / name, [DETECTOR[0]])
    told = reasons(tmp_path)
    assert "projections, not reconstructed" in told[str(tmp_path)]
    assert {"flat.tif", "dark.tif"} < set(told)


def test_multi_page_files(tmp_path: Path) -> None:
    for name, count in (("proj", 30), ("flat", 5), ("dark", 5)):
        write_pages(tmp_path / f"mouse_{name}.tif", DETECTOR[:count])
    write_pages(tmp_path / "mouse_recon.tif", SLICES)
    catalog = catalog_of(tmp_path)
    assert [Path(entry.url).name for entry in catalog.entries] == ["mouse_recon.tif"]


def test_multi_page_file_of_any_name(tmp_path: Path) -> None:
    for name, count in (("mouse", 30), ("flat", 5), ("dark", 5)):
        write_pages(tmp_path / f"{name}.tif", DETECTOR[:count])
    assert "projections, not reconstructed" in reasons(tmp_path)["mouse.tif"]


def test_mice_of_several_colours_are_volumes(tmp_path: Path) -> None:
    for name in ("white", "dark", "grey"):
        write_pages(tmp_path / f"{name}.tif", SLICES)
    entries = catalog_of(tmp_path).ok
    assert len(entries) == 3
    assert all("read as a volume" in str(entry.notes) for entry in entries)


def test_slices_beside_darks_of_another_size_stay(tmp_path: Path) -> None:
    write_slices(tmp_path, SLICES, "mouse_{:04d}.tif")
    write_slices(tmp_path, DETECTOR[:4], "dark_{:04d}.tif")
    write_slices(tmp_path, DETECTOR[:4], "flat_{:04d}.tif")
    (entry,) = catalog_of(tmp_path).entries
    assert "dark and flat images are beside it" in str(entry.notes)


@pytest.mark.parametrize("folder", ["projection_images", "proj", "flat", "dark_field_study"])
def test_a_name_alone_is_no_proof(tmp_path: Path, folder: str) -> None:
    write_slices(tmp_path / folder, SLICES, "img_{:04d}.tif")
    (entry,) = catalog_of(tmp_path).ok
    assert entry.shape == SLICES.shape
    assert "read as a volume" in str(entry.notes) or folder == "dark_field_study"


def test_reconstruction_in_a_folder_of_projection_images(tmp_path: Path) -> None:
    write_slices(tmp_path / "projection_images", SLICES, "slice_{:04d}.tif")
    (entry,) = catalog_of(tmp_path).ok
    assert entry.notes is None


def test_sample_called_dark(tmp_path: Path) -> None:
    write_slices(tmp_path, SLICES, "dark_beetle_{:04d}.tif")
    write_slices(tmp_path, SLICES, "ant_{:04d}.tif")
    entries = catalog_of(tmp_path).ok
    assert [(entry.volume_id, entry.notes) for entry in entries] == [
        ("ant", None),
        ("dark_beetle", None),
    ]


def test_reference_beside_a_sample_is_a_volume() -> None:
    """Two volumes of one size, neither with projections: nothing says raw scan."""
    groups = [
        ImageGroup(folder=("a",), stem=stem, num_images=1, size=(26, 26))
        for stem in ("sample", "reference")
    ]
    sample, reference = judge_scan(groups)
    assert sample == Verdict()
    assert reference.no_volume is None
    assert "named like flat images" in str(reference.note)
