"""What OME-Zarr images and other Zarr say of themselves: size, levels, labels, colours, holes."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr_makers import axes_of, halved, scale, translation, write_array, write_image

from ctray.archive.catalog import build_catalog, read_catalog, write_catalog
from ctray.archive.importing import import_volume
from ctray.core.errors import CtrayError, InvalidVolumeError, NoVolumeError, printable
from ctray.core.geometry import Box
from ctray.crops.cutting import write_crop
from ctray.crops.restoring import restore
from ctray.formats.opening import open_source
from ctray.volumes.volume import open_volume

FINE, COARSE = [scale(0.65, 0.65, 0.65)], [scale(1.3, 1.3, 1.3), translation(0.325, 0.325, 0.325)]


def noise(shape: tuple[int, ...] = (16, 20, 24), dtype: str = "uint16") -> np.ndarray:
    return np.random.default_rng(42).integers(1, 250, shape).astype(dtype)


def image_of(folder: Path, *steps: Any, **options: Any) -> str:
    """An image of two levels with the transforms of each."""
    voxels = noise()
    options.setdefault("axes", axes_of("zyx"))
    return write_image(folder, [voxels, halved(voxels)][: len(steps)], list(steps), **options)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize(
    ("steps", "outer", "size"),
    [
        (([scale(1, 1, 1)], [scale(2, 2, 2)]), [scale(0.65, 0.65, 0.65)], 0.65),
        (([scale(1.3, 1.3, 1.3)], [scale(2.6, 2.6, 2.6)]), [scale(0.5, 0.5, 0.5)], 0.65),
        ((FINE, COARSE), [], 0.65),
        ((FINE, COARSE), None, 0.65),
        ((None, None), [scale(0.65, 0.65, 0.65)], 0.65),
        ((None, None), None, None),
        (([], []), [], None),
        (([{"type": "identity"}], [{"type": "identity"}]), None, None),
        (([translation(5, 5, 5)], [translation(5, 5, 5)]), None, None),
        ((None, [scale(2, 2, 2)]), None, None),
    ],
)
def test_voxel_size_is_what_a_scale_says(
    tmp_path: Path, steps: Any, outer: Any, size: float | None, version: str
) -> None:
    more = {} if outer is None else {"coordinateTransformations": outer}
    volume = open_volume(image_of(tmp_path / "v", *steps, multiscale=more, version=version))
    if size is None:
        assert volume.voxel_size is None
        assert volume.origin_um == (0.0, 0.0, 0.0)
    else:
        assert volume.voxel_size is not None
        assert volume.voxel_size.um == pytest.approx((size,) * 3)
    assert volume.plain_scale is None
    assert [level.factors for level in volume.levels] == [(1, 1, 1), (2, 2, 2)]
    assert volume.levels[1].offset in {(0.5, 0.5, 0.5), (0.0, 0.0, 0.0)}
    np.testing.assert_array_equal(volume.read_level(1), halved(noise()))


def test_translation_and_scale_at_both_places(tmp_path: Path) -> None:
    url = image_of(
        tmp_path / "v",
        [scale(1.3, 1.3, 1.3), translation(2.6, 2.6, 2.6)],
        [scale(2.6, 2.6, 2.6), translation(3.25, 3.25, 3.25)],
        multiscale={"coordinateTransformations": [scale(0.5, 0.5, 0.5), translation(100, 0, 0)]},
    )
    volume = open_volume(url)
    assert volume.voxel_size is not None
    assert volume.voxel_size.um == pytest.approx((0.65, 0.65, 0.65))
    assert volume.origin_um == pytest.approx((101.3, 1.3, 1.3))
    assert volume.levels[1].offset == pytest.approx((0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    ("units", "factors"),
    [
        (("millimeter", "micrometer", "micrometer"), (1000, 1, 1)),
        (("nanometer", "millimeter", "meter"), (1e-3, 1e3, 1e6)),
        (("µm", "um", "micron"), (1, 1, 1)),
    ],
)
def test_units_are_converted_axis_by_axis(tmp_path: Path, units: Any, factors: Any) -> None:
    steps = [scale(0.5, 2, 4), translation(1, 2, 4)]
    volume = open_volume(image_of(tmp_path / "v", steps, axes=axes_of("zyx", units)))
    assert volume.voxel_size is not None
    assert volume.voxel_size.um == pytest.approx(
        tuple(e * f for e, f in zip((0.5, 2, 4), factors, strict=True))
    )
    assert volume.origin_um == pytest.approx(
        tuple(t * f for t, f in zip((1, 2, 4), factors, strict=True))
    )


@pytest.mark.parametrize(
    ("units", "told"),
    [
        (None, "0.5 × 2 × 4 (unit unknown)"),
        ("pixel", "0.5 × 2 × 4 pixel"),
        (("millimeter", None, None), "0.5 × 2 × 4 (units millimeter, unknown, unknown)"),
    ],
)
def test_numbers_without_a_unit_of_length_are_kept_as_they_are(
    tmp_path: Path, units: Any, told: str
) -> None:
    steps = [scale(0.5, 2, 4), translation(1, 8, 12)]
    url = image_of(tmp_path / "v", steps, axes=axes_of("zyx", units))
    volume = open_volume(url)
    assert volume.voxel_size is None
    assert str(volume.plain_scale) == told
    assert volume.origin_um == (2.0, 4.0, 3.0)

    (entry,) = build_catalog(url)
    write_catalog([entry], str(tmp_path / "catalog.parquet"))
    (again,) = read_catalog(str(tmp_path / "catalog.parquet"))
    assert again.voxel_size is None
    assert again.notes == f"voxel size {told}, z, y, x"

    box = Box(start=(2, 4, 6), stop=(10, 12, 14))
    crop = write_crop(
        volume, box, str(tmp_path / "crop"), provenance={}, snap_chunks=0, surround_size=8
    )
    restored = restore(crop.url, str(tmp_path / "restored"))
    for made in (
        open_volume(crop.url),
        open_volume(import_volume(url, str(tmp_path / "import")).url),
        open_volume(getattr(restored, "url", str(tmp_path / "restored"))),
    ):
        assert made.voxel_size is None
        assert made.plain_scale == volume.plain_scale
    assert open_volume(crop.url).origin_um == (4.0, 8.0, 9.0)
    assert open_volume(str(tmp_path / "restored")).origin_um == (2.0, 4.0, 3.0)


def test_a_sidecar_turns_places_into_micrometres(tmp_path: Path) -> None:
    steps = [scale(2, 2, 2), translation(6, 8, 10)]
    url = image_of(tmp_path / "v", steps, axes=axes_of("zyx", None))
    (tmp_path / "v.json").write_text('{"voxel_size_um": 0.5}')
    with open_source(url) as source:
        assert source.voxel_size is not None
        assert (source.voxel_size.um, source.plain_scale) == ((0.5, 0.5, 0.5), None)
        assert source.notes == ()
    volume = open_volume(import_volume(url, str(tmp_path / "import")).url)
    assert volume.origin_um == pytest.approx((1.5, 2.0, 2.5))


@pytest.mark.parametrize(
    ("version", "multiscale"),
    [
        ("0.6.dev2", {"coordinateSystems": [{"name": "physical"}]}),
        ("0.6", {}),
        ("0.1", {}),
        ("1\x1b[2J", {}),
    ],
)
def test_other_versions_are_refused_by_name(
    tmp_path: Path, version: str, multiscale: dict[str, Any]
) -> None:
    url = image_of(tmp_path / "v", FINE, version=version, multiscale=multiscale)
    shown = printable(version)
    with pytest.raises(InvalidVolumeError) as caught:
        open_volume(url)
    assert f"v: ctray does not read OME-Zarr {shown}; convert it to 0.4 or 0.5" in str(caught.value)


def test_metadata_of_04_in_a_group_of_zarr_3(tmp_path: Path) -> None:
    url = image_of(tmp_path / "v", FINE, version="0.5")
    path = tmp_path / "v" / "zarr.json"
    group = json.loads(path.read_text())
    entry = group["attributes"].pop("ome")["multiscales"][0]
    group["attributes"]["multiscales"] = [{**entry, "version": "0.4"}]
    path.write_text(json.dumps(group))
    volume = open_volume(url)
    assert (volume.ome_version, volume.shape) == ("0.4", (16, 20, 24))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_labels_and_colours_are_no_volumes_and_no_failures(tmp_path: Path, version: str) -> None:
    grey, options = noise(), {"version": version, "axes": axes_of("zyx")}
    write_image(tmp_path / "grey", [grey], [FINE], **options)
    told: Any = {"image-label": {"source": {"image": "../grey"}}}
    write_image(tmp_path / "cells", [grey], [FINE], attributes=told, **options)
    colours = [{"color": c, "active": True} for c in ("FF0000", "00FF00", "0000FF")]
    write_image(
        tmp_path / "stained",
        [noise((3, 16, 20, 24), "uint8")],
        [[scale(1, 1, 1, 1)]],
        version=version,
        axes=axes_of("czyx"),
        attributes={"omero": {"channels": colours}},
    )
    write_image(
        tmp_path / "photo",
        [noise((1, 3, 40, 50), "uint8")],
        [[scale(1, 1, 1, 1)]],
        version=version,
        axes=axes_of("tcyx"),
    )
    group = zarr.open_group(tmp_path / "scan", mode="w", zarr_format=2 if version == "0.4" else 3)
    for name, data in {
        "rgb": noise((60, 80, 3), "uint8"),
        "theta": np.linspace(0, 180, 50),
        "plane": noise((1, 40, 50)),
        "inside": grey > 100,
        "names": np.array(["a", "bc"]),
        "volume": grey,
    }.items():
        with pytest.warns() if name == "names" and version == "0.5" else nullcontext():
            group.create_array(name, data=data)
    catalog = build_catalog(str(tmp_path))
    assert [e.url.removeprefix(str(tmp_path)) for e in catalog] == ["/grey", "/scan/volume"]
    assert [e.status for e in catalog] == ["ok", "ok"]
    for url, reason in {
        "cells": "labels of another image",
        "stained": "axes c, z, y, x .* a colour image",
        "photo": "axes t, c, y, x .* no z axis",
        "scan/rgb": "looks like colours",
        "scan/theta": "1D array",
        "scan/plane": "single plane",
        "scan/inside": "a mask .dtype bool.",
        "scan/names": "1D array",
    }.items():
        with pytest.raises(NoVolumeError, match=reason), open_source(str(tmp_path / url)):
            pass
    assert len(catalog.without_volume) == 8
    # Whoever names labels gets them: as truth, for example.
    assert open_volume(str(tmp_path / "cells")).is_label


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_labels_that_only_their_group_tells_of(tmp_path: Path, version: str) -> None:
    labels = tmp_path / "scan.zarr" / "labels"
    url = write_image(labels / "cells", [noise()], [FINE], axes=axes_of("zyx"), version=version)
    other = write_image(labels / "grey", [noise()], [FINE], axes=axes_of("zyx"), version=version)
    if version == "0.4":
        (labels / ".zgroup").write_text('{"zarr_format": 2}')
        (labels / ".zattrs").write_text('{"labels": ["cells"]}')
    else:
        ome = {"version": "0.5", "labels": ["cells"]}
        group = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": ome}}
        (labels / "zarr.json").write_text(json.dumps(group))
    with pytest.raises(NoVolumeError, match="labels of another image"), open_source(url):
        pass
    with open_source(other) as source:
        assert source.shape == (16, 20, 24)


def test_several_channels_that_are_no_colours_are_a_failure(tmp_path: Path) -> None:
    url = write_image(
        tmp_path / "v", [noise((2, 16, 20, 24))], [[scale(1, 1, 1, 1)]], axes=axes_of("czyx")
    )
    (entry,) = build_catalog(url)
    assert entry.status == "failed"
    assert "axis c has length 2" in str(entry.reason)


def test_levels_that_do_not_belong_are_left_out_or_refused(tmp_path: Path) -> None:
    voxels = noise()
    url = write_image(
        tmp_path / "types",
        [voxels, halved(voxels).astype("float32")],
        [FINE, COARSE],
        axes=axes_of("zyx"),
    )
    volume = open_volume(url)
    assert len(volume.levels) == 1
    np.testing.assert_array_equal(volume.read_level(0), voxels)
    url = write_image(
        tmp_path / "order", [halved(voxels), voxels], [COARSE, FINE], axes=axes_of("zyx")
    )
    with pytest.raises(InvalidVolumeError, match=r"level '1' .* is larger than level '0'"):
        open_volume(url)


def test_more_images_in_a_group_are_told(tmp_path: Path) -> None:
    url = image_of(tmp_path / "v", FINE)
    path = tmp_path / "v" / ".zattrs"
    told = json.loads(path.read_text())
    told["multiscales"] *= 3
    path.write_text(json.dumps(told))
    (entry,) = build_catalog(url)
    assert entry.notes == "2 more images in one group; the first is read"


@pytest.mark.parametrize("options", [{"zarr_format": 2}, {}, {"shards": (16, 8, 8)}])
def test_chunks_that_are_not_stored_are_told(tmp_path: Path, options: dict[str, Any]) -> None:
    url = write_array(tmp_path / "v", noise((16, 16, 16)), chunks=(8, 8, 8), **options)
    (whole,) = build_catalog(url)
    assert whole.notes is None
    objects = sorted(p for p in Path(url).rglob("*") if p.is_file() and "za" not in p.name)
    for path in objects[1:3]:
        path.unlink()
    (holed,) = build_catalog(url)
    assert holed.notes == (
        f"only {len(objects) - 2} of {len(objects)} chunks of level 0 are stored; the others have "
        "the fill value 0"
    )


def test_plates_and_series_are_folders_of_images(tmp_path: Path) -> None:
    def group(path: Path, attributes: dict[str, Any]) -> None:
        path.mkdir(parents=True)
        (path / ".zgroup").write_text('{"zarr_format": 2}')
        (path / ".zattrs").write_text(json.dumps(attributes))

    def image(path: Path, seed: int) -> None:
        voxels = noise((1, 1, 8, 9, 10)) + np.uint16(seed)
        steps = [[scale(1, 1, 2, 1, 1)]]
        write_image(path, [voxels], steps, axes=axes_of("tczyx"))

    group(tmp_path / "plate.zarr", {"plate": {"wells": [{"path": "A/1"}, {"path": "A/2"}]}})
    group(tmp_path / "plate.zarr" / "A", {})
    group(tmp_path / "series.zarr", {"bioformats2raw.layout": 3})
    group(tmp_path / "series.zarr" / "OME", {"series": ["0", "1"]})
    for well in (1, 2):
        group(tmp_path / "plate.zarr" / "A" / str(well), {"well": {"images": [{"path": "0"}]}})
        image(tmp_path / "plate.zarr" / "A" / str(well) / "0", well)
    for series in (0, 1):
        image(tmp_path / "series.zarr" / str(series), 10 + series)
    catalog = build_catalog(str(tmp_path))
    assert [e.url.removeprefix(f"{tmp_path}/") for e in catalog] == [
        "plate.zarr/A/1/0",
        "plate.zarr/A/2/0",
        "series.zarr/0",
        "series.zarr/1",
    ]
    assert len({e.volume_id for e in catalog}) == 4
    for entry, seed in zip(catalog, (1, 2, 10, 11), strict=True):
        assert entry.voxel_size is not None
        assert entry.voxel_size.um == (2.0, 1.0, 1.0)
        voxels = open_volume(entry.url).read_level(0)
        np.testing.assert_array_equal(voxels, noise((8, 9, 10)) + np.uint16(seed))


def test_an_error_is_one_line_and_names_the_file(tmp_path: Path) -> None:
    url = image_of(tmp_path / "v", FINE)
    path = tmp_path / "v" / ".zattrs"
    for broken in ("{", '{"multiscales": 5}', '{"multiscales": [[]]}', '"text"', "[]", "\xff"):
        path.write_bytes(broken.encode("latin-1"))
        with pytest.raises(CtrayError) as caught:
            open_volume(url)
        assert str(caught.value).startswith(url)
        assert "\n" not in str(caught.value)
