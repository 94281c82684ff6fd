"""Margins that keep a promise: the distance a face must move out so that little sample is cut.

The method is split conformal prediction (Vovk, Gammerman and Shafer 2005; Lei and others 2018).
Every face has a scale: the width of the band in which its profile allows the face to lie. The
truth of calibration volumes is known. The score of such a volume is the smallest factor of its
scales that keeps the loss within the allowed rate. The ceil((n + 1) coverage)-th smallest of n
scores is large enough for a new volume with a probability of at least `coverage`, for any
distribution of the scores. This holds for volumes of the same kind whose faces were found in the
same way: with the same `ctray.config.box_settings`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt

from ctray.core.errors import ConfigError, CtrayError
from ctray.core.geometry import AxisFaces, Box, as_triple

BoolArray = npt.NDArray[np.bool_]

# Losses with stored scores. A requested loss uses the largest of these that does not exceed it.
LOSSES = (0.0, 0.0001, 0.001, 0.01, 0.05)
# Largest factor that is tried. The score of a volume that needs more is infinite.
_MOST = 64.0
_STEP = 0.125
# Minimum factor of the package's own calibration. Another archive may be harder than its phantoms,
# and the band of a profile does not show where in it the face lies. A scale is at least one slice
# of the working level (`SelfTrainedFaces.scales`), so every face moves out by at least one slice.
_LEAST_SHIPPED = 1.0
_OWN_KEYS = {"about", "box_settings_digest", "box_settings", "largest_scale", "scores"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """Scores of volumes whose truth is known.

    Parameters
    ----------
    scores
        For each of `LOSSES`, the smallest sufficient factor of every volume, in ascending order;
        inf if no factor is sufficient.
    largest_scale
        Largest scale of these volumes, as a fraction of its axis. The calibration does not cover
        larger scales.
    about
        Description of the volumes.
    shipped
        Whether the calibration came with the package instead of from volumes of the same kind.
    box_settings_digest
        `ctray.config.box_settings.box_settings_digest` of the boxes. The calibration holds only for
        boxes with this digest; with None it holds for no box.
    box_settings
        Settings behind the digest, used to name differences; empty if unknown.
    made
        Date, machine, versions and command, for readers of the file.
    """

    scores: Mapping[float, tuple[float, ...]]
    largest_scale: float
    about: str
    shipped: bool = False
    box_settings_digest: str | None = None
    box_settings: Mapping[str, Any] = field(default_factory=dict)
    made: Mapping[str, Any] = field(default_factory=dict)

    @property
    def num_volumes(self) -> int:
        """Number of volumes in the calibration."""
        return len(next(iter(self.scores.values())))

    def holds_for(self, digest: str | None) -> bool:
        """Whether the calibration was made from boxes with this digest of settings."""
        return digest is not None and digest == self.box_settings_digest

    def factor(self, max_loss: float, coverage: float) -> float:
        """Factor of the scales that keeps the loss within `max_loss` for `coverage` of volumes.

        The factor of the package's own calibration is at least 1, so that every face moves out by
        at least one slice of the working level.

        Raises
        ------
        ConfigError
            If there are too few calibration volumes for that coverage, or too many of them need a
            factor that is too large.
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
            "box_settings_digest": self.box_settings_digest,
            "box_settings": dict(self.box_settings),
            **self.made,
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
                scores=scores,
                largest_scale=float(data["largest_scale"]),
                about=data["about"],
                box_settings_digest=data.get("box_settings_digest"),
                box_settings=data.get("box_settings", {}),
                made={k: v for k, v in data.items() if k not in _OWN_KEYS},
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CtrayError(f"this is no calibration: {error!r}") from error


def shipped_calibration() -> Calibration:
    """Calibration on phantoms that comes with the package."""
    text = resources.files("ctray.localization").joinpath("calibration.json").read_text("utf-8")
    return replace(Calibration.from_json(json.loads(text)), shipped=True)


def calibrate(
    volumes: Iterable[tuple[Box, AxisFaces[float], BoolArray]],
    about: str,
    digest: str | None = None,
) -> Calibration:
    """Calibration from volumes: their boxes, the scales of their faces, and their masks.

    Parameters
    ----------
    volumes
        For each volume, box at level 0, scales in level-0 voxels, and mask of the sample (z, y, x).
        Volumes without a sample are ignored. The iterable is consumed one volume at a time.
    about
        Description of the volumes.
    digest
        `box_settings_digest` of the boxes.
    """
    scores: dict[float, list[float]] = {loss: [] for loss in LOSSES}
    largest = 0.0
    for box, scales, mask in volumes:
        if not mask.any():
            continue
        needed = _needed_factors(box, scales, mask)
        for loss in LOSSES:
            scores[loss].append(needed[loss])
        largest = max(largest, largest_fraction(scales, mask.shape))
    return Calibration(
        scores={loss: tuple(sorted(s)) for loss, s in scores.items()},
        largest_scale=largest,
        about=about,
        box_settings_digest=digest,
    )


def margins_of(scales: AxisFaces[float], factor: float) -> AxisFaces[int]:
    """Margins in whole level-0 voxels: `factor` times the scales, rounded up."""
    return scales.map(lambda scale: math.ceil(factor * scale))


def largest_fraction(scales: AxisFaces[float], shape: Sequence[int]) -> float:
    """Largest of the scales as a fraction of its axis; `shape` is of level 0, (z, y, x)."""
    return max(s / n for s, n in zip(scales, AxisFaces.both_sides(shape), strict=True))


def _needed_factors(box: Box, scales: AxisFaces[float], mask: BoolArray) -> dict[float, float]:
    """Smallest factor, in steps of 1/8, that keeps each loss; inf if no factor does."""
    shape = as_triple(mask.shape, "mask")
    total = int(np.count_nonzero(mask))
    open_losses, needed, factor = set(LOSSES), dict.fromkeys(LOSSES, math.inf), 0.0
    while open_losses and factor <= _MOST:
        kept = box.expand(margins_of(scales, factor), shape)
        lost = (total - int(np.count_nonzero(mask[kept.slices]))) / total
        for loss in [loss for loss in open_losses if lost <= loss]:
            needed[loss] = factor
            open_losses.discard(loss)
        if kept == Box.whole(shape):
            break
        factor += _STEP
    return needed
