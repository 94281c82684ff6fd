"""Uncertainty map: the variance of every superpixel's embedding under dropout (paper 2.2).

Legend of tensor names: B slices, T Monte Carlo samples, C channels, H = W pixels of the canvas,
h = w superpixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ctray.config import RunConfig
from ctray.core.errors import ConfigError
from ctray.core.geometry import AXES, Triple
from ctray.learn.pretext.encoder import SortingModel, monte_carlo
from ctray.learn.pretext.examples import sorting_axes
from ctray.learn.pretext.slices import standardised_slices
from ctray.localization.params import PARAMS
from ctray.preprocess.prepare import Prepared

FloatArray = npt.NDArray[np.float32]

# Pixels of all samples that go through the network at once.
_BATCH_PIXELS = 2**21
_PARAMS = PARAMS.map


@dataclass(frozen=True, kw_only=True, slots=True)
class UncertaintyMap:
    """Variance of the superpixels' embeddings over a volume.

    Parameters
    ----------
    values
        Variance, averaged over channels, relative to a high percentile of the volume; float32,
        (z, y, x) cells.
    cell
        Working-level voxels per cell, (z, y, x); 1 along the slicing axis.
    offset
        Working-level voxel at which the first cell begins, (z, y, x); 0 or negative.
    scale
        Variance that corresponds to a value of 1.
    axis
        Slicing axis: 0, 1, 2 for z, y, x.
    """

    values: FloatArray
    cell: Triple
    offset: Triple
    scale: float
    axis: int

    def to_json(self) -> dict[str, Any]:
        """Receipt form: everything but the values."""
        return {
            "shape": list(self.values.shape),
            "cell": list(self.cell),
            "offset": list(self.offset),
            "scale": float(f"{self.scale:.6g}"),
            "axis": AXES[self.axis],
        }

    def cell_of_voxel(self, axis: int, shape: Triple) -> npt.NDArray[np.intp]:
        """Cell (extent,) along `axis` that contains each voxel of a working level of `shape`."""
        return (np.arange(shape[axis]) - self.offset[axis]) // self.cell[axis]

    def to_voxels(self, cells: npt.NDArray[Any], shape: Triple) -> npt.NDArray[Any]:
        """Array of cells, repeated to one value per voxel of a working level of `shape`."""
        for axis in range(3):
            cells = np.take(cells, self.cell_of_voxel(axis, shape), axis=axis)
        return cells


def uncertainty_map(
    model: SortingModel, prepared: Prepared, side: int, config: RunConfig, seed: int = 0
) -> UncertaintyMap:
    """Variance of every superpixel's embedding over Monte Carlo dropout samples.

    The pooling and the last layer are not used, dropout is on, and all other layers work as in
    evaluation. If `uncertainty.shifts` is above 1, the network also sees shifted slices, whose
    superpixels lie between the others. The network processes one slab of slices at a time, so that
    memory does not grow with the volume. All slices get the same dropout masks, so their variances
    are comparable and do not depend on the slabs.

    Parameters
    ----------
    model
        Trained model. It runs on its current device.
    prepared
        The volume.
    side
        Side of the training canvas, pixels.
    config
        Configuration: encoder, sorting axis, samples and shifts are used.
    seed
        Seed of the dropout masks.

    Raises
    ------
    ConfigError
        If the model has no dropout.
    """
    if config.encoder.dropout == 0:
        raise ConfigError(
            "encoder.dropout is 0: nothing is uncertain without dropout; train with dropout, or "
            "localize with the rotation task"
        )
    axis = sorting_axes(prepared.shape, config.sorting)[0]
    grid, extent = _Grid.of(side, config), prepared.shape[axis]
    views = _Views(model, prepared, axis, grid, config, seed)
    unit_C = views.channel_means(extent) if config.uncertainty.channels == "relative" else None
    slabs = _slabs(extent, grid, config)
    planes = np.concatenate([views.cells(index, unit_C) for index in slabs])
    across = [n for other, n in enumerate(prepared.shape) if other != axis]
    kept = [grid.cells_of(extent) for extent in across]
    planes = planes[:, kept[0][0], kept[1][0]]
    scale = max(float(np.percentile(planes, _PARAMS.top_percentile)), 1e-30)
    return UncertaintyMap(
        values=np.ascontiguousarray(np.moveaxis(planes / scale, 0, axis), dtype=np.float32),
        cell=_insert((grid.cell, grid.cell), axis, 1),
        offset=_insert((kept[0][1], kept[1][1]), axis, 0),
        scale=scale,
        axis=axis,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Grid:
    """Positions of superpixels on a canvas that is larger than the slices on all sides.

    The field of superpixel i in a window that begins at pixel p is centred on p + i x stride. Its
    cell is the middle of that field, so the cell begins half a cell before this pixel.
    """

    canvas: int
    stride: int
    cell: int

    @classmethod
    def of(cls, side: int, config: RunConfig) -> _Grid:
        stride = min(
            config.uncertainty.stride or _PARAMS.plain_stride, config.encoder.output_stride
        )
        cell = max(1, stride // config.uncertainty.shifts)
        return cls(canvas=(-(-side // stride) + 3) * stride, stride=stride, cell=cell)

    @property
    def window(self) -> int:
        """Pixels of the canvas that the network sees at once."""
        return self.canvas - self.stride

    @property
    def shifts(self) -> int:
        return self.stride // self.cell

    def cells_of(self, extent: int) -> tuple[slice, int]:
        """Cells that cover the middle `extent` pixels of the canvas, and the pixel of the first.

        The pixel is relative to the first covered pixel.
        """
        before = (self.canvas - extent) // 2
        half = self.cell // 2
        first = (before + half) // self.cell
        last = -(-(before + extent + half) // self.cell)
        return slice(first, last), first * self.cell - half - before


def sample_variance(
    model: SortingModel, x_BCHW: Tensor, samples: int, seed: int, stride: int | None = None
) -> Tensor:
    """Variance (B, C, h, w) of the superpixels' embeddings over dropout masks, unbiased.

    Parameters
    ----------
    model
        Model whose encoder computes the superpixels.
    x_BCHW
        Standardised slices.
    samples, seed
        Number of masks, and their seed.
    stride
        Input pixels per superpixel; None uses the last feature map.
    """
    with monte_carlo(model, samples, seed):
        map_BCHW = model.encoder.superpixels(x_BCHW, stride)
    return map_BCHW.float().reshape(len(x_BCHW), samples, *map_BCHW.shape[1:]).var(dim=1)


def over_channels(variance_BCHW: Tensor, unit_C: Tensor | None) -> Tensor:
    """Mean variance (B, h, w) over the channels, each divided by its unit and capped.

    A channel whose unit is 0 has no variance anywhere and is left out. Without units, the plain
    mean.
    """
    if unit_C is None:
        return variance_BCHW.mean(dim=1)
    speaks = unit_C > 0
    relative = variance_BCHW[:, speaks] / unit_C[speaks][:, None, None]
    return relative.clamp(max=_PARAMS.max_relative_variance).mean(dim=1)


class _Views:
    """The slices of a volume on their canvas, as seen by the encoder under dropout."""

    def __init__(
        self,
        model: SortingModel,
        prepared: Prepared,
        axis: int,
        grid: _Grid,
        config: RunConfig,
        seed: int,
    ) -> None:
        self._model = model
        self._prepared = prepared
        self._axis = axis
        self._grid = grid
        self._samples = config.uncertainty.samples
        self._seed = seed
        self._device = next(model.parameters()).device

    @torch.inference_mode()
    def cells(self, index: range, unit_C: Tensor | None) -> FloatArray:
        """Cells (slices, window / cell, window / cell) of the slices `index`."""
        grid = self._grid
        x_BHW, count = self._slices(index), grid.window // grid.cell
        cells = torch.empty((len(x_BHW), count, count), device=self._device)
        for row in range(grid.shifts):
            for col in range(grid.shifts):
                found = self._variance(x_BHW, row * grid.cell, col * grid.cell)
                cells[:, row :: grid.shifts, col :: grid.shifts] = over_channels(found, unit_C)
        mapped: FloatArray = cells.cpu().numpy()
        return mapped

    @torch.inference_mode()
    def channel_means(self, extent: int) -> Tensor:
        """Mean variance (C,) of each channel, over a few slices spread along the axis."""
        step = -(-extent // _PARAMS.mean_slices)
        means = [
            self._variance(self._slices(range(i, i + 1)), 0, 0).mean(dim=(0, 2, 3))
            for i in range(step // 2, extent, step)
        ]
        return torch.stack(means).mean(dim=0)

    def _slices(self, index: range) -> Tensor:
        canvas = self._grid.canvas
        return standardised_slices(self._prepared, self._axis, index, canvas, self._device)

    def _variance(self, x_BHW: Tensor, top: int, left: int) -> Tensor:
        """Variance (B, C, h, w) of the window that begins at pixel (top, left)."""
        side = self._grid.window
        x_BCHW = x_BHW[:, None, top : top + side, left : left + side]
        x_BCHW = x_BCHW.contiguous(memory_format=torch.channels_last)
        device = self._device.type
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            return sample_variance(
                self._model, x_BCHW, self._samples, self._seed, self._grid.stride
            )


def _slabs(extent: int, grid: _Grid, config: RunConfig) -> list[range]:
    thick = max(1, _BATCH_PIXELS // (grid.canvas**2 * config.uncertainty.samples))
    return [range(start, min(extent, start + thick)) for start in range(0, extent, thick)]


def _insert(pair: tuple[int, int], axis: int, value: int) -> Triple:
    values = list(pair)
    values.insert(axis, value)
    return (values[0], values[1], values[2])
