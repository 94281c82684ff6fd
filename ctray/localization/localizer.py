"""Localizing one volume: read its working level, prepare it, ask the network, make a box."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from ctray.config import RunConfig
from ctray.geometry import AXES, Box, Triple
from ctray.localization.boxes import Stretch, find_stretch
from ctray.localization.certainty import certainty_profiles
from ctray.preprocess.prepare import Prepared, is_constant, prepare
from ctray.pretext.checkpoint import TrainedModel
from ctray.storage.volume import Volume

Status = Literal["located", "empty", "uncertain", "failed"]
UintArray = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, slots=True)
class Preview:
    """Pictures of a volume's working level for the report, one per axis, uint8.

    Parameters
    ----------
    slices
        Slice through the middle of the box (of the volume, where there is none).
    projections
        Largest smoothed grey value along the axis.
    """

    slices: dict[str, UintArray]
    projections: dict[str, UintArray]


@dataclass(frozen=True, kw_only=True, slots=True)
class Localization:
    """What is known of one volume after localizing it.

    Parameters
    ----------
    status, reason
        `located`, or `empty` with the reason in one line.
    box
        Box of the sample at level 0, None unless located.
    face_confidence
        Certainty of the faces z0, z1, y0, y1, x0, x1, in [0, 1].
    profiles
        Certainty per slice of the working level, by axis.
    stretches
        Range and threshold along each axis.
    working
        Shape, factors, window and field of view of the working level.
    bytes_read
        Bytes fetched from the store.
    seconds
        Wall time.
    """

    status: Status
    reason: str | None = None
    box: Box | None = None
    face_confidence: tuple[float, ...] | None = None
    profiles: dict[str, list[float]] = field(default_factory=dict)
    stretches: dict[str, Stretch | None] = field(default_factory=dict)
    working: dict[str, Any] = field(default_factory=dict)
    bytes_read: int = 0
    seconds: float = 0.0
    preview: Preview | None = None

    @property
    def confidence(self) -> float | None:
        """Certainty of the least certain face."""
        return None if self.face_confidence is None else min(self.face_confidence)


class Localizer:
    """Finds the sample in volumes with one trained model.

    Parameters
    ----------
    trained
        From `ctray.pretext.checkpoint.load_model`.
    config
        Configuration whose `localize` section counts; working size, field of view and encoder
        are the model's own.
    device
        Where the network runs; None takes the GPU where there is one.
    """

    def __init__(
        self,
        trained: TrainedModel,
        config: RunConfig | None = None,
        device: torch.device | None = None,
    ) -> None:
        own = trained.config
        self.config = own.model_copy(update={"localize": (config or own).localize})
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = trained.model.to(self.device)
        self.side = trained.side
        self.digest = trained.digest

    def localize(self, volume: Volume) -> Localization:
        """Localize one volume; memory is a few times that of its working level.

        Raises
        ------
        InvalidVolumeError
            If no voxel is finite.
        StorageError
            If the volume cannot be read.
        """
        began, read_before = time.monotonic(), volume.bytes_read
        working, factors = volume.read_working(self.config.preprocess.working_size)
        if is_constant(working):
            return Localization(
                status="empty",
                reason=_why_constant(working),
                bytes_read=volume.bytes_read - read_before,
                seconds=time.monotonic() - began,
            )
        prepared = prepare(working, factors, self.config.preprocess)
        profiles = certainty_profiles(self.model, prepared, self._side_for(prepared), self.config)
        chance = 1 / self.config.rotation.num_classes
        stretches = {
            axis: find_stretch(profile, self.config.localize, chance)
            for axis, profile in profiles.items()
        }
        box = _box(stretches, prepared, volume.shape)
        return Localization(
            status="located" if box else "empty",
            reason=None if box else "no slice along any axis is certain to hold structure",
            box=box,
            face_confidence=_faces(stretches) if box else None,
            profiles={a: [round(float(v), 4) for v in p] for a, p in profiles.items()},
            stretches=stretches,
            working={"shape": list(prepared.shape), **prepared.to_json()},
            bytes_read=volume.bytes_read - read_before,
            seconds=time.monotonic() - began,
            preview=_preview(working, stretches, prepared),
        )

    def _side_for(self, prepared: Prepared) -> int:
        # A volume larger than those of training gets the canvas that it needs.
        return max(self.side, *prepared.shape)


def localize(volume: Volume, model: TrainedModel, config: RunConfig | None = None) -> Localization:
    """Localize the sample in one volume, in this process.

    Parameters
    ----------
    volume
        From `ctray.open_volume`.
    model
        From `ctray.load_model`.
    config
        Configuration whose `localize` section counts; None takes the model's own.
    """
    return Localizer(model, config).localize(volume)


def _why_constant(working: npt.NDArray[Any]) -> str:
    if working.dtype.kind == "f" and not np.isfinite(working).any():
        return "no voxel is finite"
    return "all voxels have the same grey value"


def _box(stretches: dict[str, Stretch | None], prepared: Prepared, shape: Triple) -> Box | None:
    """Box at level 0; an axis without a certain slice keeps its whole extent: cut nothing."""
    found = [s for s in stretches.values() if s is not None]
    if not found:
        return None
    start, stop = [], []
    for axis, name in enumerate(AXES):
        stretch = stretches.get(name)
        first, last = (stretch.start, stretch.stop) if stretch else (0, prepared.shape[axis])
        start.append(first * prepared.factors[axis])
        stop.append(min(shape[axis], last * prepared.factors[axis]))
    return Box(start=(start[0], start[1], start[2]), stop=(stop[0], stop[1], stop[2]))


def _faces(stretches: dict[str, Stretch | None]) -> tuple[float, ...]:
    faces: list[float] = []
    for name in AXES:
        stretch = stretches.get(name)
        faces += stretch.certainty if stretch else (0.0, 0.0)
    return tuple(faces)


def _preview(
    working: npt.NDArray[Any], stretches: dict[str, Stretch | None], prepared: Prepared
) -> Preview:
    low, high = prepared.window
    with np.errstate(invalid="ignore"):
        grey = np.nan_to_num((working.astype(np.float32) - low) / max(high - low, 1e-12))
    grey = np.clip(grey, 0, 1)
    # Projections show what the network saw: a bright container would hide the sample.
    smooth = ndimage.gaussian_filter(prepared.voxels.astype(np.float32), 1.0)
    slices, projections = {}, {}
    for axis, name in enumerate(AXES):
        stretch = stretches.get(name)
        extent = working.shape[axis]
        middle = (stretch.start + stretch.stop) // 2 if stretch else extent // 2
        slices[name] = (np.take(grey, middle, axis=axis) * 255).astype(np.uint8)
        projections[name] = smooth.max(axis=axis).astype(np.uint8)
    return Preview(slices=slices, projections=projections)
