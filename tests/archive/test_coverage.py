"""What is there and not read is told: by format, by reason, and wherever a run tells of itself."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

from ctray.archive.catalog import (
    DEFAULT_EXCLUDE,
    build_catalog,
    read_catalog,
    read_coverage,
    write_catalog,
)
from ctray.archive.coverage import Coverage, LeftOut, count_formats
from ctray.archive.importing import import_volume
from ctray.core.errors import NotFoundError, OutputExistsError
from ctray.records.run_folder import check_output
from ctray.storage.urls import is_inside

VOLUME = np.arange(12 * 7 * 8, dtype=np.uint16).reshape(12, 7, 8)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """One volume that is read, and many that are not."""
    folder = tmp_path / "beamtime"
    folder.mkdir()
    tifffile.imwrite(folder / "good.tif", VOLUME, photometric="minisblack")
    for name in (
        *("a.am", "b.am", "v.ims", "stack.tif.gz", "stack.tiff.bz2", "scan.txrm", "v.nii.gz"),
        *("lost.raw", "lost.vol", "t.mrc", "m.mat", "all.tar.gz", "c.czi", "p.npy"),
        *("notes.txt", "preview.png", "a.log", "Thumbs.db", "settings.json", "scan.xml"),
    ):
        (folder / name).write_bytes(b"\x1f\x8bany")
    for name, suffix in (("photos", "jpg"), ("bmps", "bmp")):
        (folder / name).mkdir()
        for z in range(12):
            (folder / name / f"s_{z:03d}.{suffix}").write_bytes(b"any")
    (folder / "v.n5" / "s0").mkdir(parents=True)
    (folder / "v.n5" / "attributes.json").write_text('{"n5": "2.5.1"}')
    # Below it nothing is looked for: these are chunks, whatever they are called.
    (folder / "v.n5" / "s0" / "0.tif").write_bytes(b"chunk")
    return folder


def counts(coverage: Coverage) -> dict[str, int]:
    return {found.name.partition(" (")[0]: found.count for found in coverage.other_formats}


def test_other_formats_are_counted_by_name(archive: Path) -> None:
    catalog = build_catalog(str(archive))
    assert [e.volume_id for e in catalog] == ["good"]
    assert counts(catalog.coverage) == {
        "Amira": 2,
        "Imaris": 1,
        "compressed TIFF": 2,
        "Zeiss TXRM": 1,
        "NIfTI or Analyze": 1,
        "raw voxels without a known header": 2,
        "MRC": 1,
        "MATLAB": 1,
        "packed folders": 1,
        "microscope formats": 1,
        "NumPy": 1,
        "JPEG slices": 1,
        "BMP slices": 1,
        "N5": 1,
    }
    line = catalog.coverage.lines()[0]
    assert "2 Amira (.am)" in line
    assert str(archive / "a.am") in line


def test_names_are_asked_of_other_formats_too(archive: Path) -> None:
    assert counts(build_catalog(str(archive), include=["good*", "*.ims"]).coverage) == {"Imaris": 1}
    catalog = build_catalog(str(archive), exclude=["*.am", "bmps", "s_*.jpg", "*.gz"])
    assert "Amira" not in counts(catalog.coverage)
    assert "JPEG slices" not in counts(catalog.coverage)
    assert set(catalog.excluded) == {
        *("a.am", "b.am", "bmps", "photos/s_*.jpg", "stack.tif.gz", "v.nii.gz", "all.tar.gz")
    }


def test_what_holds_no_volume_is_told_with_its_reason(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "good.tif", VOLUME, photometric="minisblack")
    tifffile.imwrite(tmp_path / "photo.tif", VOLUME[0], photometric="minisblack")
    with h5py.File(tmp_path / "log.h5", "w") as file:
        file["temperature"] = np.arange(5.0)
    catalog = build_catalog(str(tmp_path))
    told = {Path(left.url).name: left.reason for left in catalog.without_volume}
    assert told.keys() == {"photo.tif", "log.h5"}
    assert "temperature" in told["log.h5"]
    assert "2D" in told["photo.tif"]
    text = "\n".join(catalog.lines())
    assert "2 without a volume" in text
    assert "temperature" in text


def test_what_a_person_excluded_is_not_called_a_mask(tmp_path: Path) -> None:
    for name in ("good", "good_mask", "bad"):
        tifffile.imwrite(tmp_path / f"{name}.tif", VOLUME, photometric="minisblack")
    (by_name,) = build_catalog(str(tmp_path)).coverage.lines()
    assert by_name.startswith(
        "1 skipped because of names like masks or labels, such as good_mask.tif"
    )
    for patterns in (["bad*"], [*DEFAULT_EXCLUDE, "bad*"]):
        (asked,) = build_catalog(str(tmp_path), exclude=patterns).coverage.lines()
        assert "excluded by the given patterns, such as bad.tif" in asked
        assert "like masks" not in asked


def test_coverage_is_kept_with_the_catalog(archive: Path, tmp_path: Path) -> None:
    catalog = build_catalog(str(archive))
    url = str(tmp_path / "catalog.parquet")
    write_catalog(catalog, url)
    assert read_coverage(url) == catalog.coverage
    assert tuple(read_catalog(url)) == catalog.entries
    # Entries by themselves, as older runs wrote them.
    write_catalog(catalog.entries, url)
    assert read_coverage(url) == Coverage()
    with pytest.raises(NotFoundError):
        read_coverage(str(tmp_path / "none.parquet"))


def test_long_lists_are_cut_and_counted() -> None:
    left = tuple(LeftOut(url=f"{i}.tif", reason=f"{i}.tif: flat") for i in range(2500))
    coverage = Coverage(without_volume=left, excluded=tuple(map(str, range(1500))))
    kept = Coverage.from_json(json.loads(json.dumps(coverage.to_json())))
    assert (len(kept.without_volume), kept.num_without_volume) == (1000, 2500)
    assert (len(kept.excluded), kept.num_excluded) == (1000, 1500)
    assert kept.lines() == coverage.lines()
    assert "2,500 without a volume" in kept.lines()[0]


def test_formats_are_counted_the_most_frequent_first() -> None:
    found = count_formats([("b", "2"), ("a", "9"), ("c", "4"), ("c", "3"), ("b", "1")])
    assert [(f.name, f.count, f.example) for f in found] == [
        ("b", 2, "1"),
        ("c", 2, "3"),
        ("a", 1, "9"),
    ]


def test_an_archive_without_a_volume_says_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "v.ims").write_bytes(b"any")
    with pytest.raises(NotFoundError, match=r"no volumes.*1 Imaris"):
        build_catalog(str(tmp_path))


def test_zipped_zarr_of_no_image_is_told(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "good.tif", VOLUME, photometric="minisblack")
    with zipfile.ZipFile(tmp_path / "v.ome.zarr.zip", "w") as file:
        file.writestr(".zgroup", '{"zarr_format": 2}')
    catalog = build_catalog(str(tmp_path))
    (failed,) = catalog.failed
    assert "v.ome.zarr.zip" in str(failed.reason)


# --- an output inside the archive ---------------------------------------------------------------


def test_a_place_in_the_archive_is_known_however_it_is_spelled(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    (archive / "x").mkdir(parents=True)
    tifffile.imwrite(archive / "a.tif", VOLUME, photometric="minisblack")
    (tmp_path / "link").symlink_to(archive)
    (tmp_path / "deep").symlink_to(archive / "x")
    (tmp_path / "other").mkdir()
    inside = (
        *(archive, archive / "run", tmp_path / "link" / "run", tmp_path / "deep" / "run"),
        *(archive / "x" / ".." / "run", tmp_path / "other" / ".." / "archive" / "run"),
        f"file://{archive}/run",
    )
    for out in inside:
        assert is_inside(str(out), str(archive)), out
        with pytest.raises(OutputExistsError, match="lies in the archive"):
            check_output(str(archive), str(out))
        with pytest.raises(OutputExistsError):
            check_output(str(tmp_path / "link"), str(out))
    for out in (tmp_path / "archive2", tmp_path / "other", archive / ".." / "run"):
        check_output(str(archive), str(out))
    # An import into its own source is the same mistake.
    with pytest.raises(OutputExistsError, match="lies inside the source"):
        import_volume(str(archive), str(tmp_path / "link" / "new.zarr"))


@pytest.mark.parametrize(
    ("url", "folder", "answer"),
    [
        ("s3://b/scans/run", "s3://b/scans", True),
        ("s3://b/scans/run", "s3://b/scans/", True),
        ("s3://b//scans/run", "s3://b/scans", True),
        ("s3://b/scans/./x/../run", "s3://b/scans", True),
        ("s3://b/other/../scans/run", "s3://b/scans", True),
        ("S3://b/scans/run", "s3://b/scans", True),
        ("s3://b/my%20scans/run", "s3://b/my scans", True),
        ("s3://b/run", "s3://b", True),
        ("s3://b/scans2/run", "s3://b/scans", False),
        ("s3://b/run", "s3://b/scans", False),
        ("s3://c/scans/run", "s3://b/scans", False),
        ("/scans/run", "s3://scans", False),
    ],
)
def test_prefixes_are_compared_in_one_spelling(url: str, folder: str, answer: bool) -> None:
    assert is_inside(url, folder) == answer
