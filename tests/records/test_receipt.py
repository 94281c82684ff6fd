"""The receipt of a volume: the record as JSON, and what is refused on the way back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ctray.core.errors import CtrayError
from ctray.core.geometry import AxisFaces, Box
from ctray.records.receipt import from_receipt, to_receipt
from ctray.records.volume_record import SpecimenRecord, VolumeRecord

BOX = Box(start=(2, 4, 6), stop=(25, 23, 30))
RECORD = VolumeRecord(
    volume_id="a",
    source_url="/archive/a.tif",
    status="located",
    sample_box=BOX,
    scales=AxisFaces(1.0, 2.0, 3.0, 4.0, 5.0, 6.0),
    shape=[30, 26, 34],
    specimens=[
        SpecimenRecord(
            sample_box=BOX,
            face_confidence=AxisFaces.of([0.5] * 6),
            scales=AxisFaces.of([1.0] * 6),
            margins=AxisFaces.of([2] * 6),
        )
    ],
)


def test_record_comes_back_through_json() -> None:
    receipt = json.loads(json.dumps(to_receipt(RECORD)))
    assert receipt["sample_box"] == [[2, 25], [4, 23], [6, 30]]
    assert receipt["scales"] == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert receipt["specimens"][0]["margins"] == [2] * 6
    assert from_receipt(receipt, "a") == RECORD


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"sample_box": [[1]]}, None),
        ({"sample_box": "12"}, None),
        ({"sample_box": [[5, 2], [0, 1], [0, 1]]}, "is empty"),
        ({"sample_box": [[0, 31], [0, 1], [0, 1]]}, "z=31 exceeds extent 30"),
        ({"crop_box": 3}, None),
        ({"specimens": [3]}, None),
        ({"specimens": 3}, None),
        ({"specimens": [{"colour": "blue"}]}, "sample_box"),
        ({"scales": [1.0, 2.0]}, "scales .* has 2 values"),
        ({"scales": [1.0, 2.0, 3.0, 4.0, 5.0, float("nan")]}, "scales .* must be finite"),
        ({"margins": [1, 2, 3, 4, 5, 0.5]}, "margins.5"),
        ({"status": "lost"}, "status"),
        ({"shape": [30, 26]}, "three axes"),
        ({"volume_id": "b"}, "of volume b"),
    ],
)
def test_values_that_no_volume_has_are_refused(wrong: dict[str, Any], said: str | None) -> None:
    with pytest.raises(CtrayError, match=said):
        from_receipt({**to_receipt(RECORD), **wrong}, "a")


@pytest.mark.parametrize("receipt", [None, 3, [], "located", {}, {"status": "located"}])
def test_what_is_no_receipt_is_refused(receipt: Any) -> None:
    with pytest.raises(CtrayError):
        from_receipt(receipt, "a")


def test_keys_of_a_later_version_are_left_out() -> None:
    receipt = to_receipt(RECORD)
    receipt["colour"] = receipt["specimens"][0]["colour"] = "blue"
    assert from_receipt(receipt, "a") == RECORD
