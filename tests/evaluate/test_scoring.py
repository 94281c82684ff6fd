"""Scores by hand, their properties, and the truths that they are measured against."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from ctray.core.errors import ConfigError, GeometryError, InvalidVolumeError, NotFoundError
from ctray.core.geometry import Box
from ctray.evaluate.phantom_archive import write_phantoms
from ctray.evaluate.scoring import OWN_METHOD, score_methods, score_volume
from ctray.evaluate.truth import Truth, count_sample_voxels, iter_mask, read_truths
from ctray.storage.store import write_bytes, write_json
from ctray.volumes.writer import create_volume

SHAPE = (101, 103, 107)
TRUE = Box(start=(11, 13, 17), stop=(30, 36, 46))  # 19 x 23 x 29


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    ranges = []
    for n in SHAPE:
        start = draw(st.integers(0, n - 1))
        ranges.append((start, draw(st.integers(start + 1, n))))
    return Box.from_ranges(ranges)


def truth(box: Box | None = TRUE, **fields: Any) -> Truth:
    return Truth(volume_id="v", shape=SHAPE, box=box, **fields)


def test_errors_by_hand() -> None:
    found = Box(start=(13, 13, 12), stop=(30, 43, 46))
    (score,) = score_volume(truth(), {"ctray": found})
    assert score.outcome == "located"
    assert score.errors == (2, 0, 0, 7, 5, 0)
    assert score.error_voxels == pytest.approx(14 / 6)
    assert score.error_of_volume == pytest.approx((2 / 101 + 7 / 103 + 5 / 107) / 6)
    assert score.error_of_box == pytest.approx((2 / 19 + 7 / 23 + 5 / 29) / 6)
    common, ours, true = 17 * 23 * 29, 17 * 30 * 34, 19 * 23 * 29
    assert score.iou == pytest.approx(common / (ours + true - common))
    assert score.storage_saved == pytest.approx(1 - ours / (101 * 103 * 107))
    assert score.sample_lost is None


def test_faces_on_the_border_or_badly_known_are_reported_apart() -> None:
    known = truth(tolerance=(0, 3, 2, 0, 0, 0), touching=(True, False, False, False, False, False))
    assert known.scored_faces == (False, False, True, True, True, True)
    found = Box(start=(0, 12, 17), stop=(23, 36, 49))
    (score,) = score_volume(known, {"ctray": found})
    assert score.errors == (11, 7, 1, 0, 0, 3)
    assert score.error_voxels == pytest.approx((1 + 3) / 4)
    assert score.error_apart_voxels == pytest.approx((11 + 7) / 2)


def test_a_missing_box_counts_as_the_whole_volume() -> None:
    missing, whole = score_volume(truth(), {"none": None, "whole": Box.whole(SHAPE)})
    assert missing.outcome == "missing"
    assert whole.outcome == "located"
    assert missing.errors == whole.errors == (11, 71, 13, 67, 17, 61)
    assert missing.storage_saved == 0
    assert missing.to_row()["z0"] is None


def test_empty_volumes() -> None:
    right, wrong = score_volume(truth(None), {"none": None, "some": TRUE})
    assert (right.outcome, wrong.outcome) == ("empty", "false-alarm")
    for score in (right, wrong):
        assert score.errors is None
        assert score.error_voxels is None
        assert score.iou is None
    assert right.storage_saved is None
    assert wrong.storage_saved == pytest.approx(1 - 19 * 23 * 29 / (101 * 103 * 107))


@given(boxes())
def test_a_box_against_itself_has_no_error(box: Box) -> None:
    (score,) = score_volume(truth(box), {"ctray": box})
    assert score.error_voxels == score.error_of_volume == score.error_of_box == 0
    assert score.iou == 1


@given(boxes(), st.integers(-50, 50), st.sampled_from([0, 1, 2]))
def test_a_shift_along_one_axis_moves_two_of_six_faces(box: Box, k: int, axis: int) -> None:
    k = max(-box.start[axis], min(k, SHAPE[axis] - box.stop[axis]))
    moved = box.shift([k if a == axis else 0 for a in range(3)])
    (score,) = score_volume(truth(box), {"ctray": moved})
    assert score.error_voxels == pytest.approx(abs(k) / 3)
    assert score.error_of_volume == pytest.approx(abs(k) / 3 / SHAPE[axis])
    n = box.shape[axis]
    assert score.iou == pytest.approx(max(0, n - abs(k)) / (n + min(abs(k), n)))


@given(boxes(), boxes())
def test_errors_and_iou_do_not_know_which_box_is_true(a: Box, b: Box) -> None:
    (forth,) = score_volume(truth(a), {"ctray": b})
    (back,) = score_volume(truth(b), {"ctray": a})
    assert forth.errors == back.errors
    assert forth.iou == back.iou
    assert forth.iou is not None
    assert 0 <= forth.iou <= 1


def test_sample_voxels_lost_from_masks_of_either_kind(tmp_path: Path) -> None:
    mask = np.zeros((7, 11, 13), np.uint8)
    mask[2:5, 3:8, 5:7] = 1
    mask[2:5, 3:8, 7] = 2  # a second kind of tissue is sample too
    tifffile.imwrite(tmp_path / "mask.tif", mask)
    writer = create_volume(
        str(tmp_path / "m.zarr"), shape=mask.shape, dtype=mask.dtype, voxel_size=None
    )
    for box in writer.grid.shards():
        writer.write(box, mask[box.slices])
    writer.build_pyramid()
    writer.commit({})
    true = Box(start=(2, 3, 5), stop=(5, 8, 8))
    short = Box(start=(3, 3, 5), stop=(7, 8, 7))
    for name in ("mask.tif", "m.zarr"):
        known = Truth(volume_id="v", shape=mask.shape, box=true, mask_url=str(tmp_path / name))
        assert count_sample_voxels(known, [true, short]) == (45, [45, 20])
        lost = [s.sample_lost for s in score_volume(known, {"a": true, "b": short, "c": None})]
        assert lost == [0, pytest.approx(25 / 45), 0]


def test_a_mask_of_another_shape_or_no_tiff_is_named(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "mask.tif", np.zeros((5, 7, 11), np.uint8))
    wrong = truth(mask_url=str(tmp_path / "mask.tif"))
    with pytest.raises(InvalidVolumeError, match=r"shape \(5, 7, 11\), its volume \(101"):
        list(iter_mask(wrong))
    whole = (tmp_path / "mask.tif").read_bytes()
    for damaged in (b"no tiff at all", whole[: len(whole) // 2]):
        (tmp_path / "bad.tif").write_bytes(damaged)
        with pytest.raises(InvalidVolumeError, match=r"bad\.tif"):
            list(iter_mask(truth(mask_url=str(tmp_path / "bad.tif"))))
    with pytest.raises(NotFoundError):
        list(iter_mask(truth(mask_url=str(tmp_path / "gone.tif"))))
    with pytest.raises(NotFoundError, match="has no mask"):
        list(iter_mask(truth()))


def test_summary_by_hand() -> None:
    truths = {n: Truth(volume_id=n, shape=SHAPE, box=TRUE) for n in ("a", "b", "c", "d")}
    truths["e"] = Truth(volume_id="e", shape=SHAPE, box=None)
    truths["f"] = Truth(volume_id="f", shape=SHAPE, box=None)
    found: dict[str, Box | None] = {
        "a": TRUE,
        "b": TRUE.expand(1, SHAPE),
        "c": TRUE.shift((6, 0, 0)),
        "d": None,
        "e": None,
        "f": TRUE,
    }
    summary = score_methods({OWN_METHOD: found}, truths).summary()
    whole = (11 + 71 + 13 + 67 + 17 + 61) / 6
    assert summary.num_volumes == 6
    assert summary.num_located == 3
    assert (summary.num_missing, summary.num_empty, summary.num_false_alarms) == (1, 1, 1)
    assert summary.mean_voxels == pytest.approx((0 + 1 + 2 + whole) / 4)
    assert summary.median_voxels == pytest.approx((1 + 2) / 2)
    assert summary.p90_voxels == pytest.approx(2 + 0.7 * (whole - 2))
    assert (summary.worst_voxels, summary.worst_volume_id) == (pytest.approx(whole), "d")
    # 24 faces: ten of 0, six of 1, two of 6, then those of the whole volume.
    assert summary.face_median_voxels == 1
    assert summary.apart_mean_voxels is None


def test_table_keeps_methods_in_order_and_names_what_it_left_out() -> None:
    truths = {n: Truth(volume_id=n, shape=SHAPE, box=TRUE) for n in ("a", "b")}
    table = score_methods({"ours": {"z": TRUE, "a": TRUE}, "otsu": {"a": None, "z": None}}, truths)
    assert table.methods == ("ours", "otsu")
    assert [(s.method, s.volume_id) for s in table.scores] == [("ours", "a"), ("otsu", "a")]
    assert table.without_truth == ("z",)
    assert table.without_prediction == ("b",)
    with pytest.raises(NotFoundError, match="'mine' was not scored; there are ours, otsu"):
        table.summary("mine")


def test_rows_go_into_json_and_parquet() -> None:
    truths = {"a": truth(), "b": truth(None)}
    table = score_methods({"ours": {"a": TRUE, "b": None}, "none": {"a": None, "b": None}}, truths)
    assert (
        json.loads(json.dumps(table.to_json(), allow_nan=False))["summary"][0]["method"] == "ours"
    )
    columns = pa.Table.from_pylist(table.to_rows())
    assert columns.num_rows == 4
    assert columns["z0"].to_pylist() == [11, None, None, None]
    assert columns.schema.field("error_voxels").type == pa.float64()


def test_mistakes_in_predictions_are_named() -> None:
    truths = {"v": truth()}
    with pytest.raises(NotFoundError, match="ids must be equal"):
        score_methods({OWN_METHOD: {"w": TRUE}}, truths)
    with pytest.raises(NotFoundError, match="ids must be equal"):
        score_methods({OWN_METHOD: {}}, truths)
    with pytest.raises(GeometryError, match="level 2"):
        score_methods({OWN_METHOD: {"v": Box(start=(0, 0, 0), stop=(1, 1, 1), level=2)}}, truths)
    with pytest.raises(GeometryError, match="exceeds extent 107"):
        score_methods({OWN_METHOD: {"v": Box.whole((101, 103, 109))}}, truths)
    with pytest.raises(GeometryError, match="'b' covers other volumes"):
        score_methods({"a": {"v": TRUE}, "b": {"v": TRUE, "w": TRUE}}, truths)


def test_truths_of_a_phantom_archive(tmp_path: Path) -> None:
    (record,) = write_phantoms(str(tmp_path), count=1, size=32, seed=3, difficulty="easy")
    for url in (tmp_path, tmp_path / "truth"):
        (found,) = read_truths(str(url)).values()
        assert found.volume_id == record.volume_id
        assert found.shape == (32, 32, 32)
        assert found.box == record.box
        assert found.specimens == (record.box,)
    assert found.box is not None
    total, (inside,) = count_sample_voxels(found, [found.box])
    assert total == inside > 0
    for axis in range(3):
        smaller = list(found.box.stop)
        smaller[axis] -= 1
        cut = Box(start=found.box.start, stop=(smaller[0], smaller[1], smaller[2]))
        assert count_sample_voxels(found, [cut])[1][0] < total, "the box is tight"


def test_phantom_truths_on_another_store_with_empty_and_several() -> None:
    root = "memory://scoring-truths"
    several = [[[0, 5], [1, 6], [2, 7]], [[8, 9], [8, 9], [8, 11]]]
    whole = {"box": [[0, 9], [1, 9], [2, 11]], "specimens": several, "shape": [11, 11, 11]}
    write_json(f"{root}/truth/many.json", whole)
    write_json(f"{root}/truth/none.json", {"box": None, "specimens": [], "shape": [3, 5, 7]})
    truths = read_truths(root)
    assert set(truths) == {"many", "none"}
    assert truths["none"].box is None
    assert truths["none"].scored_faces == (False,) * 6
    assert [b.ranges for b in truths["many"].specimens] == several
    # z0 and x1 lie on the border.
    assert truths["many"].scored_faces == (False, True, True, True, True, False)


def test_truths_of_scan_folders(tmp_path: Path) -> None:
    meta = {
        "shape": [11, 13, 17],
        "bbox_zyx_half_open": [[0, 7], [2, 11], [3, 15]],
        "bbox_tolerance_voxels_per_face": {"z": [0, 1], "y": [3, 2], "x": [1, 5]},
        "faces_touching_volume_border": ["z0", "y1"],
    }
    write_json(str(tmp_path / "head_a" / "meta.json"), meta)
    write_bytes(str(tmp_path / "head_a" / "mask.tif"), b"")
    write_json(str(tmp_path / "no_box" / "meta.json"), {"shape": [3, 3, 3]})
    (tmp_path / "other").mkdir()
    (found,) = read_truths(str(tmp_path)).values()
    assert found.volume_id == "head_a"
    assert found.box == Box(start=(0, 2, 3), stop=(7, 11, 15))
    assert found.tolerance == (0, 1, 3, 2, 1, 5)
    assert found.scored_faces == (False, True, False, False, True, False)
    assert found.mask_url == str(tmp_path / "head_a" / "mask.tif")
    assert read_truths(str(tmp_path / "head_a")) == {"head_a": found}


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ({"bbox_zyx_half_open": [[0, 7], [2, 11], [3, 15]]}, "key 'shape' is missing"),
        ({"bbox_zyx_half_open": [[0, 7]], "shape": [9, 9, 9]}, "z, y, x"),
        ({"bbox_zyx_half_open": [[0, 7]] * 3, "shape": [9, 9, 5]}, "exceeds extent 5"),
        ({"bbox_zyx_half_open": [[7, 7]] * 3, "shape": [9, 9, 9]}, "empty"),
        ({"bbox_zyx_half_open": None, "shape": [9, 9, 9]}, "cannot be used"),
        (
            {
                "bbox_zyx_half_open": [[0, 7]] * 3,
                "shape": [9, 9, 9],
                "faces_touching_volume_border": ["top"],
            },
            "top",
        ),
        (
            {
                "bbox_zyx_half_open": [[0, 7]] * 3,
                "shape": [9, 9, 9],
                "bbox_tolerance_voxels_per_face": {"z": [1]},
            },
            "cannot be used",
        ),
    ],
)
def test_unusable_truths_are_named(tmp_path: Path, meta: dict[str, Any], message: str) -> None:
    write_json(str(tmp_path / "head" / "meta.json"), meta)
    with pytest.raises(ConfigError, match=message) as caught:
        read_truths(str(tmp_path))
    assert "meta.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_without_truth_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="holds no truth"):
        read_truths(str(tmp_path))
    with pytest.raises(NotFoundError):
        read_truths(str(tmp_path / "gone"))


@pytest.mark.real
def test_real_boxes_hold_their_masks() -> None:
    default = Path(__file__).parents[2].parent / "shared" / "data"
    root = Path(os.environ.get("CTRAY_TEST_DATA", default)) / "mouse_heads_tube"
    if not root.is_dir():
        pytest.skip(f"no real volumes at {root}; set CTRAY_TEST_DATA")
    truths = read_truths(str(root))
    assert len(truths) == 13
    one = truths["mouse_B6129PF1_J"]
    # Both z faces leave the volume; y1 and x0 are known to 5 voxels only.
    assert one.scored_faces == (False, False, True, False, False, True)
    assert one.box is not None
    total, (inside,) = count_sample_voxels(one, [one.box])
    assert inside / total > 0.999
