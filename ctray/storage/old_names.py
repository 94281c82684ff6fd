"""Receipts and crops of earlier versions under today's names (docs/data-contract.md)."""

from __future__ import annotations

from typing import Any

_OLD_INSTANCE = {"box": "sample_box", "certainty": "face_confidence"}
_OLD_CROP = {
    "box": "crop_box",
    "box_asked": "asked_box",
    "box_of_all": "all_instances_box",
    "instances": "num_instances",
}
# How the reason begins of a volume that is uncertain only because a face is too open.
_TOO_OPEN = "a face is open over "
# Rates of earlier versions were stated for other settings than those of their calibration, too.
_NOTHING_STATED = {"promise": "not calibrated", "max_loss": None, "coverage": None}


def modern_receipt(data: dict[str, Any]) -> dict[str, Any]:
    """Fields of a receipt, whatever version wrote it; those of today are left as they are."""
    told = dict(data)
    if "box" in told:
        told["sample_box"] = told.pop("box")
    if "volume_url" in told:
        # The Zarr that was worked on was told even where it was the source itself.
        told["imported_url"] = _unless(told.pop("volume_url"), told.get("source_url"))
    if isinstance(told.get("instances"), list):
        told["instances"] = [
            _renamed(i, _OLD_INSTANCE) if isinstance(i, dict) else i for i in told["instances"]
        ]
    too_open = str(told.get("reason")).startswith(_TOO_OPEN)
    if "promise" not in told and (told.get("status") == "located" or too_open):
        told |= _NOTHING_STATED
    return told


def crop_attributes(attributes: dict[str, Any]) -> dict[str, Any]:
    """``ctray`` attributes of a crop, or of a restored volume, whatever version wrote it."""
    if "box" not in attributes:
        return attributes
    told = dict(attributes)
    # What was cut was called the source, and the archive's own file the original, if told at all.
    imported = told.get("source_url")
    told["source_url"] = told.pop("original_url", None) or imported
    told["imported_url"] = _unless(imported, told["source_url"])
    return {**_renamed(told, _OLD_CROP), **_NOTHING_STATED}


def cut_url(told: dict[str, Any]) -> str:
    """URL of the Zarr that a crop was cut from, from its `crop_attributes`."""
    return str(told.get("imported_url") or told["source_url"])


def _renamed(told: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in told.items()}


def _unless(url: Any, same: Any) -> Any:
    return None if url == same else url
