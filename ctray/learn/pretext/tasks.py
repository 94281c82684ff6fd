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
    """Interface of a pretext task for the training loop."""

    metrics: tuple[str, ...]
    """Names of the values that `loss` returns in addition to the loss."""
    slices_per_example: int
    """Number of slices that the network sees per example."""

    def loss(
        self, module: nn.Module, batch: dict[str, Tensor], rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Loss of a batch, a scalar, and the values (M,) that `metrics` names.

        `rng` is the source of all randomness that the examples do not determine.
        """


def make_task(config: RunConfig, side: int, device: torch.device, *, augment: bool = True) -> Task:
    """Task of `config` for square slices of `side` pixels; `augment` is False for validation."""
    match config.task:
        case "rotation":
            return RotationTask(config, side, device, augment=augment)
        case "sorting":
            return SortingTask(config, augment=augment)


def build_model(config: RunConfig) -> PretextModel:
    """Model with initial weights that depend only on `config.train.seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        match config.task:
            case "rotation":
                return RotationModel(config.encoder, config.rotation)
            case "sorting":
                return SortingModel(config.encoder)
