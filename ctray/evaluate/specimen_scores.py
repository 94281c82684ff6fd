"""Several specimens against the truth: how many are found, and how well their boxes fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ctray.core.geometry import Box
from ctray.evaluate.truth import Truth
from ctray.records.volume_record import VolumeRecord

# Intersection over union from which a box counts as the box of a specimen.
MATCHED = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class SpecimenScores:
    """Scores of the boxes of single specimens.

    Parameters
    ----------
    num_volumes, num_right
        Volumes whose truth tells their specimens; those with the right number of boxes.
    num_found, num_true, num_matched
        Boxes, specimens, and pairs of them whose intersection over union is `MATCHED` or more.
    mean_iou
        Over the specimens; 0 for one without a box.
    mean_voxels
        Mean absolute error of the six coordinates of matched boxes, level-0 voxels; None without
        any.
    """

    num_volumes: int
    num_right: int
    num_found: int
    num_true: int
    num_matched: int
    mean_iou: float
    mean_voxels: float | None

    @property
    def matched_share(self) -> float:
        """Fraction of the specimens that have their box."""
        return self.num_matched / self.num_true

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "matched_share": self.matched_share}


def score_specimens(
    receipts: Sequence[VolumeRecord], truths: Mapping[str, Truth]
) -> SpecimenScores | None:
    """Score a run that looked for several specimens; None for another, or without such a truth.

    Parameters
    ----------
    receipts
        Of the run; a volume that is not located counts as one without boxes.
    truths
        By volume id; those that tell no specimens take no part.
    """
    if all(receipt.specimens is None for receipt in receipts):
        return None
    pairs = [
        (_found(r), list(truths[r.volume_id].specimens)) for r in receipts if r.volume_id in truths
    ]
    pairs = [(found, true) for found, true in pairs if true]
    if not pairs:
        return None
    matches = [(f[i], t[j]) for f, t in pairs for i, j in match_boxes(f, t)]
    num_true = sum(len(true) for _, true in pairs)
    close = [(own, true) for own, true in matches if own.iou(true) >= MATCHED]
    errors = [float(np.abs(np.subtract(own.faces, true.faces)).mean()) for own, true in close]
    return SpecimenScores(
        num_volumes=len(pairs),
        num_right=sum(len(found) == len(true) for found, true in pairs),
        num_found=sum(len(found) for found, _ in pairs),
        num_true=num_true,
        num_matched=len(close),
        mean_iou=sum(own.iou(true) for own, true in matches) / num_true,
        mean_voxels=float(np.mean(errors)) if errors else None,
    )


def match_boxes(found: Sequence[Box], true: Sequence[Box]) -> list[tuple[int, int]]:
    """Places (found, true) of boxes that overlap, the closest pair first, each box once."""
    overlaps = [(f.iou(t), i, j) for i, f in enumerate(found) for j, t in enumerate(true)]
    taken: list[tuple[int, int]] = []
    for iou, i, j in sorted(overlaps, key=lambda o: (-o[0], o[1], o[2])):
        if iou > 0 and all(i != a and j != b for a, b in taken):
            taken.append((i, j))
    return taken


def _found(receipt: VolumeRecord) -> list[Box]:
    if receipt.status != "located" or receipt.sample_box is None:
        return []
    return [i.sample_box for i in receipt.specimens or ()] or [receipt.sample_box]
