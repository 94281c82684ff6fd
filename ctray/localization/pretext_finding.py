"""The finding of the pretext task in a volume, before its status is decided."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ctray.localization.dropout_map import UncertaintyMap
from ctray.localization.stretches import Stretch


@dataclass(frozen=True, kw_only=True, slots=True)
class PretextFinding:
    """Finding of the pretext task in a prepared working level.

    Parameters
    ----------
    profiles
        One value per slice, by axis: certainty, or the largest relative variance.
    stretches
        Slices that hold the sample, by axis; None or no entry if nothing is found.
    reason_if_empty
        Reason to give if there is no stretch.
    uncertainty
        Uncertainty map of the sorting task.
    cells
        Whether each cell of that map is sample.
    """

    profiles: dict[str, npt.NDArray[np.float64]]
    stretches: dict[str, Stretch | None]
    reason_if_empty: str
    uncertainty: UncertaintyMap | None = None
    cells: npt.NDArray[np.bool_] | None = None
