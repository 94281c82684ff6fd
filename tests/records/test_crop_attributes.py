"""The attributes of a crop: what the record of its volume says of it."""

from __future__ import annotations

from dataclasses import replace

from ctray.core.geometry import AxisFaces, Box
from ctray.records.crop_attributes import crop_attributes, crop_fields, promise_fields
from ctray.records.volume_record import SpecimenRecord, VolumeRecord

BOX = Box(start=(2, 4, 6), stop=(25, 23, 30))
PART = Box(start=(2, 4, 6), stop=(9, 9, 9))
RECORD = VolumeRecord(
    volume_id="a",
    source_url="/archive/a.tif",
    imported_url="/run/imported/a.zarr",
    status="located",
    method="rotation",
    model_digest="d1",
    box_settings_digest="sha256:01",
    sample_box=BOX,
    confidence=0.25,
    face_confidence=AxisFaces(0.25, 0.5, 0.75, 1.0, 0.5, 0.5),
    margins=AxisFaces(1, 2, 3, 4, 5, 6),
    promise="calibrated",
    max_loss=0.001,
    coverage=0.95,
    source={"stamp": "s1"},
    crop_settings="c1",
)
SPECIMEN = SpecimenRecord(
    sample_box=PART,
    face_confidence=AxisFaces(0.5, 0.75, 0.75, 1.0, 0.5, 0.5),
    scales=AxisFaces.of([1.0] * 6),
    margins=AxisFaces.of([7] * 6),
)


def test_crop_of_a_whole_volume() -> None:
    assert crop_attributes(RECORD) == {
        "volume_id": "a",
        "source_url": "/archive/a.tif",
        "imported_url": "/run/imported/a.zarr",
        "source_stamp": "s1",
        "crop_settings": "c1",
        "method": "rotation",
        "model_digest": "d1",
        "box_settings_digest": "sha256:01",
        "sample_box": [[2, 25], [4, 23], [6, 30]],
        "confidence": 0.25,
        "margins": [1, 2, 3, 4, 5, 6],
        "promise": "calibrated",
        "max_loss": 0.001,
        "coverage": 0.95,
    }


def test_crop_of_a_specimen_has_its_own_box_and_names_the_box_of_all() -> None:
    several = replace(RECORD, specimens=[replace(SPECIMEN, sample_box=BOX), SPECIMEN])
    attributes = crop_attributes(several, 2)
    assert attributes["sample_box"] == PART.ranges
    assert (attributes["confidence"], attributes["margins"]) == (0.5, [7] * 6)
    assert (attributes["specimen"], attributes["num_specimens"]) == (2, 2)
    assert attributes["all_specimens_box"] == BOX.ranges


def test_volume_of_no_run_leaves_the_source_to_the_cutting() -> None:
    attributes = crop_attributes(replace(RECORD, volume_id=""))
    assert not {"volume_id", "source_url", "imported_url", "crop_settings"} & attributes.keys()


def test_record_takes_back_what_a_finished_crop_tells() -> None:
    told = {**crop_attributes(RECORD), "asked_box": BOX.ranges, "crop_box": BOX.ranges}
    fields = crop_fields({**told, "checksum": "sha256:00"})
    assert fields == {
        "asked_box": BOX,
        "crop_box": BOX,
        "margins": RECORD.margins,
        "checksum": "sha256:00",
    }
    assert replace(RECORD, **promise_fields(told)) == RECORD
