"""Several specimens compared with the truth: the number found, and the fit of their boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ctray.core.geometry import Box
from ctray.evaluate.truth import Truth
from ctray.records.volume_record import VolumeRecord

# Minimum intersection over union at which a box matches a specimen.
MATCHED = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class SpecimenScores:
    """Scores of the boxes of single specimens.

    Parameters
    ----------
    num_volumes, num_right
        Number of volumes whose truth contains specimens, and number of these volumes with the
        correct number of boxes.
    num_found, num_true, num_matched
        Numbers of boxes, of specimens, and of pairs whose intersection over union is at least
        `MATCHED`.
    mean_iou
        Mean over the specimens; a specimen without a box counts as 0.
    mean_voxels
        Mean absolute error of the six coordinates of matched boxes, level-0 voxels; None if there
        are none.
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
        """Fraction of the specimens that are matched by a box."""
        return self.num_matched / self.num_true

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "matched_share": self.matched_share}


def score_specimens(
    receipts: Sequence[VolumeRecord], truths: Mapping[str, Truth]
) -> SpecimenScores | None:
    """Score a run that searched for specimens; None for other runs, or without such a truth.

    Parameters
    ----------
    receipts
        Receipts of the run. A volume that is not located counts as a volume without boxes.
    truths
        Truths by volume id. Truths without specimens are ignored.
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
    """Index pairs (found, true) of overlapping boxes, best pair first; each box at most once."""
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
