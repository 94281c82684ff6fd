"""From certainty profiles to a box: a threshold without labels, and the certain stretch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ctray.config import LocalizeConfig

FloatArray = npt.NDArray[np.float64]

# Empty slices are equally uncertain: a larger spread of certainties is not theirs alone.
_PURE_SPREAD = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class Stretch:
    """Where along one axis the sample lies, and how sure that is.

    Parameters
    ----------
    start, stop
        Half-open range of slices at the working level.
    threshold
        Certainty above which a slice counts as holding sample.
    background
        Certainty level of empty slices.
    certainty
        For the low and the high face: how far the profile rises from background to its inside
        level within the first slices of the sample, in [0, 1].
    """

    start: int
    stop: int
    threshold: float
    background: float
    certainty: tuple[float, float]

    def to_json(self) -> dict[str, Any]:
        """Receipt form."""
        return {
            "range": [self.start, self.stop],
            "threshold": round(self.threshold, 4),
            "background": round(self.background, 4),
            "certainty": [round(c, 4) for c in self.certainty],
        }


def background_level(profile: FloatArray) -> tuple[float, float]:
    """Level and spread of a profile's empty slices: its lowest fifth, robustly.

    Most of a volume is not sample, so the lowest fifth of the slices is empty unless the sample
    spans nearly the whole axis. Then that fifth holds slices of sample too, which shows in its
    spread, and a twentieth is taken.
    """
    ascending = np.sort(profile)
    level, spread = _middle(ascending[: max(2, len(profile) // 5)])
    if spread > _PURE_SPREAD:
        return _middle(ascending[: max(3, len(profile) // 20)])
    return level, spread


def _middle(values: FloatArray) -> tuple[float, float]:
    """Median, and the standard deviation that the median absolute deviation stands for."""
    level = float(np.median(values))
    return level, 1.4826 * float(np.median(np.abs(values - level)))


def choose_threshold(profile: FloatArray, config: LocalizeConfig, chance: float) -> float:
    """Certainty above which a slice holds sample, from the profile alone.

    Parameters
    ----------
    profile
        Certainty per slice, (N,).
    config
        Rule and its numbers.
    chance
        1 / number of classes: the level of slices that tell nothing.
    """
    if isinstance(config.threshold, float):
        return config.threshold
    if config.threshold == "otsu":
        from skimage.filters import threshold_otsu

        return float(threshold_otsu(profile))
    level, spread = background_level(profile)
    # A sample that spans the axis leaves no empty slice to measure the background in. The network
    # cannot be sure of nothing, so the background does not lie far above chance.
    if level > 2 * chance:
        return 2 * chance
    inside = float(np.percentile(profile, 90))
    rise = max(config.spreads * spread, config.min_rise, config.rise_fraction * (inside - level))
    return min(level + rise, 3 * chance)


def find_stretch(profile: FloatArray, config: LocalizeConfig, chance: float) -> Stretch | None:
    """Range of slices that hold the sample along one axis, or None where no slice is certain.

    Taken is the range with the largest sum of (certainty - threshold): it bridges a dip where
    what lies beyond makes up for it, and leaves out a lone peak far away.
    """
    background, _ = background_level(profile)
    # Where all slices are certain the sample spans the axis: that is no lack of a peak.
    if float(np.percentile(profile, 95)) - min(background, 2 * chance) < config.min_peak:
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
        certainty=(
            face_certainty(profile[start:stop], threshold),
            face_certainty(profile[start:stop][::-1], threshold),
        ),
    )


def largest_sum(values: FloatArray) -> tuple[int, int]:
    """Half-open range of the consecutive values with the largest sum; empty if none is positive.

    Kadane's algorithm.
    """
    best, best_range, total, start = 0.0, (0, 0), 0.0, 0
    for i, value in enumerate(values):
        if total <= 0:
            total, start = 0.0, i
        total += float(value)
        if total > best:
            best, best_range = total, (start, i + 1)
    return best_range


def face_certainty(inward: FloatArray, threshold: float) -> float:
    """Part of the way from the threshold to the inside level that the outermost slices reach."""
    inside = float(np.percentile(inward, 75))
    edge = float(np.mean(inward[: max(1, len(inward) // 16)]))
    if inside <= threshold:
        return 0.0
    return float(np.clip((edge - threshold) / (inside - threshold), 0, 1))
