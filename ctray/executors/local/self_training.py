"""Self-training in a plain process of this machine."""

from __future__ import annotations

from multiprocessing.connection import Connection

from ctray.config import RunConfig
from ctray.executors.local.child import TOLD, run_child
from ctray.executors.local.training import retried
from ctray.learn.self_training.work import Record, SelfTraining
from ctray.records.events import OnEvent, training_event
from ctray.records.run_folder import RunFolder


def train_slabs(
    run: RunFolder, config: RunConfig, records: list[Record], threads: int, on_event: OnEvent
) -> None:
    """Train the self-trained network in a process; see `ctray.executors.protocol.Executor`."""
    arguments = (run, config, records, threads)

    def attempt() -> None:
        for row in run_child("ctray-self-train", _train, arguments, 1):
            on_event(training_event("self-train", row, config.self_train.steps))

    retried(attempt, "self-training")


def _train(
    connection: Connection, run: RunFolder, config: RunConfig, records: list[Record], threads: int
) -> None:
    """Body of the training process."""
    training = SelfTraining(run, config, records, threads)
    finished = False
    while not finished:
        row, finished = training.advance()
        connection.send((TOLD, row))
    training.save()
