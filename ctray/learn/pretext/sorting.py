"""The sorting task: putting slices of one volume in order (paper 2.1).

Legend of tensor names: B examples (bags), K slices of a bag, H = W pixels of the square canvas.
"""

from __future__ import annotations

from dataclasses import fields

import torch
from torch import Tensor, nn
from torch.nn import functional

from ctray.config import RunConfig
from ctray.learn.pretext.augment import apply_views
from ctray.learn.pretext.slices import standardise
from ctray.learn.pretext.views import Views


def ranking_loss(score_BK: Tensor, position_BK: Tensor, margin: float) -> Tensor:
    """Pairwise margin ranking loss, a scalar: the mean over all pairs of all bags (paper 2.1).

    For every pair of slices with position i above position j, score i must exceed score j by
    `margin`. The loss of the pair is the shortfall. Pairs of equal position do not count.

    Parameters
    ----------
    score_BK
        Scores of the model, any real dtype.
    position_BK
        Position along the axis, in any unit.
    margin
        Margin in the unit of the scores (paper: 0.2).
    """
    score_BK = score_BK.float()
    # Row i, column j of each bag's matrix is score i minus score j.
    gap_BKK = score_BK[:, :, None] - score_BK[:, None, :]
    above_BKK = (position_BK[:, :, None] > position_BK[:, None, :]).float()
    return (functional.relu(margin - gap_BKK) * above_BKK).sum() / above_BKK.sum().clamp(min=1)


def mean_displacement(score_BK: Tensor, position_BK: Tensor) -> Tensor:
    """Mean displacement (B,) as defined in the paper (2.1): mean of |argsort - argsort|.

    Argsort lists the index of the first slice, the second slice and so on. If two neighbours change
    places, each counts by their distance in the bag; in `rank_displacement` each counts as 1. A
    random order gives (K**2 - 1) / (3 K) in both definitions: 3.97 for K = 12.
    """
    first = position_BK.argsort(dim=1, stable=True)
    second = score_BK.argsort(dim=1, stable=True)
    return (first - second).abs().float().mean(dim=1)


def rank_displacement(score_BK: Tensor, position_BK: Tensor) -> Tensor:
    """Mean distance (B,) between each slice's predicted and true place in the order."""
    return (_ranks(score_BK) - _ranks(position_BK)).abs().float().mean(dim=1)


def _ranks(value_BK: Tensor) -> Tensor:
    return value_BK.argsort(dim=1, stable=True).argsort(dim=1)


class SortingTask:
    """Loss and displacements of a batch of bags; see `ctray.learn.pretext.tasks.Task`."""

    metrics: tuple[str, ...] = ("displacement", "rank_displacement")

    def __init__(self, config: RunConfig, *, augment: bool = True) -> None:
        self.slices_per_example = config.sorting.num_slices
        self._margin = config.sorting.margin
        self._augmentations = config.sorting.augmentations if augment else frozenset()

    def loss(
        self, module: nn.Module, batch: dict[str, Tensor], rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Loss, and the mean displacement and rank displacement as (2,)."""
        position_BK = batch["position"]
        bags, count = position_BK.shape
        slices = batch["slices"].flatten(0, 1)
        mean, std = (batch[name].repeat_interleave(count) for name in ("mean", "std"))
        x_BHW = standardise(slices, mean, std)
        views = {f.name: batch[f.name].flatten(0, 1) for f in fields(Views)}
        x_BHW = apply_views(x_BHW, views, self._augmentations, rng)
        x_BCHW = x_BHW[:, None].contiguous(memory_format=torch.channels_last)
        score_BK = module(x_BCHW).float().reshape(bags, count)
        displacement = torch.stack(
            [f(score_BK, position_BK).mean() for f in (mean_displacement, rank_displacement)]
        )
        return ranking_loss(score_BK, position_BK, self._margin), displacement
