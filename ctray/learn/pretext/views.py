"""Augmentations of slices, drawn with their example. Uses no torch, because readers draw them."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ctray.config import Augmentation

FloatArray = npt.NDArray[np.float32]

_SHIFT = 0.08  # largest, as a fraction of the canvas
_RESCALE = 1.25  # largest factor; its inverse is the smallest
_GAIN = 1.3
_BIAS = 0.3  # standard deviations of the volume
_BLUR_PX = 1.0
_NOISE = 0.5  # standard deviations of the volume


@dataclass(frozen=True, kw_only=True, slots=True)
class Views:
    """Augmentation of each slice of an example.

    Parameters
    ----------
    matrix
        Matrix from the output's to the input's coordinates, both -1 to 1 over the canvas,
        (K, 2, 3) float32, for `torch.nn.functional.affine_grid`.
    gain, bias
        Grey values, in standard deviations of the volume, become gain x value + bias; (K,).
    blur_px
        Standard deviation of the Gaussian blur, pixels, (K,).
    noise
        Standard deviation of the added noise, in standard deviations of the volume, (K,).
    """

    matrix: FloatArray
    gain: FloatArray
    bias: FloatArray
    blur_px: FloatArray
    noise: FloatArray


def draw_views(rng: np.random.Generator, count: int, names: Set[Augmentation]) -> Views:
    """Views of the `count` slices of one example.

    Properties of a scan (size, grey values, sharpness, noise) are drawn once for all slices.
    Changes without information about the order (flip, turn, shift) are drawn for each slice.
    """
    # Draw all augmentations, even unused ones, so that none changes the draws of another.
    flip = np.where(rng.random((count, 2)) < 0.5, -1.0, 1.0)
    turn = rng.uniform(0, 2 * np.pi, count)
    shift = rng.uniform(-_SHIFT, _SHIFT, (count, 2)) * 2
    scale = np.exp(rng.uniform(-1, 1) * np.log(_RESCALE))
    gain, bias = np.exp(rng.uniform(-1, 1) * np.log(_GAIN)), rng.uniform(-_BIAS, _BIAS)
    blur_px, noise = rng.uniform(0, _BLUR_PX), rng.uniform(0, _NOISE)
    flip = flip if "flip" in names else np.ones_like(flip)
    turn = turn if "turn" in names else np.zeros_like(turn)
    cos, sin = np.cos(turn), np.sin(turn)
    linear = np.array([[cos, -sin], [sin, cos]]).transpose(2, 0, 1) * flip[:, None, :]
    linear = linear / (scale if "rescale" in names else 1.0)
    offset = shift if "shift" in names else np.zeros_like(shift)

    def all_of(value: float, used: bool) -> FloatArray:
        return np.full(count, value if used else 0.0, dtype=np.float32)

    return Views(
        matrix=np.concatenate([linear, offset[:, :, None]], axis=2).astype(np.float32),
        gain=all_of(gain - 1, "grey" in names) + 1,
        bias=all_of(bias, "grey" in names),
        blur_px=all_of(blur_px, "blur" in names),
        noise=all_of(noise, "noise" in names),
    )
