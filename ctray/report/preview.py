"""Pictures that a run keeps of a volume: slices, projections, and what a method found in them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ctray.core.geometry import AXES, Triple
from ctray.localization.localizer import Localization, PreparedVolume

UintArray = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, slots=True)
class Preview:
    """Pictures of a volume's working level for the report, one per axis, uint8.

    Parameters
    ----------
    slices
        Slice through the middle of the box (of the volume, where there is none).
    projections
        Largest smoothed grey value along the axis.
    variances
        Variance in the slices, 255 for the volume's highest; empty for the rotation method.
    regions
        Region of high variance seen along the axis, 0 or 255; as `variances`.
    """

    slices: dict[str, UintArray]
    projections: dict[str, UintArray]
    variances: dict[str, UintArray] = field(default_factory=dict)
    regions: dict[str, UintArray] = field(default_factory=dict)

    def pictures(self) -> dict[str, UintArray]:
        """All pictures, named `slice-z`, `projection-z`, `variance-z`, `region-z` and so on."""
        named = {
            "slice": self.slices,
            "projection": self.projections,
            "variance": self.variances,
            "region": self.regions,
        }
        return {f"{what}-{axis}": p for what, by in named.items() for axis, p in by.items()}


def preview_of(volume: PreparedVolume, found: Localization) -> Preview | None:
    """Pictures of a working level with what was found in it; None for a constant volume."""
    prepared = volume.prepared
    if prepared is None:
        return None
    low, high = prepared.window
    with np.errstate(invalid="ignore"):
        steps = (volume.level.voxels.astype(np.float32) - low) / max(high - low, 1e-12)
        grey = np.nan_to_num(steps)
    grey = np.clip(grey, 0, 1)
    # Projections show what the network saw: a bright container would hide the sample.
    smooth = ndimage.gaussian_filter(prepared.voxels.astype(np.float32), 1.0)
    variance, region = _overlays(found, prepared.shape)
    slices, projections, variances, regions = {}, {}, {}, {}
    for axis, name in enumerate(AXES):
        extent = prepared.shape[axis]
        middle = extent // 2
        if found.box is not None:
            middle = min(extent - 1, sum(found.box.ranges[axis]) // (2 * prepared.factors[axis]))
        slices[name] = (np.take(grey, middle, axis=axis) * 255).astype(np.uint8)
        projections[name] = smooth.max(axis=axis).astype(np.uint8)
        if variance is not None:
            variances[name] = np.take(variance, middle, axis=axis)
        if region is not None:
            regions[name] = region.max(axis=axis)
    return Preview(slices=slices, projections=projections, variances=variances, regions=regions)


def _overlays(found: Localization, shape: Triple) -> tuple[UintArray | None, UintArray | None]:
    """Variance above the background, and the region, as uint8 volumes of the working level."""
    uncertainty = found.uncertainty
    if uncertainty is None:
        return None, None
    background = min((s.background for s in found.stretches.values() if s), default=0.0)
    above = np.clip((uncertainty.values - background) / max(1 - background, 1e-6), 0, 1)
    variance = uncertainty.to_voxels((above * 255).astype(np.uint8), shape)
    if found.cells is None:
        return variance, None
    return variance, uncertainty.to_voxels(found.cells.astype(np.uint8) * 255, shape)
