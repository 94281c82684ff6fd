"""Localizing one volume: read its working level, prepare it, ask the network, make a box."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import torch

from ctray.config import RunConfig
from ctray.core.errors import InvalidVolumeError
from ctray.core.geometry import AXES, AxisFaces, Box, Triple
from ctray.learn.pretext.checkpoint import TrainedModel
from ctray.learn.pretext.encoder import RotationModel, SortingModel
from ctray.learn.pretext.rows import canvas_side
from ctray.learn.selftrain.checkpoint import TrainedSlabs, digest_of_boxes
from ctray.learn.selftrain.slabs import slabs_on
from ctray.localization.boxes import Stretch, find_stretch
from ctray.localization.certainty import certainty_profiles
from ctray.localization.clear_faces import GreyLevel
from ctray.localization.cut_pieces import Checked, checked
from ctray.localization.decide import Evidence, SlabEvidence, decide
from ctray.localization.faces import surest
from ctray.localization.method_finding import MethodFinding
from ctray.localization.preview import Preview, preview_of
from ctray.localization.refined import Refined, refine
from ctray.localization.region import find_region
from ctray.localization.uncertainty import UncertaintyMap, uncertainty_map
from ctray.preprocess.prepare import Prepared, is_constant, prepare
from ctray.records.volume_record import Status
from ctray.volumes.volume import Volume
from ctray.volumes.working import WorkingLevel, read_working_level

# A pretext task that is surer than this of a slice along every axis is not overruled, and where it
# is, the slab network need not be quite as sure: faint samples reach less than bubbles alone may.
# What is no sample is rarely sure along all three.
_SURE = 0.5
_PEAK_LESS = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Localization:
    """What localizing one volume found: its status, its box, and what led there.

    Parameters
    ----------
    status, reason
        See `ctray.localization.decide`.
    box
        Box of the sample at level 0, without margins; None if empty, a guess if uncertain.
    face_confidence
        Certainty of the six faces, in [0, 1].
    profiles
        Certainty per slice of the working level, by axis; largest relative variance for the
        sorting method.
    uncertainty
        Map of the sorting method.
    stretches
        Range and threshold along each axis, of the pretext task.
    refined
        Faces of the slab network, where there is one; the box is then theirs.
    scales
        How open the six faces are, level-0 voxels; None without a slab network or a box.
    working
        Shape, factors, window and field of view of the working level.
    specimens
        Each of several specimens, the largest first; empty where there is but one, None where
        nobody looked, or the volume is not located.
    bytes_read
        Bytes fetched from the store.
    seconds
        Wall time.
    """

    status: Status
    reason: str | None = None
    box: Box | None = None
    face_confidence: AxisFaces[float] | None = None
    profiles: dict[str, list[float]] = field(default_factory=dict)
    stretches: dict[str, Stretch | None] = field(default_factory=dict)
    refined: Refined | None = None
    scales: AxisFaces[float] | None = None
    specimens: tuple[Refined, ...] | None = None
    working: dict[str, Any] = field(default_factory=dict)
    bytes_read: int = 0
    seconds: float = 0.0
    preview: Preview | None = None
    uncertainty: UncertaintyMap | None = None


class Localizer:
    """Finds the sample in volumes with one trained model.

    Parameters
    ----------
    trained
        From `ctray.learn.pretext.checkpoint.load_model`.
    config
        Configuration whose `localize`, `uncertainty` and `self_train` sections count; working size,
        field of view and encoder are the model's own.
    slabs
        Slab network of the same run; None leaves the boxes to the pretext task.
    device
        Where the networks run; None takes the GPU where there is one.
    """

    def __init__(
        self,
        trained: TrainedModel,
        config: RunConfig | None = None,
        slabs: TrainedSlabs | None = None,
        device: torch.device | None = None,
    ) -> None:
        own = trained.config
        given = config or own
        sections = ("localize", "uncertainty", "self_train")
        self.config = own.model_copy(update={name: getattr(given, name) for name in sections})
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = trained.model.to(self.device)
        self.side = trained.side
        self.digest = trained.digest
        self.slabs = None
        if slabs is not None and given.self_train.enabled:
            self.slabs = slabs_on(slabs.network, self.device)
            self.digest = slabs.digest
        used = slabs if self.slabs is not None else None
        self.box_settings_digest = digest_of_boxes(self.config, trained, used)

    def localize(self, volume: Volume) -> Localization:
        """Localize one volume; memory is a few times that of its working level, and of the finer.

        Raises
        ------
        InvalidVolumeError
            If no voxel is finite.
        StorageError
            If the volume cannot be read.
        """
        began, read_before = time.monotonic(), volume.bytes_read
        size, wanted = self.config.preprocess.working_size, self._wants_finer
        level = read_working_level(volume, size, finer=wanted)
        working = level.voxels
        if working.dtype.kind == "f" and not np.isfinite(working).any():
            raise InvalidVolumeError(f"{volume.url}: no voxel is finite; reconstruct it anew")
        if is_constant(working):
            verdict = decide(Evidence(is_constant=True))
            return Localization(
                status=verdict.status,
                reason=verdict.reason,
                bytes_read=volume.bytes_read - read_before,
                seconds=time.monotonic() - began,
            )
        prepared = prepare(working, level.factors, self.config.preprocess)
        found = self._find(prepared)
        refined = self._refine(prepared, level, volume.shape)
        own = _box(found.stretches, prepared, volume.shape, prepared.factors)
        about = {"shape": list(prepared.shape), **prepared.to_json()}
        if found.uncertainty is not None:
            about["uncertainty"] = found.uncertainty.to_json()
        evidence = self._evidence(found, refined, own)
        verdict = decide(evidence)
        box = None if verdict.status == "empty" else evidence.box
        scales = refined.scales(own) if refined and box else None
        # Crops of single specimens end where the next begins: pieces go on beyond them.
        wanted = self.config.localize.last_look == "auto"
        if wanted and verdict.status == "located" and box and not (refined and refined.specimens):
            look = _last_look(prepared, level, box, scales, volume.shape)
            verdict, box = decide(replace(evidence, cut_off=look.doubt)), look.box
            about["last_look"] = look.to_json()
        certainty = (refined.certainty if refined else None) or _faces(found.stretches)
        return Localization(
            status=verdict.status,
            reason=verdict.reason,
            box=box,
            face_confidence=certainty if box else None,
            profiles={a: [round(float(v), 4) for v in p] for a, p in found.profiles.items()},
            stretches=found.stretches,
            refined=refined,
            scales=scales,
            specimens=refined.specimens if refined and verdict.status == "located" else None,
            working=about,
            bytes_read=volume.bytes_read - read_before,
            seconds=time.monotonic() - began,
            preview=preview_of(working, found, box, prepared),
            uncertainty=found.uncertainty,
        )

    def ranges(self, prepared: Prepared) -> list[list[int]] | None:
        """Box of the pretext task at the working level, [start, stop) for z, y, x; None if none."""
        box = _box(self._find(prepared).stretches, prepared, prepared.shape, (1, 1, 1))
        return None if box is None else box.ranges

    @property
    def _wants_finer(self) -> bool:
        return self.slabs is not None and self.config.self_train.clear_faces == "auto"

    def _refine(self, prepared: Prepared, level: WorkingLevel, shape: Triple) -> Refined | None:
        if self.slabs is None:
            return None
        levels = _grey_levels(prepared, level) if self._wants_finer else iter(())
        side = max(prepared.shape)
        return refine(self.slabs, prepared, shape, side, self.config, levels)

    def _evidence(self, found: MethodFinding, refined: Refined | None, own: Box | None) -> Evidence:
        """Evidence of the pretext task, with its box `own`, and of the slab network."""
        if refined is None:
            return Evidence(pretext_box=own, nothing=found.nothing)
        sure = own is not None and surest(found.profiles.values()) > _SURE
        settings = self.config.self_train
        return Evidence(
            pretext_box=own,
            pretext_is_sure=sure,
            nothing=found.nothing,
            slabs=SlabEvidence(
                box=refined.box,
                is_sample=refined.peak >= settings.min_peak - (_PEAK_LESS if sure else 0.0),
                is_clear=refined.clear,
                min_agreement=settings.min_agreement,
            ),
        )

    def _find(self, prepared: Prepared) -> MethodFinding:
        # A volume larger than those of training gets the canvas that it needs.
        side = max(self.side, canvas_side(prepared.shape, self.config))
        if self.config.task == "rotation":
            return self._by_certainty(prepared, side)
        return self._by_variance(prepared, side)

    def _by_certainty(self, prepared: Prepared, side: int) -> MethodFinding:
        model = cast(RotationModel, self.model)
        profiles = certainty_profiles(model, prepared, side, self.config)
        chance = 1 / self.config.rotation.num_classes
        stretches = {
            axis: find_stretch(profile, self.config.localize, chance)
            for axis, profile in profiles.items()
        }
        nothing = "no slice along any axis is certain to hold structure"
        return MethodFinding(profiles=profiles, stretches=stretches, nothing=nothing)

    def _by_variance(self, prepared: Prepared, side: int) -> MethodFinding:
        model = cast(SortingModel, self.model)
        uncertainty = uncertainty_map(model, prepared, side, self.config)
        region, profiles = find_region(uncertainty, prepared.shape, self.config.uncertainty)
        return MethodFinding(
            profiles=profiles,
            stretches=region.stretches if region else {},
            nothing="no region stands out by the variance of its embedding",
            uncertainty=uncertainty,
            cells=region.cells if region else None,
        )


def _box(
    stretches: dict[str, Stretch | None], prepared: Prepared, shape: Triple, factors: Triple
) -> Box | None:
    """Box at level 0; an axis without a certain slice keeps its whole extent: cut nothing."""
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


def _last_look(
    prepared: Prepared,
    level: WorkingLevel,
    box: Box,
    scales: AxisFaces[float] | None,
    shape: Triple,
) -> Checked:
    """A located box after the look at what lies beyond it, at the finest level at hand."""
    grey = next(_grey_levels(prepared, level))
    z, y, x = (f // r for f, r in zip(prepared.factors, grey.ratio, strict=True))
    return checked(grey, (z, y, x), box, scales, shape)


def _grey_levels(prepared: Prepared, level: WorkingLevel) -> Iterator[GreyLevel]:
    """Finest first: its edges are sharper, but where it is too noisy its mean may do."""
    if level.finer is not None:
        yield GreyLevel.of_finer(prepared, level.voxels, level.finer, level.ratio)
    yield GreyLevel.of_working(prepared, level.voxels)


def _faces(stretches: dict[str, Stretch | None]) -> AxisFaces[float]:
    faces: list[float] = []
    for name in AXES:
        stretch = stretches.get(name)
        faces += stretch.certainty if stretch else (0.0, 0.0)
    return AxisFaces.of(faces)
