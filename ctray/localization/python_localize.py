"""Localizing one volume in one Python call, and the record of what was found."""

from __future__ import annotations

from dataclasses import replace

from ctray.config import RunConfig
from ctray.core.geometry import AxisFaces
from ctray.core.version import __version__
from ctray.crops.cutting import source_urls
from ctray.learn.pretext.checkpoint import TrainedModel
from ctray.learn.self_training.checkpoint import load_self_trained
from ctray.localization.localizer import Localization, Localizer
from ctray.localization.promise import calibration_beside, with_promise
from ctray.records.volume_record import SpecimenRecord, VolumeRecord, box_to_cut
from ctray.volumes.volume import Volume


def localize(volume: Volume, model: TrainedModel, config: RunConfig | None = None) -> VolumeRecord:
    """Localize the sample in one volume, in this process.

    Parameters
    ----------
    volume
        Result of `ctray.open_volume`.
    model
        Result of `ctray.load_model`. The self-trained network in the same folder is used if there
        is one.
    config
        Configuration. Only its `localize`, `uncertainty`, `self_train` and `crop` sections are
        used. None uses the configuration of the model.

    Returns
    -------
    VolumeRecord
        Record with margins and promise, by the calibration of the run that contains the model or by
        the package's own. `crop_box` is the box with its margins: crop to it, or pass the record to
        `ctray.crop`.
    """
    localizer = Localizer(model, config, load_self_trained(model.url, model))
    record = record_of(volume, localizer.localize(volume), localizer)
    crop = (config or model.config).crop
    record = with_promise(record, crop, calibration_beside(model.url))
    if record.sample_box is None:
        return record
    box = box_to_cut(record, volume.shape)
    return replace(record, asked_box=box, crop_box=box)


def record_of(volume: Volume, found: Localization, localizer: Localizer) -> VolumeRecord:
    """Record of a localized volume outside any run, without promise and crop."""
    return VolumeRecord(
        volume_id="",
        **source_urls(volume),
        status=found.status,
        reason=found.reason,
        method=localizer.config.task,
        model_digest=localizer.digest,
        box_settings_digest=localizer.box_settings_digest,
        sample_box=found.box,
        confidence=min(found.face_confidence) if found.face_confidence else None,
        face_confidence=found.face_confidence,
        scales=None if found.scales is None else _rounded(found.scales),
        shape=list(volume.shape),
        dtype=str(volume.dtype),
        voxel_size_um=list(volume.voxel_size.um) if volume.voxel_size else None,
        plain_scale=str(volume.plain_scale) if volume.plain_scale else None,
        bytes_total=volume.num_bytes,
        bytes_read=volume.bytes_read,
        seconds=found.seconds,
        specimens=_specimens(found),
        profiles=found.profiles,
        stretches={a: s.to_json() if s else None for a, s in found.stretches.items()},
        refined=found.self_trained.to_json() if found.self_trained else {},
        working=found.working,
        ctray_version=__version__,
    )


def _specimens(found: Localization) -> list[SpecimenRecord] | None:
    if found.specimens is None:
        return None
    records = []
    for specimen in found.specimens:
        box, confidence, scales = specimen.box, specimen.confidence, specimen.scales()
        assert box is not None, "a specimen has all faces"
        assert confidence is not None
        assert scales is not None
        records.append(
            SpecimenRecord(sample_box=box, face_confidence=confidence, scales=_rounded(scales))
        )
    return records


def _rounded(scales: AxisFaces[float]) -> AxisFaces[float]:
    return scales.map(lambda scale: round(scale, 3))
