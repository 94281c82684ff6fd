"""Localizing one volume: read its working level, prepare it, ask the network, make a box."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import torch

from ctray.config import CropConfig, RunConfig
from ctray.errors import InvalidVolumeError
from ctray.geometry import AXES, Box, Triple
from ctray.localization.boxes import Stretch, find_stretch
from ctray.localization.certainty import certainty_profiles
from ctray.localization.cut_pieces import Checked, checked
from ctray.localization.faces import surest
from ctray.localization.found import Found
from ctray.localization.grey_levels import GreyLevels
from ctray.localization.margins import Scales
from ctray.localization.method_finding import MethodFinding
from ctray.localization.preview import Preview, preview_of
from ctray.localization.promise import calibration_beside, make_promise
from ctray.localization.refined import Refined, disagreement, refine
from ctray.localization.region import find_region
from ctray.localization.slab_checkpoint import TrainedSlabs, digest_of_boxes, load_slabs
from ctray.localization.slabs import slabs_on
from ctray.localization.uncertainty import UncertaintyMap, uncertainty_map
from ctray.preprocess.prepare import Prepared, is_constant, prepare
from ctray.pretext.checkpoint import TrainedModel
from ctray.pretext.encoder import RotationModel, SortingModel
from ctray.pretext.rows import canvas_side
from ctray.storage.run_folder import Status
from ctray.storage.volume import Volume
from ctray.storage.working import WorkingLevel, read_working_level

# A pretext task that is surer than this of a slice along every axis is not overruled, and where it
# is, the slab network need not be quite as sure: faint samples reach less than bubbles alone may.
# What is no sample is rarely sure along all three.
_SURE = 0.5
_PEAK_LESS = 1.0


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Localization(Found):
    """What is known of one volume after localizing it: boxes and promise, and what led there.

    Parameters
    ----------
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
    instances
        Each of several specimens, the largest first; empty where there is but one, None where
        nobody looked, or the volume is not located.
    bytes_read
        Bytes fetched from the store.
    seconds
        Wall time.
    """

    profiles: dict[str, list[float]] = field(default_factory=dict)
    stretches: dict[str, Stretch | None] = field(default_factory=dict)
    refined: Refined | None = None
    scales: Scales | None = None
    instances: tuple[Refined, ...] | None = None
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
        From `ctray.pretext.checkpoint.load_model`.
    config
        Configuration whose `localize`, `uncertainty` and `refine` sections count; working size,
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
        sections = ("localize", "uncertainty", "refine")
        self.config = own.model_copy(update={name: getattr(given, name) for name in sections})
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = trained.model.to(self.device)
        self.side = trained.side
        self.digest = trained.digest
        self.slabs = None
        if slabs is not None and given.refine.enabled:
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
        size = self.config.preprocess.working_size
        level = read_working_level(volume, size, finer=self._wants_finer)
        working = level.voxels
        if working.dtype.kind == "f" and not np.isfinite(working).any():
            raise InvalidVolumeError(f"{volume.url}: no voxel is finite; reconstruct it anew")
        return replace(
            self._localized(level, volume.shape),
            bytes_read=volume.bytes_read - read_before,
            seconds=time.monotonic() - began,
        )

    def _localized(self, level: WorkingLevel, shape: Triple) -> Localization:
        """All of a localization but what it cost; `shape` is of level 0."""
        if is_constant(level.voxels):
            return Localization(status="empty", reason="all voxels have the same grey value")
        prepared = prepare(level.voxels, level.factors, self.config.preprocess)
        grey = GreyLevels(prepared, level)
        found = self._find(prepared)
        refined = self._refine(prepared, grey, shape)
        own = _box(found.stretches, prepared, shape, prepared.factors)
        about = {"shape": list(prepared.shape), **prepared.to_json()}
        if found.uncertainty is not None:
            about["uncertainty"] = found.uncertainty.to_json()
        status, reason, box = self._decide(found, refined, own)
        scales = refined.scales(own) if refined and box else None
        # Crops of single specimens end where the next begins: pieces go on beyond them.
        wanted = self.config.localize.last_look == "auto"
        if wanted and status == "located" and box and not (refined and refined.instances):
            look = _last_look(grey, prepared.factors, box, scales, shape)
            status, reason, box = look.verdict
            about["last_look"] = look.to_json()
        certainty = (refined.certainty if refined else None) or _faces(found.stretches)
        return Localization(
            status=status,
            reason=reason,
            box=box,
            face_confidence=certainty if box else None,
            profiles={a: [round(float(v), 4) for v in p] for a, p in found.profiles.items()},
            stretches=found.stretches,
            refined=refined,
            scales=scales,
            instances=refined.instances if refined and status == "located" else None,
            working=about,
            preview=preview_of(level.voxels, found, box, prepared),
            uncertainty=found.uncertainty,
        )

    def ranges(self, prepared: Prepared) -> list[list[int]] | None:
        """Box of the pretext task at the working level, [start, stop) for z, y, x; None if none."""
        box = _box(self._find(prepared).stretches, prepared, prepared.shape, (1, 1, 1))
        return None if box is None else box.ranges

    @property
    def _wants_finer(self) -> bool:
        return self.slabs is not None and self.config.refine.clear_faces == "auto"

    def _refine(self, prepared: Prepared, grey: GreyLevels, shape: Triple) -> Refined | None:
        if self.slabs is None:
            return None
        levels = grey if self._wants_finer else ()
        side = max(prepared.shape)
        return refine(self.slabs, prepared, shape, side, self.config, levels)

    def _decide(
        self, found: MethodFinding, refined: Refined | None, own: Box | None
    ) -> tuple[Status, str | None, Box | None]:
        """Status, reason and box from what the pretext task and the slab network say.

        `own` is the box of the pretext task.
        """
        if refined is None:
            return ("located", None, own) if own else ("empty", found.nothing, None)
        box = refined.box
        sure = own is not None and surest(found.profiles.values()) > _SURE
        if refined.peak < self.config.refine.min_peak - (_PEAK_LESS if sure else 0.0):
            if sure:
                return "uncertain", "only the pretext task is sure of a sample", box or own
            return "empty", "what stands out looks like no other sample of the archive", None
        reason = disagreement(own, box, self.config.refine.min_agreement)
        # Where grey values bear out the network, a box around theirs stands alone: streaks, say.
        if reason is not None and not (refined.clear and _mostly_inside(box, own)):
            return "uncertain", reason, box or own
        return ("located", None, box) if box else ("empty", found.nothing, None)

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


def localize(volume: Volume, model: TrainedModel, config: RunConfig | None = None) -> Localization:
    """Localize the sample in one volume, in this process.

    Parameters
    ----------
    volume
        From `ctray.open_volume`.
    model
        From `ctray.load_model`; the slab network beside it is used where there is one.
    config
        Configuration whose `localize`, `uncertainty`, `refine` and `crop` sections count; None
        takes the model's own.

    Returns
    -------
    Localization
        With margins and promise by the calibration of the run that the model is of, or else the
        package's own.
    """
    localizer = Localizer(model, config, load_slabs(model.url, model))
    return _with_promise(localizer, volume, (config or model.config).crop, model.url)


def _with_promise(
    localizer: Localizer, volume: Volume, crop: CropConfig, checkpoint_url: str
) -> Localization:
    found = localizer.localize(volume)
    digest = localizer.box_settings_digest
    made = make_promise(
        status=found.status,
        reason=found.reason,
        scales=found.scales,
        instance_scales=[i.scales() or () for i in found.instances or ()],
        shape=volume.shape,
        digest=digest,
        crop=crop,
        calibration=calibration_beside(checkpoint_url),
    )
    return replace(
        found,
        status=made.status,
        reason=made.reason,
        shape=volume.shape,
        margins=tuple(made.margins) if found.box else None,
        promise=made.promise,
        max_loss=made.max_loss,
        coverage=made.coverage,
        method=localizer.config.task,
        model_digest=localizer.digest,
        box_settings_digest=digest,
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
    levels: GreyLevels, factors: Triple, box: Box, scales: Scales | None, shape: Triple
) -> Checked:
    """A located box after the look at what lies beyond it, at the finest level at hand."""
    grey = levels.finest
    z, y, x = (f // r for f, r in zip(factors, grey.ratio, strict=True))
    return checked(grey, (z, y, x), box, scales, shape)


def _mostly_inside(box: Box | None, around: Box | None) -> bool:
    common = box.intersection(around) if box and around else None
    return box is not None and common is not None and 2 * common.num_voxels > box.num_voxels


def _faces(stretches: dict[str, Stretch | None]) -> tuple[float, ...]:
    faces: list[float] = []
    for name in AXES:
        stretch = stretches.get(name)
        faces += stretch.certainty if stretch else (0.0, 0.0)
    return tuple(faces)
