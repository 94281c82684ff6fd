"""Scores of boxes compared with the truth, in level-0 voxels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ctray.core.errors import GeometryError, NotFoundError
from ctray.core.geometry import Box
from ctray.evaluate.truth import FACE_NAMES, SixBools, Truth, count_sample_voxels

OWN_METHOD = "ctray"
# The crop: the box with its margins.
CROP_METHOD = f"{OWN_METHOD}-crop"
Row = dict[str, str | float | int | bool | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class BoxScore:
    """One box compared with the truth of its volume.

    Values that need a true box or a scored face are None if there is none.

    Parameters
    ----------
    volume_id, method
        The volume and the method that were scored.
    outcome
        ``located``: a box in a volume with a sample. ``missing``: no box (status empty, uncertain
        or failed) in a volume with a sample; its errors are the errors of the whole volume, which
        then stays on disk. ``empty``: no box in an empty volume. ``false-alarm``: a box in an empty
        volume.
    box, truth
        The predicted box and the true box at level 0; None if there is none.
    errors
        Absolute error of the faces z0, z1, y0, y1, x0, x1 in voxels; None in an empty volume.
    scored
        Whether each face is scored: it is not on the volume's border, and its truth is precise.
    relative_to_volume, relative_to_box
        Error of each face divided by the extent of the volume, and of the true box, along the axis
        of the face.
    iou
        Intersection over union with the true box, all faces included.
    sample_lost
        Fraction of the sample's voxels outside the box; None without a mask.
    storage_saved
        1 - voxels of the box / voxels of the volume; None for ``empty``, which has no crop.
    """

    volume_id: str
    method: str
    outcome: str
    box: Box | None
    truth: Box | None
    errors: tuple[float, ...] | None
    scored: SixBools
    relative_to_volume: tuple[float, ...] | None
    relative_to_box: tuple[float, ...] | None
    iou: float | None
    sample_lost: float | None
    storage_saved: float | None

    @property
    def error_voxels(self) -> float | None:
        """Mean absolute error of the scored faces, in voxels."""
        return _mean_where(self.errors, self.scored)

    @property
    def error_of_volume(self) -> float | None:
        """Mean error of the scored faces, divided by the volume's extent."""
        return _mean_where(self.relative_to_volume, self.scored)

    @property
    def error_of_box(self) -> float | None:
        """Mean error of the scored faces, divided by the true box's extent."""
        return _mean_where(self.relative_to_box, self.scored)

    @property
    def error_apart_voxels(self) -> float | None:
        """Mean absolute error of the faces that are not scored, in voxels."""
        return _mean_where(self.errors, tuple(not s for s in self.scored))

    def to_row(self) -> Row:
        """Flat row of plain values, for JSON and Parquet; None means that there is no value."""
        row: Row = {"volume_id": self.volume_id, "method": self.method, "outcome": self.outcome}
        for prefix, box in (("", self.box), ("true_", self.truth)):
            faces = box.faces if box else (None,) * 6
            row |= {prefix + name: face for name, face in zip(FACE_NAMES, faces, strict=True)}
        errors = self.errors or (None,) * 6
        row |= {f"error_{name}": e for name, e in zip(FACE_NAMES, errors, strict=True)}
        row |= {f"scored_{name}": s for name, s in zip(FACE_NAMES, self.scored, strict=True)}
        row |= {
            "error_voxels": self.error_voxels,
            "error_of_volume": self.error_of_volume,
            "error_of_box": self.error_of_box,
            "error_apart_voxels": self.error_apart_voxels,
            "iou": self.iou,
            "sample_lost": self.sample_lost,
            "storage_saved": self.storage_saved,
        }
        return row


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodSummary:
    """Summary of one method over an archive, in level-0 voxels; None if nothing could be scored.

    Parameters
    ----------
    num_volumes, num_located, num_missing, num_empty, num_false_alarms
        Number of scored volumes, and number with each outcome.
    mean_voxels, median_voxels, p90_voxels
        Statistics over the volumes of the mean absolute error of the scored faces.
    worst_voxels, worst_volume_id
        Largest such error, and its volume.
    face_median_voxels, face_p90_voxels
        Statistics of the error over the scored faces of all volumes.
    mean_of_volume, mean_of_box
        Mean over the volumes of the error relative to the extent of the volume and of the true box.
    apart_mean_voxels
        Mean absolute error of the faces that are not scored.
    mean_iou, mean_sample_lost, worst_sample_lost, mean_storage_saved
        Statistics over the volumes. Volumes without a mask are ignored for the sample lost.
    """

    method: str
    num_volumes: int
    num_located: int
    num_missing: int
    num_empty: int
    num_false_alarms: int
    mean_voxels: float | None
    median_voxels: float | None
    p90_voxels: float | None
    worst_voxels: float | None
    worst_volume_id: str | None
    face_median_voxels: float | None
    face_p90_voxels: float | None
    mean_of_volume: float | None
    mean_of_box: float | None
    apart_mean_voxels: float | None
    mean_iou: float | None
    mean_sample_lost: float | None
    worst_sample_lost: float | None
    mean_storage_saved: float | None

    def to_row(self) -> Row:
        """Flat row of plain values, for JSON and Parquet."""
        return {name: getattr(self, name) for name in MethodSummary.__dataclass_fields__}


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreTable:
    """Scores of one or several methods over an archive.

    Parameters
    ----------
    scores
        One score per method and volume.
    without_truth, without_prediction
        Volumes that were left out because they have no truth, or no prediction.
    """

    scores: tuple[BoxScore, ...]
    without_truth: tuple[str, ...] = ()
    without_prediction: tuple[str, ...] = ()

    @property
    def methods(self) -> tuple[str, ...]:
        """Methods in the order of their first score."""
        return tuple(dict.fromkeys(s.method for s in self.scores))

    def summary(self, method: str = OWN_METHOD) -> MethodSummary:
        """Summary of one method; raises `NotFoundError` if the method was not scored."""
        scores = [s for s in self.scores if s.method == method]
        if not scores:
            known = ", ".join(self.methods)
            raise NotFoundError(f"method {method!r} was not scored; there are {known}")
        return summarize(method, scores)

    def summaries(self) -> tuple[MethodSummary, ...]:
        """Aggregate every method."""
        return tuple(self.summary(m) for m in self.methods)

    def to_rows(self) -> list[Row]:
        """One flat row per method and volume."""
        return [s.to_row() for s in self.scores]

    def to_json(self) -> dict[str, Any]:
        """Plain values: ``summary`` (one row per method), ``volumes`` (all rows), left-out ids."""
        return {
            "summary": [s.to_row() for s in self.summaries()],
            "volumes": self.to_rows(),
            "without_truth": list(self.without_truth),
            "without_prediction": list(self.without_prediction),
        }


def score_volume(truth: Truth, boxes: Mapping[str, Box | None]) -> list[BoxScore]:
    """Score the boxes that several methods found in one volume.

    Parameters
    ----------
    truth
        Truth of the volume.
    boxes
        Box by method, at level 0; None if the method found no box.

    Raises
    ------
    GeometryError
        If a box is not at level 0 or exceeds the volume.
    """
    for method, box in boxes.items():
        if box is not None and box.level != 0:
            raise GeometryError(
                f"box of {method!r} in volume {truth.volume_id!r} is at level {box.level}; "
                "scores count in level 0, convert it with Box.to_level()"
            )
        if box is not None:
            box.check_inside(truth.shape)
    whole = Box.whole(truth.shape)
    lost: Sequence[float | None] = [None] * len(boxes)
    if truth.mask_url is not None and truth.box is not None:
        total, inside = count_sample_voxels(truth, [b or whole for b in boxes.values()])
        lost = [1 - n / total if total else None for n in inside]
    return [
        _score(truth, method, box, fraction)
        for (method, box), fraction in zip(boxes.items(), lost, strict=True)
    ]


def score_methods(
    predictions: Mapping[str, Mapping[str, Box | None]],
    truths: Mapping[str, Truth],
) -> ScoreTable:
    """Score the boxes of several methods on the same volumes.

    Parameters
    ----------
    predictions
        Boxes at level 0 by method and then by volume id; None if the method found no box. Every
        method must name the same volumes.
    truths
        Truths by volume id. Volumes without a prediction were not part of the run and are left out.

    Raises
    ------
    NotFoundError
        If no volume has both a prediction and a truth.
    GeometryError
        If a box cannot be compared with its truth, or the methods name different volumes.
    """
    ids = _common_ids(predictions)
    both = [i for i in ids if i in truths]
    if not both:
        raise NotFoundError(
            f"none of the {len(ids)} predicted volumes ({', '.join(ids[:3])}, ...) is among the "
            f"{len(truths)} of the truth ({', '.join(sorted(truths)[:3])}, ...); ids must be equal"
        )
    scores = [
        score
        for volume_id in both
        for score in score_volume(
            truths[volume_id],
            {method: boxes[volume_id] for method, boxes in predictions.items()},
        )
    ]
    order = {method: i for i, method in enumerate(predictions)}
    return ScoreTable(
        scores=tuple(sorted(scores, key=lambda s: order[s.method])),
        without_truth=tuple(i for i in ids if i not in truths),
        without_prediction=tuple(sorted(set(truths) - set(ids))),
    )


def summarize(method: str, scores: Sequence[BoxScore]) -> MethodSummary:
    """Aggregate the scores of one method."""
    outcomes = [s.outcome for s in scores]
    known = [(s.error_voxels, s.volume_id) for s in scores if s.error_voxels is not None]
    errors = [e for e, _ in known if e is not None]
    worst = max(known, key=lambda pair: pair[0] or 0.0) if known else (None, None)
    faces = _faces(scores, counted=True)
    lost = [s.sample_lost for s in scores]
    return MethodSummary(
        method=method,
        num_volumes=len(scores),
        num_located=outcomes.count("located"),
        num_missing=outcomes.count("missing"),
        num_empty=outcomes.count("empty"),
        num_false_alarms=outcomes.count("false-alarm"),
        mean_voxels=_mean(errors),
        median_voxels=_quantile(errors, 0.5),
        p90_voxels=_quantile(errors, 0.9),
        worst_voxels=worst[0],
        worst_volume_id=worst[1],
        face_median_voxels=_quantile(faces, 0.5),
        face_p90_voxels=_quantile(faces, 0.9),
        mean_of_volume=_mean([s.error_of_volume for s in scores]),
        mean_of_box=_mean([s.error_of_box for s in scores]),
        apart_mean_voxels=_mean(_faces(scores, counted=False)),
        mean_iou=_mean([s.iou for s in scores]),
        mean_sample_lost=_mean(lost),
        worst_sample_lost=max((v for v in lost if v is not None), default=None),
        mean_storage_saved=_mean([s.storage_saved for s in scores]),
    )


def _score(truth: Truth, method: str, box: Box | None, lost: float | None) -> BoxScore:
    whole = Box.whole(truth.shape)
    used = box or whole
    errors = volume_relative = box_relative = iou = None
    if truth.box is not None:
        pairs = zip(used.faces, truth.box.faces, strict=True)
        errors = tuple(float(abs(a - b)) for a, b in pairs)
        volume_relative = _over(errors, truth.shape)
        box_relative = _over(errors, truth.box.shape)
        iou = used.iou(truth.box)
    if truth.box is None:
        outcome = "empty" if box is None else "false-alarm"
    else:
        outcome = "missing" if box is None else "located"
    return BoxScore(
        volume_id=truth.volume_id,
        method=method,
        outcome=outcome,
        box=box,
        truth=truth.box,
        errors=errors,
        scored=truth.scored_faces,
        relative_to_volume=volume_relative,
        relative_to_box=box_relative,
        iou=iou,
        sample_lost=lost,
        storage_saved=None if outcome == "empty" else 1 - used.num_voxels / whole.num_voxels,
    )


def _common_ids(predictions: Mapping[str, Mapping[str, Box | None]]) -> list[str]:
    ids: list[str] = []
    for method, boxes in predictions.items():
        ids = ids or list(boxes)
        if set(boxes) != set(ids):
            odd = sorted(set(boxes) ^ set(ids))[0]
            raise GeometryError(
                f"method {method!r} covers other volumes than the first one ({odd!r} is in one of "
                "them only); methods compare on the same volumes only"
            )
    return ids


def _over(errors: tuple[float, ...], extent: tuple[int, int, int]) -> tuple[float, ...]:
    """Errors of the six faces, divided by the extent of their axes."""
    return tuple(e / extent[i // 2] for i, e in enumerate(errors))


def _faces(scores: Sequence[BoxScore], *, counted: bool) -> list[float]:
    return [
        error
        for s in scores
        if s.errors is not None
        for error, scored in zip(s.errors, s.scored, strict=True)
        if scored is counted
    ]


def _mean_where(values: tuple[float, ...] | None, chosen: Sequence[bool]) -> float | None:
    if values is None:
        return None
    return _mean([v for v, use in zip(values, chosen, strict=True) if use])


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


def _quantile(values: Sequence[float], q: float) -> float | None:
    return float(np.quantile(values, q)) if values else None
