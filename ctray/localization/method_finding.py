"""What a method says of a volume before anything is decided."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ctray.localization.boxes import Stretch
from ctray.localization.uncertainty import UncertaintyMap


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodFinding:
    """What a method says of a prepared working level.

    `profiles` have a value a slice; `cells` are the region of `uncertainty`.
    """

    profiles: dict[str, npt.NDArray[np.float64]]
    stretches: dict[str, Stretch | None]
    nothing: str
    uncertainty: UncertaintyMap | None = None
    cells: npt.NDArray[np.bool_] | None = None
