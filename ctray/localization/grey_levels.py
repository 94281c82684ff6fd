"""The levels of a volume whose grey values are searched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ctray.core.geometry import Triple
from ctray.preprocess.prepare import Prepared
from ctray.volumes.working import WorkingLevel

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class GreyLevel:
    """Grey values of the working level, or of the next finer one.

    Parameters
    ----------
    grey
        Grey values in 256 steps, float32, (z, y, x), without drift, rings and container.
    inside
        Field of view, bool, same shape.
    ratio
        Voxels of this level per voxel of the working level, (z, y, x).
    """

    grey: FloatArray
    inside: BoolArray
    ratio: Triple

    @classmethod
    def of_working(cls, prepared: Prepared, working: npt.NDArray[Any]) -> GreyLevel:
        """Grey values of the working level, from its prepared and its stored voxels."""
        return cls(
            grey=prepared.voxels.astype(np.float32),
            inside=prepared.field_of_view.mask(prepared.shape) & np.isfinite(working),
            ratio=(1, 1, 1),
        )

    @classmethod
    def of_finer(
        cls, prepared: Prepared, working: npt.NDArray[Any], finer: npt.NDArray[Any], ratio: Triple
    ) -> GreyLevel:
        """The next finer level, with the corrections that preparing made to the working level.

        Parameters
        ----------
        prepared
            Prepared working level.
        working, finer
            The two levels as stored, any real dtype.
        ratio
            Voxels of `finer` per voxel of `working`, (z, y, x).
        """
        low, high = prepared.window

        def windowed(values: npt.NDArray[Any]) -> FloatArray:
            known = np.nan_to_num(values.astype(np.float32), nan=low, posinf=high, neginf=low)
            steps: FloatArray = (known - np.float32(low)) * np.float32(255 / (high - low))
            return steps

        change = prepared.voxels.astype(np.float32) - windowed(working).clip(0, 255)
        grey = windowed(finer) + _repeated(change, ratio, finer.shape)
        inside = prepared.field_of_view.mask(prepared.shape)
        return cls(
            grey=np.clip(grey, 0, 255),
            inside=_repeated(inside, ratio, finer.shape) & np.isfinite(finer),
            ratio=ratio,
        )


class GreyLevels:
    """Grey levels of a volume, the finest first. The finest is computed on first use and then kept.

    Edges are sharper in a finer level. If the finer level is too noisy, the working level may be
    clear, because it is a mean of the finer one. Callers must not change the arrays of a level.

    Parameters
    ----------
    prepared
        Prepared working level.
    level
        Working level as stored, with the next finer level if that was read.
    """

    def __init__(self, prepared: Prepared, level: WorkingLevel) -> None:
        self._prepared = prepared
        self._level = level

    def __iter__(self) -> Iterator[GreyLevel]:
        yield self.finest
        if self._level.finer is not None:
            yield self._working()

    @cached_property
    def finest(self) -> GreyLevel:
        """The next finer level if it was read, otherwise the working level."""
        level = self._level
        if level.finer is None:
            return self._working()
        return GreyLevel.of_finer(self._prepared, level.voxels, level.finer, level.ratio)

    def _working(self) -> GreyLevel:
        return GreyLevel.of_working(self._prepared, self._level.voxels)


def _repeated(values: npt.NDArray[Any], ratio: Triple, shape: Sequence[int]) -> npt.NDArray[Any]:
    """Repeat each value for all voxels that it covers in a finer level of `shape`."""
    for axis, count in enumerate(ratio):
        values = values.repeat(count, axis=axis)
    return values[tuple(slice(0, n) for n in shape)]
