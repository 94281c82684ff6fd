"""The executor of a Ray session, on this machine or on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from ctray.config import PoolConfig, RayConfig, RunConfig
from ctray.executors.progress import Row
from ctray.executors.protocol import Executor
from ctray.executors.ray import pool
from ctray.executors.ray.metrics import RunMetrics
from ctray.executors.ray.self_training import train_slabs
from ctray.executors.ray.session import ray_session
from ctray.executors.ray.training import train_encoder
from ctray.learn.pretext.work import EncoderTraining
from ctray.learn.self_training.work import Record
from ctray.records.events import OnEvent, nobody
from ctray.records.run_folder import RunFolder


@contextmanager
def session(config: RayConfig, on_note: Callable[[str], None] = nobody) -> Iterator[Executor]:
    """Open the executor inside a Ray session; see `ctray.executors.ray.session.ray_session`."""
    with ray_session(config, on_note):
        yield RayExecutor()


class RayExecutor:
    """Runs the work of a run in the Ray session that is running.

    See `ctray.executors.protocol.Executor`.
    """

    def run_pool(
        self,
        worker: type,
        arguments: tuple[Any, ...],
        items: Iterable[Any],
        config: PoolConfig,
        on_wait: Callable[[str], None] = nobody,
    ) -> Iterator[Any]:
        """Yield the results of a pool of actors."""
        return pool.run_pool(worker, arguments, items, config, on_wait)

    def pool_capacity(self, config: PoolConfig) -> int:
        """Return how many actors fit into the session, or `max_size` if it can grow."""
        return pool.pool_capacity(config)

    def pool_threads(self, config: PoolConfig) -> int:
        """Return the threads of one actor."""
        return pool.threads_per_actor(config)

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

    def monitor(self, run_url: str) -> OnEvent:
        """Report to Prometheus, through the exporter that every node of a cluster has."""
        return RunMetrics(run_url).event
