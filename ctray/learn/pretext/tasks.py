"""The pretext tasks behind one interface: model and loss."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from ctray.config import RunConfig
from ctray.learn.pretext.encoder import PretextModel, RotationModel, SortingModel
from ctray.learn.pretext.rotation import RotationTask
from ctray.learn.pretext.sorting import SortingTask


class Task(Protocol):
    """A pretext task as the training loop uses it."""

    metrics: tuple[str, ...]
    """Names of the values that `loss` returns beside the loss."""
    slices_per_example: int
    """Slices that the network sees for one example."""

    def loss(
        self, module: nn.Module, batch: dict[str, Tensor], rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Loss of a batch, a scalar, and the values (M,) that `metrics` names.

        `rng` draws the randomness that the examples do not fix.
        """


def make_task(config: RunConfig, side: int, device: torch.device, *, augment: bool = True) -> Task:
    """Task of `config` for square slices of `side` pixels; `augment` False: as in validation."""
    match config.task:
        case "rotation":
            return RotationTask(config, side, device, augment=augment)
        case "sorting":
            return SortingTask(config, augment=augment)


def build_model(config: RunConfig) -> PretextModel:
    """Model with initial weights that `config.train.seed` alone decides."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        match config.task:
            case "rotation":
                return RotationModel(config.encoder, config.rotation)
            case "sorting":
                return SortingModel(config.encoder)
