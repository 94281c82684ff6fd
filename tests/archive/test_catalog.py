"""The catalog of an archive: every volume once, bad ones with a reason, the rest in peace."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import fsspec
import h5py
import numpy as np
import pytest
import tifffile
import zarr

from ctray.archive.catalog import (
    DEFAULT_EXCLUDE,
    Catalog,
    CatalogEntry,
    build_catalog,
    read_catalog,
    write_catalog,
)
from ctray.archive.importing import import_volume
from ctray.core.errors import NotFoundError, StorageError
from ctray.core.geometry import VoxelSize
from ctray.formats.opening import open_source

VOLUME = np.arange(6 * 7 * 8, dtype=np.uint16).reshape(6, 7, 8)


def write_tiff(path: Path, volume: np.ndarray = VOLUME, **kwargs: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, volume, photometric="minisblack", **kwargs)
    return path


def write_slices(folder: Path, name: str = "slice_{:04d}.tif", volume: np.ndarray = VOLUME) -> None:
    for i, page in enumerate(volume):
        write_tiff(folder / name.format(i), page)


def write_hdf5(path: Path, **datasets: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, data in (datasets or {"data": VOLUME}).items():
            file[name] = data


def by_id(catalog: Catalog) -> dict[str, CatalogEntry]:
    return {entry.volume_id: entry for entry in catalog}


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """An archive as they are: every kind, bad ones among them, and things that are no volumes."""
    root = tmp_path / "beamtime"
    write_tiff(root / "mouse_A_J" / "volume.tif")
    write_tiff(root / "mouse_A_J" / "mask.tif")
    write_tiff(root / "mouse_A_J" / "labels.tif")
    (root / "mouse_A_J" / "meta.json").write_text(json.dumps({"voxel_size_um": 3.0}))
    write_slices(root / "fish" / "recon")
    write_hdf5(root / "worm.h5")
    import_volume(str(root / "worm.h5"), str(root / "imported" / "worm_ome.zarr"))
    bare = zarr.create_array(str(root / "bare.zarr"), shape=(6, 7, 8), dtype="u2", chunks=(2, 7, 8))
    bare[...] = VOLUME
    # Bad ones.
    os.truncate(write_tiff(root / "bad" / "cut.tif", compression="zlib"), 200)
    (root / "bad" / "words.h5").write_text("no HDF5")
    write_hdf5(root / "bad" / "two.h5", a=VOLUME, b=VOLUME)
    write_tiff(root / "bad" / "colour.tif", np.zeros((4, 7, 8), np.uint8))
    tifffile.imwrite(root / "bad" / "rgb.tif", np.zeros((4, 7, 8, 3), np.uint8), photometric="rgb")
    (root / "bad" / "broken.zarr").mkdir()
    (root / "bad" / "broken.zarr" / "zarr.json").write_text("{")
    # No volumes.
    (root / "notes.txt").write_text("words")
    (root / "fish" / "preview.png").write_bytes(b"png")
    (root / ".hidden").mkdir()
    write_tiff(root / ".hidden" / "volume.tif")
    write_tiff(root / "photo.tif", VOLUME[0])
    write_hdf5(root / "log.h5", temperature=np.arange(5.0))
    (root / "empty").mkdir()
    return root


def test_mixed_archive(mixed: Path) -> None:
    catalog = build_catalog(str(mixed))
    assert {(e.volume_id, e.kind) for e in catalog.ok} == {
        ("mouse_A_J", "tiff"),
        ("fish", "tiff-folder"),
        ("worm", "hdf5"),
        ("imported_worm_ome", "ome-zarr"),
        ("bare", "zarr"),
        ("bad_colour", "tiff"),
    }
    for entry in catalog.ok:
        assert entry.shape is not None
        assert entry.num_bytes == np.prod(entry.shape) * np.dtype(entry.dtype).itemsize
        assert entry.reason is None
        # What the catalog names can be opened, and is what the catalog says.
        with open_source(entry.url, dataset=entry.dataset) as source:
            assert (source.shape, str(source.dtype)) == (entry.shape, entry.dtype)
            if entry.volume_id != "bad_colour":
                np.testing.assert_array_equal(source.read(0, 6), VOLUME)
    assert by_id(catalog)["mouse_A_J"].voxel_size == VoxelSize.of([3.0])
    assert {e.volume_id: e.kind for e in catalog.failed} == {
        "bad_cut": "tiff",
        "bad_words": "hdf5",
        "bad_two": "hdf5",
        "bad_rgb": "tiff",
        "bad_broken": "zarr",
    }
    for entry in catalog.failed:
        assert entry.reason
        assert "\n" not in entry.reason
        assert Path(entry.url).name in entry.reason
        assert entry.shape is None
    assert catalog.excluded == ("mouse_A_J/labels.tif", "mouse_A_J/mask.tif")
    # What holds no volume is named with its reason.
    for left, name in zip(catalog.without_volume, ("log.h5", "photo.tif"), strict=True):
        assert Path(left.url).name == name
        assert name in left.reason


def test_catalog_survives_parquet(mixed: Path, tmp_path: Path) -> None:
    catalog = build_catalog(str(mixed))
    url = str(tmp_path / "run" / "catalog.parquet")
    write_catalog(catalog, url)
    assert tuple(read_catalog(url)) == catalog.entries
    write_catalog([], url)
    assert read_catalog(url) == []


def test_reading_what_is_no_catalog(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        read_catalog(str(tmp_path / "none.parquet"))
    (tmp_path / "words.parquet").write_text("words")
    with pytest.raises(StorageError, match="not a catalog"):
        read_catalog(str(tmp_path / "words.parquet"))


def test_order_and_ids_do_not_depend_on_threads(mixed: Path) -> None:
    assert build_catalog(str(mixed), max_workers=1) == build_catalog(str(mixed), max_workers=8)


def test_archive_that_is_one_volume(mixed: Path) -> None:
    for name, volume_id in [
        ("mouse_A_J/volume.tif", "mouse_A_J"),
        ("fish/recon", "fish_recon"),
        ("worm.h5", "worm"),
        ("bare.zarr", "bare"),
        ("imported/worm_ome.zarr", "worm_ome"),
        ("fish/recon/slice_*.tif", "fish_recon"),
    ]:
        catalog = build_catalog(str(mixed / name))
        assert len(catalog) == 1, name
        assert catalog.entries[0].status == "ok"
        assert catalog.entries[0].volume_id == volume_id
    # A mask that is asked for by its own name is taken.
    assert len(build_catalog(str(mixed / "mouse_A_J" / "mask.tif"))) == 1


def test_include_and_exclude(mixed: Path) -> None:
    fish = build_catalog(str(mixed), include=["FISH"])
    assert [e.volume_id for e in fish] == ["fish"]
    no_bad = build_catalog(str(mixed), exclude=(*DEFAULT_EXCLUDE, "bad"))
    assert no_bad.failed == ()
    assert "bad" in no_bad.excluded
    everything = build_catalog(str(mixed / "mouse_A_J"), exclude=())
    assert {e.volume_id for e in everything} == {"mouse_A_J", "mask", "labels"}


@pytest.mark.parametrize(
    ("name", "is_excluded"),
    [
        ("mask.tif", True),
        ("Mask_01.tif", True),
        ("scan_mask.tif", True),
        ("scan-masks.tif", True),
        ("labels.zarr", True),
        ("scan_labels.h5", True),
        ("scan_seg.tif", True),
        ("masked_sample.tif", False),
        ("damask.tif", False),
        ("labelled.tif", False),
        ("segment.tif", False),
    ],
)
def test_default_exclude(tmp_path: Path, name: str, is_excluded: bool) -> None:
    write_tiff(tmp_path / "other.tif")
    path = tmp_path / name
    if name.endswith(".h5"):
        write_hdf5(path)
    elif name.endswith(".zarr"):
        zarr.create_array(str(path), shape=(6, 7, 8), dtype="u2", chunks=(2, 7, 8))
    else:
        write_tiff(path)
    catalog = build_catalog(str(tmp_path))
    assert catalog.excluded == ((name,) if is_excluded else ())
    assert len(catalog) == (1 if is_excluded else 2)


def test_excluded_stack_and_folder_count_once(tmp_path: Path) -> None:
    write_slices(tmp_path / "fish")
    write_slices(tmp_path / "fish", "mask_{:04d}.tif")
    write_slices(tmp_path / "truth")
    catalog = build_catalog(str(tmp_path))
    assert [e.volume_id for e in catalog.ok] == ["fish"]
    assert catalog.excluded == ("fish/mask_*.tif", "truth")
    with open_source(catalog.entries[0].url) as source:
        np.testing.assert_array_equal(source.read(0, 6), VOLUME)


def test_numbered_multi_page_files_are_volumes_of_their_own(tmp_path: Path) -> None:
    for i in range(4):
        write_tiff(tmp_path / f"scan_{i}.tif", VOLUME + i)
    os.truncate(tmp_path / "scan_0.tif", 100)
    catalog = build_catalog(str(tmp_path))
    assert {e.volume_id: e.status for e in catalog} == {
        "scan_0": "failed",
        "scan_1": "ok",
        "scan_2": "ok",
        "scan_3": "ok",
    }


def test_stacks_side_by_side(tmp_path: Path) -> None:
    write_slices(tmp_path / "scans", "left_{:d}.tif")
    write_slices(tmp_path / "scans", "right_{:d}.tif", VOLUME + 1)
    catalog = by_id(build_catalog(str(tmp_path)))
    assert set(catalog) == {"scans_left", "scans_right"}
    with open_source(catalog["scans_right"].url) as source:
        np.testing.assert_array_equal(source.read(0, 6), VOLUME + 1)


def test_stack_with_a_broken_slice_is_one_failure(tmp_path: Path) -> None:
    write_slices(tmp_path / "good")
    write_slices(tmp_path / "bad")
    (tmp_path / "bad" / "slice_0000.tif").write_bytes(b"words")
    write_slices(tmp_path / "other")
    write_tiff(tmp_path / "other" / "slice_0003.tif", VOLUME[0, :5])
    catalog = by_id(build_catalog(str(tmp_path)))
    assert {name: entry.status for name, entry in catalog.items()} == {
        "good": "ok",
        "bad": "failed",
        "other": "failed",
    }
    assert "slice_0000.tif" in str(catalog["bad"].reason)
    assert "slice_0003.tif" in str(catalog["other"].reason)


def test_gaps_become_notes(tmp_path: Path) -> None:
    write_slices(tmp_path / "scan")
    (tmp_path / "scan" / "slice_0002.tif").unlink()
    (entry,) = build_catalog(str(tmp_path))
    assert entry.status == "ok"
    assert entry.notes == "1 slices missing in the numbering (2)"


def test_zarr_group_of_volumes_is_a_folder(tmp_path: Path) -> None:
    for version in (2, 3):
        group = zarr.open_group(str(tmp_path / f"v{version}.zarr"), mode="w", zarr_format=version)
        for name in ("a", "b"):
            group.create_array(f"{name}{version}", shape=(6, 7, 8), dtype="u2", chunks=(2, 7, 8))
    catalog = build_catalog(str(tmp_path))
    assert {e.volume_id for e in catalog.ok} == {"v2_a2", "v2_b2", "v3_a3", "v3_b3"}


def test_zarr_stores_are_not_walked(tmp_path: Path) -> None:
    """Chunks named like volumes would show up if the walk went into an array."""
    zarr.create_array(str(tmp_path / "a.zarr"), shape=(6, 7, 8), dtype="u2", chunks=(2, 7, 8))
    zarr.create_array(str(tmp_path / "plain"), shape=(6, 7, 8), dtype="u2", chunks=(2, 7, 8))
    for name in ("a.zarr", "plain"):
        write_tiff(tmp_path / name / "c" / "volume.tif")
    assert {e.volume_id for e in build_catalog(str(tmp_path))} == {"a", "plain"}


def test_unfinished_output_is_a_failure(tmp_path: Path) -> None:
    write_tiff(tmp_path / "a.tif")

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_volume(str(tmp_path / "a.tif"), str(tmp_path / "out"), progress=stop)
    assert {e.volume_id: e.status for e in build_catalog(str(tmp_path))} == {
        "a": "ok",
        "out": "failed",
    }


def test_links_in_circles_end(tmp_path: Path) -> None:
    write_tiff(tmp_path / "fish" / "volume.tif")
    (tmp_path / "fish" / "again").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    (tmp_path / "gone.tif").symlink_to(tmp_path / "nowhere.tif")
    catalog = build_catalog(str(tmp_path))
    assert {e.volume_id: e.status for e in catalog} == {"fish": "ok", "gone": "failed"}


def test_nothing_to_find(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="nothing"):
        build_catalog(str(tmp_path / "none"))
    with pytest.raises(NotFoundError, match="looked for TIFF"):
        build_catalog(str(tmp_path))
    write_tiff(tmp_path / "mask.tif")
    write_tiff(tmp_path / "photo.tif", VOLUME[0])
    with pytest.raises(NotFoundError, match=r"photo\.tif: .*1 skipped because of names like masks"):
        build_catalog(str(tmp_path))


def test_dataset_for_all_hdf5_files(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "a.h5", x=VOLUME, y=VOLUME)
    write_hdf5(tmp_path / "b.h5", x=VOLUME)
    write_tiff(tmp_path / "c.tif")
    catalog = by_id(build_catalog(str(tmp_path), dataset="y"))
    assert {name: entry.status for name, entry in catalog.items()} == {
        "a": "ok",
        "b": "failed",
        "c": "ok",
    }
    assert catalog["a"].dataset == "/y"


def test_remote_archive(mixed: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(mixed), "/catalog/beamtime", recursive=True)
    try:
        remote = build_catalog("memory://catalog/beamtime")
    finally:
        memory.rm("/catalog", recursive=True)
    local = build_catalog(str(mixed))
    assert [(e.volume_id, e.kind, e.shape, e.status) for e in remote] == [
        (e.volume_id, e.kind, e.shape, e.status) for e in local
    ]


def test_progress_counts_to_the_end(mixed: Path) -> None:
    steps: list[tuple[int, int]] = []
    build_catalog(str(mixed), progress=lambda done, total: steps.append((done, total)))
    assert steps == [(i + 1, len(steps)) for i in range(len(steps))]
    assert len(steps) == 13


# --- real volumes ---------------------------------------------------------------------------


@pytest.mark.real
def test_mouse_heads() -> None:
    default = Path(__file__).parents[2].parent / "shared" / "data"
    data = Path(os.environ.get("CTRAY_TEST_DATA", default)) / "mouse_heads_tube"
    if not data.is_dir():
        pytest.skip("no real volumes: set CTRAY_TEST_DATA")
    catalog = build_catalog(str(data))
    assert len(catalog) == len(catalog.ok) == 13
    assert len(catalog.excluded) == 26
    assert {e.volume_id for e in catalog} == {p.name for p in data.iterdir() if p.is_dir()}
    for entry in catalog:
        assert entry.voxel_size is not None
        assert entry.voxel_size.um == pytest.approx((141, 141, 141), abs=1)
