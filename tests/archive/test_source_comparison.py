"""Crops against the archive's own files: whatever happened to those since, it is told."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from click.testing import CliRunner
from numpy.typing import NDArray

from ctray.archive.importing import import_volume
from ctray.archive.source_record import SourceRecord
from ctray.archive.source_stamp import stamp_of
from ctray.cli.main import cli
from ctray.core.errors import InvalidVolumeError, NotFoundError
from ctray.core.geometry import Box
from ctray.crops.cutting import write_crop
from ctray.pipeline.verifying import CropCheck, verify_run
from ctray.records.run_folder import RunFolder
from ctray.records.volume_record import VolumeRecord
from ctray.storage import store
from ctray.volumes.volume import open_volume

SHAPE = (50, 14, 18)
# Slabs are of 16 slices: the crop lies in the second and third of four.
BOX = Box(start=(20, 3, 4), stop=(41, 12, 15))
Voxels = NDArray[np.uint16]
Make = Callable[[Path], str]


def grey() -> Voxels:
    return np.random.default_rng(3).integers(1, 60_000, SHAPE).astype(np.uint16)


def slices(folder: Path) -> str:
    folder = folder / "scan"
    folder.mkdir()
    for z, plane in enumerate(grey()):
        tifffile.imwrite(folder / f"s_{z:04d}.tif", plane)
    return str(folder)


def multipage(folder: Path) -> str:
    tifffile.imwrite(folder / "scan.tif", grey(), photometric="minisblack")
    return str(folder / "scan.tif")


def hdf5(folder: Path) -> str:
    with h5py.File(folder / "scan.h5", "w") as file:
        file["entry/data"] = grey()
    return str(folder / "scan.h5")


def bare_zarr(folder: Path) -> str:
    url = str(folder / "scan.zarr")
    array = zarr.create_array(url, shape=SHAPE, chunks=(8, 7, 9), dtype=np.uint16)
    array[:] = grey()
    return url


MAKERS: dict[str, Make] = {
    "tiff-folder": slices,
    "tiff": multipage,
    "hdf5": hdf5,
    "zarr": bare_zarr,
}
IMPORTED = ("tiff-folder", "tiff", "hdf5")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    (tmp_path / "archive").mkdir()
    return tmp_path / "archive"


def fill_run(archive: Path, kind: Any) -> RunFolder:
    """A run over one source, imported where need be, with its crop."""
    run = RunFolder(url=str(archive.parent / "run"))
    store.write_json(run.manifest, {})
    source = MAKERS[kind](archive)
    url = source
    record = SourceRecord(kind=kind, stamp=stamp_of(source, kind))
    if kind in IMPORTED:
        url = import_volume(source, run.imported("a")).url
        kept = SourceRecord.from_json(open_volume(url).attributes["source"])
        assert kept is not None
        assert kept.stamp == record.stamp
        record = kept
    crop = write_crop(open_volume(url), BOX, run.crop("a"), provenance={}, snap_chunks=0)
    run.write_receipt(
        VolumeRecord(
            volume_id="a",
            source_url=source,
            status="located",
            imported_url=None if url == source else url,
            shape=list(SHAPE),
            crop_url=crop.url,
            crop_box=crop.box,
            checksum=crop.checksum,
            source=record.to_json(),
        )
    )
    return run


def rewrite(archive: Path, kind: str, voxels: Voxels) -> None:
    """The same source with other voxels, its files as old as before."""
    path = next(archive.iterdir())
    before = {p: p.stat() for p in archive.rglob("*") if p.is_file()}
    if kind == "tiff-folder":
        for z, plane in enumerate(voxels):
            tifffile.imwrite(path / f"s_{z:04d}.tif", plane)
    elif kind == "tiff":
        tifffile.imwrite(path, voxels, photometric="minisblack")
    elif kind == "hdf5":
        with h5py.File(path, "r+") as file:
            file["entry/data"][:] = voxels
    else:
        zarr.open_array(path, mode="r+")[:] = voxels
    for file_path, about in before.items():
        os.utime(file_path, ns=(about.st_atime_ns, about.st_mtime_ns))


def only(run: RunFolder, **asked: Any) -> CropCheck:
    (check,) = verify_run(run, sources=True, **asked)
    return check


@pytest.mark.parametrize("kind", MAKERS)
def test_source_that_is_the_same_is_sound(archive: Path, kind: str) -> None:
    run = fill_run(archive, kind)
    assert only(run).problem is None
    crop_box = run.receipts()[0].crop_boxes[0]
    assert only(run).voxels_compared == crop_box.num_voxels
    assert 0 < only(run, sample=0.01).voxels_compared <= crop_box.num_voxels


@pytest.mark.parametrize("kind", MAKERS)
def test_voxel_that_changed_in_the_crop_is_counted(archive: Path, kind: str) -> None:
    """Although size and time of the files are what they were."""
    run = fill_run(archive, kind)
    voxels = grey()
    voxels[33, 5, 7] ^= 1
    rewrite(archive, kind, voxels)
    problem = str(only(run).problem)
    assert "1 of " in problem
    assert "voxels differ from source" in problem
    if kind == "tiff-folder":
        assert "s_0033.tif" in problem


@pytest.mark.parametrize("kind", IMPORTED)
def test_voxel_that_changed_outside_the_crop_is_told(archive: Path, kind: str) -> None:
    run = fill_run(archive, kind)
    voxels = grey()
    voxels[49, 0, 0] ^= 1
    rewrite(archive, kind, voxels)
    problem = str(only(run).problem)
    assert "has changed since it was imported, outside the crop: slices [48, 50)" in problem


def test_chunk_of_a_zarr_that_changed_outside_the_crop_is_told(archive: Path) -> None:
    run = fill_run(archive, "zarr")
    zarr.open_array(archive / "scan.zarr", mode="r+")[0, 0, 0] = 7
    problem = str(only(run).problem)
    assert "has changed since it was localized" in problem
    assert "the compared voxels are the same" in problem


def test_slice_that_was_overwritten_is_named(archive: Path) -> None:
    run = fill_run(archive, "tiff-folder")
    tifffile.imwrite(archive / "scan" / "s_0025.tif", np.full(SHAPE[1:], 7, np.uint16))
    assert "(s_0025.tif)" in str(only(run).problem)


def test_slice_that_was_deleted_is_told(archive: Path) -> None:
    run = fill_run(archive, "tiff-folder")
    (archive / "scan" / "s_0025.tif").unlink()
    assert "it is uint16 of shape (49, 14, 18) instead of uint16" in str(only(run).problem)


def test_slice_that_is_half_copied_is_told(archive: Path) -> None:
    run = fill_run(archive, "tiff-folder")
    path = archive / "scan" / "s_0025.tif"
    path.write_bytes(path.read_bytes()[:90])
    problem = str(only(run).problem)
    assert problem.startswith("source cannot be read (")
    assert "s_0025.tif" in problem


def test_chunk_that_was_deleted_is_told(archive: Path) -> None:
    """Zarr itself gives zeros there."""
    run = fill_run(archive, "zarr")
    (archive / "scan.zarr" / "c" / "3" / "1" / "1").unlink()
    assert "voxels differ from source" in str(only(run).problem)


@pytest.mark.parametrize("kind", MAKERS)
def test_source_that_is_gone_is_missing(archive: Path, kind: str) -> None:
    run = fill_run(archive, kind)
    path = next(archive.iterdir())
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert str(only(run).problem).startswith("source is missing (")
    told = CliRunner().invoke(cli, ["verify", run.url, "--sources"])
    assert told.exit_code == 1
    assert "source is missing" in told.stderr


def test_imported_copy_may_go(archive: Path) -> None:
    """The archive is what counts."""
    run = fill_run(archive, "tiff")
    shutil.rmtree(run.imported("a"))
    assert only(run).problem is None


def test_damage_between_import_and_crop_is_found(archive: Path) -> None:
    run = fill_run(archive, "tiff")
    shutil.rmtree(run.crop("a"))
    zarr.open_array(Path(run.imported("a")) / "0", mode="r+")[30, 5, 5] = 0
    crop = write_crop(
        open_volume(run.imported("a")), BOX, run.crop("a"), provenance={}, snap_chunks=0
    )
    receipt = store.read_json(run.receipt("a"))
    store.write_json(run.receipt("a"), {**receipt, "checksum": crop.checksum})
    assert next(iter(verify_run(run))).problem is None
    assert "1 of " in str(only(run).problem)


@pytest.mark.parametrize("kind", MAKERS)
def test_run_of_an_earlier_version_is_compared_with_the_archive_too(
    archive: Path, kind: str
) -> None:
    run = fill_run(archive, kind)
    receipt = store.read_json(run.receipt("a"))
    del receipt["source"]
    store.write_json(run.receipt("a"), receipt)
    assert only(run).problem is None
    voxels = grey()
    voxels[21, 4, 5] ^= 1
    rewrite(archive, kind, voxels)
    assert "1 of " in str(only(run).problem)


def test_source_that_grows_while_it_is_read_is_no_volume(archive: Path) -> None:
    """A scan that is still being written."""
    source = slices(archive)

    def grow(done: int, total: int) -> None:
        tifffile.imwrite(archive / "scan" / "s_0002.tif", np.zeros(SHAPE[1:], np.uint16))

    out = str(archive.parent / "out.zarr")
    with pytest.raises(InvalidVolumeError, match="changed during the import"):
        import_volume(source, out, progress=grow)
    with pytest.raises((NotFoundError, InvalidVolumeError)):
        open_volume(out)
