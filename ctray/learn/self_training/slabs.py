"""Slabs: slices with their neighbours on both sides, as input to the self-trained network.

Legend of tensor names: B slabs, K grey values and cues, S slices of a slab, H, W pixels, N slices.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ctray.learn.pretext.slices import standardised_slices
from ctray.learn.self_training.cues import SlabSource, cue_values

FloatArray = npt.NDArray[np.float32]


def slab_tensor(
    source: SlabSource,
    axis: int,
    middles: Sequence[int],
    neighbours: int,
    side: int,
    device: torch.device,
) -> Tensor:
    """Slabs around the slices `middles` across `axis`, (B, K, S, side, side), float32.

    Channel 0 holds standardised grey values; the cues of the source follow, if any. Beyond the ends
    of the volume, slices are mirrored.
    """
    extent = source.shape[axis]
    wanted = np.asarray(middles)[:, None] + np.arange(-neighbours, neighbours + 1)[None]
    index = _mirror(wanted, extent)
    single, where = np.unique(index, return_inverse=True)
    kept = single.tolist()
    x_NHW = standardised_slices(source.prepared, axis, kept, side, device, added_noise=False)
    x_NKHW = x_NHW[:, None]
    if source.cues is not None:
        cues_NKHW = torch.from_numpy(_cue_slices(source.cues, axis, kept, side)).to(device)
        x_NKHW = torch.cat([x_NKHW, cues_NKHW], dim=1)
    order = torch.from_numpy(where.reshape(index.shape)).to(device)
    return x_NKHW[order].transpose(1, 2)


def _cue_slices(
    cues: npt.NDArray[np.uint8], axis: int, index: Sequence[int], side: int
) -> FloatArray:
    """Cues of slices `index` across `axis` on a canvas of 0, (N, K, side, side), float32."""
    values = np.moveaxis(cue_values(np.take(cues, index, axis=axis + 1)), axis + 1, 0)
    height, width = values.shape[-2:]
    top, left = (side - height) // 2, (side - width) // 2
    canvas = np.zeros((*values.shape[:2], side, side), dtype=np.float32)
    canvas[:, :, top : top + height, left : left + width] = values
    return canvas


def _mirror(index: npt.NDArray[np.int64], extent: int) -> npt.NDArray[np.int64]:
    period = max(1, 2 * (extent - 1))
    folded = np.abs(index) % period
    mirrored: npt.NDArray[np.int64] = np.minimum(folded, period - folded)
    return mirrored
