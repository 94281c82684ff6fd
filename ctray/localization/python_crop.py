"""Cropping one volume in Python: with the margins of its promise, or exactly to a given box."""

from __future__ import annotations

from ctray.core.errors import CtrayError, GeometryError
from ctray.core.geometry import Box
from ctray.crops.cutting import CropResult, write_crop
from ctray.records.crop_attributes import crop_attributes
from ctray.records.volume_record import VolumeRecord, box_to_cut
from ctray.volumes.volume import Volume


def crop(volume: Volume, found: VolumeRecord | Box, url: str) -> CropResult:
    """Write a crop of `volume` as a separate volume that keeps its physical position.

    For a record from `ctray.localize`, the crop contains all specimens and the margins of the
    promise. The crop may grow outward to whole voxels of the source's pyramid and to whole chunks;
    the result and the crop's attributes store both boxes.

    A `Box` is cropped exactly: it gets no margin and does not grow. If it does not align with the
    coarser levels of the source, the crop gets a pyramid of means instead. So
    ``ctray.crop(volume, found.sample_box, url)`` writes the box without margins, which loses a few
    percent of real samples.

    Parameters
    ----------
    volume
        Result of `ctray.open_volume`.
    found
        Record from `ctray.localize` for this volume, or a box at one of its levels.
    url
        Path or URL of the crop.

    Raises
    ------
    CtrayError
        If the volume is not located: it has no box, or a person has to look at it first.
    GeometryError
        If the box extends beyond the volume, or the record belongs to another volume.
    OutputExistsError
        If a finished crop, or anything that ctray did not create, exists at `url`.
    """
    if isinstance(found, Box):
        return write_crop(volume, found, url, provenance={}, exact=True)
    if not isinstance(found, VolumeRecord):
        raise CtrayError(
            f"ctray.crop cuts what ctray.localize found, or a ctray.Box, not {type(found).__name__}"
        )
    box = _box_of(volume, found)
    return write_crop(volume, box, url, provenance=crop_attributes(found))


def _box_of(volume: Volume, found: VolumeRecord) -> Box:
    """Box to crop for the record of this volume."""
    if found.status in ("empty", "failed") or found.sample_box is None:
        why = found.reason or "no box was found"
        raise CtrayError(f"{volume.url} has no crop: it is {found.status} ({why})")
    if found.shape != list(volume.shape):
        raise GeometryError(
            f"{volume.url} has the shape {volume.shape}, and the record is of a volume of shape "
            f"{tuple(found.shape or ())}; localize this volume"
        )
    if found.status != "located":
        raise CtrayError(
            f"{volume.url} is {found.status} ({found.reason}): look at it first; "
            "ctray.crop(volume, found.crop_box, url) cuts all the same"
        )
    return box_to_cut(found, volume.shape)
