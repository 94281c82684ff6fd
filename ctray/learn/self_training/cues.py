"""Cues: two maps that classical pipelines threshold, which the self-trained network also sees.

The local deviation gathers texture from all three directions; a slab shows little of the third.
The difference from the median along z takes out containers, rings and cupping. Neither needs a
threshold here: the network learns what they are worth for an archive.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ctray.core.geometry import Triple
from ctray.preprocess.grey_maps import less_z_median, local_deviation, smoothed
from ctray.preprocess.prepare import Prepared

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

NUM_CUES = 2
_SIGMA = 1.0
_RADIUS = 2
# Grey steps of 256 that are added to a local deviation: far below them, differences mean nothing.
_LEAST = 0.3
# Cues lie between these, in deviations from the middle of the volume, in steps of a sixteenth.
_LOW, _HIGH = -6.0, 9.9375
_STEPS = 16.0
# Percentage of the values that lies within one deviation of the middle, in a normal distribution.
_WITHIN = 68.27


@dataclass(frozen=True, kw_only=True, slots=True)
class SlabSource:
    """A prepared working level with its cues, ready to be cut into slabs.

    Parameters
    ----------
    prepared
        Working level.
    cues
        (`NUM_CUES`, z, y, x), uint8, see `cue_values`; None for a network that sees none.
    """

    prepared: Prepared
    cues: npt.NDArray[np.uint8] | None = None

    @classmethod
    def of(cls, prepared: Prepared, *, cues: bool) -> SlabSource:
        """Source with cues or without, of a working level."""
        return cls(prepared=prepared, cues=find_cues(prepared) if cues else None)

    @property
    def shape(self) -> Triple:
        """Voxels, (z, y, x)."""
        return self.prepared.shape


def find_cues(prepared: Prepared) -> npt.NDArray[np.uint8]:
    """Cues of a working level: (`NUM_CUES`, z, y, x), uint8.

    The logarithm of the local standard deviation (5 voxels wide, of the slightly smoothed grey
    values), and the smoothed grey value less its median along z.
    """
    inside = prepared.field_of_view.mask(prepared.shape)
    deviation = local_deviation(prepared.voxels, None, sigma=_SIGMA, radius=_RADIUS)
    difference = less_z_median(smoothed(prepared.voxels, _SIGMA))
    maps = (np.log(deviation + _LEAST), difference)
    return np.stack([_quantised(values, inside) for values in maps])


def cue_values(cues: npt.NDArray[np.uint8]) -> FloatArray:
    """Cues in deviations from the middle of their volume's values, float32, same shape."""
    values: FloatArray = cues.astype(np.float32) / np.float32(_STEPS) + np.float32(_LOW)
    return values


def _quantised(values: FloatArray, inside: BoolArray) -> npt.NDArray[np.uint8]:
    within = values[inside]
    middle = np.median(within)
    # Of the middle two thirds: a bright sample does not widen what counts as usual.
    deviation = np.percentile(np.abs(within - middle), _WITHIN) + 1e-6
    steps = (np.clip((values - middle) / deviation, _LOW, _HIGH) - _LOW) * _STEPS
    quantised: npt.NDArray[np.uint8] = np.rint(steps).astype(np.uint8)
    return quantised
