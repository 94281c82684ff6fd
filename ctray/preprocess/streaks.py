"""Restless planes: what streaks of metal, or of a dense grain, make of a few planes of a scan.

Streaks radiate from their source within its plane of the scan, so that few planes are full of
them while the rest are not. In the planes themselves they are texture, and in slices along y and x
they are columns far from any sample; both look like structure to every task here. A plane that is
many times as streaks as the others of its own scan says of small differences nothing.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ctray.preprocess.background import outer_rim

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

# A plane is streaks at so many times the usual spread, and so are planes next to it above the
# second: streaks fade out along z. Where medium is flat, no less than this part of the spread of
# all grey values is usual.
_RESTLESS, _STILL = 2.0, 1.3
_LEAST_PART = 0.15
_USUAL = (0.5, 99.5)
# Differences up to so many of the plane's own spreads are streaks as likely as not.
_SPREADS = 2.5
_MIN_VOXELS = 64
# The shortest interval with this part of a normal distribution is so many deviations long.
_HELD_PART, _HELD_LENGTH = 1 / 3, 0.8615


def reduce_streaks(volume: FloatArray, inside: BoolArray) -> FloatArray:
    """Volume whose streaks planes are as calm as the others; what stands out of them stays.

    Within a few of the plane's own spreads from its medium, differences shrink to what is usual in
    the scan; beyond, they lose no more than that, so that a sample stays as sharp as it is.

    Parameters
    ----------
    volume
        Working level, float32, (z, y, x), finite inside, planes of the scan across z.
    inside
        Field of view, bool, same shape; voxels outside are returned as they are.
    """
    rim = outer_rim(inside)
    rims = [plane[ring] for plane, ring in zip(volume, rim, strict=True)]
    middles, spreads = np.array([_middle_and_spread(values) for values in rims]).T
    known = spreads[np.isfinite(spreads)]
    if not known.size:
        return volume
    usual = max(float(np.median(known)), _LEAST_PART * _spread_of_all(volume[inside]))
    if usual == 0:
        return volume
    times = spreads / usual
    streaks = ndimage.binary_propagation(times > _RESTLESS, mask=times > _STILL)
    calm = volume.copy()
    for z in np.flatnonzero(streaks):
        reach = _SPREADS * spreads[z]
        small = np.clip(volume[z] - middles[z], -reach, reach)
        calm[z] = np.where(inside[z], volume[z] - small * (1 - usual / spreads[z]), volume[z])
    return calm


def _spread_of_all(values: FloatArray) -> float:
    """Standard deviation less the outliers: metal itself may be a thousand times as bright."""
    return float(np.clip(values, *np.percentile(values, _USUAL)).std())


def _middle_and_spread(values: FloatArray) -> tuple[float, float]:
    """Middle and standard deviation of the medium, NaN of too few voxels.

    Told by the shortest interval that holds a third of the values: a sample that reaches to the rim
    may be half of it, and stretches that one little, where streaks stretch all.
    """
    if values.size < _MIN_VOXELS:
        return float("nan"), float("nan")
    ordered = np.sort(values)
    held = int(_HELD_PART * values.size)
    lengths = ordered[held:] - ordered[:-held]
    first = int(lengths.argmin())
    middle = (float(ordered[first]) + float(ordered[first + held])) / 2
    return middle, float(lengths[first]) / _HELD_LENGTH
