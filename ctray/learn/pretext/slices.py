"""Slices of a prepared volume as input to the networks of both tasks.

Legend of tensor names: B slices, H = W pixels of the square canvas.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ctray.preprocess.prepare import Prepared


def standardise(x_BHW: Tensor, mean_B: Tensor, std_B: Tensor) -> Tensor:
    """Float32 slices, scaled so that their volume has mean 0 and standard deviation 1."""
    return (x_BHW.float() - mean_B[:, None, None]) / std_B[:, None, None]


def standardised_slices(
    prepared: Prepared,
    axis: int,
    index: Sequence[int],
    side: int,
    device: torch.device,
    *,
    added_noise: bool = True,
) -> Tensor:
    """Slices `index` across `axis` (0, 1, 2 for z, y, x), (B, side, side) float32, on `device`.

    With `added_noise` False, slices are without the noise that was added for the pretext tasks.
    """
    planes = np.stack([prepared.slice(axis, i, side, i, added_noise=added_noise) for i in index])
    mean = torch.full((len(planes),), prepared.mean, device=device)
    std = torch.full((len(planes),), prepared.std, device=device)
    return standardise(torch.from_numpy(planes).to(device), mean, std)
