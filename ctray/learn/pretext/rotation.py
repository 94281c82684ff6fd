"""The rotation task: its views, computed on the worker's device, and its loss (paper 2.1).

Legend of tensor names: B pairs of slices, H = W pixels of the square canvas, K classes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from ctray.config import RotationConfig, RunConfig
from ctray.learn.pretext.drift import random_drift
from ctray.learn.pretext.slices import standardise


def class_angles(config: RotationConfig, device: torch.device | None = None) -> Tensor:
    """Relative angle of each class, degrees, ascending; the middle one is 0."""
    half = round(config.max_angle / config.angle_step)
    return torch.arange(-half, half + 1, device=device) * config.angle_step


def zero_class(config: RotationConfig) -> int:
    """Class of 0 degrees."""
    return config.num_classes // 2


def circular_mask(side: int, device: torch.device | None = None) -> Tensor:
    """Mask (side, side), float32: 1 inside the circle of maximal diameter, 0 outside.

    Rotation by an angle that is not a multiple of 90 degrees leaves artefacts in the corners, which
    would reveal the angle (paper 2.1).
    """
    axis = torch.arange(side, device=device) - (side - 1) / 2
    distance = torch.hypot(axis[:, None], axis[None, :])
    return (distance <= side / 2).float()


def rotate(x_BHW: Tensor, angle_deg_B: Tensor) -> Tensor:
    """Slices rotated about their centre, bilinear, same shape and dtype.

    Positive angles turn a slice counter-clockwise if row 0 is at the top. 90 degrees equals
    `numpy.rot90`.
    """
    angle = angle_deg_B.to(x_BHW.dtype) * (math.pi / 180)
    cos, sin, zero = torch.cos(angle), torch.sin(angle), torch.zeros_like(angle)
    matrix = torch.stack(
        [torch.stack([cos, -sin, zero], -1), torch.stack([sin, cos, zero], -1)], dim=1
    )
    x_BCHW = x_BHW[:, None]
    grid = functional.affine_grid(matrix, list(x_BCHW.shape), align_corners=False)
    return functional.grid_sample(
        x_BCHW, grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )[:, 0]


def make_views(x_BHW: Tensor, angle_deg_B: Tensor, mask_HW: Tensor) -> Tensor:
    """Views (B, 1, H, W) of standardised slices: rotated, then masked to the circle."""
    return (rotate(x_BHW, angle_deg_B) * mask_HW)[:, None]


def rotation_loss(logits_BK: Tensor, label_B: Tensor) -> Tensor:
    """Negative log-likelihood of the relative angle's class, a scalar (paper 2.1)."""
    return functional.nll_loss(functional.log_softmax(logits_BK.float(), dim=1), label_B)


class RotationTask:
    """Loss and accuracy of a batch of pairs; see `ctray.learn.pretext.tasks.Task`."""

    metrics: tuple[str, ...] = ("accuracy",)

    def __init__(
        self, config: RunConfig, side: int, device: torch.device, *, augment: bool = True
    ) -> None:
        self.slices_per_example = 2
        self._mask_HW = circular_mask(side, device)
        self._angles_K = class_angles(config.rotation, device).float()
        self._drift = config.rotation.drift if augment else 0.0

    def views(
        self, batch: dict[str, Tensor], rng: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Views (B, 1, H, W) of slices and twins. The twin is turned by the angle of its class.

        With `rng`, each view gets its own added drift.
        """
        first = standardise(batch["slice"], batch["mean"], batch["std"])
        second = standardise(batch["twin"], batch["mean"], batch["std"])
        angle = batch["orientation_deg"]
        a_BCHW = make_views(first, angle, self._mask_HW)
        b_BCHW = make_views(second, angle + self._angles_K[batch["label"]], self._mask_HW)
        if rng is not None and self._drift > 0:
            a_BCHW, b_BCHW = (x + self._drift_like(x, rng) for x in (a_BCHW, b_BCHW))
        layout = torch.channels_last
        return (
            a_BCHW.contiguous(memory_format=layout),
            b_BCHW.contiguous(memory_format=layout),
        )

    def loss(
        self, module: nn.Module, batch: dict[str, Tensor], rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Loss, and accuracy as (1,)."""
        logits_BK, label_B = module(*self.views(batch, rng)), batch["label"]
        accuracy = (logits_BK.argmax(1) == label_B).float().mean()
        return rotation_loss(logits_BK, label_B), accuracy[None]

    def _drift_like(self, x_BCHW: Tensor, rng: torch.Generator) -> Tensor:
        drift_BHW = random_drift(len(x_BCHW), x_BCHW.shape[-1], self._drift, rng)
        return (drift_BHW * self._mask_HW)[:, None]
