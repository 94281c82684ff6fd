"""The work of a run in the Ray session that is running."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

from ctray.config import PoolConfig, RunConfig
from ctray.executors.progress import Row
from ctray.executors.ray import actors
from ctray.executors.ray.self_training import train_slabs
from ctray.executors.ray.training import train_encoder
from ctray.learn.pretext.work import EncoderTraining
from ctray.learn.self_training.work import Record
from ctray.records.events import OnEvent, nobody
from ctray.records.run_folder import RunFolder


class RayExecutor:
    """Runs the work of a run on Ray; see `ctray.executors.executor.Executor`."""

    kind: Literal["ray"] = "ray"

    def run_pool(
        self,
        worker: type,
        arguments: tuple[Any, ...],
        items: Iterable[Any],
        config: PoolConfig,
        on_wait: Callable[[str], None] = nobody,
    ) -> Iterator[Any]:
        """Results of a pool of actors."""
        return actors.run_pool(worker, arguments, items, config, on_wait)

    def pool_threads(self, config: PoolConfig) -> int:
        """Threads of one actor."""
        return actors.threads_per_actor(config)

    def train_encoder(
        self,
        training: EncoderTraining,
        on_log: Callable[[Row], None],
        on_step: Callable[[int], None],
        on_wait: Callable[[str], None] = nobody,
    ) -> None:
        """Train on Ray Train."""
        train_encoder(training, on_log, on_step, on_wait)

    def train_slabs(
        self, run: RunFolder, config: RunConfig, records: list[Record], on_event: OnEvent
    ) -> None:
        """Train in an actor."""
        train_slabs(run, config, records, on_event)
