"""Cutting in Python: what was found with its margin, a typed box as it was typed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import ctray
from ctray.core.errors import CtrayError, GeometryError
from ctray.core.geometry import AxisFaces, Box, VoxelSize
from ctray.core.grid import ShardGrid
from ctray.records.volume_record import VolumeRecord, box_to_cut
from ctray.volumes.multiscale import downsample_mean
from ctray.volumes.volume import Volume, open_volume
from ctray.volumes.writer import create_volume

SHAPE = (70, 50, 66)
TO_CUT = Box(start=(10, 0, 15), stop=(52, 38, 55))
FOUND = VolumeRecord(
    volume_id="",
    source_url="scan.zarr",
    status="located",
    sample_box=Box(start=(13, 11, 17), stop=(50, 37, 51)),
    asked_box=TO_CUT,
    crop_box=TO_CUT,
    confidence=0.6,
    face_confidence=AxisFaces(0.9, 0.8, 0.7, 0.6, 0.75, 0.95),
    shape=list(SHAPE),
    margins=AxisFaces(3, 2, 20, 1, 2, 4),
    promise="calibrated",
    max_loss=0.001,
    coverage=0.95,
    method="rotation",
    model_digest="d1",
    box_settings_digest="sha256:01",
)


@pytest.fixture
def source(tmp_path: Path) -> tuple[Volume, np.ndarray]:
    """A volume with levels of stride 1, 2 and 4, in chunks of 16."""
    array = np.random.default_rng(3).integers(0, 255, SHAPE, dtype=np.uint8)
    writer = create_volume(
        str(tmp_path / "v"),
        shape=list(SHAPE),
        dtype=np.uint8,
        voxel_size=VoxelSize.of((1.5,)),
        num_levels=3,
        grid=ShardGrid.choose(SHAPE, chunk=(16, 16, 16), shard=(32, 32, 32)),
    )
    writer.write(Box.whole(SHAPE), array)
    writer.build_pyramid()
    writer.commit({})
    return open_volume(str(tmp_path / "v")), array


def test_box_to_crop_has_the_margin_of_each_face_and_stays_inside() -> None:
    assert box_to_cut(FOUND, SHAPE) == TO_CUT


def test_one_line_tells_what_was_found() -> None:
    said = repr(FOUND)
    assert "\n" not in said
    assert said == (
        "<VolumeRecord located; sample_box z 13:50 y 11:37 x 17:51; "
        "crop_box z 10:52 y 0:38 x 15:55; "
        "confidence 0.60; at most 0.10% lost, stated for 95% of volumes>"
    )
    empty = VolumeRecord(volume_id="", source_url="", status="empty", reason="nothing stands out")
    assert repr(empty) == "<VolumeRecord empty: nothing stands out>"


def test_what_was_found_is_cut_with_its_margin_and_says_what_cut_it(
    source: tuple[Volume, np.ndarray], tmp_path: Path
) -> None:
    volume, array = source
    done = ctray.crop(volume, FOUND, str(tmp_path / "c"))
    assert done.asked_box == TO_CUT
    # Whole voxels of the coarsest level, of stride 4.
    assert done.box.contains(Box(start=(8, 0, 12), stop=(52, 40, 56)))
    crop = open_volume(done.url)
    np.testing.assert_array_equal(crop.read_level(0), array[done.box.slices])
    told = crop.attributes
    assert told["sample_box"] == [[13, 50], [11, 37], [17, 51]]
    assert told["asked_box"] == TO_CUT.ranges
    assert told["crop_box"] == done.box.ranges
    assert (told["promise"], told["max_loss"], told["coverage"]) == ("calibrated", 0.001, 0.95)
    assert (told["method"], told["model_digest"]) == ("rotation", "d1")
    assert told["box_settings_digest"] == "sha256:01"
    assert (told["source_url"], told["imported_url"]) == (volume.url, None)


@pytest.mark.parametrize(
    ("box", "levels"),
    [
        # Odd faces line up with no coarser level.
        (Box(start=(1, 11, 17), stop=(69, 37, 51)), 2),
        # Even ones with that of stride 2 alone.
        (Box(start=(2, 12, 18), stop=(70, 38, 50)), 2),
        # Multiples of 4, or the volume's end: all are copied.
        (Box(start=(12, 4, 16), stop=(70, 50, 52)), 3),
    ],
)
def test_typed_box_is_cut_as_it_was_typed(
    source: tuple[Volume, np.ndarray], tmp_path: Path, box: Box, levels: int
) -> None:
    volume, array = source
    done = ctray.crop(volume, box, str(tmp_path / "c"))
    assert done.box == done.asked_box == box
    crop = open_volume(done.url)
    assert crop.shape == box.shape
    np.testing.assert_array_equal(crop.read_level(0), array[box.slices])
    assert crop.attributes["crop_box"] == crop.attributes["asked_box"] == box.ranges
    assert "promise" not in crop.attributes
    if levels == 3:
        coarse = Box(start=(3, 1, 4), stop=(18, 13, 13), level=2)
        np.testing.assert_array_equal(crop.read_level(2), volume.read(coarse))
    else:
        np.testing.assert_array_equal(crop.read_level(1), downsample_mean(array[box.slices]))


def test_box_of_a_coarser_level_is_cut_as_typed(
    source: tuple[Volume, np.ndarray], tmp_path: Path
) -> None:
    volume, _ = source
    box = Box(start=(3, 4, 5), stop=(20, 11, 12), level=1)
    done = ctray.crop(volume, box, str(tmp_path / "c"))
    assert done.box == Box(start=(6, 8, 10), stop=(40, 22, 24))


def test_imported_volume_names_its_own_file(tmp_path: Path) -> None:
    import tifffile

    array = np.random.default_rng(0).integers(0, 255, (12, 20, 24), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "scan.tif", array, photometric="minisblack")
    ctray.import_volume(str(tmp_path / "scan.tif"), str(tmp_path / "scan.zarr"))
    volume = ctray.open_volume(str(tmp_path / "scan.zarr"))
    done = ctray.crop(volume, Box(start=(1, 2, 3), stop=(9, 9, 9)), str(tmp_path / "c"))
    told = open_volume(done.url).attributes
    assert told["source_url"] == str(tmp_path / "scan.tif")
    assert told["imported_url"] == volume.url


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"status": "empty", "sample_box": None, "reason": "no sample"},
            "has no crop: it is empty",
        ),
        ({"status": "uncertain", "reason": "the boxes differ"}, r"found\.crop_box, url\) cuts"),
        ({"shape": [70, 50, 65]}, "localize this volume"),
    ],
)
def test_what_is_not_to_be_cut_is_refused(
    source: tuple[Volume, np.ndarray], tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    volume, _ = source
    with pytest.raises(CtrayError, match=said):
        ctray.crop(volume, replace(FOUND, **changes), str(tmp_path / "c"))  # type: ignore[arg-type]
    assert not (tmp_path / "c").exists()


def test_volume_for_review_can_be_cut_by_name(
    source: tuple[Volume, np.ndarray], tmp_path: Path
) -> None:
    volume, _ = source
    unsure = replace(FOUND, status="uncertain", reason="the boxes differ", promise=None)
    assert unsure.crop_box is not None
    assert ctray.crop(volume, unsure.crop_box, str(tmp_path / "c")).box == unsure.crop_box


def test_boxes_that_do_not_fit_and_things_that_are_no_box(
    source: tuple[Volume, np.ndarray], tmp_path: Path
) -> None:
    volume, _ = source
    with pytest.raises(GeometryError, match="z=71 exceeds extent 70"):
        ctray.crop(volume, Box(start=(0, 0, 0), stop=(71, 4, 4)), str(tmp_path / "c"))
    with pytest.raises(CtrayError, match=r"or a ctray\.Box, not list"):
        ctray.crop(volume, [[0, 1], [0, 1], [0, 1]], str(tmp_path / "c"))  # type: ignore[arg-type]
