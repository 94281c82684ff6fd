"""Training in a plain process of this machine: one worker, the weights that Ray Train gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing.connection import Connection

import torch

from ctray.config import RunConfig
from ctray.core.errors import StoreUnavailableError, TrainingError
from ctray.executors.local.child import TOLD, ChildDiedError, run_child
from ctray.executors.progress import Row, Seldom
from ctray.learn.prepared_files import ExampleFiles
from ctray.learn.pretext.checkpoint import restore, save_checkpoint
from ctray.learn.pretext.examples import Rows, num_rounds, runs_of_round
from ctray.learn.pretext.training import Trainer, best_device, first_round, train
from ctray.learn.pretext.work import EncoderTraining
from ctray.learn.self_training.work import Record, SelfTraining
from ctray.records.events import OnEvent, training_event
from ctray.records.run_folder import RunFolder

# A training process may die of a moment's lack of memory; it goes on from its checkpoint.
_MAX_FAILURES = 2


def train_encoder(
    training: EncoderTraining,
    threads: int,
    on_log: Callable[[Row], None],
    on_step: Callable[[int], None],
) -> None:
    """Train the encoder in a process of its own; see `ctray.executors.executor.Executor`.

    Raises
    ------
    TrainingError
        If training fails for good, or its process dies again and again.
    """
    config = training.config
    if config.train.num_workers > 1:
        # The workers of Ray Train would share every batch; here one takes all of it.
        one = config.train.model_copy(update={"num_workers": 1})
        training = replace(training, config=config.model_copy(update={"train": one}))

    def attempt() -> None:
        for row in run_child("ctray-pretrain", _train_encoder, (training, threads), 1):
            # Metrics have a loss; what only tells how far training is has none.
            if row.keys() == {"step"}:
                on_step(int(row["step"]))
            else:
                on_log(row)

    _repeatedly(attempt, "training")


def train_slabs(
    run: RunFolder, config: RunConfig, records: list[Record], threads: int, on_event: OnEvent
) -> None:
    """Train the slab network in a process of its own; see `ctray.executors.executor.Executor`."""
    arguments = (run, config, records, threads)

    def attempt() -> None:
        for row in run_child("ctray-self-train", _train_slabs, arguments, 1):
            on_event(training_event("self-train", row, config.self_train.steps))

    _repeatedly(attempt, "self-training")


def _repeatedly(attempt: Callable[[], None], what: str) -> None:
    """Run `attempt`, again where its process died or the store was away."""
    for _ in range(_MAX_FAILURES):
        try:
            return attempt()
        except (ChildDiedError, StoreUnavailableError):
            continue
    try:
        return attempt()
    except ChildDiedError as error:
        raise TrainingError(
            f"the process of {what} died {_MAX_FAILURES + 1} times; the machine is probably out "
            "of memory: lower preprocess.working_size or train.batch_size, or close other programs"
        ) from error


def _train_encoder(connection: Connection, training: EncoderTraining, threads: int) -> None:
    """Body of the process that trains the encoder."""
    torch.set_num_threads(threads)
    config = training.config
    device = torch.device("cpu") if config.train.num_gpus_per_worker == 0 else best_device()
    trainer = Trainer(config, training.side, device=device)
    restore(trainer, training.checkpoint_url)
    seldom = Seldom()

    def tell(row: Row) -> None:
        connection.send((TOLD, row))

    def tell_step(step: int) -> None:
        if seldom():
            tell({"step": float(step)})

    train(
        trainer,
        _rounds(training, first_round(trainer)),
        validation=training.validation(),
        on_log=tell,
        on_step=tell_step,
        on_checkpoint=lambda trained: _save(training.checkpoint_url, trained),
    )


def _save(url: str, trainer: Trainer) -> None:
    save_checkpoint(url, trainer)


def _rounds(training: EncoderTraining, first: int) -> Iterator[Rows]:
    """Rounds of examples; a thread cuts the next one while training works on this one."""
    config = training.config
    files = ExampleFiles(config, list(training.training_urls), training.side)
    numbers = range(first, num_rounds(config))
    with ThreadPoolExecutor(1, "ctray-reader") as reader:
        pending = [reader.submit(files.rows, runs_of_round(config.train, n)) for n in numbers[:1]]
        for number in numbers:
            rows = pending.pop().result()
            if number + 1 in numbers:
                ahead = runs_of_round(config.train, number + 1)
                pending.append(reader.submit(files.rows, ahead))
            yield rows


def _train_slabs(
    connection: Connection, run: RunFolder, config: RunConfig, records: list[Record], threads: int
) -> None:
    """Body of the process that trains the slab network."""
    training = SelfTraining(run, config, records, threads)
    finished = False
    while not finished:
        row, finished = training.advance()
        connection.send((TOLD, row))
    training.save()
