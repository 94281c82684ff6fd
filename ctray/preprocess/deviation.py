"""The robust deviation that all thresholds over a background are multiples of."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

# Standard deviation of a normal distribution whose median absolute deviation is 1.
# `scipy.stats.median_abs_deviation` has more digits of it, which would move boxes, and takes
# distances from the values' own median; here the middle is often that of other values.
_NORMAL = 1.4826


def robust_deviation(distances: npt.NDArray[np.floating], count: float = 1.0) -> float:
    """`count` standard deviations, by the median of absolute distances from a middle."""
    return count * _NORMAL * float(np.median(distances))
