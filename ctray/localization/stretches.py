"""From certainty profiles to stretches of slices, with an unsupervised threshold.

ctray estimates four backgrounds, each by its own rule: the lowest fifth of a certainty profile
(here), the lower half of the cells of an uncertainty map (`region`), the log-odds below 0 of the
self-trained network (`profile_faces`), and the rim of the field of view
(`ctray.preprocess.background`). Changing a rule changes the boxes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ctray.config import LocalizeConfig
from ctray.localization.params import PARAMS
from ctray.preprocess.deviation import robust_deviation

FloatArray = npt.NDArray[np.float64]

_PARAMS = PARAMS.stretch


@dataclass(frozen=True, kw_only=True, slots=True)
class Stretch:
    """Slices that hold the sample along one axis, with their confidence.

    Parameters
    ----------
    start, stop
        Half-open range of slices at the working level.
    threshold
        Certainty above which a slice counts as holding sample.
    background
        Certainty level of empty slices.
    confidence
        For the low and the high face: fraction of the way from the threshold to the inside level
        that the outermost slices of the sample reach, in [0, 1].
    """

    start: int
    stop: int
    threshold: float
    background: float
    confidence: tuple[float, float]

    def to_json(self) -> dict[str, Any]:
        """Receipt form."""
        return {
            "range": [self.start, self.stop],
            "threshold": round(self.threshold, 4),
            "background": round(self.background, 4),
            "confidence": [round(c, 4) for c in self.confidence],
        }


def background_level(profile: FloatArray) -> tuple[float, float]:
    """Level and robust deviation of a profile's empty slices, from its lowest fifth.

    Most of a volume is not sample, so the lowest fifth of the slices is empty unless the sample
    spans nearly the whole axis. In that case the lowest fifth also contains slices of the sample
    and has a large deviation. The lowest twentieth is used instead.
    """
    ascending = np.sort(profile)
    few, fewer = _PARAMS.least_background
    level, deviation = _middle(ascending[: _share(profile, _PARAMS.background_fraction, few)])
    if deviation > _PARAMS.max_background_deviation:
        return _middle(ascending[: _share(profile, _PARAMS.mixed_background_fraction, fewer)])
    return level, deviation


def _share(profile: FloatArray, fraction: float, least: int) -> int:
    return max(least, int(len(profile) * fraction))


def _middle(values: FloatArray) -> tuple[float, float]:
    level = float(np.median(values))
    return level, robust_deviation(np.abs(values - level))


def choose_threshold(profile: FloatArray, config: LocalizeConfig, chance: float) -> float:
    """Certainty above which a slice holds sample, from the profile alone.

    Parameters
    ----------
    profile
        Certainty per slice, (N,).
    config
        Rule for the threshold, and its numbers.
    chance
        1 / number of classes: the certainty of slices without information.
    """
    if isinstance(config.threshold, float):
        return config.threshold
    if config.threshold == "otsu":
        from skimage.filters import threshold_otsu

        return float(threshold_otsu(profile))
    level, deviation = background_level(profile)
    if level > _PARAMS.max_background * chance:
        return _PARAMS.max_background * chance
    inside = float(np.percentile(profile, _PARAMS.inside_percentile))
    rise = max(config.spreads * deviation, config.min_rise, config.rise_fraction * (inside - level))
    return min(level + rise, _PARAMS.max_threshold * chance)


def find_stretch(profile: FloatArray, config: LocalizeConfig, chance: float) -> Stretch | None:
    """Range of slices that hold the sample along one axis, or None if no slice is certain.

    The range has the largest sum of (certainty - threshold). It bridges a dip if the slices beyond
    outweigh the dip, and leaves out an isolated peak far away.
    """
    background, _ = background_level(profile)
    # If all slices are certain, the sample spans the axis. Limiting the background to this level
    # makes such a profile count as a peak.
    below = min(background, _PARAMS.max_background * chance)
    if float(np.percentile(profile, _PARAMS.peak_percentile)) - below < config.min_peak:
        return None
    threshold = choose_threshold(profile, config, chance)
    start, stop = largest_sum(profile - threshold)
    if start == stop:
        return None
    return Stretch(
        start=start,
        stop=stop,
        threshold=threshold,
        background=background,
        confidence=face_confidence(profile[start:stop], threshold),
    )


def largest_sum(values: FloatArray) -> tuple[int, int]:
    """Half-open range of the consecutive values with the largest sum; empty if none is positive.

    Uses Kadane's algorithm.
    """
    best, best_range, total, start = 0.0, (0, 0), 0.0, 0
    for i, value in enumerate(values):
        if total <= 0:
            total, start = 0.0, i
        total += float(value)
        if total > best:
            best, best_range = total, (start, i + 1)
    return best_range


def face_confidence(stretch: FloatArray, threshold: float) -> tuple[float, float]:
    """Confidence of the low and the high face of a stretch of a profile, in [0, 1].

    Confidence is the fraction of the way from the threshold to the inside level that the outermost
    slices reach.
    """
    inside = float(np.percentile(stretch, _PARAMS.face_inside_percentile))
    if inside <= threshold:
        return (0.0, 0.0)
    count = max(1, int(len(stretch) * _PARAMS.face_fraction))
    low, high = (
        float(np.clip((float(np.mean(edge[:count])) - threshold) / (inside - threshold), 0, 1))
        for edge in (stretch, stretch[::-1])
    )
    return (low, high)
