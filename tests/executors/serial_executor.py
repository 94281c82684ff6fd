"""An executor in this very process, to debug the work of a run: the example in CONTRIBUTING."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ctray.config import PoolConfig, RayConfig, RunConfig
from ctray.core.errors import CtrayError
from ctray.executors.progress import Row
from ctray.executors.protocol import Executor
from ctray.executors.threads import local_cpus, training_threads
from ctray.learn.prepared_files import ExampleFiles
from ctray.learn.pretext.checkpoint import restore, save_checkpoint
from ctray.learn.pretext.examples import num_rounds, runs_of_round
from ctray.learn.pretext.training import Trainer, best_device, first_round, train
from ctray.learn.pretext.work import EncoderTraining
from ctray.learn.self_training.work import Record, SelfTraining
from ctray.records.events import OnEvent, ignore, nobody, training_event
from ctray.records.run_folder import RunFolder


@contextmanager
def session(config: RayConfig, on_note: Callable[[str], None] = nobody) -> Iterator[Executor]:
    yield SerialExecutor(local_cpus(config))


class SerialExecutor:
    def __init__(self, cpus: int) -> None:
        self._cpus = cpus

    def run_pool(
        self,
        worker: type,
        arguments: tuple[Any, ...],
        items: Iterable[Any],
        config: PoolConfig,
        on_wait: Callable[[str], None] = nobody,
    ) -> Iterator[Any]:
        made = None
        for item in items:
            made = made or worker(*arguments)
            result = made(item)
            if isinstance(result, CtrayError):
                raise result
            yield result

    def pool_capacity(self, config: PoolConfig) -> int:
        return 1

    def pool_threads(self, config: PoolConfig) -> int:
        return self._cpus

    def train_encoder(
        self,
        training: EncoderTraining,
        on_log: Callable[[Row], None],
        on_step: Callable[[int], None],
        on_wait: Callable[[str], None] = nobody,
    ) -> None:
        if not training.is_needed():
            return
        config = training.config
        torch.set_num_threads(training_threads(config, self._cpus))
        trainer = Trainer(config, training.side, device=best_device())
        restore(trainer, training.checkpoint_url)
        files = ExampleFiles(config, list(training.training_urls), training.side)
        numbers = range(first_round(trainer), num_rounds(config))

        def save(trained: Trainer) -> None:
            save_checkpoint(training.checkpoint_url, trained)

        train(
            trainer,
            (files.rows(runs_of_round(config.train, n)) for n in numbers),
            validation=training.validation(),
            on_log=on_log,
            on_step=on_step,
            on_checkpoint=lambda trained: (
                save_checkpoint(training.checkpoint_url, trained) and None
            ),
        )

    def train_slabs(
        self, run: RunFolder, config: RunConfig, records: list[Record], on_event: OnEvent
    ) -> None:
        training = SelfTraining(run, config, records, training_threads(config, self._cpus))
        finished = False
        while not finished:
            row, finished = training.advance()
            on_event(training_event("self-train", row, config.self_train.steps))
        training.save()

    def monitor(self, run_url: str) -> OnEvent:
        return ignore
