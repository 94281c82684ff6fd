"""Training of the encoder in a plain process of this machine, with the same result as Ray Train."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing.connection import Connection

import torch

from ctray.core.errors import StoreUnavailableError, TrainingError
from ctray.executors.local.child import TOLD, ChildDiedError, run_child
from ctray.executors.progress import Row, Throttle
from ctray.learn.prepared_files import ExampleFiles
from ctray.learn.pretext.checkpoint import restore, save_checkpoint
from ctray.learn.pretext.examples import Rows, num_rounds, runs_of_round
from ctray.learn.pretext.training import Trainer, best_device, first_round, train
from ctray.learn.pretext.work import EncoderTraining

# A training process may die of a brief lack of memory. The next one resumes from the checkpoint.
_MAX_FAILURES = 2


def train_encoder(
    training: EncoderTraining,
    threads: int,
    on_log: Callable[[Row], None],
    on_step: Callable[[int], None],
) -> None:
    """Train the encoder in a process; see `ctray.executors.protocol.Executor`.

    Raises
    ------
    TrainingError
        If training fails for good, or its process dies three times.
    """
    config = training.config
    if config.train.num_workers > 1:
        # The workers of Ray Train share every batch; here one worker takes all of it.
        one = config.train.model_copy(update={"num_workers": 1})
        training = replace(training, config=config.model_copy(update={"train": one}))

    def attempt() -> None:
        for row in run_child("ctray-pretrain", _train, (training, threads), 1):
            # A row of metrics has a loss; a bare step is progress alone.
            if row.keys() == {"step"}:
                on_step(int(row["step"]))
            else:
                on_log(row)

    retried(attempt, "training")


def retried(attempt: Callable[[], None], what: str) -> None:
    """Run `attempt`, and again if its process dies or the store cannot be reached.

    Raises
    ------
    TrainingError
        If the process dies three times; `what` names it.
    """
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


def _train(connection: Connection, training: EncoderTraining, threads: int) -> None:
    """Body of the process that trains the encoder."""
    torch.set_num_threads(threads)
    config = training.config
    device = torch.device("cpu") if config.train.num_gpus_per_worker == 0 else best_device()
    trainer = Trainer(config, training.side, device=device)
    restore(trainer, training.checkpoint_url)
    is_due = Throttle()

    def tell(row: Row) -> None:
        connection.send((TOLD, row))

    def tell_step(step: int) -> None:
        if is_due():
            tell({"step": float(step)})

    def save(trained: Trainer) -> None:
        save_checkpoint(training.checkpoint_url, trained)

    train(
        trainer,
        _rounds(training, first_round(trainer)),
        validation=training.validation(),
        on_log=tell,
        on_step=tell_step,
        on_checkpoint=save,
    )


def _rounds(training: EncoderTraining, first: int) -> Iterator[Rows]:
    """Yield rounds of examples; a thread cuts the next one while training uses this one."""
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
