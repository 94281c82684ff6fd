"""Rows of examples, cut from prepared volumes. Uses no torch, so that readers start quickly."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields

import numpy as np

from ctray.config import RunConfig
from ctray.core.geometry import Triple
from ctray.learn.pretext.examples import Rows, rotation_example, sorting_axes, sorting_example
from ctray.learn.pretext.views import Views
from ctray.preprocess.prepare import Prepared


def example_rows(prepared: Prepared, config: RunConfig, numbers: Iterable[int], side: int) -> Rows:
    """Examples of one volume by their numbers; see `rotation_rows` and `sorting_rows`."""
    match config.task:
        case "rotation":
            return rotation_rows(prepared, config, numbers, side)
        case "sorting":
            return sorting_rows(prepared, config, numbers, side)


def rotation_rows(prepared: Prepared, config: RunConfig, numbers: Iterable[int], side: int) -> Rows:
    """Examples of one volume, by their numbers.

    Returns
    -------
    Rows
        `slice` and `twin` (N, side, side) uint8, `label` (N,) int64, `orientation_deg`, `mean`,
        `std` (N,) float32.
    """
    seed = config.train.seed
    chosen = [rotation_example(seed, n, prepared.shape, config.rotation) for n in numbers]
    count = len(chosen)
    return {
        "slice": np.stack([prepared.slice(e.axis, e.index, side, e.index) for e in chosen]),
        "twin": np.stack([prepared.slice(e.axis, e.twin, side, e.twin + 7) for e in chosen]),
        "label": np.array([e.label for e in chosen], dtype=np.int64),
        "orientation_deg": np.array([e.orientation_deg for e in chosen], dtype=np.float32),
        "mean": np.full(count, prepared.mean, dtype=np.float32),
        "std": np.full(count, prepared.std, dtype=np.float32),
    }


def sorting_rows(prepared: Prepared, config: RunConfig, numbers: Iterable[int], side: int) -> Rows:
    """Examples of one volume, by their numbers. A row is one complete set of slices to sort.

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


def canvas_side(shape: Triple, config: RunConfig) -> int:
    """Side of the square canvas that fits every slice of a working level of `shape` (z, y, x)."""
    match config.task:
        case "rotation":
            return max(shape)
        case "sorting":
            axes = sorting_axes(shape, config.sorting)
            return max(n for axis in axes for n in _others(shape, axis))


def _others(shape: Triple, axis: int) -> list[int]:
    return [n for other, n in enumerate(shape) if other != axis]
