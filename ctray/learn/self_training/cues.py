"""Cues: two maps from classical thresholding as further input to the self-trained network.

The local deviation measures texture in all three directions; a slab shows little of the third. The
difference from the median along z removes containers, rings and cupping. Neither needs a threshold
here: the network learns their value for an archive.
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
# Grey steps (of 256) added to a local deviation. Differences far below this level are meaningless.
_LEAST = 0.3
# Range of cues, in deviations from the middle of the volume, and steps per deviation.
_LOW, _HIGH = -6.0, 9.9375
_STEPS = 16.0
# Percentage of a normal distribution within one deviation of the middle.
_WITHIN = 68.27


@dataclass(frozen=True, kw_only=True, slots=True)
class SlabSource:
    """A prepared working level with its cues, ready to be cut into slabs.

    Parameters
    ----------
    prepared
        Prepared working level.
    cues
        Cues, (`NUM_CUES`, z, y, x), uint8, see `cue_values`; None for a network without cues.
    """

    prepared: Prepared
    cues: npt.NDArray[np.uint8] | None = None

    @classmethod
    def of(cls, prepared: Prepared, *, cues: bool) -> SlabSource:
        """Source of a working level, with or without cues."""
        return cls(prepared=prepared, cues=find_cues(prepared) if cues else None)

    @property
    def shape(self) -> Triple:
        """Voxels, (z, y, x)."""
        return self.prepared.shape


def find_cues(prepared: Prepared) -> npt.NDArray[np.uint8]:
    """Cues of a working level: (`NUM_CUES`, z, y, x), uint8.

    The first cue is the logarithm of the local standard deviation of the slightly smoothed grey
    values, in a window 5 voxels wide. The second is the smoothed grey value minus its median along
    z.
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
    # Use the middle two thirds, so that a bright sample does not increase the deviation.
    deviation = np.percentile(np.abs(within - middle), _WITHIN) + 1e-6
    steps = (np.clip((values - middle) / deviation, _LOW, _HIGH) - _LOW) * _STEPS
    quantised: npt.NDArray[np.uint8] = np.rint(steps).astype(np.uint8)
    return quantised
