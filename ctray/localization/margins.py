"""Margins that keep a promise: how much a face must move out so that little sample is cut.

Split conformal prediction (Vovk, Gammerman and Shafer 2005; Lei and others 2018). Every face has a
scale, the width of the band that its profile leaves open. For calibration volumes, whose truth is
known, the score is the smallest factor of these scales that keeps the loss within the allowed
rate. Of n such scores the ceil((n + 1) coverage)-th is large enough for a new volume with at least
that probability, whatever their distribution, as long as it is a volume of the same kind.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt

from ctray.errors import ConfigError, CtrayError
from ctray.geometry import Box, Triple

BoolArray = npt.NDArray[np.bool_]
Scales = tuple[float, float, float, float, float, float]

# Losses that scores are kept for; one that is asked for takes the next smaller of them.
LOSSES = (0.0, 0.0001, 0.001, 0.01, 0.05)
# A factor that no volume should need; one that does counts as never kept.
_MOST = 64.0
_STEP = 0.125
# What the package's own calibration gives at least: an archive of another kind may be harder than
# its phantoms, and no face is known better than the band that its profile leaves open.
_LEAST_SHIPPED = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """Scores of volumes whose truth is known.

    Parameters
    ----------
    scores
        For each of `LOSSES`, the smallest sufficient factor of every volume, rising; inf where
        none suffices.
    largest_scale
        Largest scale among them, as part of its axis: beyond it nothing was calibrated.
    about
        What the volumes were.
    shipped
        Whether it came with the package, and was not made from volumes of the same kind.
    """

    scores: Mapping[float, tuple[float, ...]]
    largest_scale: float
    about: str
    shipped: bool = False

    @property
    def num_volumes(self) -> int:
        """Volumes that were calibrated on."""
        return len(next(iter(self.scores.values())))

    def factor(self, max_loss: float, coverage: float) -> float:
        """Factor of the scales that keeps the loss within `max_loss` for `coverage` of volumes.

        Raises
        ------
        ConfigError
            If there are too few calibration volumes for that coverage, or they do not keep it.
        """
        known = [loss for loss in LOSSES if loss <= max_loss]
        scores = sorted(self.scores[known[-1]])
        rank = math.ceil((len(scores) + 1) * coverage)
        if rank > len(scores) or not math.isfinite(scores[rank - 1]):
            kept = sum(math.isfinite(s) for s in scores)
            raise ConfigError(
                f"crop.coverage {coverage:g} with crop.max_loss {max_loss:g} cannot be promised "
                f"from {len(scores)} calibration volumes; at most {kept / (len(scores) + 1):.3f} "
                "can, or calibrate on more volumes (ctray calibrate)"
            )
        return max(scores[rank - 1], _LEAST_SHIPPED if self.shipped else 0.0)

    def to_json(self) -> dict[str, Any]:
        """Plain values; inf as null."""
        return {
            "about": self.about,
            "largest_scale": round(self.largest_scale, 5),
            "scores": {
                f"{loss:g}": [round(s, 4) if math.isfinite(s) else None for s in scores]
                for loss, scores in self.scores.items()
            },
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Calibration:
        """Inverse of `to_json`; `CtrayError` for anything else."""
        try:
            scores = {
                loss: tuple(
                    math.inf if score is None else float(score)
                    for score in data["scores"][f"{loss:g}"]
                )
                for loss in LOSSES
            }
            return cls(
                scores=scores, largest_scale=float(data["largest_scale"]), about=data["about"]
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CtrayError(f"this is no calibration: {error!r}") from error


def shipped_calibration() -> Calibration:
    """Calibration on phantoms that comes with the package."""
    text = resources.files("ctray.localization").joinpath("calibration.json").read_text("utf-8")
    return replace(Calibration.from_json(json.loads(text)), shipped=True)


def calibrate(volumes: Sequence[tuple[Box, Scales, BoolArray]], about: str) -> Calibration:
    """Scores of volumes from their boxes, the scales of the six faces, and their masks.

    Parameters
    ----------
    volumes
        Box at level 0, scales of z0, z1, y0, y1, x0, x1 in level-0 voxels, and the sample's
        voxels, (z, y, x). Volumes without a sample take no part.
    about
        What they are.
    """
    scores: dict[float, list[float]] = {loss: [] for loss in LOSSES}
    largest = 0.0
    for box, scales, mask in volumes:
        if not mask.any():
            continue
        needed = _needed_factors(box, scales, mask)
        for loss in LOSSES:
            scores[loss].append(needed[loss])
        largest = max(largest, *(s / mask.shape[i // 2] for i, s in enumerate(scales)))
    return Calibration(
        scores={loss: tuple(sorted(s)) for loss, s in scores.items()},
        largest_scale=largest,
        about=about,
    )


def margins_of(scales: Scales, factor: float) -> tuple[int, ...]:
    """Margins of the six faces in whole level-0 voxels."""
    return tuple(math.ceil(factor * s) for s in scales)


def expand_faces(box: Box, margins: Sequence[int], shape: Triple) -> Box:
    """Box with its own margin on each of the six faces, within the volume."""
    ranges = [
        [max(0, start - margins[2 * a]), min(shape[a], stop + margins[2 * a + 1])]
        for a, (start, stop) in enumerate(box.ranges)
    ]
    return Box.from_ranges(ranges)


def _needed_factors(box: Box, scales: Scales, mask: BoolArray) -> dict[float, float]:
    """Smallest factor, in steps of an eighth, that keeps each of the losses."""
    shape = (mask.shape[0], mask.shape[1], mask.shape[2])
    total = int(np.count_nonzero(mask))
    open_losses, needed, factor = set(LOSSES), dict.fromkeys(LOSSES, math.inf), 0.0
    while open_losses and factor <= _MOST:
        kept = expand_faces(box, margins_of(scales, factor), shape)
        lost = (total - int(np.count_nonzero(mask[kept.slices]))) / total
        for loss in [loss for loss in open_losses if lost <= loss]:
            needed[loss] = factor
            open_losses.discard(loss)
        if kept == Box.whole(shape):
            break
        factor += _STEP
    return needed
