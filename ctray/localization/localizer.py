"""Localizing one volume: read its working level, prepare it, ask the networks, make a box."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch

from ctray.config import RunConfig
from ctray.core.errors import InvalidVolumeError
from ctray.core.geometry import AXES, AxisFaces, Box, Triple
from ctray.learn.pretext.checkpoint import TrainedModel
from ctray.learn.pretext.encoder import RotationModel, SortingModel, on_device
from ctray.learn.pretext.rows import canvas_side
from ctray.learn.self_training.checkpoint import SelfTrainedModel, digest_of_boxes
from ctray.localization.decide import Evidence, NetworkEvidence, decide
from ctray.localization.dropout_map import UncertaintyMap, uncertainty_map
from ctray.localization.grey_levels import GreyLevels
from ctray.localization.last_look import take_last_look
from ctray.localization.params import PARAMS
from ctray.localization.pretext_finding import PretextFinding
from ctray.localization.profile_faces import least_peak
from ctray.localization.region import find_region
from ctray.localization.rotation_certainty import certainty_profiles
from ctray.localization.self_trained import SelfTrainedFaces, find_self_trained_faces
from ctray.localization.stretches import Stretch, find_stretch
from ctray.preprocess.prepare import Prepared, is_constant, prepare
from ctray.records.volume_record import Status
from ctray.volumes.volume import Volume
from ctray.volumes.working import WorkingLevel, read_working_level

_PARAMS = PARAMS.decision


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedVolume:
    """The working level of a volume, as stored and prepared.

    Parameters
    ----------
    url, shape
        URL of the volume, and shape of its level 0, voxels (z, y, x).
    level
        Working level as stored.
    prepared
        Working level as input to the networks; None if all voxels have the same grey value.
    bytes_read
        Bytes fetched from the store.
    seconds
        Wall time of reading and preparing.
    """

    url: str
    shape: Triple
    level: WorkingLevel
    prepared: Prepared | None
    bytes_read: int
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Localization:
    """Status and box of one volume after localizing it, with the evidence for them.

    Parameters
    ----------
    status, reason
        See `ctray.localization.decide`.
    box
        Box of the sample at level 0, without margins; None if empty, a guess if uncertain.
    face_confidence
        Confidence of the six faces, in [0, 1].
    profiles
        Certainty per slice of the working level, by axis. For the sorting task, the largest
        relative variance instead.
    stretches
        Range and threshold of the pretext task along each axis.
    self_trained
        Faces of the self-trained network, which then give the box. None without that network.
    scales
        Scales of the six faces, level-0 voxels: how far each may be off. None without self-training
        or without a box.
    specimens
        Faces of each of several specimens, the largest first. Empty if there is only one. None if
        specimens were not searched for or the volume is not located.
    working
        Shape, factors, window and field of view of the working level.
    bytes_read
        Bytes fetched from the store.
    seconds
        Wall time.
    uncertainty, cells
        Uncertainty map of the sorting task, and whether each of its cells is sample.
    """

    status: Status
    reason: str | None = None
    box: Box | None = None
    face_confidence: AxisFaces[float] | None = None
    profiles: dict[str, list[float]] = field(default_factory=dict)
    stretches: dict[str, Stretch | None] = field(default_factory=dict)
    self_trained: SelfTrainedFaces | None = None
    scales: AxisFaces[float] | None = None
    specimens: tuple[SelfTrainedFaces, ...] | None = None
    working: dict[str, Any] = field(default_factory=dict)
    bytes_read: int = 0
    seconds: float = 0.0
    uncertainty: UncertaintyMap | None = None
    cells: npt.NDArray[np.bool_] | None = None


class Localizer:
    """Finds the sample in volumes with the networks of one run.

    Parameters
    ----------
    trained
        Result of `ctray.learn.pretext.checkpoint.load_model`.
    config
        Configuration. Only its `localize`, `uncertainty` and `self_train` sections are used; the
        model keeps its own working size, field of view and encoder.
    self_trained
        Self-trained network of the same run. Without it, the pretext task finds the boxes.
    device
        Device for the networks. None uses a GPU if there is one.
    """

    def __init__(
        self,
        trained: TrainedModel,
        config: RunConfig | None = None,
        self_trained: SelfTrainedModel | None = None,
        device: torch.device | None = None,
    ) -> None:
        own = trained.config
        given = config or own
        sections = ("localize", "uncertainty", "self_train")
        self.config = own.model_copy(update={name: getattr(given, name) for name in sections})
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = trained.model.to(self.device)
        self.side = trained.side
        used = self_trained if given.self_train.enabled else None
        self.digest = used.digest if used else trained.digest
        self.network = on_device(used.network, self.device) if used else None
        self.box_settings_digest = digest_of_boxes(self.config, trained, used)

    def localize(self, volume: Volume) -> Localization:
        """Localize one volume; see `read` and `find`."""
        return self.find(self.read(volume))

    def read(self, volume: Volume) -> PreparedVolume:
        """Read and prepare a volume. Needs a few times the memory of its working and finer levels.

        Raises
        ------
        InvalidVolumeError
            If no voxel is finite.
        StorageError
            If the volume cannot be read.
        """
        began, read_before = time.monotonic(), volume.bytes_read
        size = self.config.preprocess.working_size
        level = read_working_level(volume, size, finer=self._looks_at_grey_values)
        working = level.voxels
        if working.dtype.kind == "f" and not np.isfinite(working).any():
            raise InvalidVolumeError(f"{volume.url}: no voxel is finite; reconstruct it anew")
        prepared = None
        if not is_constant(working):
            prepared = prepare(working, level.factors, self.config.preprocess)
        return PreparedVolume(
            url=volume.url,
            shape=volume.shape,
            level=level,
            prepared=prepared,
            bytes_read=volume.bytes_read - read_before,
            seconds=time.monotonic() - began,
        )

    def find(self, volume: PreparedVolume) -> Localization:
        """Localize a volume from its prepared working level."""
        began, prepared = time.monotonic(), volume.prepared
        if prepared is None:
            verdict = decide(Evidence(is_constant=True))
            return Localization(
                status=verdict.status,
                reason=verdict.reason,
                bytes_read=volume.bytes_read,
                seconds=volume.seconds,
            )
        pretext = self._ask_pretext_task(prepared)
        own = _box(pretext.stretches, prepared, volume.shape, prepared.factors)
        grey = GreyLevels(prepared, volume.level)
        faces = self._ask_network(prepared, grey, volume.shape)
        about = {"shape": list(prepared.shape), **prepared.to_json()}
        if pretext.uncertainty is not None:
            about["uncertainty"] = pretext.uncertainty.to_json()
        evidence = self._evidence(pretext, own, faces)
        verdict = decide(evidence)
        box = None if verdict.status == "empty" else evidence.box
        scales = faces.scales(own) if faces and box else None
        # The crop of a specimen may end where the next specimen begins. Pieces beyond that crop are
        # expected, so several specimens get no last look.
        wanted = self.config.localize.last_look == "auto" and not (faces and faces.specimens)
        if wanted and verdict.status == "located" and box:
            finest = grey.finest
            z, y, x = (f // r for f, r in zip(prepared.factors, finest.ratio, strict=True))
            look = take_last_look(finest, (z, y, x), box, scales, volume.shape)
            verdict, box = decide(replace(evidence, cut_off=look.doubt)), look.box
            about["last_look"] = look.to_json()
        confidence = (faces.confidence if faces else None) or _confidence(pretext.stretches)
        return Localization(
            status=verdict.status,
            reason=verdict.reason,
            box=box,
            face_confidence=confidence if box else None,
            profiles={a: [round(float(v), 4) for v in p] for a, p in pretext.profiles.items()},
            stretches=pretext.stretches,
            self_trained=faces,
            scales=scales,
            specimens=faces.specimens if faces and verdict.status == "located" else None,
            working=about,
            bytes_read=volume.bytes_read,
            seconds=volume.seconds + time.monotonic() - began,
            uncertainty=pretext.uncertainty,
            cells=pretext.cells,
        )

    def ranges(self, prepared: Prepared) -> list[list[int]] | None:
        """Box of the pretext task at the working level as [start, stop) for z, y, x, or None."""
        stretches = self._ask_pretext_task(prepared).stretches
        box = _box(stretches, prepared, prepared.shape, (1, 1, 1))
        return None if box is None else box.ranges

    @property
    def _looks_at_grey_values(self) -> bool:
        return self.network is not None and self.config.self_train.clear_faces == "auto"

    def _ask_network(
        self, prepared: Prepared, grey: GreyLevels, shape: Triple
    ) -> SelfTrainedFaces | None:
        if self.network is None:
            return None
        levels = grey if self._looks_at_grey_values else ()
        return find_self_trained_faces(self.network, prepared, shape, self.config, levels)

    def _evidence(
        self, pretext: PretextFinding, own: Box | None, faces: SelfTrainedFaces | None
    ) -> Evidence:
        """Evidence of the pretext task, with its box `own`, and of the self-trained network."""
        if faces is None:
            return Evidence(pretext_box=own, reason_if_empty=pretext.reason_if_empty)
        sure = own is not None and least_peak(pretext.profiles.values()) > _PARAMS.sure
        settings = self.config.self_train
        relief = _PARAMS.peak_relief if sure else 0.0
        return Evidence(
            pretext_box=own,
            pretext_is_sure=sure,
            reason_if_empty=pretext.reason_if_empty,
            network=NetworkEvidence(
                box=faces.box,
                is_sample=faces.peak >= settings.min_peak - relief,
                is_clear=faces.clear,
                min_agreement=settings.min_agreement,
            ),
        )

    def _ask_pretext_task(self, prepared: Prepared) -> PretextFinding:
        # A volume larger than the training volumes needs a larger canvas.
        side = max(self.side, canvas_side(prepared.shape, self.config))
        match self.config.task:
            case "rotation":
                return self._by_certainty(prepared, side)
            case "sorting":
                return self._by_variance(prepared, side)

    def _by_certainty(self, prepared: Prepared, side: int) -> PretextFinding:
        model = cast(RotationModel, self.model)
        profiles = certainty_profiles(model, prepared, side, self.config)
        chance = 1 / self.config.rotation.num_classes
        stretches = {
            axis: find_stretch(profile, self.config.localize, chance)
            for axis, profile in profiles.items()
        }
        reason = "no slice along any axis is certain to hold structure"
        return PretextFinding(profiles=profiles, stretches=stretches, reason_if_empty=reason)

    def _by_variance(self, prepared: Prepared, side: int) -> PretextFinding:
        model = cast(SortingModel, self.model)
        uncertainty = uncertainty_map(model, prepared, side, self.config)
        region, profiles = find_region(uncertainty, prepared.shape, self.config.uncertainty)
        return PretextFinding(
            profiles=profiles,
            stretches=region.stretches if region else {},
            reason_if_empty="no region stands out by the variance of its embedding",
            uncertainty=uncertainty,
            cells=region.cells if region else None,
        )


def _box(
    stretches: dict[str, Stretch | None], prepared: Prepared, shape: Triple, factors: Triple
) -> Box | None:
    """Box at level 0; an axis without a stretch keeps its whole extent, so nothing is cut there."""
    found = [s for s in stretches.values() if s is not None]
    if not found:
        return None
    start, stop = [], []
    for axis, name in enumerate(AXES):
        stretch = stretches.get(name)
        first, last = (stretch.start, stretch.stop) if stretch else (0, prepared.shape[axis])
        start.append(first * factors[axis])
        stop.append(min(shape[axis], last * factors[axis]))
    return Box(start=(start[0], start[1], start[2]), stop=(stop[0], stop[1], stop[2]))


def _confidence(stretches: dict[str, Stretch | None]) -> AxisFaces[float]:
    """Confidence of the six faces by the pretext task; 0 along an axis without a stretch."""
    pairs = [s.confidence if s else (0.0, 0.0) for s in (stretches.get(name) for name in AXES)]
    return AxisFaces.of([value for pair in pairs for value in pair])
