"""HDF5 and NeXus: which dataset is the volume, in which axes, and what is said where none is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ctray.archive.catalog import build_catalog
from ctray.archive.importing import import_volume
from ctray.core.errors import InvalidVolumeError, NotReconstructedError, NoVolumeError
from ctray.formats.opening import open_source
from ctray.volumes.volume import open_volume

SHAPE = (12, 18, 20)
FRAMES = (30, 18, 20)


def voxels(shape: tuple[int, ...] = SHAPE, dtype: Any = np.uint16) -> np.ndarray:
    return np.random.default_rng(len(shape)).integers(1, 250, shape).astype(dtype)


def nexus(parent: h5py.Group, path: str, nx_class: str, **attrs: Any) -> h5py.Group:
    group = parent.require_group(path)
    group.attrs.update({"NX_class": nx_class, **attrs})
    return group


def add_nxtomo(file: h5py.File, name: str = "entry") -> h5py.Group:
    """A raw scan: frames in a detector, linked into the default plot, with angles."""
    entry = nexus(file, name, "NXentry", default="data")
    entry["definition"] = "NXtomo"
    detector = nexus(entry, "instrument/detector", "NXdetector")
    detector["data"] = voxels(FRAMES)
    detector["image_key"] = np.zeros(FRAMES[0], int)
    entry["sample/rotation_angle"] = np.linspace(0, 180, FRAMES[0])
    nexus(entry, "data", "NXdata", signal="data")["data"] = detector["data"]
    return entry


def add_data_exchange(file: h5py.File) -> None:
    """A raw scan as beamlines of the APS write it."""
    file["implements"] = "exchange:measurement"
    file["exchange/data"] = voxels(FRAMES)
    file["exchange/data_white"] = voxels((3, *FRAMES[1:]))
    file["exchange/theta"] = np.linspace(0, 180, FRAMES[0])


def check(path: Path, dataset: str, expected: np.ndarray | None = None) -> None:
    with open_source(str(path)) as source:
        assert source.dataset == dataset
        expected = voxels() if expected is None else expected
        assert source.shape == expected.shape
        np.testing.assert_array_equal(source.read(0, len(expected)), expected)


# --- reconstructions among other things -------------------------------------------------------


def mantid(file: h5py.File) -> str:
    file.attrs["default"] = "tomo_entry"
    add_nxtomo(file, "tomo_entry")
    entry = nexus(file, "flask", "NXentry")
    entry["definition"] = "NXtomoproc"
    nexus(entry, "data", "NXdata", signal="data")["data"] = voxels()
    return "/flask/data/data"


def nabu(file: h5py.File) -> str:
    entry = nexus(file, "entry0000", "NXentry", default="reconstruction/results")
    nexus(entry, "reconstruction", "NXprocess")
    nexus(entry, "reconstruction/results", "NXdata", signal="data")["data"] = voxels()
    entry["reconstruction/configuration/rotation_angles"] = np.linspace(0, 3, SHAPE[0])
    return "/entry0000/reconstruction/results/data"


def savu(file: h5py.File) -> str:
    add_nxtomo(file, "entry1/tomo_entry")
    nexus(file, "entry", "NXentry")
    axes = ["voxel_x", "voxel_y", "voxel_z"]
    data = nexus(file, "entry/final_result_tomo", "NXdata", signal="data", axes=axes)
    data["data"] = voxels().transpose(2, 1, 0)
    return "/entry/final_result_tomo/data"


def tomopy(file: h5py.File) -> str:
    file["implements"] = "exchange"
    file["exchange/data"] = voxels()
    file["exchange/data"].attrs["axes"] = "z:y:x"
    return "/exchange/data"


def exchange_with_recon(file: h5py.File) -> str:
    add_data_exchange(file)
    file["exchange/recon"] = voxels()
    return "/exchange/recon"


def tomojax(file: h5py.File) -> str:
    entry = add_nxtomo(file)
    nexus(entry, "processing", "NXprocess")
    entry["processing/tomogram/volume"] = voxels()
    return "/entry/processing/tomogram/volume"


def httomo(file: h5py.File) -> str:
    square = voxels((20, 20, 18)).transpose(0, 2, 1)
    file["data"], file["angles"] = square, np.linspace(0, 3, 30)
    file["data_dims/detector_x_y"] = [20, 18]
    return "/data"


def big_data_viewer(file: h5py.File) -> str:
    file["t00000/s00/0/cells"] = voxels()
    for level in (1, 2):
        shape = [n // 2**level for n in SHAPE]
        file[f"t00000/s00/{level}/cells"] = voxels(tuple(shape))
    file["s00/resolutions"] = [[1.0, 1, 1], [2, 2, 2], [4, 4, 4]]
    return "/t00000/s00/0/cells"


def beside_masks_and_colours(file: h5py.File) -> str:
    file["scan"] = voxels()
    file["a_mask"] = voxels(dtype=np.uint8)
    file["inside"] = voxels() > 100
    file["rendering"] = voxels((*SHAPE, 3), np.uint8)
    file["rendering"].attrs["interpretation"] = "rgba-image"
    file["photograph"] = voxels((40, 50, 3), np.uint8)
    file["spectra"] = voxels()
    file["spectra"].attrs["interpretation"] = "spectrum"
    return "/scan"


def electron_microscopy(file: h5py.File) -> str:
    file["volumes/raw"] = voxels(dtype=np.uint8)
    file["volumes/labels/neuron_ids"] = voxels(dtype=np.uint64)
    return "/volumes/raw"


def legacy_signal(file: h5py.File) -> str:
    data = nexus(file, "entry/data", "NXdata")
    data["values"], data["errors"] = voxels(), voxels()
    data["values"].attrs["signal"] = 1
    return "/entry/data/values"


LAYOUTS = [
    mantid, nabu, savu, tomopy, exchange_with_recon, tomojax, big_data_viewer,
    beside_masks_and_colours, legacy_signal,
]  # fmt: skip


@pytest.mark.parametrize("make", LAYOUTS, ids=lambda f: f.__name__)
def test_reconstruction_is_found(tmp_path: Path, make: Callable[[h5py.File], str]) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset = make(file)
    check(tmp_path / "a.h5", dataset)


def test_reconstruction_of_httomo_is_turned(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        httomo(file)
        stored = file["data"][:]
    check(tmp_path / "a.h5", "/data", stored.transpose(1, 0, 2))


def test_grey_values_beside_labels(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset = electron_microscopy(file)
    check(tmp_path / "a.h5", dataset, voxels(dtype=np.uint8))


def test_big_data_viewer_means_unsigned_numbers(tmp_path: Path) -> None:
    expected = voxels() * 250
    assert expected.max() > np.iinfo(np.int16).max
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["t00000/s00/0/cells"] = expected.view(np.int16)
    check(tmp_path / "a.h5", "/t00000/s00/0/cells", expected)


# --- raw scans ----------------------------------------------------------------------------------


def lima(file: h5py.File) -> None:
    nexus(file, "1.1", "NXentry")
    nexus(file, "1.1/instrument/camera", "NXdetector")["data"] = voxels(FRAMES)
    file["1.1/measurement/camera"] = h5py.SoftLink("/1.1/instrument/camera/data")


def axes_say_angle(file: h5py.File) -> None:
    data = nexus(file, "scan", "NXdata", signal="counts", axes=["rotation_angle", "y", "x"])
    data["counts"] = voxels(FRAMES)


def scale_says_angle(file: h5py.File) -> None:
    file["counts"], file["theta"] = voxels(FRAMES), np.linspace(0, 180, FRAMES[0])
    file["theta"].make_scale("theta")
    file["counts"].dims[0].attach_scale(file["theta"])


def sinograms(file: h5py.File) -> None:
    file["exchange/data"] = voxels(FRAMES).transpose(1, 0, 2)
    file["exchange/theta"] = np.linspace(0, 180, FRAMES[0])


def interrupted_scan(file: h5py.File) -> None:
    file["exchange/data"], file["exchange/theta"] = voxels(FRAMES), np.linspace(0, 180, 1500)


def eiger(file: h5py.File) -> None:
    entry = nexus(file, "entry", "NXentry")
    entry["definition"] = "NXmx"
    data = nexus(entry, "data", "NXdata")
    for i in (1, 2, 3):
        data[f"data_{i:06d}"] = voxels(FRAMES)


RAW = [
    add_nxtomo, add_data_exchange, lima, axes_say_angle, scale_says_angle, sinograms,
    interrupted_scan, eiger,
]  # fmt: skip


@pytest.mark.parametrize("make", RAW, ids=lambda f: f.__name__)
def test_raw_scan_is_told_as_projections(tmp_path: Path, make: Callable[[h5py.File], Any]) -> None:
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        make(file)
    with h5py.File(tmp_path / "recon.h5", "w") as file:
        file["volume"] = voxels()
    with pytest.raises(NotReconstructedError, match=r"raw\.h5: projections, not reconstructed: /"):
        open_source(str(tmp_path / "raw.h5"))
    catalog = build_catalog(str(tmp_path))
    assert [entry.dataset for entry in catalog] == ["/volume"]


@pytest.mark.parametrize("dataset", ["entry/data/data", "/entry/instrument/detector/data"])
def test_raw_scan_is_refused_by_name_too(tmp_path: Path, dataset: str) -> None:
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        add_nxtomo(file)
    with pytest.raises(NotReconstructedError, match="not reconstructed"):
        open_source(str(tmp_path / "raw.h5"), dataset=dataset)


def test_a_name_alone_is_overruled_by_the_user(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["projections"] = voxels()
    with pytest.raises(NotReconstructedError, match="named projections"):
        open_source(str(tmp_path / "a.h5"))
    with open_source(str(tmp_path / "a.h5"), dataset="projections") as source:
        assert source.shape == SHAPE


def test_names_that_only_sound_like_flat_fields(tmp_path: Path) -> None:
    for name in ("white_matter", "dark_chocolate", "background_noise"):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file[f"{name}/data"] = voxels()
        check(tmp_path / "a.h5", f"/{name}/data")


def test_what_is_left_out_is_told(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["recon"], file["scan"], file["region_volume"] = voxels(), voxels(), voxels()
    (entry,) = build_catalog(str(tmp_path))
    assert entry.dataset == "/recon"
    assert entry.notes is not None
    assert "not read: /region_volume (12 x 18 x 20 uint16), /scan (12" in entry.notes


# --- no volume, or a question -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("preview", voxels((40, 50, 3), np.uint8), "colour"),
        ("rendering", voxels((*SHAPE, 4), np.uint8), "colour"),
        ("mask", voxels(dtype=np.uint8), "masks or labels"),
        ("inside", voxels() > 100, "masks or labels"),
        ("flats", voxels(), "flat or dark"),
    ],
)
def test_what_is_no_volume_is_told(tmp_path: Path, name: str, data: np.ndarray, words: str) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file[name] = data
    with pytest.raises(NoVolumeError, match=f"{words}.*/{name}"):
        open_source(str(tmp_path / "a.h5"))


@pytest.mark.parametrize("axes", ["energy:y:x", "y:x:channel", "time:y:x"])
def test_stacks_along_other_axes_are_no_volumes(tmp_path: Path, axes: str) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"] = voxels()
        file["data"].attrs["axes"] = axes
    with pytest.raises(NoVolumeError, match="3D data with axes other than space"):
        open_source(str(tmp_path / "a.h5"))


def test_planar_colour_is_no_volume_where_it_is_stated(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["image"] = voxels((3, 40, 50), np.uint8)
        file["image"].attrs["IMAGE_SUBCLASS"] = np.bytes_("IMAGE_TRUECOLOR")
    with pytest.raises(NoVolumeError, match="colour"):
        open_source(str(tmp_path / "a.h5"))


def two_reconstructions(file: h5py.File) -> tuple[str, str]:
    for name in ("absorption", "phase"):
        nexus(file, f"{name}/reconstruction", "NXprocess")["data"] = voxels()
    return "/absorption/reconstruction/data", "/phase/reconstruction/data"


def two_scans_without_a_word(file: h5py.File) -> tuple[str, str]:
    # A preview of a tenth would be smaller too: sizes say nothing.
    file["one"], file["two"] = voxels(), voxels((3, *SHAPE[1:]))
    return "/one", "/two"


def two_time_points(file: h5py.File) -> tuple[str, str]:
    file["t00000/s00/0/cells"], file["t00001/s00/0/cells"] = voxels(), voxels()
    return "/t00000/s00/0/cells", "/t00001/s00/0/cells"


@pytest.mark.parametrize(
    "make",
    [two_reconstructions, two_scans_without_a_word, two_time_points],
    ids=lambda f: f.__name__,
)
def test_open_choice_asks_with_the_answer(
    tmp_path: Path, make: Callable[[h5py.File], tuple[str, str]]
) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        first, second = make(file)
    (entry,) = build_catalog(str(tmp_path))
    assert entry.status == "failed"
    assert entry.reason is not None
    assert f"--dataset {first}" in entry.reason
    assert second in entry.reason
    (entry,) = build_catalog(str(tmp_path), dataset=second)
    assert (entry.status, entry.dataset) == ("ok", second)


def test_default_answers(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        _, second = two_reconstructions(file)
        file.attrs["default"] = "phase"
        file["phase"].attrs["default"] = "reconstruction"
        file["phase/reconstruction"].attrs["signal"] = "data"
    check(tmp_path / "a.h5", second)


def test_default_that_leads_in_circles(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs["default"] = "entry"
        file.create_group("entry").attrs["default"] = "/entry"
        file["entry/volume"] = voxels()
    check(tmp_path / "a.h5", "/entry/volume")


def test_imaris_is_refused_by_name(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["DataSet/ResolutionLevel 0/TimePoint 0/Channel 0/Data"] = voxels()
    with pytest.raises(InvalidVolumeError, match="Imaris"):
        open_source(str(tmp_path / "a.h5"))


# --- axes and voxel sizes -----------------------------------------------------------------------


def nxdata_axes(data: h5py.Dataset, order: str) -> None:
    data.parent.attrs.update({"signal": "data", "axes": [f"voxel_{c}" for c in order]})


def nxdata_indices(data: h5py.Dataset, order: str) -> None:
    data.parent.attrs.update({"signal": "data", "axes": ["voxel_z", "voxel_y", "voxel_x"]})
    for c in "xyz":
        data.parent.attrs[f"voxel_{c}_indices"] = order.index(c)


def legacy_axes(data: h5py.Dataset, order: str) -> None:
    data.attrs["axes"] = ":".join(f"voxel_{c}" for c in order)


def bracketed_axes(data: h5py.Dataset, order: str) -> None:
    data.attrs["axes"] = "[" + ",".join(f"voxel_{c}" for c in order) + "]"


def dimension_scales(data: h5py.Dataset, order: str) -> None:
    for i, c in enumerate(order):
        scale = data.parent[f"voxel_{c}"]
        scale.make_scale(f"voxel_{c}")
        data.dims[i].attach_scale(scale)


STATEMENTS = [nxdata_axes, nxdata_indices, legacy_axes, bracketed_axes, dimension_scales]


@pytest.mark.parametrize("order", ["xyz", "zyx", "yzx", "zxy"])
@pytest.mark.parametrize("chunks", [None, (5, 7, 4)])
@pytest.mark.parametrize("state", STATEMENTS, ids=lambda f: f.__name__)
def test_axes_are_turned(
    tmp_path: Path, state: Callable[[h5py.Dataset, str], None], order: str, chunks: Any
) -> None:
    stored = voxels().transpose(["zyx".index(c) for c in order])
    with h5py.File(tmp_path / "a.h5", "w") as file:
        group = nexus(file, "entry/reconstruction", "NXdata")
        packed = "gzip" if chunks else None
        group.create_dataset("data", data=stored, chunks=chunks, compression=packed)
        for c, n, step in zip("zyx", SHAPE, (0.003, 0.002, 0.001), strict=True):
            group[f"voxel_{c}"] = np.arange(n) * step
            group[f"voxel_{c}"].attrs["units"] = "mm"
        state(group["data"], order)
    with open_source(str(tmp_path / "a.h5")) as source:
        assert source.shape == SHAPE
        assert source.voxel_size is not None
        assert source.voxel_size.um == pytest.approx((3, 2, 1))
        np.testing.assert_array_equal(source.read(3, 8), voxels()[3:8])
        assert bool(source.notes) == (order != "zyx")
    import_volume(str(tmp_path / "a.h5"), str(tmp_path / "a.zarr"))
    np.testing.assert_array_equal(open_volume(str(tmp_path / "a.zarr")).read_level(0), voxels())


@pytest.mark.parametrize("layout", ["labels", "vigra", "beside"])
def test_axes_without_positions_are_turned(tmp_path: Path, layout: str) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"] = voxels().transpose(2, 1, 0)
        if layout == "labels":
            for i, c in enumerate("xyz"):
                file["data"].dims[i].label = c
        elif layout == "vigra":
            file["data"].attrs["axistags"] = '{"axes": [{"key": "x"}, {"key": "y"}, {"key": "z"}]}'
        else:
            file["definition"] = "NXtomoproc"
            file["z"], file["y"], file["x"] = (np.arange(float(n)) for n in SHAPE)
    check(tmp_path / "a.h5", "/data")


def test_few_slices_behind_are_no_colours(tmp_path: Path) -> None:
    few = voxels((4, 18, 20), np.uint8)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"] = few.transpose(2, 1, 0)
        file["data"].attrs["axes"] = "x:y:z"
    check(tmp_path / "a.h5", "/data", few)


def test_singleton_axes_and_turned_ones(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"] = voxels().transpose(2, 1, 0)[None, ..., None]
        file["data"].attrs["axes"] = "t:x:y:z:c"
    check(tmp_path / "a.h5", "/data")


@pytest.mark.parametrize("axes", ["x:x:y", "a:b:d", ".:.:.", "z:y", ""])
def test_axes_that_say_nothing_leave_the_order(tmp_path: Path, axes: str) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"] = voxels()
        file["data"].attrs["axes"] = axes
    check(tmp_path / "a.h5", "/data")


def test_uneven_or_unitless_positions_give_no_voxel_size(tmp_path: Path) -> None:
    for name, positions, unit in (
        ("uneven", np.arange(12.0) ** 2, "um"),
        ("unitless", np.arange(12.0), None),
        ("pixels", np.arange(12.0), "pixel"),
    ):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["data"] = voxels((12, 12, 12))
            file["data"].attrs["axes"] = "z:y:x"
            for c in "zyx":
                file[c] = positions
                if unit:
                    file[c].attrs["units"] = unit
        with open_source(str(tmp_path / f"{name}.h5")) as source:
            assert source.voxel_size is None, name


def test_voxel_size_in_the_settings_of_nabu(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        nabu(file)
        settings = "entry0000/reconstruction/configuration/processing_options/reconstruction"
        file[f"{settings}/voxel_size_cm"] = [3e-4, 2e-4, 1e-4]
    with open_source(str(tmp_path / "a.h5")) as source:
        assert source.voxel_size is not None
        assert source.voxel_size.um == pytest.approx((3, 2, 1))


def test_three_numbers_of_a_turned_volume_are_not_guessed(tmp_path: Path) -> None:
    for sizes, expected in (([3.0, 2.0, 1.0], None), ([2.0, 2.0, 2.0], (2, 2, 2))):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["data"] = voxels()
            file["data"].attrs.update({"axes": "x:y:z", "element_size_um": sizes})
        with open_source(str(tmp_path / "a.h5")) as source:
            assert (source.voxel_size.um if source.voxel_size else None) == expected


@pytest.mark.parametrize("name", ["DIMENSION_LIST", "DIMENSION_LABELS"])
@pytest.mark.parametrize("value", [["x", "y"], "x", 7, [[1.5]]])
def test_dimension_scales_of_a_wrong_type(tmp_path: Path, name: str, value: Any) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"] = voxels()
        file["data"].attrs[name] = value
    check(tmp_path / "a.h5", "/data")


def test_catalog_says_that_axes_were_turned(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"] = voxels()
        file["data"].attrs["axes"] = "x:y:z"
    (entry,) = build_catalog(str(tmp_path))
    assert entry.shape == SHAPE[::-1]
    assert entry.notes is not None
    assert "stored as x, y, z" in entry.notes
