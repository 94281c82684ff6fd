"""Receipts and crops of earlier versions under today's names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctray.errors import CtrayError
from ctray.geometry import Box
from ctray.storage import store
from ctray.storage.crops import write_crop
from ctray.storage.instance_receipt import InstanceReceipt
from ctray.storage.old_names import crop_attributes, cut_url
from ctray.storage.run_folder import Receipt, RunFolder
from ctray.storage.surround import restore
from ctray.storage.verifying import verify_run
from ctray.storage.volume import open_volume
from ctray.storage.writer import create_volume

SHAPE = (30, 26, 34)
BOX = Box(start=(2, 4, 6), stop=(25, 23, 30))


def old_receipt(**changes: Any) -> dict[str, Any]:
    """As the version before wrote it, with a rate that its settings did not bear out."""
    return {
        "volume_id": "a",
        "source_url": "/archive/a.tif",
        "status": "located",
        "volume_url": "/run/imported/a.zarr",
        "box": BOX.ranges,
        "crop_box": [[0, 30], [2, 24], [4, 32]],
        "scales": [1.0] * 6,
        "margins": [2] * 6,
        "max_loss": 0.001,
        "coverage": 0.95,
        "crop_url": "/run/crops/a.zarr",
        **changes,
    }


def test_old_receipt_has_todays_names_and_states_no_rate(tmp_path: Path) -> None:
    run = RunFolder(url=str(tmp_path))
    store.write_json(run.receipt("a"), old_receipt())
    found = run.read_receipt("a")
    assert found is not None
    assert found.sample_box == BOX
    assert found.crop_box == Box(start=(0, 2, 4), stop=(30, 24, 32))
    assert found.imported_url == "/run/imported/a.zarr"
    assert (found.promise, found.max_loss, found.coverage) == ("not calibrated", None, None)
    assert found.box_settings_digest is None
    # Read and written again it is a receipt of today.
    run.write_receipt(found)
    assert "box" not in store.read_json(run.receipt("a"))
    assert run.read_receipt("a") == found


def test_old_receipt_of_a_volume_that_was_not_imported(tmp_path: Path) -> None:
    run = RunFolder(url=str(tmp_path))
    store.write_json(run.receipt("a"), old_receipt(volume_url="/archive/a.tif"))
    found = run.read_receipt("a")
    assert found is not None
    assert found.imported_url is None
    assert found.cut_url == "/archive/a.tif"


@pytest.mark.parametrize(
    ("reason", "promise"),
    [
        ("a face is open over 40% of its axis, more than in any volume", "not calibrated"),
        ("the two boxes share 3%", None),
    ],
)
def test_old_receipt_tells_a_face_too_open_by_its_reason(
    tmp_path: Path, reason: str, promise: str | None
) -> None:
    run = RunFolder(url=str(tmp_path))
    old = old_receipt(status="uncertain", reason=reason, crop_url=None, crop_box=None)
    store.write_json(run.receipt("a"), old)
    found = run.read_receipt("a")
    assert found is not None
    assert found.promise == promise


def test_old_specimens_are_read(tmp_path: Path) -> None:
    run = RunFolder(url=str(tmp_path))
    old = {"box": BOX.ranges, "certainty": [0.5] * 6, "scales": [1.0] * 6, "crop_url": "/c"}
    store.write_json(run.receipt("a"), old_receipt(instances=[old]))
    found = run.read_receipt("a")
    assert found is not None
    assert found.instances == [
        InstanceReceipt(sample_box=BOX, face_confidence=[0.5] * 6, scales=[1.0] * 6, crop_url="/c")
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"box": [[1]]},
        {"box": "12"},
        {"box": [[5, 2], [0, 1], [0, 1]]},
        {"crop_box": 3},
        {"instances": [3]},
        {"instances": 3},
        {"instances": [{"colour": "blue"}]},
    ],
)
def test_receipt_of_a_wrong_form_is_one_error_that_names_it(
    tmp_path: Path, wrong: dict[str, Any]
) -> None:
    run = RunFolder(url=str(tmp_path))
    store.write_json(run.receipt("a"), old_receipt(**wrong))
    with pytest.raises(CtrayError, match=r"receipts/a\.json") as caught:
        run.read_receipt("a")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("imported", [True, False])
def test_old_crop_is_verified_and_restored(tmp_path: Path, imported: bool) -> None:
    """Its attributes are rewritten as an earlier version wrote them."""
    url = str(tmp_path / "source")
    array = np.random.default_rng(1).integers(1, 900, SHAPE).astype(np.uint16)
    writer = create_volume(url, shape=SHAPE, dtype=np.uint16, voxel_size=None)
    writer.write(Box.whole(SHAPE), array)
    writer.commit({})
    run = RunFolder(url=str(tmp_path / "run"))
    crop = write_crop(open_volume(url), BOX, run.crop("a"), provenance={"volume_id": "a"})
    original = "/archive/a.tif" if imported else url
    age(run.crop("a"), original)
    told = crop_attributes(open_volume(crop.url).attributes)
    assert told["source_url"] == original
    assert told["imported_url"] == (url if imported else None)
    assert cut_url(told) == url
    assert (told["crop_box"], told["asked_box"]) == (crop.box.ranges, BOX.ranges)
    assert (told["promise"], told["max_loss"]) == ("not calibrated", None)

    run.write_receipt(
        Receipt(
            volume_id="a",
            source_url=original,
            status="located",
            crop_url=crop.url,
            checksum=crop.checksum,
        )
    )
    (check,) = verify_run(run)
    assert check.problem is None
    back = restore(crop.url, str(tmp_path / "back"))
    assert (back.shape, back.box) == (SHAPE, crop.box)
    told = open_volume(back.url).attributes
    assert told["source_url"] == original
    assert told["crop_box"] == crop.box.ranges


def age(crop_url: str, original: str) -> None:
    path = Path(crop_url, "zarr.json")
    document = json.loads(path.read_text())
    now = document["attributes"]["ctray"]
    for name, before in {"crop_box": "box", "asked_box": "box_asked"}.items():
        now[before] = now.pop(name)
    now |= {"original_url": original, "max_loss": 0.001, "coverage": 0.95}
    del now["imported_url"]
    path.write_text(json.dumps(document))
