"""Training examples as a Ray Data stream.

A stretch is `train.run_length` consecutive examples, all cut from one volume.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy.typing as npt
import ray
import ray.data
from ray.data import ActorPoolStrategy, DataIterator, Dataset
from ray.data._internal.cluster_autoscaler import get_or_create_autoscaling_coordinator
from ray.data._internal.execution.node_trackers import get_or_create_actor_location_tracker
from ray.data._internal.stats import get_or_create_stats_actor

from ctray.config import RunConfig
from ctray.learn.prepared_files import ExampleFiles
from ctray.learn.pretext import examples
from ctray.learn.pretext.examples import Rows

# Number of rounds that readers may be ahead of training.
_AHEAD = 2
_POLL_S = 0.02
_LONGEST_WAIT_S = 20.0


def keep_data_actors_here() -> None:
    """Start Ray Data's own actors on this node, and not on the node of a training process.

    Ray Data starts them where they are first used, and they never end. A node that has them is
    never idle, so no autoscaler removes it (seen with Ray 2.60).
    """
    for get_or_create in (
        get_or_create_stats_actor,
        get_or_create_actor_location_tracker,
        get_or_create_autoscaling_coordinator,
    ):
        get_or_create()


class StretchReader:
    """Cuts the examples of a stretch from its volume; a Ray Data actor.

    Parameters
    ----------
    config
        Configuration of the run.
    working_urls
        Prepared working levels of the training volumes.
    side
        Side of the square canvas, pixels.
    stretches
        Numbers of the stretches in reading order: row i of the dataset is stretches[i].
    rank
        Worker that they are read for.
    pace
        Handle of a `Pace`; None reads as fast as Ray Data allows.
    """

    def __init__(
        self,
        config: RunConfig,
        working_urls: list[str],
        side: int,
        stretches: list[int],
        rank: int = 0,
        pace: Any = None,
    ) -> None:
        self._interleave = config.train.interleave
        self._files = ExampleFiles(config, working_urls, side)
        self._stretches = stretches
        self._rank = rank
        self._pace = pace

    def __call__(self, batch: dict[str, npt.NDArray[Any]]) -> Rows:
        """Return all examples of the stretches in `batch["id"]`."""
        stretches = [self._stretches[int(place)] for place in batch["id"]]
        self._wait_for(max(stretches) // self._interleave)
        return self._files.rows(stretches)

    def _wait_for(self, round_index: int) -> None:
        """Wait until training is near `round_index`, or has not moved for a while."""
        if self._pace is None:
            return
        seen, since = None, time.monotonic()
        while True:
            now = ray.get(self._pace.current.remote(self._rank))
            if now != seen:
                seen, since = now, time.monotonic()
            # Training that stands still may wait for this very round.
            begun = now >= 0
            if not begun or round_index <= now + _AHEAD:
                return
            if time.monotonic() - since > _LONGEST_WAIT_S:
                return
            time.sleep(_POLL_S)


def example_stream(
    config: RunConfig,
    working_urls: list[str],
    side: int,
    *,
    first_round: int,
    rank: int = 0,
    pace: Any = None,
) -> Dataset:
    """Return the examples of worker `rank`, from round `first_round` to the last, in order.

    `pace` is the handle of the `Pace` that `rounds` reports to.
    """
    stretches = [
        stretch
        for round_index in range(first_round, examples.num_rounds(config))
        for stretch in examples.runs_of_round(config.train, round_index, rank)
    ]
    # One block per round is enough work for a task and fits into the object store.
    per_round = config.train.interleave // config.train.num_workers
    # Not `ray.data.range`: each of its read tasks needs a whole CPU. Readers and workers may leave
    # none, and training would wait for ever.
    stream = ray.data.from_items(
        [{"id": place} for place in range(len(stretches))],
        override_num_blocks=max(1, len(stretches) // per_round),
    )
    # Otherwise blocks come in the order in which readers finish, and training is not repeatable.
    stream.context.execution_options.preserve_order = True
    stream.context.enable_progress_bars = False
    return stream.map_batches(
        StretchReader,
        fn_constructor_args=(config, working_urls, side, stretches, rank, pace),
        batch_size=1,
        # A quarter of a CPU each: readers mostly copy, and training must find a CPU beside them.
        num_cpus=0.25,
        compute=ActorPoolStrategy(size=config.train.num_readers),
    )


def rounds(
    stream: DataIterator | Dataset,
    config: RunConfig,
    on_round: Callable[[int], None] = lambda index: None,
) -> Iterator[Rows]:
    """Yield rounds of examples for `ctray.learn.pretext.training.train`.

    `on_round` is called with 0, 1, ... before each round.
    """
    per_round = config.train.run_length * config.train.interleave // config.train.num_workers
    iterator = stream.iterator() if isinstance(stream, Dataset) else stream
    batches = iterator.iter_batches(batch_size=per_round, batch_format="numpy", prefetch_batches=1)
    for index, batch in enumerate(batches):
        on_round(index)
        with warnings.catch_warnings():
            # Arrow returns read-only memory. torch warns, although nothing writes to it.
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            yield batch
