"""The robust deviation, which is the unit of all thresholds above a background."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

# Standard deviation of a normal distribution whose median absolute deviation is 1.
# `scipy.stats.median_abs_deviation` uses more digits, which would move boxes. It also measures
# distances from the values' own median; here the middle often comes from other values.
_NORMAL = 1.4826


def robust_deviation(distances: npt.NDArray[np.floating], count: float = 1.0) -> float:
    """`count` standard deviations, estimated from the median of absolute distances to a middle."""
    return count * _NORMAL * float(np.median(distances))
