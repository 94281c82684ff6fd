"""Examples from the files of prepared volumes. Uses no torch, so that readers start quickly."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

import numpy as np

from ctray.config import RunConfig
from ctray.core.errors import InvalidVolumeError, NotFoundError
from ctray.learn.pretext import examples
from ctray.learn.pretext.examples import Rows
from ctray.learn.pretext.rows import example_rows
from ctray.preprocess.prepare import Prepared
from ctray.storage import store

# Limit on the prepared volumes that a reader keeps in memory. A small archive is fetched only once.
_CACHE_BYTES = 256 * 2**20


class ExampleFiles:
    """Cuts the examples of runs from the files of prepared volumes.

    Parameters
    ----------
    config
        Configuration of the run.
    working_urls
        Prepared working levels of the training volumes.
    side
        Side of the square canvas, pixels.
    """

    def __init__(self, config: RunConfig, working_urls: list[str], side: int) -> None:
        self._config = config
        self._urls = working_urls
        self._side = side
        self._cache: OrderedDict[int, Prepared] = OrderedDict()

    def rows(self, runs: Iterable[int]) -> Rows:
        """All examples of `runs`, one run after the other.

        Raises
        ------
        InvalidVolumeError
            If a file is missing or damaged.
        """
        parts = []
        for run in runs:
            seed = self._config.train.seed
            prepared = self._volume(examples.volume_of_run(seed, run, len(self._urls)))
            numbers = examples.examples_of_run(run, self._config.train)
            parts.append(example_rows(prepared, self._config, numbers, self._side))
        return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}

    def _volume(self, index: int) -> Prepared:
        if index in self._cache:
            self._cache.move_to_end(index)
            return self._cache[index]
        prepared = read_prepared(self._urls[index])
        self._cache[index] = prepared
        while len(self._cache) > 1 and self._cached_bytes() > _CACHE_BYTES:
            self._cache.popitem(last=False)
        return prepared

    def _cached_bytes(self) -> int:
        return sum(p.num_bytes for p in self._cache.values())


def read_prepared(url: str) -> Prepared:
    """Prepared working level at `url`.

    Raises
    ------
    InvalidVolumeError
        If the file is missing or damaged.
    """
    try:
        return Prepared.from_bytes(store.read_bytes(url))
    except (InvalidVolumeError, NotFoundError) as error:
        raise InvalidVolumeError(
            f"{url} is missing or damaged ({error}); delete the folder that it lies in, and "
            "the same command prepares the volumes anew"
        ) from error
