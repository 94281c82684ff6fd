"""The search for the threshold that gives the best boxes compared with the truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ctray.core.errors import GeometryError
from ctray.core.geometry import AXES, Box, Triple
from ctray.evaluate.baseline_maps import BaselineArrays, FloatArray
from ctray.evaluate.baseline_thresholds import (
    IntArray,
    Profiles,
    axis_maxima,
    between,
    candidate_quantiles,
    component_faces,
    foreground_faces,
    otsu_threshold,
    thin,
)
from ctray.evaluate.truth import Truth

Errors = npt.NDArray[np.float64]
# Limit on the number of values, and so on the memory, of the search over a large archive. For
# comparison, 16 volumes of 64 cubed have 3072 values.
_MAX_EXACT = 8192


@dataclass(frozen=True, kw_only=True, slots=True)
class BaselineCase:
    """One volume for the baselines.

    Parameters
    ----------
    truth
        Truth of the volume, at level 0.
    factors
        Level-0 voxels per voxel of the working level, (z, y, x).
    load
        Function that returns the working level. It is called once in each of three passes, so that
        only one volume has to be in memory.
    """

    truth: Truth
    factors: Triple
    load: Callable[[], BaselineArrays]

    def arrays(self) -> BaselineArrays:
        """Load the arrays; `GeometryError` if shape times `factors` is not the truth's shape."""
        arrays = self.load()
        triples = zip(AXES, arrays.raw.shape, self.factors, self.truth.shape, strict=True)
        for axis, size, factor, full in triples:
            # Other writers round a level's shape down; ctray rounds it up.
            if abs(size - full / factor) >= 1:
                raise GeometryError(
                    f"volume {self.truth.volume_id!r} has {axis}={full} at level 0 in its truth, "
                    f"but {size} at factor {factor}; give the truth of this very volume"
                )
        return arrays


@dataclass(kw_only=True)
class Scan:
    """Results of the search in one map of one volume."""

    profiles: Profiles
    quantiles: FloatArray
    otsu: float | None
    otsu_faces: IntArray
    limits: FloatArray = field(default_factory=lambda: np.empty(0, dtype=np.float32))
    num_shared: int = 0  # Number of thresholds shared by all volumes; they come first.
    faces: IntArray = field(default_factory=lambda: np.empty((0, 6), dtype=np.int64))

    def add(self, values: FloatArray, *, shared: FloatArray, own: FloatArray | None = None) -> None:
        """Scan components above further thresholds: shared ones, then this volume's own."""
        limits = shared if own is None else np.concatenate([shared, own])
        self.limits = np.concatenate([self.limits, limits])
        self.faces = np.concatenate([self.faces, component_faces(values, limits)])
        self.num_shared += len(shared)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One way to threshold one map in every volume, and its errors."""

    variant: str
    limits: tuple[float | None, ...]
    faces: IntArray  # (volumes, 6)
    errors: Errors  # (volumes,)


def face_errors(case: BaselineCase, faces_T6: IntArray) -> Errors:
    """Mean absolute error of each box over the scored faces, in level-0 voxels.

    Parameters
    ----------
    case
        Volume with its truth and its factors.
    faces_T6
        Boxes at the working level. -1 means no box, which counts as the whole volume.

    Returns
    -------
    float64 (T,); NaN if no face is scored.
    """
    truth = case.truth
    scored = np.array(truth.scored_faces)
    if truth.box is None or not scored.any():
        return np.full(len(faces_T6), np.nan)
    shape = np.repeat(truth.shape, 2)
    full = np.minimum(faces_T6 * np.repeat(case.factors, 2), shape)
    whole = np.array(Box.whole(truth.shape).faces)
    full = np.where(faces_T6[:, :1] < 0, whole, full)
    errors: Errors = np.abs(full - np.array(truth.box.faces))[:, scored].mean(axis=1)
    return errors


def first_scan(values: FloatArray) -> Scan:
    """Scan a map for the results that need no search."""
    limit = otsu_threshold(values)
    return Scan(
        profiles=axis_maxima(values),
        quantiles=candidate_quantiles(values),
        otsu=limit,
        otsu_faces=component_faces(values, [np.inf if limit is None else limit])[0],
    )


def next_thresholds(
    cases: Sequence[BaselineCase], scans: Sequence[Scan], coarse: FloatArray, count: int
) -> tuple[FloatArray, list[FloatArray]]:
    """Choose `count` thresholds near the archive's best one, and as many near each volume's."""
    none = coarse[:0]
    if not len(coarse):
        return none, [none] * len(cases)
    errors_VT = np.stack([face_errors(c, s.faces) for c, s in zip(cases, scans, strict=True)])
    known = ~np.isnan(errors_VT[:, 0])
    if not known.any():
        return none, [none] * len(cases)
    shared = between(coarse, int(errors_VT[known].mean(axis=0).argmin()), count)
    own = [
        between(coarse, int(row.argmin()), count) if has_truth else none
        for row, has_truth in zip(errors_VT, known, strict=True)
    ]
    return shared, own


def searched(
    cases: Sequence[BaselineCase],
    scans: Mapping[str, Sequence[Scan]],
) -> tuple[Choice | None, Choice | None]:
    """Choose the best threshold for the whole archive, and the best one for each volume."""
    known = [any(c.truth.scored_faces) for c in cases]
    if not any(known):
        return None, None
    shared, each = [], []
    for name, own in scans.items():
        # Try every threshold at which a box of all foreground changes, then the scan of components.
        values = np.concatenate([p for s in own for p in s.profiles])
        exact = thin(np.append(values, np.nextafter(values.min(), -np.inf)), _MAX_EXACT)
        curves = [(exact, foreground_faces(s.profiles, exact)) for s in own]
        scanned = [(s.limits, s.faces) for s in own]
        common = [(s.limits[: s.num_shared], s.faces[: s.num_shared]) for s in own]
        shared.append(_best_shared(f"{name}, all", cases, curves, known))
        if own[0].num_shared:
            shared.append(_best_shared(f"{name}, component", cases, common, known))
        each.append(_best_each(f"{name}, all", cases, curves))
        if own[0].num_shared:
            each.append(_best_each(f"{name}, component", cases, scanned))
    return min(shared, key=_mean_error), _merge(cases, each)


def _best_shared(
    variant: str,
    cases: Sequence[BaselineCase],
    curves: Sequence[tuple[FloatArray, IntArray]],
    known: Sequence[bool],
) -> Choice:
    total = sum(
        face_errors(case, faces)
        for case, (_, faces), use in zip(cases, curves, known, strict=True)
        if use
    )
    best = int(np.argmin(total))
    faces_V6 = np.stack([faces[best] for _, faces in curves])
    return chosen(variant, cases, [float(curves[0][0][best])] * len(cases), faces_V6)


def _best_each(
    variant: str, cases: Sequence[BaselineCase], curves: Sequence[tuple[FloatArray, IntArray]]
) -> Choice:
    rows = [
        # Without a truth, choose no box, which is correct in an empty volume.
        int(np.argmin(e)) if not np.isnan(e := face_errors(case, faces)).any() else None
        for case, (_, faces) in zip(cases, curves, strict=True)
    ]
    limits = [None if r is None else float(c[0][r]) for r, c in zip(rows, curves, strict=True)]
    none = np.full(6, -1, dtype=np.int64)
    faces_V6 = np.stack([none if r is None else c[1][r] for r, c in zip(rows, curves, strict=True)])
    return chosen(variant, cases, limits, faces_V6)


def _merge(cases: Sequence[BaselineCase], choices: Sequence[Choice]) -> Choice:
    """Take the best of several choices in each volume."""
    errors_CV = np.stack([c.errors for c in choices])
    pick = np.where(np.isnan(errors_CV), np.inf, errors_CV).argmin(axis=0)
    return chosen(
        "best of all in each volume",
        cases,
        [choices[p].limits[i] for i, p in enumerate(pick)],
        np.stack([choices[p].faces[i] for i, p in enumerate(pick)]),
    )


def otsu(cases: Sequence[BaselineCase], scans: Mapping[str, Sequence[Scan]]) -> Choice:
    """Otsu's threshold and the largest component. The truth decides between maps of two signs."""
    choices = [
        chosen(
            f"{name}, component",
            cases,
            [s.otsu for s in own],
            np.stack([s.otsu_faces for s in own]),
        )
        for name, own in scans.items()
    ]
    return min(choices, key=_mean_error)


def chosen(
    variant: str,
    cases: Sequence[BaselineCase],
    limits: Sequence[float | None],
    faces_V6: IntArray,
) -> Choice:
    """Record a choice of one threshold and box per volume, with its errors."""
    errors = [face_errors(c, f[None])[0] for c, f in zip(cases, faces_V6, strict=True)]
    return Choice(variant=variant, limits=tuple(limits), faces=faces_V6, errors=np.array(errors))


def _mean_error(choice: Choice) -> float:
    known = choice.errors[~np.isnan(choice.errors)]
    return float(known.mean()) if known.size else 0.0
