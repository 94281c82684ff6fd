"""The choice of slices for an example, as a pure function of (seed, n).

Examples are numbered without epochs. `run_length` consecutive examples form a run. A run uses one
volume, so that a reader loads that volume once. `interleave` runs form a round. Each training batch
takes examples from all runs of a round, so that every batch mixes volumes:

    round of 8 runs x 32 examples = 256 examples = 8 batches of 32, 4 from each run
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ctray.config import RotationConfig, RunConfig, SortingConfig, TrainConfig
from ctray.core.errors import TrainingError
from ctray.core.geometry import AXES, Triple
from ctray.learn.pretext.views import Views, draw_views

# Columns of examples, which readers produce and training consumes.
Rows = dict[str, npt.NDArray[Any]]

# Purposes that separate the random streams of one seed.
PERMUTATION, EXAMPLE = 1, 2


@dataclass(frozen=True, kw_only=True, slots=True)
class RotationExample:
    """A pair of nearby slices and the angle between their views.

    Parameters
    ----------
    axis
        Slicing axis: 0, 1, 2 for z, y, x.
    index, twin
        The two slices along the axis.
    orientation_deg
        Common orientation of both views, degrees.
    label
        Class of the relative angle, 0 to `RotationConfig.num_classes` - 1.
    """

    axis: int
    index: int
    twin: int
    orientation_deg: float
    label: int


@dataclass(frozen=True, kw_only=True, slots=True)
class SortingExample:
    """A bag of slices of one volume: the slices to sort.

    Parameters
    ----------
    axis
        Slicing axis: 0, 1, 2 for z, y, x.
    indices
        The slices along the axis, in random order. They are distinct if the axis has enough slices.
    views
        Augmentation of each slice, see `ctray.learn.pretext.views`.
    """

    axis: int
    indices: tuple[int, ...]
    views: Views


def generator(seed: int, *index: int) -> np.random.Generator:
    """Random generator that depends only on (seed, index)."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *index])))


def volume_of_run(seed: int, run: int, num_volumes: int) -> int:
    """Index of the volume that run number `run` reads; every volume is read once per cycle."""
    if num_volumes < 1:
        raise TrainingError("there is no volume to train on; check the catalog for failed volumes")
    cycle, place = divmod(run, num_volumes)
    order = generator(seed, PERMUTATION, cycle).permutation(num_volumes)
    return int(order[place])


def rotation_example(seed: int, n: int, shape: Triple, config: RotationConfig) -> RotationExample:
    """Example `n` of a run over a volume whose working level has `shape` voxels (z, y, x)."""
    rng = generator(seed, EXAMPLE, n)
    usable = [AXES.index(a) for a in config.axes if shape[AXES.index(a)] >= 2]
    if not usable:
        raise TrainingError(
            f"working shape {shape} has fewer than two slices along {', '.join(config.axes)}"
        )
    axis = int(rng.choice(usable))
    extent = shape[axis]
    reach = max(1, round(config.twin_range * extent))
    index = int(rng.integers(extent))
    low, high = max(0, index - reach), min(extent - 1, index + reach)
    # The twin is never the slice itself: two copies share their noise, from which the network could
    # infer the angle 0.
    twin = int(rng.integers(low, high))
    twin += twin >= index
    return RotationExample(
        axis=axis,
        index=index,
        twin=twin,
        orientation_deg=float(rng.uniform(0.0, 360.0)),
        label=int(rng.integers(config.num_classes)),
    )


def examples_of_run(run: int, train: TrainConfig) -> range:
    """Numbers of the `run_length` examples of run number `run`."""
    return range(run * train.run_length, (run + 1) * train.run_length)


def steps_per_round(train: TrainConfig) -> int:
    """Number of optimizer steps per round."""
    return train.run_length * train.interleave // train.batch_size


def runs_of_round(train: TrainConfig, round_index: int, rank: int = 0) -> list[int]:
    """Runs that worker `rank` of `train.num_workers` reads for round `round_index`.

    The workers share every batch evenly, so their number does not change the examples of a step.
    """
    first = round_index * train.interleave
    return list(range(first + rank, first + train.interleave, train.num_workers))


def batch_rows(train: TrainConfig, step_in_round: int, num_runs: int) -> Sequence[int]:
    """Rows that form one batch, in a round of `num_runs` consecutive runs."""
    stride = steps_per_round(train)
    return range(step_in_round, num_runs * train.run_length, stride)


def sorting_axes(shape: Triple, config: SortingConfig) -> list[int]:
    """Slicing axes, as 0, 1, 2, of a volume whose working level has `shape` voxels (z, y, x)."""
    if config.axes == "longest":
        return [max(range(3), key=lambda axis: shape[axis])]
    return [AXES.index(axis) for axis in config.axes]


def slice_weights(extent: int, config: SortingConfig) -> npt.NDArray[np.float64]:
    """Probability (extent,) that each slice is drawn first.

    The weights are uniform or a generalized Gaussian, exp(-|x / scale| ** shape), with x from -0.5
    to 0.5 along the axis.
    """
    if config.sampling == "uniform":
        return np.full(extent, 1 / extent)
    x = (np.arange(extent) + 0.5) / extent - 0.5
    # Keep every weight above the limit of double precision: if there are few slices, all may be
    # needed.
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
    # Two copies of one slice have no order, so no slice is drawn twice if there are enough.
    enough = int((weights > 0).sum()) >= config.num_slices
    indices = rng.choice(shape[axis], config.num_slices, replace=not enough, p=weights)
    views = draw_views(rng, config.num_slices, config.augmentations)
    return SortingExample(axis=axis, indices=tuple(int(i) for i in indices), views=views)


def num_rounds(config: RunConfig) -> int:
    """Number of rounds in the whole training."""
    return -(-config.train.steps // steps_per_round(config.train))
