"""HDF5 files made at random: a right volume or a named refusal, nothing else, nothing outside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from poison import confinement

from ctray.errors import InvalidVolumeError
from ctray.storage.sources import open_source

# No voxel inside the archive has this value, all those outside have.
SECRET = 77
SHAPES = ((4, 5, 6), (6, 5, 4), (1, 4, 5, 6), (20, 20, 3), (2, 20, 20, 3), (5, 6), (7,), ())
NAMES = ("data", "recon", "theta", "mask", "x", "y", "z", "data_000001", "data_000002", "entry")
GROUPS = ("", "entry/", "entry/data/", "exchange/", "entry/recon/")
FILES = (
    *("other.h5", "inside.bin", "gone.h5", ".", "", "sub/../other.h5", "fuzz.h5"),
    *("../outside.h5", "../raw.bin", "/etc/hostname", "{}/outside.h5"),
)
PATHS = ("/entry/data/data", "/recon", "/", "data", "/none", "/loop", "//", "/entry/./data")
CLASSES = ["NXentry", "NXdata", "NXdetector", "NXprocess", "NXtomo", "NXtomoproc"]
WORDS = ["data", "recon", "x:y:z", "z,y,x", "entry", "rgb-image", "spectrum", "um", "[x, y, z]"]
TEXTS = st.sampled_from([*CLASSES, *WORDS, "", "/", "1", "\udcff"])
VALUES = st.one_of(
    TEXTS,
    st.integers(-2, 3),
    st.floats(),
    st.lists(st.sampled_from(["x", "y", "z", "voxel_x", ".", "theta", ""]), min_size=1, max_size=4),
    st.lists(st.floats(0.1, 9), min_size=1, max_size=4),
)
KEYS = ["NX_class", "default", "signal", "axes", "interpretation", "definition", "units"]
KEYS += ["x_indices", "axistags", "voxel_size", "element_size_um", "CLASS", "IMAGE_SUBCLASS"]
KEYS += ["DIMENSION_LIST", "DIMENSION_LABELS"]
ATTRIBUTES = st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=3)
ITEMS = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["plain", "chunks", "virtual", "raw", "soft", "external", "text"]),
        "name": st.sampled_from(NAMES),
        "group": st.sampled_from(GROUPS),
        "shape": st.sampled_from(SHAPES),
        "dtype": st.sampled_from(["u1", "<u2", ">f4", "?", "c8", "f2", "i8"]),
        "file": st.sampled_from(FILES),
        "path": st.sampled_from(PATHS),
        "written": st.integers(0, 4),
        "numbers": st.tuples(st.integers(0, 6), st.integers(1, 6), st.integers(1, 3)),
        "attributes": ATTRIBUTES,
        "group_attributes": ATTRIBUTES,
    }
)


def voxels(shape: tuple[int, ...], dtype: str) -> Any:
    return (np.arange(int(np.prod(shape))).reshape(shape) % 70).astype(dtype)


def set_attributes(item: Any, attributes: dict[str, Any]) -> None:
    for name, value in attributes.items():
        try:
            item.attrs[name] = value
        except (UnicodeError, TypeError, ValueError, OSError):
            continue


def add(file: h5py.File, item: dict[str, Any], folder: Path) -> None:
    # A group behind a link would be written into another file, or into this one again.
    is_link = item["kind"] in ("soft", "external")
    path = item["group"] + (f"link_{item['name']}" if is_link else item["name"])
    target = item["file"].format(folder)
    shape, dtype = item["shape"], item["dtype"]
    start, count, step = item["numbers"]
    kind = item["kind"]
    if kind == "plain":
        file[path] = voxels(shape, dtype)
    elif kind == "chunks" and shape:
        data = file.create_dataset(path, shape, dtype, chunks=(1, *shape[1:]), compression="gzip")
        data[: item["written"]] = voxels(shape, dtype)[: item["written"]]
    elif kind == "virtual" and shape:
        layout = h5py.VirtualLayout(shape, dtype)
        depth = max(1, min(count, shape[0] - start))
        source = h5py.VirtualSource(target, item["path"], (depth, *shape[1:]))
        layout[start : start + depth : step] = source[::step]
        file.create_virtual_dataset(path, layout)
    elif kind == "raw" and shape:
        size = item["written"] * 40
        file.create_dataset(
            path, shape, dtype, external=[(target or "inside.bin", start, size + 1)]
        )
    elif kind == "soft":
        file[path] = h5py.SoftLink(item["path"])
    elif kind == "external":
        file[path] = h5py.ExternalLink(target, item["path"])
    elif kind == "text":
        file[path] = "NXtomo"
    if not is_link and path in file:
        set_attributes(file[path], item["attributes"])
        set_attributes(file[path].parent, item["group_attributes"])


def make(folder: Path, items: list[dict[str, Any]]) -> Path:
    archive = folder / "archive"
    archive.mkdir(exist_ok=True)
    if not (folder / "outside.h5").exists():
        secret = np.full((4, 5, 6), SECRET, "u1")
        (folder / "raw.bin").write_bytes(secret.tobytes())
        (archive / "inside.bin").write_bytes(voxels((10, 10, 10), "<u2").tobytes())
        for path, content in ((folder / "outside.h5", secret), (archive / "other.h5", None)):
            with h5py.File(path, "w") as file:
                known = voxels((4, 5, 6), "u1") if content is None else content
                file["entry/data/data"], file["recon"] = known, known
                file["loop"] = h5py.ExternalLink("fuzz.h5", "/loop")
    path = archive / "fuzz.h5"
    with h5py.File(path, "w") as file:
        for item in sorted(items, key=lambda item: item["kind"] in ("soft", "external")):
            try:
                add(file, item, folder)
            except (OSError, ValueError, TypeError, KeyError, RuntimeError, UnicodeError):
                # A name that is taken, or a selection that HDF5 does not write.
                continue
    return path


def check_same_as_hdf5(path: Path, dataset: str | None, found: np.ndarray) -> None:
    """What HDF5 itself reads, but for the order of the axes."""
    with h5py.File(path, "r") as file:
        try:
            data = file[dataset]
        except KeyError:
            # A path through a folder that is not there, which HDF5 takes as it is written.
            return
        # HDF5 looks for raw files in the working directory; a group is a series of datasets.
        if isinstance(data, h5py.Dataset) and data.external is None:
            values = data[()].astype(found.dtype)
            np.testing.assert_array_equal(np.sort(values, axis=None), np.sort(found, axis=None))


def read_and_check(path: Path, dataset: str | None) -> None:
    with open_source(str(path), dataset=dataset) as source:
        found = source.read(0, source.shape[0])
        assert found.shape == source.shape
        assert not (found == SECRET).any()
        check_same_as_hdf5(path, source.dataset, found)
        assert all(part.startswith(f"{path.parent}/") for part in source.parts)


@settings(
    max_examples=700,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    items=st.lists(ITEMS, min_size=1, max_size=6),
    dataset=st.sampled_from([None, None, None, "recon", "/entry/data", "/entry/data/data"]),
)
def test_any_file_is_a_volume_or_refused(
    tmp_path: Path, items: list[dict[str, Any]], dataset: str | None
) -> None:
    path = make(tmp_path, items)
    message = "fuzz.h5"
    try:
        with confinement(2**30, 20):
            read_and_check(path, dataset)
    except InvalidVolumeError as error:
        message = str(error)
    assert "fuzz.h5" in message
    assert "\n" not in message
