"""The training loop: steps, learning rate and metrics. Independent of Ray."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ctray.config import RunConfig
from ctray.core.errors import TrainingError
from ctray.learn.pretext import examples
from ctray.learn.pretext.encoder import on_device, reseed_dropout
from ctray.learn.pretext.examples import Rows
from ctray.learn.pretext.rows import example_rows
from ctray.learn.pretext.tasks import build_model, make_task
from ctray.preprocess.prepare import Prepared

# Number of the first validation example, beyond all training examples.
_VALIDATION_FIRST = 2**40
_VALIDATION_EXAMPLES = 256
_VALIDATION_BYTES = 2**28
_VALIDATION_VOLUMES = 16


def best_device() -> torch.device:
    """The GPU if there is one, otherwise the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def learning_rate(config: RunConfig, step: int) -> float:
    """Learning rate of `step`, see `schedule`."""
    train = config.train
    return train.learning_rate * schedule(step, train.steps, train.warmup)


def schedule(step: int, steps: int, warmup_fraction: float) -> float:
    """Fraction of the peak learning rate: linear warm-up, then half a cosine to 0."""
    warmup = warmup_fraction * steps
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1.0, steps - warmup)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def validation_rows(
    load: Callable[[int], Prepared], num_volumes: int, config: RunConfig, side: int
) -> Rows | None:
    """Examples for validation during training; None if there is no volume.

    Parameters
    ----------
    load
        Returns a volume by its number, 0 to `num_volumes` - 1. It is called at most once per
        volume, so that only one volume is in memory.
    num_volumes
        Number of available volumes. The examples come from the first of them.
    config, side
        The same as in training.
    """
    if num_volumes == 0:
        return None
    slices = make_task(config, side, torch.device("cpu")).slices_per_example
    total = max(1, min(_VALIDATION_EXAMPLES, _VALIDATION_BYTES // (slices * side**2)))
    used = min(num_volumes, total, _VALIDATION_VOLUMES)
    parts = []
    for index in range(used):
        count = total // used + (index < total % used)
        first = _VALIDATION_FIRST + index * _VALIDATION_EXAMPLES
        parts.append(example_rows(load(index), config, range(first, first + count), side))
    return _joined(parts)


def _joined(parts: Sequence[Rows]) -> Rows:
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def local_rounds(volumes: list[Prepared], config: RunConfig, side: int) -> Callable[[int], Rows]:
    """Function that makes rounds of examples from volumes in memory, for notebooks and tests."""

    def load(round_index: int) -> Rows:
        parts = []
        for run in examples.runs_of_round(config.train, round_index):
            volume = volumes[examples.volume_of_run(config.train.seed, run, len(volumes))]
            numbers = examples.examples_of_run(run, config.train)
            parts.append(example_rows(volume, config, numbers, side))
        return _joined(parts)

    return load


class Trainer:
    """Model, optimizer and step counter; one call of `train_step` per batch.

    Parameters
    ----------
    config
        Run configuration.
    side
        Side of the square canvas, pixels.
    device
        Device for the views and the model.
    rank
        Number of this worker. Workers with different ranks draw different dropout masks.
    """

    def __init__(
        self,
        config: RunConfig,
        side: int,
        *,
        device: torch.device | None = None,
        rank: int = 0,
        wrap: Callable[[nn.Module], nn.Module] | None = None,
    ) -> None:
        self.config = config
        self.side = side
        self.rank = rank
        self.device = device or best_device()
        self.model = on_device(build_model(config), self.device)
        self.step = 0
        # One row every `log_every` steps.
        self.metrics: list[dict[str, float]] = []
        # The model itself, or its data-parallel wrapper.
        self._module: nn.Module = wrap(self.model) if wrap else self.model
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=config.train.learning_rate,
            weight_decay=config.train.weight_decay,
        )
        self._task = make_task(config, side, self.device)
        self._plain_task = make_task(config, side, self.device, augment=False)
        # Loss, the task's own values, and the number of steps.
        self._sums = torch.zeros(2 + len(self._task.metrics), device=self.device)
        self._since = time.monotonic()

    @property
    def slices_per_example(self) -> int:
        """Number of slices that the network sees per example."""
        return self._task.slices_per_example

    def train_step(self, rows: Rows) -> None:
        """One optimizer step on a batch of rows, see `ctray.learn.pretext.rows.example_rows`."""
        rate = learning_rate(self.config, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        seed = (self.config.train.seed * 2**20 + self.step) * 64 + self.rank
        reseed_dropout(self.model, seed)
        rng = torch.Generator(self.device).manual_seed(seed % 2**63)
        self._module.train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            loss, values = self._task.loss(self._module, self._on_device(rows), rng)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.optimizer.step()
        self.step += 1
        self._sums += torch.cat([loss.detach()[None], values.detach(), torch.ones_like(loss)[None]])
        if self.step % self.config.train.log_every == 0 or self.step == self.config.train.steps:
            self._log(rate, len(rows["mean"]))

    @torch.inference_mode()
    def validate(self, rows: Rows) -> dict[str, float]:
        """Loss and metrics, by name, on rows without augmentation. Does not change the model."""
        self.model.eval()
        count, size = len(rows["mean"]), self.config.train.batch_size
        rng = torch.Generator(self.device).manual_seed(0)
        total = torch.zeros(1 + len(self._task.metrics), device=self.device)
        for start in range(0, count, size):
            part = {key: value[start : start + size] for key, value in rows.items()}
            loss, values = self._plain_task.loss(self.model, self._on_device(part), rng)
            total += torch.cat([loss[None], values]) * len(part["mean"])
        return dict(zip(("loss", *self._task.metrics), (total / count).tolist(), strict=True))

    def _on_device(self, rows: Rows) -> dict[str, Tensor]:
        return {k: torch.from_numpy(v).to(self.device, non_blocking=True) for k, v in rows.items()}

    def check_loss(self) -> None:
        """Raise `TrainingError` if a loss since the last row of metrics was not finite."""
        loss = float(self._sums[0])
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss is {loss} at step {self.step}; lower train.learning_rate "
                f"({self.config.train.learning_rate})"
            )

    def _log(self, rate: float, num_examples: int) -> None:
        self.check_loss()
        *sums, count = self._sums.tolist()
        self._sums.zero_()
        slices = self._task.slices_per_example * num_examples * count
        now = time.monotonic()
        self.metrics.append(
            {
                "step": float(self.step),
                **dict(zip(("loss", *self._task.metrics), (v / count for v in sums), strict=True)),
                "learning_rate": rate,
                "slices_per_second": slices / max(now - self._since, 1e-9),
            }
        )
        self._since = now


def train(
    trainer: Trainer,
    rounds: Iterable[Rows],
    *,
    validation: Mapping[str, Rows | None] | None = None,
    on_log: Callable[[dict[str, float]], None] = lambda row: None,
    on_step: Callable[[int], None] = lambda step: None,
    on_checkpoint: Callable[[Trainer], None] = lambda trainer: None,
) -> None:
    """Train from the trainer's step to the last configured step.

    Parameters
    ----------
    trainer
        A new trainer, or one restored from a checkpoint.
    rounds
        Rounds of examples, starting with round `first_round(trainer)`.
    validation
        Rows for validation at every checkpoint, by the prefix of their metrics' names.
    on_log
        Called with every new row of metrics.
    on_step
        Called after every step with the number of completed steps.
    on_checkpoint
        Called every `checkpoint_every` steps and after the last step.

    Raises
    ------
    TrainingError
        If the loss is not finite, or the rounds end early.
    """
    config = trainer.config.train
    for batch in _batches(trainer, rounds):
        logged = len(trainer.metrics)
        trainer.train_step(batch)
        on_step(trainer.step)
        due = trainer.step % config.checkpoint_every == 0 or trainer.step == config.steps
        if due:
            # A checkpoint of broken weights would replace the last good one.
            trainer.check_loss()
            _validate(trainer, validation or {})
        for row in trainer.metrics[logged:]:
            on_log(row)
        if due:
            on_checkpoint(trainer)
        if trainer.step >= config.steps:
            return
    if trainer.step < config.steps:
        raise TrainingError(
            f"the examples ended at step {trainer.step} of {config.steps}; a reader stopped early"
        )


def _validate(trainer: Trainer, validation: Mapping[str, Rows | None]) -> None:
    """Add the metrics of `validation` to the row of this step."""
    found = {
        f"{prefix}_{name}": value
        for prefix, rows in validation.items()
        if rows is not None
        for name, value in trainer.validate(rows).items()
    }
    if not found:
        return
    rows = trainer.metrics
    if not rows or rows[-1]["step"] != trainer.step:
        rows.append({"step": float(trainer.step)})
    rows[-1].update(found)


def first_round(trainer: Trainer) -> int:
    """Round that contains the examples of the trainer's next step."""
    return trainer.step // examples.steps_per_round(trainer.config.train)


def _batches(trainer: Trainer, rounds: Iterable[Rows]) -> Iterator[Rows]:
    config = trainer.config.train
    if trainer.step >= config.steps:
        return
    skip = trainer.step % examples.steps_per_round(config)
    for rows in rounds:
        num_runs = len(rows["mean"]) // config.run_length
        for inner in range(skip, examples.steps_per_round(config)):
            picked = list(examples.batch_rows(config, inner, num_runs))
            yield {key: value[picked] for key, value in rows.items()}
        skip = 0
