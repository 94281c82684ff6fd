"""Faces from log-odds profiles: where a profile crosses its threshold, and how steeply."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ctray.localization.boxes import largest_sum

FloatArray = npt.NDArray[np.float64]

# Log-odds on either side of the threshold between which a face is thought to lie.
_LOOSE, _TIGHT = 2.0, 1.5
# One slice counts as this much at most, and a run of slices beyond a gap is sample, a specimen that
# lies apart, say, if it counts for more than one slice can and has a slice above the tight
# threshold: a single sure slice far away is no sample yet.
_MOST = 4.0
# Log-odds from the empty slices to the surest one at which a face lies all of that way up, if it
# were not for the bounds: the clearer a scan, the steeper its faces, and the higher what streaks
# or a bright medium leave beside them. Faint ends need a low threshold, and have a low peak.
_CLEAR = 40.0
_LOWEST_PART, _HIGHEST_PART = 0.2, 0.5
# A slice this far above the empty ones, a hundred to one, is sample however sure others are.
_ENOUGH = 5.0
# Log-odds above the empty slices, seven to one, from which on a slice is anything but surely empty.
_STANDS_OUT = 2.0
# Slices beyond a face that tell what is empty there, and rounds in which face and threshold settle.
_FEWEST = 4
_ROUNDS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Faces:
    """Where along one axis the sample begins and ends, in slices of the working level.

    Parameters
    ----------
    start, stop
        Where the profile crosses the threshold, between slices; 0 and the extent at the border.
        Where grey values tell (`ctray.localization.clear_faces`), where they do.
    spread
        For either face, slices between the crossings of a looser and of a tighter threshold: a
        steep profile knows its face well.
    thresholds
        Log-odds, for either face.
    """

    start: float
    stop: float
    spread: tuple[float, float]
    thresholds: tuple[float, float]

    @property
    def certainty(self) -> tuple[float, float]:
        """1 / (1 + spread) of either face: 1 for a face between two slices, 0.5 for one of one."""
        return (1 / (1 + self.spread[0]), 1 / (1 + self.spread[1]))

    def to_json(self) -> dict[str, Any]:
        """Receipt form."""
        return {
            "range": [round(self.start, 3), round(self.stop, 3)],
            "spread": [round(s, 3) for s in self.spread],
            "thresholds": [round(t, 4) for t in self.thresholds],
        }


def surest(profiles: Iterable[FloatArray]) -> float:
    """Value of the surest slice, of the axis where that is least."""
    return min(float(profile.max()) for profile in profiles)


def part_of_way(background: float, peak: float) -> float:
    """Where between empty slices and the surest one faces lie: higher up where scans are clear.

    Parameters
    ----------
    background, peak
        Log-odds of the empty slices, and of the surest one.
    """
    distance = peak - background
    part = min(max(distance / _CLEAR, _LOWEST_PART), _HIGHEST_PART)
    return min(part, _ENOUGH / distance) if distance > 0 else part


def own_threshold(profiles: Iterable[FloatArray], part: float | None = None) -> float:
    """Log-odds at which the faces of one volume lie, from its own profiles.

    The network is less sure of faint samples, and less sure of nothing where streaks or a clear
    medium look like texture: where between the two a face lies is a part of the way, and no number
    for all volumes.

    Parameters
    ----------
    profiles
        Log-odds per slice, one array an axis.
    part
        Of the way from the middle one of the slices that are rather empty than not (0 where there
        is none: a sample may fill its volume) to the surest slice. None: `part_of_way`.
    """
    return _own_threshold(list(profiles), part)[0]


def _background(profiles: Iterable[FloatArray]) -> float:
    every = np.concatenate(list(profiles))
    empty = every[every < 0]
    return float(np.median(empty)) if empty.size else 0.0


def beyond_faces(
    profiles: Mapping[str, FloatArray], faces: Mapping[str, Faces | None]
) -> dict[str, tuple[float, float]]:
    """Slices from either face out to the outermost one that stands out from the empty ones.

    A tail may be too faint to pass for sample, and still be no medium: that far a face is open.

    Parameters
    ----------
    profiles
        Log-odds per slice, (N,), by axis.
    faces
        By axis; an axis without faces is left out.
    """
    level = _background(profiles.values()) + _STANDS_OUT
    found = {}
    for name, axis_faces in faces.items():
        if axis_faces is None:
            continue
        out = np.flatnonzero(profiles[name] > level)
        first, stop = (int(out[0]), int(out[-1]) + 1) if out.size else (math.inf, 0)
        found[name] = (max(0.0, axis_faces.start - first), max(0.0, stop - axis_faces.stop))
    return found


def _own_threshold(profiles: list[FloatArray], part: float | None) -> tuple[float, float, float]:
    """Threshold, log-odds of the surest slice, and the part of the way."""
    background, peak = _background(profiles), surest(profiles)
    used = part_of_way(background, peak) if part is None else part
    return background + used * (peak - background), peak, used


def sided_faces(
    profiles: Mapping[str, FloatArray], part: float | None = None
) -> dict[str, Faces | None]:
    """Faces along every axis, each with the threshold of its own side.

    Streaks, or a bright tube that ends beside the sample, make the slices beyond one face look more
    like sample than those beyond another. So the way of which `part` is taken begins at the middle
    one of the slices beyond the face itself; but no lower than for the volume (`own_threshold`).

    Parameters
    ----------
    profiles
        Log-odds per slice, (N,), by axis.
    part
        As for `own_threshold`.
    """
    level, peak, used = _own_threshold(list(profiles.values()), part)
    return {name: _settled(profile, level, peak, used) for name, profile in profiles.items()}


def _settled(profile: FloatArray, level: float, peak: float, part: float) -> Faces | None:
    found = find_faces(profile, level)
    if found is None:
        return None
    before = found
    for _ in range(_ROUNDS):
        low, high = (
            max(level, float(np.median(beyond)) * (1 - part) + peak * part)
            if len(beyond) >= _FEWEST
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
    # Slices are sample by the threshold of one round, and what is empty by that of the next: kept.
    return outermost([before, found])


def outermost(faces: Sequence[Faces]) -> Faces:
    """On either side the face that lies furthest out, of one or more along the same axis."""
    low, high = min(faces, key=lambda f: f.start), max(faces, key=lambda f: f.stop)
    return Faces(
        start=low.start,
        stop=high.stop,
        spread=(low.spread[0], high.spread[1]),
        thresholds=(low.thresholds[0], high.thresholds[1]),
    )


def find_faces(profile: FloatArray, threshold: float, upper: float | None = None) -> Faces | None:
    """Faces of the stretch with the largest sum of (log-odds - threshold), and of runs beyond it.

    None without any slice above the threshold.

    Parameters
    ----------
    profile
        Log-odds per slice, (N,).
    threshold
        Log-odds above which a slice holds sample.
    upper
        The same for slices after the surest one, where that is another.
    """
    thresholds = (threshold, threshold if upper is None else upper)
    first, stop = largest_sum(np.clip(profile - max(thresholds), -_MOST, _MOST))
    if first == stop:
        return None
    # From its surest slice the stretch reaches as far as each side's own threshold lets it.
    core = first + int(profile[first:stop].argmax())
    inward = profile[: core + 1][::-1]
    low = _face(inward, _reach(inward, thresholds[0]), thresholds[0])
    high = _face(profile[core:], _reach(profile[core:], thresholds[1]), thresholds[1])
    return Faces(
        start=core + 1 - low[0],
        stop=core + high[0],
        spread=(low[1], high[1]),
        thresholds=thresholds,
    )


def _reach(outward: FloatArray, threshold: float) -> int:
    """Slice up to which the sum of (log-odds - threshold) is largest, from the first one on.

    Or the last one of a run that is above the threshold, however wide the gap before it is: between
    specimens there is nothing but medium, and to lose one is worse than to keep a gap.
    """
    above = np.clip(outward - threshold, -_MOST, _MOST)
    reach = int(np.cumsum(above).argmax())
    labels, count = ndimage.label(above > 0)
    for (run,) in ndimage.find_objects(labels, count):
        part = above[run]
        if part.sum() > _MOST and part.max() > _TIGHT:
            reach = max(reach, run.stop - 1)
    return reach


def _face(outward: FloatArray, last: int, threshold: float) -> tuple[float, float]:
    """Place and spread of the face beyond slice `last` of a profile that runs outwards.

    Places count from the outer edge of the first slice: the middle of slice i is at i + 0.5.
    """
    place = _falls_below(outward, last, threshold)
    loose = _falls_below(outward, last, threshold - _LOOSE)
    # Inwards: the outermost slice that is sure, if there is one.
    sure = np.flatnonzero(outward[: last + 1] > threshold + _TIGHT)
    tight = _falls_below(outward, int(sure[-1]), threshold + _TIGHT) if sure.size else 0.0
    return place, max(0.0, loose - min(tight, place))


def _falls_below(outward: FloatArray, start: int, level: float) -> float:
    """Where the profile first falls below `level` from slice `start` on, between the slices."""
    beyond = np.flatnonzero(outward[start + 1 :] < level)
    if not beyond.size:
        return float(len(outward))
    low = start + 1 + int(beyond[0])
    upper, lower = float(outward[low - 1]), float(outward[low])
    # Slice `start` itself may lie below a level that is looser than what it was found by.
    part = 0.5 if upper <= lower else np.clip((upper - level) / (upper - lower), 0, 1)
    return low - 0.5 + float(part)
