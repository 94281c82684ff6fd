"""Augmentation of slices on the worker's device; `ctray.learn.pretext.views` draws it.

Legend of tensor names: B slices, H = W pixels of the square canvas.
"""

from __future__ import annotations

from collections.abc import Set

import torch
from torch import Tensor
from torch.nn import functional

from ctray.config import Augmentation

_BLUR_TAPS = 2  # pixels to either side


def apply_views(
    x_BHW: Tensor,
    views: dict[str, Tensor],
    names: Set[Augmentation],
    rng: torch.Generator | None = None,
) -> Tensor:
    """Apply the views to standardised slices (B, H, W); same shape.

    Parameters
    ----------
    x_BHW
        Slices, float32.
    views
        Fields of `Views` by name, each (B, ...), on the device of the slices.
    names
        Augmentations to apply; the others cost nothing.
    rng
        Random generator for the noise, needed if `names` contains "noise".
    """
    if names & {"flip", "turn", "shift", "rescale"}:
        grid = functional.affine_grid(
            views["matrix"], [len(x_BHW), 1, *x_BHW.shape[1:]], align_corners=False
        )
        x_BHW = functional.grid_sample(
            x_BHW[:, None], grid, padding_mode="reflection", align_corners=False
        )[:, 0]
    if "blur" in names:
        x_BHW = _blurred(x_BHW, views["blur_px"])
    if "grey" in names:
        x_BHW = x_BHW * views["gain"][:, None, None] + views["bias"][:, None, None]
    if "noise" in names:
        noise = torch.randn(x_BHW.shape, generator=rng, device=x_BHW.device)
        x_BHW = x_BHW + noise * views["noise"][:, None, None]
    return x_BHW


def _blurred(x_BHW: Tensor, sigma_B: Tensor) -> Tensor:
    """Each slice smoothed by its own Gaussian; edge values are repeated outward."""
    taps = torch.arange(-_BLUR_TAPS, _BLUR_TAPS + 1, device=x_BHW.device)
    kernel = torch.exp(-0.5 * (taps / sigma_B.clamp(min=1e-3)[:, None]) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True))[:, None]
    padded = functional.pad(x_BHW[None], [_BLUR_TAPS] * 4, mode="replicate")
    rows = functional.conv2d(padded, kernel[..., None], groups=len(x_BHW))
    return functional.conv2d(rows, kernel[:, :, None], groups=len(x_BHW))[0]
