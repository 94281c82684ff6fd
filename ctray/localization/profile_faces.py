"""Faces from log-odds profiles: where a profile crosses its threshold, and how steeply."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ctray.localization.params import PARAMS
from ctray.localization.stretches import largest_sum

FloatArray = npt.NDArray[np.float64]

_PARAMS = PARAMS.face


@dataclass(frozen=True, kw_only=True, slots=True)
class FacePair:
    """Start and end of the sample along one axis, in slices of the working level.

    Parameters
    ----------
    start, stop
        Place where the profile crosses the threshold, between slices; 0 and the extent at the
        border. In a clear scan, the place that grey values give (`ctray.localization.grey_faces`).
    widths
        For each face, slices between the crossings of a looser and of a tighter threshold. A steep
        profile gives a small width.
    thresholds
        Threshold of each face, log-odds.
    """

    start: float
    stop: float
    widths: tuple[float, float]
    thresholds: tuple[float, float]

    @property
    def confidence(self) -> tuple[float, float]:
        """1 / (1 + width) for each face: 1 for a width of 0, 0.5 for a width of one slice."""
        return (1 / (1 + self.widths[0]), 1 / (1 + self.widths[1]))

    def to_json(self) -> dict[str, Any]:
        """Receipt form."""
        return {
            "range": [round(self.start, 3), round(self.stop, 3)],
            "widths": [round(w, 3) for w in self.widths],
            "thresholds": [round(t, 4) for t in self.thresholds],
        }


FacesByAxis = dict[str, FacePair | None]


def least_peak(profiles: Iterable[FloatArray]) -> float:
    """Smallest of the three axes' peak values."""
    return min(float(profile.max()) for profile in profiles)


def fraction_of_way(background: float, peak: float) -> float:
    """Position of the threshold between the empty slices (0) and the surest slice (1).

    A clearer scan has a larger fraction.

    Parameters
    ----------
    background, peak
        Log-odds of the empty slices, and of the surest slice.
    """
    distance = peak - background
    fraction = min(
        max(distance / _PARAMS.clear_distance, _PARAMS.min_fraction), _PARAMS.max_fraction
    )
    return min(fraction, _PARAMS.max_rise / distance) if distance > 0 else fraction


def own_threshold(profiles: Iterable[FloatArray], fraction: float | None = None) -> float:
    """Log-odds at which the faces of one volume lie, from its own profiles.

    No single number fits all volumes. The network is less sure of faint samples. It is also less
    sure of empty slices if streaks or a clear medium look like texture. So the threshold lies at a
    fraction of the way from the empty slices to the surest slice.

    Parameters
    ----------
    profiles
        Log-odds per slice, one array per axis.
    fraction
        Fraction of the way from the empty level to the surest slice. The empty level is the median
        of the slices below 0. It is 0 if there are none, because a sample may fill its volume. None
        uses `fraction_of_way`.
    """
    return _own_threshold(list(profiles), fraction)[0]


def _background(profiles: Iterable[FloatArray]) -> float:
    every = np.concatenate(list(profiles))
    empty = every[every < 0]
    return float(np.median(empty)) if empty.size else 0.0


def slices_beyond(
    profiles: Mapping[str, FloatArray], faces: Mapping[str, FacePair | None]
) -> dict[str, tuple[float, float]]:
    """Slices from each face out to the outermost slice that stands out from the empty ones.

    A tail of the sample may be too faint for the threshold and still differ from the medium. So the
    scale of a face extends to that slice.

    Parameters
    ----------
    profiles
        Log-odds per slice, (N,), by axis.
    faces
        Faces by axis; an axis without faces is left out.
    """
    level = _background(profiles.values()) + _PARAMS.stands_out
    found = {}
    for name, pair in faces.items():
        if pair is None:
            continue
        out = np.flatnonzero(profiles[name] > level)
        first, stop = (int(out[0]), int(out[-1]) + 1) if out.size else (math.inf, 0)
        found[name] = (max(0.0, pair.start - first), max(0.0, stop - pair.stop))
    return found


def _own_threshold(
    profiles: list[FloatArray], fraction: float | None
) -> tuple[float, float, float]:
    """Threshold, log-odds of the surest slice, and fraction of the way that was used."""
    background, peak = _background(profiles), least_peak(profiles)
    used = fraction_of_way(background, peak) if fraction is None else fraction
    return background + used * (peak - background), peak, used


def sided_faces(profiles: Mapping[str, FloatArray], fraction: float | None = None) -> FacesByAxis:
    """Faces along every axis, each with the threshold of its own side.

    Streaks, or a bright tube that ends beside the sample, can make the slices beyond one face look
    more like sample than the slices beyond another. So the empty level of a face is the median of
    the slices beyond it. Its threshold is never lower than the volume's (`own_threshold`).

    Parameters
    ----------
    profiles
        Log-odds per slice, (N,), by axis.
    fraction
        Same as in `own_threshold`.
    """
    level, peak, used = _own_threshold(list(profiles.values()), fraction)
    return {name: _settled(profile, level, peak, used) for name, profile in profiles.items()}


def _settled(profile: FloatArray, level: float, peak: float, fraction: float) -> FacePair | None:
    found = find_faces(profile, level)
    if found is None:
        return None
    before = found
    for _ in range(_PARAMS.rounds):
        low, high = (
            max(level, float(np.median(beyond)) * (1 - fraction) + peak * fraction)
            if len(beyond) >= _PARAMS.fewest_beyond
            else level
            for beyond in (
                profile[: max(0, math.floor(found.start) - 1)],
                profile[math.ceil(found.stop) + 1 :],
            )
        )
        again = find_faces(profile, low, high)
        if again is None or again == found:
            return found
        before, found = found, again
    # The last two rounds disagree on some slices; keep those slices.
    return outermost([before, found])


def outermost(faces: Sequence[FacePair]) -> FacePair:
    """Outermost face on each side, from one or more pairs along the same axis."""
    low, high = min(faces, key=lambda f: f.start), max(faces, key=lambda f: f.stop)
    return FacePair(
        start=low.start,
        stop=high.stop,
        widths=(low.widths[0], high.widths[1]),
        thresholds=(low.thresholds[0], high.thresholds[1]),
    )


def find_faces(
    profile: FloatArray, threshold: float, upper: float | None = None
) -> FacePair | None:
    """Faces of the stretch with the largest sum of (log-odds - threshold).

    Stretches beyond a gap can also count. Returns None if no slice is above the threshold.

    Parameters
    ----------
    profile
        Log-odds per slice, (N,).
    threshold
        Log-odds above which a slice holds sample.
    upper
        Threshold for slices after the surest one, if it differs.
    """
    thresholds = (threshold, threshold if upper is None else upper)
    first, stop = largest_sum(_votes(profile, max(thresholds)))
    if first == stop:
        return None
    # The stretch extends from its surest slice as far as the threshold of each side allows.
    core = first + int(profile[first:stop].argmax())
    inward = profile[: core + 1][::-1]
    low = _face(inward, _reach(inward, thresholds[0]), thresholds[0])
    high = _face(profile[core:], _reach(profile[core:], thresholds[1]), thresholds[1])
    return FacePair(
        start=core + 1 - low[0],
        stop=core + high[0],
        widths=(low[1], high[1]),
        thresholds=thresholds,
    )


def _votes(profile: FloatArray, threshold: float) -> FloatArray:
    """Log-odds minus the threshold, clipped to +- `max_vote`."""
    votes: FloatArray = np.clip(profile - threshold, -_PARAMS.max_vote, _PARAMS.max_vote)
    return votes


def _reach(outward: FloatArray, threshold: float) -> int:
    """Last slice of the run from slice 0 with the largest sum of (log-odds - threshold).

    A stretch that is surely above the threshold is included, however wide the gap before it. Only
    medium lies between specimens, and losing a specimen is worse than keeping a gap.
    """
    votes = _votes(outward, threshold)
    reach = int(np.cumsum(votes).argmax())
    labels, count = ndimage.label(votes > 0)
    for (stretch,) in ndimage.find_objects(labels, count):
        own = votes[stretch]
        if own.sum() > _PARAMS.max_vote and own.max() > _PARAMS.tight:
            reach = max(reach, stretch.stop - 1)
    return reach


def _face(outward: FloatArray, last: int, threshold: float) -> tuple[float, float]:
    """Place and width of the face beyond slice `last` of a profile that runs outwards.

    Places are measured from the outer edge of the first slice: the middle of slice i is at i + 0.5.
    """
    place = _falls_below(outward, last, threshold)
    loose = _falls_below(outward, last, threshold - _PARAMS.loose)
    # The band ends inwards at the outermost sure slice, if there is one.
    level = threshold + _PARAMS.tight
    sure = np.flatnonzero(outward[: last + 1] > level)
    tight = _falls_below(outward, int(sure[-1]), level) if sure.size else 0.0
    return place, max(0.0, loose - min(tight, place))


def _falls_below(outward: FloatArray, start: int, level: float) -> float:
    """Place after slice `start` where the profile first falls below `level`, between slices."""
    beyond = np.flatnonzero(outward[start + 1 :] < level)
    if not beyond.size:
        return float(len(outward))
    low = start + 1 + int(beyond[0])
    upper, lower = float(outward[low - 1]), float(outward[low])
    # Slice `start` itself may be below `level`.
    fraction = 0.5 if upper <= lower else np.clip((upper - level) / (upper - lower), 0, 1)
    return low - 0.5 + float(fraction)
