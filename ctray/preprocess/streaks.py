"""Streaks, which metal or a dense grain causes in a few planes of a scan.

Streaks radiate from their source within its plane, so only few planes have them. In these planes
they are texture. In slices along y and x they are columns far from any sample. Both look like
structure to the networks. Small differences of grey value are meaningless in a plane whose
deviation is many times the deviation of the other planes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ctray.preprocess.background import outer_rim

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

# A plane has streaks if its deviation exceeds the usual deviation by the first factor. Adjacent
# planes above the second factor also have streaks, because streaks fade out along z.
_STREAKS, _FADING = 2.0, 1.3
# Minimum usual deviation, as a fraction of the deviation of all grey values, for a flat medium.
_MIN_FRACTION = 0.15
_USUAL = (0.5, 99.5)
# Differences of up to this many of the plane's own deviations may well be streaks.
_DEVIATIONS = 2.5
_MIN_VOXELS = 64
# The shortest interval with this fraction of a normal distribution is this many deviations long.
_HELD_FRACTION, _HELD_LENGTH = 1 / 3, 0.8615


def reduce_streaks(volume: FloatArray, inside: BoolArray) -> FloatArray:
    """Volume whose planes with streaks deviate as little as the others; samples stay.

    Differences from the medium within a few of the plane's own deviations shrink to the usual level
    of the scan. Larger differences are reduced by a constant amount, so that a sample stays sharp.

    Parameters
    ----------
    volume
        Working level, float32, (z, y, x), finite inside, planes of the scan across z.
    inside
        Field of view, bool, same shape; voxels outside are returned unchanged.
    """
    rim = outer_rim(inside)
    rims = [plane[ring] for plane, ring in zip(volume, rim, strict=True)]
    middles, deviations = np.array([_middle_and_deviation(values) for values in rims]).T
    known = deviations[np.isfinite(deviations)]
    if not known.size:
        return volume
    usual = max(float(np.median(known)), _MIN_FRACTION * _deviation_of_all(volume[inside]))
    if usual == 0:
        return volume
    factors = deviations / usual
    streaks = ndimage.binary_propagation(factors > _STREAKS, mask=factors > _FADING)
    reduced = volume.copy()
    for z in np.flatnonzero(streaks):
        reach = _DEVIATIONS * deviations[z]
        small = np.clip(volume[z] - middles[z], -reach, reach)
        less = volume[z] - small * (1 - usual / deviations[z])
        reduced[z] = np.where(inside[z], less, volume[z])
    return reduced


def _deviation_of_all(values: FloatArray) -> float:
    """Standard deviation without outliers, because metal may be a thousand times as bright."""
    return float(np.clip(values, *np.percentile(values, _USUAL)).std())


def _middle_and_deviation(values: FloatArray) -> tuple[float, float]:
    """Middle and standard deviation of the medium; NaN if there are too few voxels.

    Both come from the shortest interval that contains a third of the values. A sample that extends
    to the rim may fill half of the rim, but it hardly lengthens that interval. Streaks lengthen it.
    """
    if values.size < _MIN_VOXELS:
        return float("nan"), float("nan")
    ordered = np.sort(values)
    held = int(_HELD_FRACTION * values.size)
    lengths = ordered[held:] - ordered[:-held]
    first = int(lengths.argmin())
    middle = (float(ordered[first]) + float(ordered[first + held])) / 2
    return middle, float(lengths[first]) / _HELD_LENGTH
