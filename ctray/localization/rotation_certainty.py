"""Certainty profiles: the network's probability that a slice and its neighbour are not rotated.

Legend of tensor names: N slices, R orientations, H = W pixels of the canvas, D embedding.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ctray.config import RunConfig
from ctray.core.geometry import AXES
from ctray.learn.pretext.encoder import RotationModel
from ctray.learn.pretext.rotation import circular_mask, make_views, zero_class
from ctray.learn.pretext.slices import standardised_slices
from ctray.preprocess.prepare import Prepared

FloatArray = npt.NDArray[np.float64]

_BATCH = 64


@torch.inference_mode()
def certainty_profile(
    model: RotationModel, prepared: Prepared, axis: int, side: int, config: RunConfig
) -> FloatArray:
    """Certainty of every slice along one axis (paper 2.2).

    A slice is compared with its neighbours at `localize.twin_offsets`, never with itself: two
    copies share their noise, so the network would always be sure. The certainty of a slice is the
    larger of its two sides' certainties, so that the empty slice beyond a sample does not lower the
    certainty of the sample's last slice.

    Parameters
    ----------
    model
        Trained model. It runs in evaluation mode on its current device.
    prepared
        The volume.
    axis
        0, 1, 2 for z, y, x.
    side
        Side of the square canvas, pixels.

    Returns
    -------
    ndarray
        p0 in [0, 1] per slice, float64, (extent of the axis,).
    """
    model.eval()
    embedding_NRD = _embed_slices(model, prepared, axis, side, config)
    extent = prepared.shape[axis]
    zero = zero_class(config.rotation)
    below = np.full((extent, len(config.localize.twin_offsets)), np.nan)
    above = below.copy()
    for column, offset in enumerate(config.localize.twin_offsets):
        if offset >= extent:
            continue
        first, second = embedding_NRD[:-offset], embedding_NRD[offset:]
        p0 = 0.5 * (
            _probability(model, first, second, zero) + _probability(model, second, first, zero)
        )
        above[:-offset, column] = p0
        below[offset:, column] = p0
    both = np.stack([_row_mean(above), _row_mean(below)])
    surer = np.where(np.isfinite(both), both, -1.0).max(axis=0)
    # A single slice has no twin: its certainty is chance.
    return np.asarray(np.where(surer < 0, 1 / config.rotation.num_classes, surer))


def certainty_profiles(
    model: RotationModel, prepared: Prepared, side: int, config: RunConfig
) -> dict[str, FloatArray]:
    """Certainty profile of every axis that the model was trained on, by axis name."""
    return {
        name: certainty_profile(model, prepared, AXES.index(name), side, config)
        for name in config.rotation.axes
    }


def _embed_slices(
    model: RotationModel, prepared: Prepared, axis: int, side: int, config: RunConfig
) -> Tensor:
    device = next(model.parameters()).device
    mask_HW = circular_mask(side, device)
    extent, rotations = prepared.shape[axis], config.localize.orientations
    # The angles are a quarter step away from the directions of the pixel grid: views there need no
    # interpolation and would be sharper than in training.
    angles = (torch.arange(rotations, device=device) + 0.25) * (360.0 / rotations)
    parts = []
    for start in range(0, extent, _BATCH // rotations or 1):
        index = range(start, min(extent, start + (_BATCH // rotations or 1)))
        count = len(index)
        x_NHW = standardised_slices(prepared, axis, index, side, device)
        x_NHW = x_NHW.repeat_interleave(rotations, dim=0)
        views = make_views(x_NHW, angles.repeat(count), mask_HW)
        views = views.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            embedded = model.embed(views)
        parts.append(embedded.float().reshape(count, rotations, -1))
    return torch.cat(parts)


def _probability(
    model: RotationModel, first_NRD: Tensor, second_NRD: Tensor, zero: int
) -> FloatArray:
    logits = model.compare(first_NRD.flatten(0, 1), second_NRD.flatten(0, 1))
    p0 = torch.softmax(logits.float(), dim=1)[:, zero]
    mean: FloatArray = p0.reshape(first_NRD.shape[:2]).mean(dim=1).cpu().numpy().astype(np.float64)
    return mean


def _row_mean(values: FloatArray) -> FloatArray:
    known = np.isfinite(values)
    count = known.sum(axis=1)
    total = np.where(known, values, 0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
