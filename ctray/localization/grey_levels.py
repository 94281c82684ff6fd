"""The levels of one volume in which grey values are looked at."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

from ctray.localization.clear_faces import GreyLevel
from ctray.preprocess.prepare import Prepared
from ctray.storage.working import WorkingLevel


class GreyLevels:
    """Grey levels of a volume, finest first; the finest is made once, when it is first asked for.

    The edges of the finest are sharper, but where it is too noisy its mean may do. Nobody changes
    the arrays of a level.

    Parameters
    ----------
    prepared
        Working level, prepared.
    level
        The same as stored, with the next finer level where that was read.
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
        """The next finer level where there is one, else the working level."""
        level = self._level
        if level.finer is None:
            return self._working()
        return GreyLevel.of_finer(self._prepared, level.voxels, level.finer, level.ratio)

    def _working(self) -> GreyLevel:
        return GreyLevel.of_working(self._prepared, self._level.voxels)
