"""The sorting task: slices of one volume, put in order (paper 2.1).

Legend of tensor names: B examples (bags), K slices of a bag, H = W pixels of the square canvas.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from ctray.config import RunConfig, SortingConfig
from ctray.errors import TrainingError
from ctray.geometry import AXES, Triple
from ctray.preprocess.prepare import Prepared
from ctray.pretext.augment import Views, apply_views, draw_views
from ctray.pretext.examples import EXAMPLE, Rows, generator
from ctray.pretext.slices import standardise


@dataclass(frozen=True, kw_only=True, slots=True)
class SortingExample:
    """A bag of slices of one volume.

    Parameters
    ----------
    axis
        Slicing axis: 0, 1, 2 for z, y, x.
    indices
        The slices along it, distinct where the axis has enough, in random order.
    views
        What augmentation does to each of them, see `ctray.pretext.augment`.
    """

    axis: int
    indices: tuple[int, ...]
    views: Views


def sorting_axes(shape: Triple, config: SortingConfig) -> list[int]:
    """Slicing axes, as 0, 1, 2, of a volume whose working level has `shape` voxels (z, y, x)."""
    if config.axes == "longest":
        return [max(range(3), key=lambda axis: shape[axis])]
    return [AXES.index(axis) for axis in config.axes]


def slice_weights(extent: int, config: SortingConfig) -> npt.NDArray[np.float64]:
    """Probability (extent,) of each slice to be drawn first.

    Uniform, or exp(-|x / scale| ** shape), the generalized Gaussian, with x from -0.5 to 0.5
    along the axis.
    """
    if config.sampling == "uniform":
        return np.full(extent, 1 / extent)
    x = (np.arange(extent) + 0.5) / extent - 0.5
    # Not below what double precision can draw: with few slices, all of them may be asked for.
    weight = np.exp(-np.minimum(np.abs(x / config.gaussian_scale) ** config.gaussian_shape, 600))
    result: npt.NDArray[np.float64] = weight / weight.sum()
    return result


def sorting_example(seed: int, n: int, shape: Triple, config: SortingConfig) -> SortingExample:
    """Example `n` of a run over a volume whose working level has `shape` voxels (z, y, x)."""
    rng = generator(seed, EXAMPLE, n)
    usable = [axis for axis in sorting_axes(shape, config) if shape[axis] >= 2]
    if not usable:
        raise TrainingError(f"working shape {shape} has fewer than two slices to put in order")
    axis = int(rng.choice(usable))
    weights = slice_weights(shape[axis], config)
    # Two copies of one slice have no order, so none is drawn twice where there are enough.
    enough = int((weights > 0).sum()) >= config.num_slices
    indices = rng.choice(shape[axis], config.num_slices, replace=not enough, p=weights)
    views = draw_views(rng, config.num_slices, config.augmentations)
    return SortingExample(axis=axis, indices=tuple(int(i) for i in indices), views=views)


def ranking_loss(score_BK: Tensor, position_BK: Tensor, margin: float) -> Tensor:
    """Pairwise margin ranking loss, a scalar: the mean over all pairs of all bags (paper 2.1).

    For every pair of slices with position i above position j, score i must exceed score j by
    `margin`; what is missing is the loss. Pairs of equal position have no order and do not count.

    Parameters
    ----------
    score_BK
        What the model says, any real dtype.
    position_BK
        Position along the axis, in any unit.
    margin
        Of the paper's 0.2, in the scores' own unit.
    """
    score_BK = score_BK.float()
    # Row i, column j of each bag's matrix: i less j.
    gap_BKK = score_BK[:, :, None] - score_BK[:, None, :]
    above_BKK = (position_BK[:, :, None] > position_BK[:, None, :]).float()
    return (functional.relu(margin - gap_BKK) * above_BKK).sum() / above_BKK.sum().clamp(min=1)


def mean_displacement(score_BK: Tensor, position_BK: Tensor) -> Tensor:
    """Mean displacement (B,) as the paper prints it (2.1): |argsort - argsort|, averaged.

    Argsort lists which slice comes first, second, ..., so two neighbours that change places
    count by how far apart they were drawn; the rank version counts them as 1 each. A random
    order gives (K**2 - 1) / (3 K) by both: 3.97 for K = 12.
    """
    first = position_BK.argsort(dim=1, stable=True)
    second = score_BK.argsort(dim=1, stable=True)
    return (first - second).abs().float().mean(dim=1)


def rank_displacement(score_BK: Tensor, position_BK: Tensor) -> Tensor:
    """Mean distance (B,) between each slice's predicted and true place in the order."""
    return (_ranks(score_BK) - _ranks(position_BK)).abs().float().mean(dim=1)


def _ranks(value_BK: Tensor) -> Tensor:
    return value_BK.argsort(dim=1, stable=True).argsort(dim=1)


def sorting_rows(prepared: Prepared, config: RunConfig, numbers: Iterable[int], side: int) -> Rows:
    """Examples of one volume, by their numbers: one row is one complete bag.

    Returns
    -------
    Rows
        `slices` (N, K, side, side) uint8, `position` (N, K) float32 from 0 to 1 along the axis,
        `mean`, `std` (N,) float32, and the fields of `Views` (N, K, ...) float32.
    """
    seed = config.train.seed
    chosen = [sorting_example(seed, n, prepared.shape, config.sorting) for n in numbers]
    rows: Rows = {
        "slices": np.stack(
            [[prepared.slice(e.axis, i, side, i) for i in e.indices] for e in chosen]
        ),
        "position": np.array(
            [np.array(e.indices) / prepared.shape[e.axis] for e in chosen], dtype=np.float32
        ),
        "mean": np.full(len(chosen), prepared.mean, dtype=np.float32),
        "std": np.full(len(chosen), prepared.std, dtype=np.float32),
    }
    names = [f.name for f in fields(Views)]
    return rows | {name: np.stack([getattr(e.views, name) for e in chosen]) for name in names}


class SortingTask:
    """Loss and displacements of a batch of bags; see `ctray.pretext.tasks.Task`."""

    metrics: tuple[str, ...] = ("displacement", "rank_displacement")

    def __init__(self, config: RunConfig, *, augment: bool = True) -> None:
        self.slices_per_example = config.sorting.num_slices
        self._margin = config.sorting.margin
        self._augmentations = config.sorting.augmentations if augment else frozenset()

    def loss(
        self, module: nn.Module, batch: dict[str, Tensor], rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Loss, and mean displacement as printed and by rank as (2,)."""
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
