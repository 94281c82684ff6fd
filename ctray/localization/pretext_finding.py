"""What the pretext task finds in a volume, before anything is decided."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ctray.localization.dropout_map import UncertaintyMap
from ctray.localization.stretches import Stretch


@dataclass(frozen=True, kw_only=True, slots=True)
class PretextFinding:
    """What the pretext task finds in a prepared working level.

    Parameters
    ----------
    profiles
        One value a slice, by axis: certainty, or the largest relative variance.
    stretches
        Where the sample lies, by axis; None or no entry where nothing is found.
    reason_if_empty
        What is missing where there is no stretch.
    uncertainty
        Map of the sorting task.
    cells
        Cells of that map that are sample.
    """

    profiles: dict[str, npt.NDArray[np.float64]]
    stretches: dict[str, Stretch | None]
    reason_if_empty: str
    uncertainty: UncertaintyMap | None = None
    cells: npt.NDArray[np.bool_] | None = None
