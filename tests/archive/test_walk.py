"""Special files, links, depth and permissions in an archive."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from ctray.archive import catalog as catalog_module
from ctray.archive import walk
from ctray.archive.catalog import Catalog, build_catalog
from ctray.archive.importing import import_volume
from ctray.core.errors import StorageError
from ctray.formats.opening import open_source
from ctray.storage import store

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


# --- special files -----------------------------------------------------------------------------


def test_special_files_are_told_and_never_opened(archive: Path) -> None:
    """Opening any of them waits for ever."""
    for name in ("x.tif", "x.h5", "x.mhd", "x.zarr.zip", "meta.json", "s_0001.png"):
        os.mkfifo(archive / name)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(archive / "y.tif"))
        (archive / "zero.tif").symlink_to("/dev/zero")
        catalog = build_catalog(str(archive))
    assert statuses(catalog) == {"good": "ok"}
    told = {Path(left.url).name: left.reason for left in catalog.without_volume}
    assert told.keys() == {
        *("x.tif", "x.h5", "x.mhd", "x.zarr.zip", "meta.json", "s_0001.png"),
        *("y.tif", "zero.tif"),
    }
    assert told["x.tif"].endswith("skipped, named pipes are never opened")
    assert told["y.tif"].endswith("skipped, sockets are never opened")
    assert told["zero.tif"].endswith("skipped, devices are never opened")


@pytest.mark.parametrize("name", ["zarr.json", ".zgroup", ".zattrs", ".zarray"])
def test_pipes_among_the_metadata_of_a_zarr(archive: Path, name: str) -> None:
    (archive / "piped.zarr").mkdir()
    if name == ".zattrs":
        (archive / "piped.zarr" / ".zgroup").write_text('{"zarr_format": 2}')
    os.mkfifo(archive / "piped.zarr" / name)
    assert statuses(build_catalog(str(archive))) == {"good": "ok", "piped": "failed"}


@pytest.mark.parametrize("name", ["x.tif", "x.h5", "x.mhd", "x.zarr.zip", "x.nrrd", "x"])
def test_a_pipe_that_is_named_is_refused(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(StorageError, match="is a named pipe, not a file"):
        open_source(str(tmp_path / name))


def test_a_pipe_in_place_of_a_chunk_is_refused(tmp_path: Path) -> None:
    array = zarr.create_array(
        str(tmp_path / "a.zarr"), shape=(6, 7, 8), dtype="u2", chunks=(6, 7, 8)
    )
    array[...] = VOLUME
    chunk = tmp_path / "a.zarr" / "c" / "0" / "0" / "0"
    chunk.unlink()
    os.mkfifo(chunk)
    with open_source(str(tmp_path / "a.zarr")) as source, pytest.raises(StorageError, match="pipe"):
        source.read(0, 6)


# --- permissions, loops, depth ------------------------------------------------------------------


_LIST_AS_NOBODY = """
import os, sys
from ctray.archive import catalog
if os.geteuid() == 0:
    os.seteuid(65534)
found = catalog.build_catalog(sys.argv[1])
print([e.volume_id for e in found.ok], [e.reason for e in found.failed])
"""


@pytest.mark.parametrize("closed", ["closed.zarr", "closed.tif", "closed", "closed/slices"])
def test_what_may_not_be_read_is_one_failed_entry(closed: str) -> None:
    """In a process of its own, without the rights of root, where they can be given up."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        tifffile.imwrite(folder / "good.tif", VOLUME, photometric="minisblack")
        if closed == "closed.tif":
            tifffile.imwrite(folder / closed, VOLUME, photometric="minisblack")
        else:
            zarr.create_array(str(folder / closed), shape=(6, 7, 8), dtype="u2", chunks=(6, 7, 8))
        (folder / closed).chmod(0)
        try:
            done = subprocess.run(
                [sys.executable, "-c", _LIST_AS_NOBODY, name],
                capture_output=True,
                text=True,
                check=False,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )
        finally:
            (folder / closed).chmod(0o755)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("['good']")
    assert done.stdout.count("not allowed to") == 1


def test_links_in_a_circle(archive: Path) -> None:
    (archive / "a").symlink_to(archive / "b")
    (archive / "b").symlink_to(archive / "a")
    (archive / "loop.tif").symlink_to(archive / "loop.tif")
    (archive / "inside").mkdir()
    (archive / "inside" / "up").symlink_to("..")
    assert statuses(build_catalog(str(archive))) == {"good": "ok", "loop": "failed"}


def test_a_link_to_what_holds_the_archive_is_told_and_not_followed(archive: Path) -> None:
    (archive.parent / "another").mkdir()
    tifffile.imwrite(archive.parent / "another" / "a.tif", VOLUME, photometric="minisblack")
    (archive / "up").symlink_to("..")
    (archive / "all").symlink_to("/")
    (archive / "linked").symlink_to("../another")
    catalog = build_catalog(str(archive))
    assert statuses(catalog) == {"good": "ok", "linked_a": "ok"}
    assert sorted(Path(left.url).name for left in catalog.without_volume) == ["all", "up"]
    assert all("link not followed" in o.reason for o in catalog.without_volume)


def test_folders_without_end_are_told(archive: Path) -> None:
    here = Path.cwd()
    os.chdir(archive)
    try:
        for _ in range(300):
            Path("sub").mkdir()
            os.chdir("sub")
    finally:
        os.chdir(here)
    catalog = build_catalog(str(archive))
    assert statuses(catalog) == {"good": "ok"}
    (left,) = catalog.without_volume
    assert "skipped, over 64 folders deep" in left.reason


def test_folders_without_number_are_told(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a store may make them up: every folder holds two more."""
    monkeypatch.setattr(walk, "_MAX_FOLDERS", 50)
    real = store.list_dir

    def two_more(url: str) -> list[store.Entry]:
        found = real(url) if url == str(archive) else []
        more = [
            store.Entry(url=f"{url}/{name}", name=name, is_dir=True, size=None) for name in "ab"
        ]
        return [*found, *more]

    monkeypatch.setattr(store, "list_dir", two_more)
    catalog = build_catalog(str(archive))
    assert statuses(catalog) == {"good": "ok"}
    (left,) = catalog.without_volume
    assert "skipped, over 50 folders" in left.reason


def test_zarr_groups_without_end_are_told(archive: Path) -> None:
    group = archive / "deep.zarr"
    for _ in range(80):
        group.mkdir()
        (group / ".zgroup").write_text('{"zarr_format": 2}')
        group = group / "g"
    catalog = build_catalog(str(archive))
    assert statuses(catalog) == {"good": "ok"}
    assert "folders deep" in catalog.without_volume[0].reason


def test_names_that_are_no_text(archive: Path) -> None:
    """Bytes that are no UTF-8 could be written neither to a catalog nor to a page."""
    (Path(os.fsdecode(os.fsencode(archive) + b"/caf\xe9.tif"))).write_bytes(b"II*\0")
    Path(os.fsdecode(os.fsencode(archive) + b"/sc\xe4ns")).mkdir()
    catalog = build_catalog(str(archive))
    assert statuses(catalog) == {"good": "ok"}
    assert sorted("UTF-8" in left.reason for left in catalog.without_volume) == [True, True]
    catalog_module.write_catalog(catalog, str(archive.parent / "catalog.parquet"))


def test_deeply_nested_metadata_is_one_failed_entry(archive: Path) -> None:
    (archive / "deep.zarr").mkdir()
    text = '{"zarr_format": 3, "node_type": "group", "attributes": '
    depth = 200_000
    (archive / "deep.zarr" / "zarr.json").write_text(text + "[" * depth + "]" * depth + "}")
    assert statuses(build_catalog(str(archive))) == {"good": "ok", "deep": "failed"}


def test_a_file_may_have_an_asterisk_in_its_name(archive: Path, tmp_path: Path) -> None:
    tifffile.imwrite(archive / "st*r_1.tif", VOLUME, photometric="minisblack")
    (archive / "fo*lder").mkdir()
    for i, page in enumerate(VOLUME):
        tifffile.imwrite(archive / "fo*lder" / f"s_{i}.tif", page, photometric="minisblack")
    catalog = build_catalog(str(archive))
    assert statuses(catalog) == {"good": "ok", "st_r_1": "ok", "fo_lder": "ok"}
    for entry in catalog:
        import_volume(entry.url, str(tmp_path / f"{entry.volume_id}.zarr"))
        assert store.exists(str(tmp_path / f"{entry.volume_id}.zarr"))


def test_a_zip_that_would_fill_the_memory_is_refused(archive: Path) -> None:
    with zipfile.ZipFile(archive / "bomb.zarr.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("zarr.json", '{"zarr_format": 3, "node_type": "group"}')
        with file.open("c", "w", force_zip64=True) as member:
            for _ in range(300):
                member.write(bytes(1 << 20))
    (archive / "words.zarr.zip").write_text("no zip")
    catalog = build_catalog(str(archive))
    assert statuses(catalog) == {"good": "ok", "bomb": "failed", "words": "failed"}
    assert "unpacks to" in str(catalog.failed[0].reason)
