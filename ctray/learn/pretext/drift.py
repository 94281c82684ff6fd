"""Drift that is added to slices in training, so that the network does not learn from real drift.

Settling medium, cupping and the ends of a container cause slow changes of grey value that
neighbouring slices share. In scans with little noise, these changes reveal the angle between two
slices, so slices without any sample look certain. So training adds a different drift to each slice,
and only structure reveals the angle.

Legend of tensor names: B slices, W waves of one drift, S pixels of a side of the square canvas.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_WAVES = 8
# Cycles over the canvas. They are slower than structure, which is up to a quarter of the canvas
# wide.
_SLOWEST, _FASTEST = 0.25, 4.0


def random_drift(count: int, side: int, strength: float, rng: torch.Generator) -> Tensor:
    """Drift (B, S, S) of `count` slices, float32: sums of slow waves. Slower waves are stronger.

    Parameters
    ----------
    count, side
        Number of slices, and side in pixels.
    strength
        Standard deviation of an average drift, in standard deviations of the volume. The drift of a
        slice has between 0 and twice this deviation.
    rng
        Random generator. The drift is computed on its device.
    """
    device = rng.device

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=rng, device=device)

    frequency_BW = _SLOWEST * (_FASTEST / _SLOWEST) ** uniform(count, _WAVES)
    direction_BW = 2 * math.pi * uniform(count, _WAVES)
    phase_BW = 2 * math.pi * uniform(count, _WAVES)
    weight_BW = torch.randn(count, _WAVES, generator=rng, device=device) / frequency_BW.sqrt()
    # The mean square of a wave is 1/2.
    scale_B = 2 * strength * uniform(count) / weight_BW.square().sum(1).mul(0.5).sqrt()
    place_S = 2 * math.pi * torch.arange(side, device=device) / side
    down_BWS = (frequency_BW * direction_BW.sin())[..., None] * place_S + phase_BW[..., None]
    across_BWS = (frequency_BW * direction_BW.cos())[..., None] * place_S
    # Sum cos(a + b) over waves without a canvas for each wave.
    rows_BWS = (weight_BW * scale_B[:, None])[..., None] * torch.stack(
        [down_BWS.cos(), -down_BWS.sin()]
    )
    columns_BWS = torch.stack([across_BWS.cos(), across_BWS.sin()])
    # Autocast would round the drift to bfloat16, whose steps would be visible.
    with torch.autocast(device.type, enabled=False):
        return torch.einsum("pbwy,pbwx->byx", rows_BWS, columns_BWS)
