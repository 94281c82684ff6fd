"""HDF5 files that refer to others: followed inside the archive, refused outside, never zeros."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fsspec
import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from ctray.archive.catalog import build_catalog
from ctray.archive.importing import import_volume
from ctray.cli.main import cli
from ctray.core.errors import InvalidVolumeError, StorageError
from ctray.formats.hdf5.files import Hdf5Files
from ctray.formats.hdf5.links import Place
from ctray.formats.hdf5.virtual import open_voxels
from ctray.formats.opening import open_source
from ctray.storage import store
from ctray.volumes.volume import open_volume

SHAPE = (12, 18, 20)
DEPTH = 4


def voxels(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(7).integers(1, 60000, shape, dtype=np.uint16)


def write(path: Path, **datasets: Any) -> Path:
    """Write datasets, soft and external links; `__` in a name is a slash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "a") as file:
        for name, data in datasets.items():
            file[name.replace("__", "/")] = data
    return path


def write_parts(folder: Path, name: str = "part_{}.h5") -> list[str]:
    names = [name.format(i) for i in range(3)]
    for i, part in enumerate(names):
        write(folder / part, entry__data=voxels()[DEPTH * i : DEPTH * (i + 1)])
    return names


def write_master(path: Path, names: Sequence[str], dataset: str = "entry/data") -> Path:
    layout = h5py.VirtualLayout(SHAPE, np.uint16)
    for i, name in enumerate(names):
        source = h5py.VirtualSource(name, "entry/data", (DEPTH, *SHAPE[1:]))
        layout[DEPTH * i : DEPTH * (i + 1)] = source
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "a") as file:
        file.create_virtual_dataset(dataset, layout)
    return path


def read(path: Path | str, **options: Any) -> np.ndarray:
    with open_source(str(path), **options) as source:
        cut = source.shape[0] // 2
        return np.concatenate([source.read(0, cut), source.read(cut, source.shape[0])])


def reason(path: Path | str, **options: Any) -> str:
    with pytest.raises(InvalidVolumeError) as caught:
        open_source(str(path), **options).close()
    message = str(caught.value)
    assert Path(path).name in message
    assert "\n" not in message
    return message


# --- links --------------------------------------------------------------------------------------


def test_external_link_beside(tmp_path: Path) -> None:
    write(tmp_path / "parts" / "one.dat", data=voxels())
    write(tmp_path / "a.nxs", entry__result=h5py.ExternalLink("parts/one.dat", "/data"))
    np.testing.assert_array_equal(read(tmp_path / "a.nxs"), voxels())
    with open_source(str(tmp_path / "a.nxs")) as source:
        assert source.parts == (str(tmp_path / "parts" / "one.dat"),)
        assert source.dataset == "/entry/result"


def test_chain_of_links_through_files(tmp_path: Path) -> None:
    write(tmp_path / "c.h5", deep__data=voxels())
    write(tmp_path / "b.h5", soft=h5py.SoftLink("/far"), far=h5py.ExternalLink("c.h5", "/deep"))
    write(tmp_path / "a.h5", volume=h5py.ExternalLink("b.h5", "/soft/data"))
    np.testing.assert_array_equal(read(tmp_path / "a.h5"), voxels())
    assert [e.volume_id for e in build_catalog(str(tmp_path))] == ["a", "b"]


@pytest.mark.parametrize("kind", ["soft", "external", "hard"])
def test_circles_of_links_end(tmp_path: Path, kind: str) -> None:
    write(tmp_path / "a.h5", entry__volume=voxels())
    with h5py.File(tmp_path / "a.h5", "a") as file:
        if kind == "hard":
            file["entry/again"] = file["entry"]
        elif kind == "soft":
            file["one"], file["two"] = h5py.SoftLink("/two"), h5py.SoftLink("/one")
        else:
            file["again"] = h5py.ExternalLink("a.h5", "/again")
    np.testing.assert_array_equal(read(tmp_path / "a.h5"), voxels())
    if kind != "hard":
        name = "one" if kind == "soft" else "again"
        assert "forms a circle" in reason(tmp_path / "a.h5", dataset=name)


@pytest.mark.parametrize(
    "target", ["../outside.h5", "/etc/hostname", "inside/../../outside.h5", "{outside}"]
)
@pytest.mark.parametrize("default", [False, True])
def test_link_out_of_the_archive_is_refused(tmp_path: Path, target: str, default: bool) -> None:
    outside = write(tmp_path / "outside.h5", entry__volume=voxels())
    target = target.format(outside=outside)
    path = tmp_path / "archive" / "a.nxs"
    write(path, e__data=h5py.ExternalLink(target, "/entry/volume"))
    if default:
        with h5py.File(path, "a") as file:
            file.attrs["default"], file["e"].attrs["signal"] = "e", "data"
    message = reason(path)
    assert "link /e/data points to" in message
    assert target in message
    assert "outside" in message
    # Seen from further above, it is inside.
    if target != "/etc/hostname":
        np.testing.assert_array_equal(read(path, within=str(tmp_path)), voxels())
    (entry,) = build_catalog(str(tmp_path / "archive"))
    assert entry.status == "failed"
    assert target in (entry.reason or "")


def test_symbolic_link_out_of_the_archive_is_refused(tmp_path: Path) -> None:
    outside = write(tmp_path / "outside.h5", volume=voxels())
    write(tmp_path / "archive" / "a.h5", volume=h5py.ExternalLink("b.h5", "/volume"))
    (tmp_path / "archive" / "b.h5").symlink_to(outside)
    assert "outside" in reason(tmp_path / "archive" / "a.h5")


def test_moved_folder_is_read_where_it_is_now(tmp_path: Path) -> None:
    write(tmp_path / "b.h5", volume=voxels())
    write(tmp_path / "a.h5", volume=h5py.ExternalLink("/beamline/2019/visit/b.h5", "/volume"))
    np.testing.assert_array_equal(read(tmp_path / "a.h5"), voxels())
    with open_source(str(tmp_path / "a.h5")) as source:
        assert any("/beamline/2019/visit/b.h5" in note for note in source.notes)


def test_missing_files_are_named(tmp_path: Path) -> None:
    write(tmp_path / "a.h5", recon=h5py.ExternalLink("/beamline/b.h5", "/volume"))
    assert "/beamline/b.h5, which is missing" in reason(tmp_path / "a.h5")
    write(tmp_path / "c.h5", volume=h5py.SoftLink("/nothing"))
    assert "link /volume has no target" in reason(tmp_path / "c.h5")


def test_links_to_other_things_do_not_matter(tmp_path: Path) -> None:
    write(tmp_path / "a.h5", recon=voxels(), raw_data=h5py.ExternalLink("gone.h5", "/entry"))
    np.testing.assert_array_equal(read(tmp_path / "a.h5"), voxels())


def test_a_pipe_is_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.h5")
    write(tmp_path / "a.h5", volume=h5py.ExternalLink("pipe.h5", "/volume"))
    for name in ("a.h5", "pipe.h5"):
        with pytest.raises(StorageError, match=r"pipe\.h5 is a named pipe, not a file"):
            open_source(str(tmp_path / name))


# --- virtual datasets ---------------------------------------------------------------------------


def test_master_and_its_parts_are_one_volume(tmp_path: Path) -> None:
    names = write_parts(tmp_path / "parts")
    write_master(tmp_path / "rec.h5", [f"parts/{name}" for name in names])
    catalog = build_catalog(str(tmp_path))
    (entry,) = catalog.ok
    assert entry.shape == SHAPE
    assert entry.notes is not None
    assert "3 other files" in entry.notes
    import_volume(entry.url, str(tmp_path / "out.zarr"), within=entry.within)
    np.testing.assert_array_equal(open_volume(str(tmp_path / "out.zarr")).read_level(0), voxels())


def test_parts_in_a_folder_beside_the_master(tmp_path: Path) -> None:
    write_parts(tmp_path / "archive" / "parts")
    master = write_master(
        tmp_path / "archive" / "master" / "rec.h5", [f"../parts/part_{i}.h5" for i in range(3)]
    )
    assert "outside" in reason(master)
    (entry,) = build_catalog(str(tmp_path / "archive"))
    assert (entry.status, entry.within) == ("ok", str(tmp_path / "archive"))
    np.testing.assert_array_equal(read(entry.url, within=entry.within), voxels())


def test_missing_part_is_named_and_the_others_are_no_volumes(tmp_path: Path) -> None:
    write_master(tmp_path / "rec.h5", write_parts(tmp_path))
    (tmp_path / "part_1.h5").unlink()
    (entry,) = build_catalog(str(tmp_path))
    assert entry.status == "failed"
    assert "part 2 of 3 of /entry/data points to part_1.h5, which is missing" in str(entry.reason)


def test_part_without_its_dataset_or_too_short(tmp_path: Path) -> None:
    write_master(tmp_path / "rec.h5", write_parts(tmp_path))
    (tmp_path / "part_1.h5").unlink()
    write(tmp_path / "part_1.h5", other=voxels())
    assert "part_1.h5 holds no dataset entry/data" in reason(tmp_path / "rec.h5")
    (tmp_path / "part_1.h5").unlink()
    write(tmp_path / "part_1.h5", entry__data=voxels()[:2])
    assert "part 2 of 3" in reason(tmp_path / "rec.h5")


def test_unfinished_part_is_named(tmp_path: Path) -> None:
    write_master(tmp_path / "rec.h5", write_parts(tmp_path))
    (tmp_path / "part_2.h5").unlink()
    with h5py.File(tmp_path / "part_2.h5", "w") as file:
        data = file.create_dataset("entry/data", (DEPTH, *SHAPE[1:]), "u2", chunks=(1, *SHAPE[1:]))
        data[0] = 7
    message = reason(tmp_path / "rec.h5")
    assert "part 3 of 3" in message
    assert "3 of 4 chunks were never written" in message


def test_voxels_that_no_part_holds(tmp_path: Path) -> None:
    write_master(tmp_path / "rec.h5", write_parts(tmp_path)[:2])
    assert "no part covers the voxels from (8, 0, 0)" in reason(tmp_path / "rec.h5")


def test_interleaved_frames_tiles_and_single_slices(tmp_path: Path) -> None:
    write(tmp_path / "even.h5", d=voxels()[::2])
    write(tmp_path / "odd.h5", d=voxels()[1::2])
    layout = h5py.VirtualLayout(SHAPE, "u2")
    layout[::2] = h5py.VirtualSource("even.h5", "d", (6, *SHAPE[1:]))
    layout[1::2] = h5py.VirtualSource("odd.h5", "d", (6, *SHAPE[1:]))
    with h5py.File(tmp_path / "interleaved.h5", "w") as file:
        file.create_virtual_dataset("rec", layout)
    layout = h5py.VirtualLayout(SHAPE, "u2")
    for z in range(SHAPE[0]):
        write(tmp_path / f"slice_{z}.h5", d=voxels()[z])
        layout[z] = h5py.VirtualSource(f"slice_{z}.h5", "d", SHAPE[1:])
    with h5py.File(tmp_path / "slices.h5", "w") as file:
        file.create_virtual_dataset("rec", layout)
    layout = h5py.VirtualLayout(SHAPE, "u2")
    write(tmp_path / "whole.h5", d=np.pad(voxels(), 3))
    for y, x in ((0, 0), (0, 11), (9, 0), (9, 11)):
        part = h5py.VirtualSource("whole.h5", "d", tuple(n + 6 for n in SHAPE))
        end_y, end_x = (9, 18)[y > 0], (11, 20)[x > 0]
        layout[:, y:end_y, x:end_x] = part[3:-3, y + 3 : end_y + 3, x + 3 : end_x + 3]
    with h5py.File(tmp_path / "tiles.h5", "w") as file:
        file.create_virtual_dataset("rec", layout)
    for name in ("interleaved", "slices", "tiles"):
        np.testing.assert_array_equal(read(tmp_path / f"{name}.h5"), voxels(), name)


def test_virtual_dataset_of_virtual_datasets(tmp_path: Path) -> None:
    write_master(tmp_path / "inner.h5", write_parts(tmp_path), "mid")
    layout = h5py.VirtualLayout(SHAPE, "u2")
    layout[:] = h5py.VirtualSource("inner.h5", "mid", SHAPE)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_virtual_dataset("rec", layout)
    np.testing.assert_array_equal(read(tmp_path / "a.h5"), voxels())
    assert [e.volume_id for e in build_catalog(str(tmp_path))] == ["a"]


def test_virtual_dataset_of_itself_ends(tmp_path: Path) -> None:
    layout = h5py.VirtualLayout(SHAPE, "u2")
    layout[:] = h5py.VirtualSource("a.h5", "rec", SHAPE)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_virtual_dataset("rec", layout)
    assert "a.h5" in reason(tmp_path / "a.h5", dataset="rec")


def test_parts_in_the_same_file(tmp_path: Path) -> None:
    write(tmp_path / "a.h5", parts__one=voxels()[:6], parts__two=voxels()[6:])
    layout = h5py.VirtualLayout(SHAPE, "u2")
    layout[:6] = h5py.VirtualSource(".", "parts/one", (6, *SHAPE[1:]))
    layout[6:] = h5py.VirtualSource(".", "parts/two", (6, *SHAPE[1:]))
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file.create_virtual_dataset("whole", layout)
    np.testing.assert_array_equal(read(tmp_path / "a.h5"), voxels())


def test_endless_virtual_dataset_is_refused_without_a_look_at_its_parts(tmp_path: Path) -> None:
    endless = h5py.h5s.UNLIMITED
    layout = h5py.VirtualLayout(SHAPE, "u2", maxshape=(None, *SHAPE[1:]))
    source = h5py.VirtualSource("../p.h5", "d", SHAPE, maxshape=(None, *SHAPE[1:]))
    layout[:endless] = source[:endless]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_virtual_dataset("rec", layout)
    assert "grow with their parts" in reason(tmp_path / "a.h5")
    assert "grow with their parts" in reason(tmp_path / "a.h5", dataset="rec")


def test_parts_that_the_whole_cannot_hold(tmp_path: Path) -> None:
    write(tmp_path / "p.h5", d=voxels().astype(np.float32))
    layout = h5py.VirtualLayout(SHAPE, "u2")
    layout[:] = h5py.VirtualSource("p.h5", "d", SHAPE)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_virtual_dataset("rec", layout)
    assert "uint16 cannot hold the float32" in reason(tmp_path / "a.h5")


def test_import_command_takes_the_boundary(tmp_path: Path) -> None:
    write_parts(tmp_path / "parts")
    master = write_master(
        tmp_path / "master" / "rec.h5", [f"../parts/part_{i}.h5" for i in range(3)]
    )
    command = ["import", str(master), str(tmp_path / "out.zarr")]
    refused = CliRunner().invoke(cli, command)
    assert refused.exit_code == 1
    assert "--within" in refused.stderr
    taken = CliRunner().invoke(cli, [*command, "--within", str(tmp_path)])
    assert taken.exit_code == 0, taken.stderr
    np.testing.assert_array_equal(open_volume(str(tmp_path / "out.zarr")).read_level(0), voxels())


# --- numbered datasets --------------------------------------------------------------------------


def write_numbered(folder: Path) -> Path:
    write_parts(folder, "scan_data_{:06d}.h5")
    links = {
        f"entry__data__data_{i + 1:06d}": h5py.ExternalLink(f"scan_data_{i:06d}.h5", "/entry/data")
        for i in range(3)
    }
    return write(folder / "scan_master.h5", **links)


def test_numbered_datasets_are_one_volume(tmp_path: Path) -> None:
    write_numbered(tmp_path)
    (entry,) = build_catalog(str(tmp_path))
    assert (entry.dataset, entry.shape) == ("/entry/data", SHAPE)
    np.testing.assert_array_equal(read(entry.url), voxels())
    np.testing.assert_array_equal(read(entry.url, dataset=entry.dataset), voxels())
    first = read(entry.url, dataset="/entry/data/data_000001")
    np.testing.assert_array_equal(first, voxels()[:DEPTH])


@pytest.mark.parametrize("loss", ["file", "link"])
def test_numbered_datasets_with_a_gap(tmp_path: Path, loss: str) -> None:
    master = write_numbered(tmp_path)
    if loss == "file":
        (tmp_path / "scan_data_000001.h5").unlink()
        assert "scan_data_000001.h5, which is missing" in reason(master)
    else:
        with h5py.File(master, "a") as file:
            del file["entry/data/data_000002"]
        assert "dataset number 2 of data_000001 to data_000003 is missing" in reason(master)


def test_links_and_virtual_dataset_of_the_same_parts(tmp_path: Path) -> None:
    names = write_parts(tmp_path)
    links = {
        f"entry__data_{i:06d}": h5py.ExternalLink(n, "/entry/data") for i, n in enumerate(names)
    }
    write(tmp_path / "a.h5", **links)
    write_master(tmp_path / "a.h5", names, "entry/all")
    with open_source(str(tmp_path / "a.h5")) as source:
        assert source.dataset == "/entry/all"


# --- raw files ----------------------------------------------------------------------------------


def write_raw(path: Path, *parts: tuple[str, int, int], shape: tuple[int, ...] = SHAPE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.create_dataset("data", shape, "<u2", external=list(parts))
    return path


def test_raw_files_inside_the_archive(tmp_path: Path) -> None:
    data = voxels().tobytes()
    (tmp_path / "one.raw").write_bytes(b"header" + data[:1001])
    (tmp_path / "two.raw").write_bytes(data[1001:] + b"more")
    path = write_raw(tmp_path / "a.h5", ("one.raw", 6, 1001), ("two.raw", 0, h5py.h5f.UNLIMITED))
    np.testing.assert_array_equal(read(path), voxels())
    path = write_raw(
        tmp_path / "b.h5", ("one.raw", 6, 1001), ("two.raw", 0, 10**6), shape=(1, *SHAPE)
    )
    np.testing.assert_array_equal(read(path), voxels())


@pytest.mark.parametrize("target", ["{}/secret.txt", "../secret.txt"])
def test_raw_file_outside_the_archive_is_refused(tmp_path: Path, target: str) -> None:
    (tmp_path / "secret.txt").write_bytes(voxels().tobytes())
    path = write_raw(tmp_path / "archive" / "a.h5", (target.format(tmp_path), 0, 10**6))
    message = reason(path)
    assert "raw data of /data points to" in message
    assert "secret.txt, which is outside" in message


def test_raw_file_too_short_or_missing(tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_bytes(voxels().tobytes()[:-2])
    path = write_raw(tmp_path / "a.h5", ("a.raw", 0, 10**6))
    assert "a.raw has 8638 bytes instead of 8640" in reason(path)
    (tmp_path / "a.raw").unlink()
    assert "a.raw, which is missing" in reason(path)


# --- object stores ------------------------------------------------------------------------------


def test_master_and_parts_on_every_store(tmp_path: Path, base_url: str) -> None:
    made = tmp_path / "made"
    names = write_parts(made / "parts")
    write_master(made / "worm.h5", [f"parts/{name}" for name in names])
    for path in made.rglob("*.h5"):
        store.write_bytes(f"{base_url}/{path.relative_to(made)}", path.read_bytes())
    (entry,) = build_catalog(base_url)
    np.testing.assert_array_equal(read(entry.url, within=entry.within), voxels())
    store.delete_file(f"{base_url}/parts/part_1.h5")
    (entry,) = build_catalog(base_url)
    assert "part_1.h5, which is missing" in str(entry.reason)


def to_memory(folder: Path) -> str:
    memory = fsspec.filesystem("memory")
    base = f"memory://{folder.name}"
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        memory.pipe_file(f"/{folder.name}/{path.relative_to(folder)}", path.read_bytes())
    return base


def test_links_parts_and_raw_files_over_a_store(tmp_path: Path) -> None:
    names = write_parts(tmp_path / "parts")
    write_master(tmp_path / "virtual.h5", [f"parts/{name}" for name in names])
    write(tmp_path / "linked.h5", recon=h5py.ExternalLink("virtual.h5", "/entry/data"))
    (tmp_path / "a.raw").write_bytes(voxels().tobytes())
    write_raw(tmp_path / "worm.h5", ("a.raw", 0, 10**6))
    base = to_memory(tmp_path)
    for name in ("virtual", "linked", "worm"):
        np.testing.assert_array_equal(read(f"{base}/{name}.h5", within=base), voxels(), name)
    catalog = build_catalog(base)
    assert [e.volume_id for e in catalog.ok] == ["linked", "worm"]


def test_what_is_missing_or_outside_of_a_store(tmp_path: Path) -> None:
    write_master(tmp_path / "virtual.h5", [*write_parts(tmp_path)[:2], "part_9.h5"])
    # Whatever lies on this machine under the same name is not of the store.
    write(tmp_path / "linked.h5", recon=h5py.ExternalLink(str(tmp_path / "part_0.h5"), "/none"))
    write(tmp_path / "outside.h5", recon=h5py.ExternalLink("../other/a.h5", "/recon"))
    write_raw(tmp_path / "raw.h5", (str(tmp_path / "part_0.h5"), 0, 10**6))
    base = to_memory(tmp_path)
    assert "part_9.h5, which is missing" in reason(f"{base}/virtual.h5")
    assert "linked.h5" in reason(f"{base}/linked.h5")
    assert "../other/a.h5, which is outside" in reason(f"{base}/outside.h5")
    assert "instead of" in reason(f"{base}/raw.h5")


# --- parts that are volumes, and none -----------------------------------------------------------


def test_parts_of_raw_scans_are_no_volumes(tmp_path: Path) -> None:
    write_master(tmp_path / "raw.nxs", write_parts(tmp_path), "entry/instrument/detector/data")
    with h5py.File(tmp_path / "raw.nxs", "a") as file:
        file["entry/definition"] = "NXtomo"
    write(tmp_path / "worm.h5", volume=voxels())
    assert [e.volume_id for e in build_catalog(str(tmp_path))] == ["worm"]


def test_files_that_a_list_links_to_stay_volumes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path / f"{name}.h5", recon=voxels())
    links = {name: h5py.ExternalLink(f"{name}.h5", "/") for name in ("one", "two")}
    write(tmp_path / "all.h5", **links)
    assert {e.volume_id: e.status for e in build_catalog(str(tmp_path))} == {
        "all": "failed", "one": "ok", "two": "ok",
    }  # fmt: skip


def test_file_with_other_voxels_than_are_taken_stays_a_volume(tmp_path: Path) -> None:
    write(tmp_path / "both.h5", recon=voxels(), preview=voxels()[:3])
    write(tmp_path / "view.h5", recon=h5py.ExternalLink("both.h5", "/preview"))
    assert {e.volume_id for e in build_catalog(str(tmp_path)).ok} == {"both", "view"}


# --- files in use -------------------------------------------------------------------------------

_HOLD = """
import sys, h5py
file = h5py.File(sys.argv[1], "w", libver="latest")
file["volume"] = [[[1, 2], [3, 4]]]
file.flush()
print("open", flush=True)
sys.stdin.read()
"""


def test_file_that_another_program_writes(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        assert "another program has the file open for writing" in reason(path)
        write(tmp_path / "link.h5", recon=h5py.ExternalLink("a.h5", "/volume"))
        assert "a.h5: another program has the file open" in reason(tmp_path / "link.h5")
        other.kill()
    # The mark of a program that ended without closing its file.
    assert "h5clear" in reason(path)


def test_voxels_are_read_in_any_box(tmp_path: Path) -> None:
    """Boxes that begin and end anywhere, also across the parts of a virtual dataset."""
    write_master(tmp_path / "rec.h5", write_parts(tmp_path))
    files = Hdf5Files(str(tmp_path / "rec.h5"))
    whole = open_voxels(files, Place(url=str(tmp_path / "rec.h5"), path="/entry/data"))
    for box in (np.s_[3:9, 2:3, 5:20], np.s_[0:1, 0:18, 0:1], np.s_[11:12, 17:18, 19:20]):
        out = np.zeros([s.stop - s.start for s in box], np.uint16)
        whole.read_into(out, box)
        np.testing.assert_array_equal(out, voxels()[box])
    files.close()


# --- what the file says that the voxels really lie in -------------------------------------------


@pytest.mark.parametrize("how", ["link", "virtual"])
def test_frames_in_another_file_are_projections(tmp_path: Path, how: str) -> None:
    write(tmp_path / "frames.h5", entry__instrument__camera__data=voxels())
    with h5py.File(tmp_path / "frames.h5", "a") as file:
        file["entry/instrument/camera"].attrs["NX_class"] = "NXdetector"
    if how == "link":
        link = h5py.ExternalLink("frames.h5", "/entry/instrument/camera/data")
        write(tmp_path / "a.h5", scan=link)
    else:
        layout = h5py.VirtualLayout(SHAPE, "u2")
        layout[:] = h5py.VirtualSource("frames.h5", "entry/instrument/camera/data", SHAPE)
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file.create_virtual_dataset("scan", layout)
    assert "projections, not reconstructed" in reason(tmp_path / "a.h5")


def test_axes_that_the_other_file_names(tmp_path: Path) -> None:
    write(tmp_path / "b.h5", recon__data=voxels().transpose(2, 1, 0))
    with h5py.File(tmp_path / "b.h5", "a") as file:
        file["recon"].attrs.update({"signal": "data", "axes": ["x", "y", "z"]})
    write(tmp_path / "a.h5", volume=h5py.ExternalLink("b.h5", "/recon/data"))
    np.testing.assert_array_equal(read(tmp_path / "a.h5"), voxels())


def test_archive_of_symbolic_links(tmp_path: Path) -> None:
    """Files that were gathered by links are read with what lies beside them in truth."""
    write_master(tmp_path / "store" / "rec.h5", write_parts(tmp_path / "store"))
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "worm.h5").symlink_to(tmp_path / "store" / "rec.h5")
    (entry,) = build_catalog(str(tmp_path / "archive"))
    np.testing.assert_array_equal(read(entry.url, within=entry.within), voxels())


def test_names_from_a_file_reach_no_terminal(tmp_path: Path) -> None:
    write(tmp_path / "a.h5", **{"recon\x1b[31m": h5py.ExternalLink("gone\n\x1b[2J.h5", "/x")})
    assert reason(tmp_path / "a.h5").isprintable()
    write(tmp_path / "b.h5", **{"one\x1b[31m": voxels(), "two": voxels()})
    (_, entry) = build_catalog(str(tmp_path))
    assert str(entry.reason).isprintable()


def test_names_that_are_no_text(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file[b"odd\xff/deeper"], file["recon"] = voxels(), voxels()
        file["recon"].attrs[b"odd\xff"] = 1
    np.testing.assert_array_equal(read(tmp_path / "a.h5"), voxels())
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file[b"recon\xff"] = voxels()
    assert "rename it" in reason(tmp_path / "b.h5")
