"""What an executor does: the work of a run, wherever its processes are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from ctray.config import PoolConfig, RunConfig
from ctray.executors.progress import Row
from ctray.learn.pretext.work import EncoderTraining
from ctray.learn.self_training.work import Record
from ctray.records.events import OnEvent, nobody
from ctray.records.run_folder import RunFolder


class Executor(Protocol):
    """Runs the three kinds of work of a run: a pool over volumes, and the two trainings.

    Boxes and crops do not depend on the executor.
    """

    def run_pool(
        self,
        worker: type,
        arguments: tuple[Any, ...],
        items: Iterable[Any],
        config: PoolConfig,
        on_wait: Callable[[str], None] = nobody,
    ) -> Iterator[Any]:
        """Yield the results of `worker` over `items`, in the order in which they are done.

        Items are taken one by one as processes become free. An item whose process dies twice gives
        no result; the others go on.

        Parameters
        ----------
        worker
            Class, importable by name. Every process makes one with `arguments` and calls it with
            one item at a time.
        arguments
            Arguments of the class; small.
        items
            Small records. An empty `items` starts no process.
        config
            Limits of the pool; CPUs and GPUs of each process.
        on_wait
            Called with a line now and then while no process can start.

        Raises
        ------
        CtrayError
            If no process can start, or if the worker returns or raises a `CtrayError`.
        """

    def pool_capacity(self, config: PoolConfig) -> int:
        """Return how many processes of the pool fit at once; more than `max_size` is possible."""

    def pool_threads(self, config: PoolConfig) -> int:
        """Return the number of threads that one process of the pool computes with."""

    def train_encoder(
        self,
        training: EncoderTraining,
        on_log: Callable[[Row], None],
        on_step: Callable[[int], None],
        on_wait: Callable[[str], None] = nobody,
    ) -> None:
        """Train to the configured last step, from the checkpoint if there is one.

        Parameters
        ----------
        training
            Settings, volumes and checkpoint. Every process of the executor can reach them.
        on_log
            Called with every row of metrics.
        on_step
            Called every few seconds with the number of finished steps.
        on_wait
            Called with a line now and then while training cannot start.

        Raises
        ------
        TrainingError
            If training fails for good, or needs more than the executor has.
        CheckpointError
            If the checkpoint belongs to another configuration.
        """

    def train_slabs(
        self, run: RunFolder, config: RunConfig, records: list[Record], on_event: OnEvent
    ) -> None:
        """Train the self-trained network from the boxes in `records` and save it in `run`.

        Raises
        ------
        TrainingError
            If training fails for good, or needs more than the executor has.
        """

    def monitor(self, run_url: str) -> OnEvent:
        """Return a function that reports a run's events to the executor's own monitoring."""
