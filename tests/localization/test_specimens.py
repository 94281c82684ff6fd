"""Several specimens: told apart on synthetic evidence whose boxes are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctray.config import CropConfig, parse_config
from ctray.core.geometry import AXES, AxisFaces, Box, Triple
from ctray.evaluate.specimen_scores import match_boxes, score_specimens
from ctray.evaluate.truth import Truth
from ctray.localization.margins import Calibration
from ctray.localization.profile_faces import FacePair, find_faces
from ctray.localization.promise import with_promise
from ctray.localization.specimens import (
    CELL,
    EvidenceMaps,
    evidence_grid,
    faces_around,
    find_specimens,
    label_specimens,
)
from ctray.records.volume_record import SpecimenRecord, VolumeRecord

# Uneven, and not all of them multiples of a cell; the canvas is 48.
SHAPE = (40, 48, 45)
SIDE = 48
HIGH, LOW, BIAS, THRESHOLD = 7.0, -5.0, -2.0, -1.0


def maps_of(boxes: list[Box], shape: Triple = SHAPE, high: float = HIGH) -> EvidenceMaps:
    """Maps as a perfect network would make them: a cell shows whatever of it is sample."""
    evidence = np.full(shape, LOW, np.float32)
    for box in boxes:
        evidence[box.slices] = high
    maps = []
    for axis in range(3):
        planes = np.moveaxis(evidence, axis, 0)
        first = [(SIDE - n) // 2 for n in planes.shape[1:]]
        pads = [(a, SIDE - n - a) for a, n in zip(first, planes.shape[1:], strict=True)]
        canvas = np.pad(planes, [(0, 0), *pads], constant_values=LOW)
        cells = SIDE // CELL
        maps.append(canvas.reshape(len(planes), cells, CELL, cells, CELL).max(axis=(2, 4)))
    return EvidenceMaps(maps=(maps[0], maps[1], maps[2]), shape=shape, bias=BIAS)


def faces_of(evidence: EvidenceMaps) -> dict[str, FacePair | None]:
    return {
        name: find_faces(evidence.pool(axis, evidence.maps[axis]), THRESHOLD)
        for axis, name in enumerate(AXES)
    }


def found_boxes(evidence: EvidenceMaps) -> list[Box]:
    found = []
    for specimen in find_specimens(evidence, THRESHOLD):
        faces = [specimen.faces[name] for name in AXES]
        found.append(Box.from_ranges([[round(f.start), round(f.stop)] for f in faces if f]))
    return found


@st.composite
def apart(draw: st.DrawFn) -> list[Box]:
    """Two to four boxes with at least 9 voxels between any two: one in each octant at most."""
    octants = draw(st.sets(st.tuples(*[st.booleans()] * 3), min_size=2, max_size=4))
    boxes = []
    for octant in sorted(octants):
        ranges = []
        for upper, extent in zip(octant, SHAPE, strict=True):
            middle = extent // 2
            low, high = (middle + 5, extent) if upper else (0, middle - 4)
            start = draw(st.integers(low, high - 7))
            ranges.append([start, draw(st.integers(start + 6, high - 1))])
        boxes.append(Box.from_ranges(ranges))
    return boxes


@settings(max_examples=40)
@given(boxes=apart())
def test_specimens_that_lie_apart_are_found_one_each(boxes: list[Box]) -> None:
    found = found_boxes(maps_of(boxes))

    assert len(found) == len(boxes)
    pairs = match_boxes(found, boxes)
    assert len(pairs) == len(boxes)
    for own, true in pairs:
        # As sharp as slices, not as cells.
        assert np.abs(np.subtract(found[own].faces, boxes[true].faces)).max() <= 1


def test_faces_of_the_volume_move_out_to_a_specimen_far_away() -> None:
    near = Box(start=(0, 0, 0), stop=(6, 6, 6))
    far = Box(start=(0, 0, 27), stop=(6, 6, 33))
    evidence = maps_of([near, far])
    # As of a volume whose profile along x shows the near one only.
    faces = faces_of(maps_of([near]))
    specimens = find_specimens(evidence, THRESHOLD)

    around = faces_around(faces, [specimen.faces for specimen in specimens])

    assert len(specimens) == 2
    assert faces["x"] is not None
    assert faces["x"].stop - faces["x"].start < 8
    assert [(round(f.start), round(f.stop)) for f in around.values() if f] == [
        (0, 6),
        (0, 6),
        (0, 33),
    ]
    assert faces_around(faces, ()) == faces


@settings(max_examples=40)
@given(
    axis=st.integers(0, 2),
    cut=st.integers(14, 26),
    width=st.integers(6, 18),
    gap=st.integers(0, 1),
)
def test_pieces_that_touch_are_one_specimen(axis: int, cut: int, width: int, gap: int) -> None:
    ranges = [[8, 8 + width]] * 3
    first, second = [list(r) for r in ranges], [list(r) for r in ranges]
    first[axis], second[axis] = [5, cut], [cut + gap, 36]

    evidence = maps_of([Box.from_ranges(first), Box.from_ranges(second)])

    assert find_specimens(evidence, THRESHOLD) == ()


@settings(max_examples=40)
@given(data=st.data(), high=st.floats(5, 15))
def test_one_specimen_stays_the_box_of_the_volume(data: st.DataObject, high: float) -> None:
    ranges = []
    for extent in SHAPE:
        start = data.draw(st.integers(0, extent - 7))
        ranges.append([start, data.draw(st.integers(start + 6, extent))])

    evidence = maps_of([Box.from_ranges(ranges)], high=high)

    assert find_specimens(evidence, THRESHOLD) == ()


@settings(max_examples=20)
@given(boxes=apart(), turned=st.booleans())
def test_the_largest_comes_first_and_always_does(boxes: list[Box], turned: bool) -> None:
    evidence = maps_of(boxes)
    step = 1
    grid = evidence_grid(evidence, step)

    labels = label_specimens(grid, evidence.needed, step)

    sizes = np.bincount(labels.ravel())[1:]
    assert list(sizes) == sorted(sizes, reverse=True)
    again = label_specimens(grid.copy(), evidence.needed, step)
    np.testing.assert_array_equal(labels, again)


def test_speck_beside_a_specimen_is_part_of_it_and_one_far_away_is_nothing() -> None:
    large = Box(start=(4, 4, 4), stop=(20, 20, 20))
    beside = Box(start=(26, 8, 8), stop=(28, 10, 10))
    far = Box(start=(36, 40, 40), stop=(38, 42, 42))

    assert found_boxes(maps_of([large, beside, far])) == []


def test_nothing_has_no_specimens() -> None:
    evidence = maps_of([])

    assert find_specimens(evidence, THRESHOLD) == ()


def test_grid_of_a_large_volume_is_coarser() -> None:
    boxes = [Box(start=(4, 4, 4), stop=(16, 16, 16)), Box(start=(26, 28, 28), stop=(38, 40, 40))]
    evidence = maps_of(boxes)

    for step in (1, 2, 4):
        grid = evidence_grid(evidence, step)
        assert grid.shape == tuple(-(-n // step) for n in SHAPE)
        assert label_specimens(grid, evidence.needed, step).max() == 2


# --- receipts and scores --------------------------------------------------------------------

DIGEST = "sha256:0123"


def specimen(*ranges: list[int], scale: float = 1.0) -> SpecimenRecord:
    return SpecimenRecord(
        sample_box=Box.from_ranges(ranges),
        face_confidence=AxisFaces.of([0.5] * 6),
        scales=AxisFaces.of([scale] * 6),
    )


def receipt(volume_id: str, specimens: list[SpecimenRecord] | None, **more: object) -> VolumeRecord:
    values: dict[str, object] = {
        "volume_id": volume_id,
        "source_url": volume_id,
        "status": "located",
        "sample_box": Box.whole((20, 20, 20)),
        "box_settings_digest": DIGEST,
        "scales": AxisFaces.of([1.0] * 6),
        "shape": [20, 20, 20],
    }
    return VolumeRecord(specimens=specimens, **{**values, **more})  # type: ignore[arg-type]


def calibration() -> Calibration:
    scores = {loss: tuple(float(i) for i in range(20)) for loss in (0.0, 1e-4, 1e-3, 0.01, 0.05)}
    return Calibration(
        scores=scores, largest_scale=0.2, about="by hand", box_settings_digest=DIGEST
    )


def test_every_specimen_has_its_own_margins_and_no_promise() -> None:
    given = receipt("a", [specimen([0, 9], [0, 9], [0, 9], scale=1.5)])

    config = parse_config({"crop": {"coverage": 0.9}})
    promised = with_promise(given, config.crop, calibration())

    # Rank ceil(21 * 0.9) = 19 of 20: factor 18.
    assert promised.margins == (18,) * 6
    assert promised.specimens is not None
    assert promised.specimens[0].margins == (27,) * 6
    # The calibration is of whole volumes.
    assert (promised.max_loss, promised.coverage) == (None, None)
    assert with_promise(receipt("a", []), CropConfig(), calibration()).max_loss == 0.001


def test_specimen_with_an_open_face_makes_the_volume_uncertain() -> None:
    given = receipt("a", [specimen([0, 9], [0, 9], [0, 9], scale=5.0)])

    assert with_promise(given, CropConfig(), calibration()).status == "uncertain"


def test_scores_of_specimens_by_hand() -> None:
    true = [Box(start=(0, 0, 0), stop=(10, 10, 10)), Box(start=(12, 12, 12), stop=(18, 18, 18))]
    truths = {
        name: Truth(
            volume_id=name, shape=(20, 20, 20), box=true[0].union(true[1]), specimens=several
        )
        for name, several in (("a", tuple(true)), ("b", (true[0],)), ("c", ()))
    }
    receipts = [
        # The first is off by one at one face of six, the second by far too much.
        receipt("a", [specimen([0, 9], [0, 10], [0, 10]), specimen([12, 14], [12, 18], [12, 18])]),
        receipt("b", [], sample_box=true[0]),
        receipt("c", []),
    ]

    scores = score_specimens(receipts, truths)

    assert scores is not None
    assert (scores.num_volumes, scores.num_right) == (2, 2)
    assert (scores.num_found, scores.num_true, scores.num_matched) == (3, 3, 2)
    assert scores.mean_iou == pytest.approx((0.9 + 1 / 3 + 1) / 3)
    assert scores.mean_voxels == pytest.approx((1 / 6 + 0) / 2)
    assert scores.to_json()["matched_share"] == pytest.approx(2 / 3)


def test_run_that_did_not_look_for_specimens_has_no_such_scores() -> None:
    box = Box(start=(0, 0, 0), stop=(10, 10, 10))
    truths = {"a": Truth(volume_id="a", shape=(20, 20, 20), box=box, specimens=(box,))}

    assert score_specimens([receipt("a", None)], truths) is None
