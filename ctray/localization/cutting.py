"""Cutting one volume in Python: with the margin of the promise, or as it was typed."""

from __future__ import annotations

from ctray.core.errors import CtrayError, GeometryError
from ctray.core.geometry import Box
from ctray.crops.cutting import CropResult, write_crop
from ctray.localization.found import Found
from ctray.volumes.volume import Volume


def crop(volume: Volume, found: Found | Box, url: str) -> CropResult:
    """Write a crop of `volume` as a volume of its own, at its physical place.

    Of what `ctray.localize` found, `found.crop_box` is cut: the sample, all specimens of it, with
    the margin that its promise rests on. It may grow outward to whole voxels of the source's
    pyramid and to whole chunks; the result and the crop tell both boxes.

    A `Box` is cut as it was typed, without a margin, and does not grow: where it does not line up
    with the coarser levels of the source, the crop gets a pyramid of means instead. So
    ``ctray.crop(volume, found.box, url)`` cuts the bare box, which loses a few percent of real
    samples.

    Parameters
    ----------
    volume
        From `ctray.open_volume`.
    found
        What `ctray.localize` gave for this volume, or a box at one of its levels.
    url
        Where the crop goes: a path or a URL.

    Raises
    ------
    CtrayError
        If the volume is not located: there is nothing to cut, or somebody has to look first.
    GeometryError
        If the box leaves the volume, or what was found is of another volume.
    OutputExistsError
        If a finished crop, or anything that ctray did not begin, is at `url`.
    """
    if isinstance(found, Box):
        return write_crop(volume, found, url, provenance={}, exact=True)
    if not isinstance(found, Found):
        raise CtrayError(
            f"ctray.crop cuts what ctray.localize found, or a ctray.Box, not {type(found).__name__}"
        )
    box = _box_of(volume, found)
    told = {
        "method": found.method,
        "model_digest": found.model_digest,
        "box_settings_digest": found.box_settings_digest,
        "sample_box": found.box.ranges if found.box else None,
        "confidence": found.confidence,
        "margins": found.margins,
        "promise": found.promise,
        "max_loss": found.max_loss,
        "coverage": found.coverage,
    }
    return write_crop(volume, box, url, provenance=told)


def _box_of(volume: Volume, found: Found) -> Box:
    """Box to cut of what was found in this volume."""
    box = found.crop_box
    if found.status == "empty" or box is None:
        why = found.reason or "no box was found"
        raise CtrayError(f"{volume.url} has no crop: it is {found.status} ({why})")
    if found.shape != volume.shape:
        raise GeometryError(
            f"{volume.url} has the shape {volume.shape}, and what was found is of a volume of "
            f"{found.shape}; localize this one"
        )
    if found.status != "located":
        raise CtrayError(
            f"{volume.url} is {found.status} ({found.reason}): look at it first; "
            "ctray.crop(volume, found.crop_box, url) cuts all the same"
        )
    return box
