"""The executor of plain processes of this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ctray.config import PoolConfig, RayConfig, RunConfig
from ctray.core.errors import CtrayError
from ctray.executors.local.pool import pool_capacity, run_pool
from ctray.executors.local.self_training import train_slabs
from ctray.executors.local.training import train_encoder
from ctray.executors.progress import Row
from ctray.executors.protocol import Executor
from ctray.executors.threads import local_cpus, pool_threads, training_threads
from ctray.learn.pretext.work import EncoderTraining
from ctray.learn.self_training.work import Record
from ctray.records.events import OnEvent, ignore, nobody
from ctray.records.run_folder import RunFolder


@contextmanager
def session(config: RayConfig, on_note: Callable[[str], None] = nobody) -> Iterator[Executor]:
    """Open the executor. It holds no process between its tasks, so there is nothing to close."""
    yield LocalExecutor(config)


class LocalExecutor:
    """Runs the work of a run in plain processes; see `ctray.executors.protocol.Executor`.

    Parameters
    ----------
    config
        CPUs that the processes may use.
    """

    def __init__(self, config: RayConfig) -> None:
        self._cpus = local_cpus(config)

    def run_pool(
        self,
        worker: type,
        arguments: tuple[Any, ...],
        items: Iterable[Any],
        config: PoolConfig,
        on_wait: Callable[[str], None] = nobody,
    ) -> Iterator[Any]:
        """Yield the results of a pool of processes, which start without waiting."""
        _check_gpus(config.num_gpus, "a process of the pool", "pool.num_gpus")
        return run_pool(worker, arguments, items, config, self._cpus)

    def pool_capacity(self, config: PoolConfig) -> int:
        """Return how many processes fit on this machine."""
        return pool_capacity(config, self._cpus)

    def pool_threads(self, config: PoolConfig) -> int:
        """Return the threads of one process of the pool."""
        return pool_threads(config, self._cpus)

    def train_encoder(
        self,
        training: EncoderTraining,
        on_log: Callable[[Row], None],
        on_step: Callable[[int], None],
        on_wait: Callable[[str], None] = nobody,
    ) -> None:
        """Train in one process."""
        if training.is_needed():
            wanted = training.config.train.num_gpus_per_worker
            _check_gpus(wanted, "training", "train.num_gpus_per_worker")
            threads = training_threads(training.config, self._cpus)
            train_encoder(training, threads, on_log, on_step)

    def train_slabs(
        self, run: RunFolder, config: RunConfig, records: list[Record], on_event: OnEvent
    ) -> None:
        """Train in one process."""
        train_slabs(run, config, records, training_threads(config, self._cpus), on_event)

    def monitor(self, run_url: str) -> OnEvent:
        """Report nothing: a single machine has no monitoring of its own."""
        return ignore


def _check_gpus(wanted: float | None, who: str, setting: str) -> None:
    """Refuse more GPUs than this machine has; None takes what there is."""
    if wanted and wanted > (found := torch.cuda.device_count()):
        raise CtrayError(
            f"{who} needs {wanted:g} GPUs and this machine has {found}; lower {setting}"
        )
