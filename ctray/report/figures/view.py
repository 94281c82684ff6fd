"""What the figures of a volume are made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ctray.core.geometry import Box
from ctray.preprocess.field_of_view import FieldOfView

UintArray = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class VolumeView:
    """Everything that is drawn of one volume.

    Boxes are in voxels of level 0, everything else in voxels of the working level.

    Parameters
    ----------
    shape
        Voxels at level 0, (z, y, x).
    factors
        Level-0 voxels per voxel of the working level, (z, y, x).
    spacing
        Edges of a level-0 voxel, (z, y, x), in any unit; sets the proportions of the pictures.
    pictures
        2D uint8 arrays named `projection-z`, `slice-z` and so on. The sorting method adds
        `variance-z` (variance in the slice) and `region-z` (region seen along the axis).
    box, truth
        Box of the sample, and its true box.
    specimens, crop_boxes
        Boxes of several specimens, and of the crops.
    field_of_view
        Circle, container and column of medium.
    profiles, stretches
        Certainty or variance of each slice, and the stretches found in it; by axis, as in
        receipts.
    sample_profiles
        Probability of sample of each slice, from self-training; by axis.
    certainty
        Of the six faces.
    """

    shape: tuple[int, ...]
    factors: tuple[int, ...]
    spacing: tuple[float, ...] = (1.0, 1.0, 1.0)
    pictures: dict[str, UintArray] = field(default_factory=dict)
    box: Box | None = None
    truth: Box | None = None
    specimens: Sequence[Box] = ()
    crop_boxes: Sequence[Box] = ()
    field_of_view: FieldOfView = field(default_factory=FieldOfView)
    profiles: dict[str, list[float]] = field(default_factory=dict)
    stretches: dict[str, Any] = field(default_factory=dict)
    sample_profiles: dict[str, list[float]] = field(default_factory=dict)
    certainty: Sequence[float] = ()

    @property
    def quantity(self) -> str:
        """Quantity that the profiles show."""
        by_variance = any(name.startswith("variance") for name in self.pictures)
        return "Variance" if by_variance else "Certainty"

    @property
    def num_slices(self) -> int:
        """Slices of the working level along z."""
        return -(-self.shape[0] // self.factors[0])

    def middle(self, axis: int) -> int:
        """Index, at the working level, of the slice that `slice-z` (or y, x) shows."""
        extent = -(-self.shape[axis] // self.factors[axis])
        if self.box is None:
            return extent // 2
        return min(extent - 1, sum(self.box.ranges[axis]) // (2 * self.factors[axis]))
