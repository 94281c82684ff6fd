"""The training loop itself: a step, its learning rate, its metrics. Knows nothing of Ray.

Legend of tensor names: B pairs of slices, H = W pixels of the canvas, K classes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ctray.config import RunConfig
from ctray.errors import TrainingError
from ctray.preprocess.prepare import Prepared
from ctray.pretext import examples
from ctray.pretext.encoder import RotationModel, reseed_dropout
from ctray.pretext.rotation import (
    circular_mask,
    class_angles,
    make_views,
    rotation_loss,
    standardise,
)

Rows = dict[str, npt.NDArray[Any]]


def best_device() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def build_model(config: RunConfig) -> RotationModel:
    """Model with initial weights that `config.train.seed` alone decides."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        return RotationModel(config.encoder, config.rotation)


def on_device(model: RotationModel, device: torch.device) -> RotationModel:
    """Model moved to `device`, its weights laid out channels last, as convolutions like it."""
    # The stub of Module.to lacks the overload with a memory format and a device.
    return cast(RotationModel, cast(Any, model).to(device, memory_format=torch.channels_last))


def learning_rate(config: RunConfig, step: int) -> float:
    """Learning rate of `step`: linear warm-up, then half a cosine down to 0."""
    train = config.train
    warmup = train.warmup * train.steps
    if step < warmup:
        return train.learning_rate * (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1.0, train.steps - warmup)
    return train.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def example_rows(prepared: Prepared, config: RunConfig, run: int, side: int) -> Rows:
    """All examples of run number `run`, cut from its volume.

    Parameters
    ----------
    prepared
        The volume that `examples.volume_of_run` names.
    config
        Seed, run length, rotation task.
    run
        Number of the run.
    side
        Side of the square canvas, pixels.

    Returns
    -------
    Rows
        `slice` and `twin` (N, side, side) uint8, `label` (N,) int64, `orientation_deg`, `mean`,
        `std` (N,) float32; N is `config.train.run_length`.
    """
    chosen = examples.run_examples(
        config.train.seed, run, prepared.shape, config.rotation, config.train
    )
    count = len(chosen)
    return {
        "slice": np.stack([prepared.slice(e.axis, e.index, side, e.index) for e in chosen]),
        "twin": np.stack([prepared.slice(e.axis, e.twin, side, e.twin + 7) for e in chosen]),
        "label": np.array([e.label for e in chosen], dtype=np.int64),
        "orientation_deg": np.array([e.orientation_deg for e in chosen], dtype=np.float32),
        "mean": np.full(count, prepared.mean, dtype=np.float32),
        "std": np.full(count, prepared.std, dtype=np.float32),
    }


def local_rounds(volumes: list[Prepared], config: RunConfig, side: int) -> Callable[[int], Rows]:
    """Rounds of examples from volumes in memory, for notebooks and tests."""

    def load(round_index: int) -> Rows:
        runs = [
            example_rows(
                volumes[examples.volume_of_run(config.train.seed, run, len(volumes))],
                config,
                run,
                side,
            )
            for run in examples.runs_of_round(config.train, round_index)
        ]
        return {key: np.concatenate([r[key] for r in runs]) for key in runs[0]}

    return load


@dataclass
class Metrics:
    """Rows of training metrics, one every `log_every` steps."""

    rows: list[dict[str, float]] = field(default_factory=list)

    def truncate(self, step: int) -> None:
        """Forget what came after `step`, when training resumes from there."""
        self.rows = [row for row in self.rows if row["step"] <= step]


class Trainer:
    """Model, optimizer and step counter; one call of `train_step` per batch.

    Parameters
    ----------
    config
        Run configuration.
    side
        Side of the square canvas, pixels.
    device
        Where the views are made and the model runs.
    rank
        Number of this worker, so that workers draw different dropout masks.
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
        self.metrics = Metrics()
        # What the step runs: the model itself, or its data-parallel wrapper.
        self._module: nn.Module = wrap(self.model) if wrap else self.model
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=config.train.learning_rate,
            weight_decay=config.train.weight_decay,
        )
        self._mask_HW = circular_mask(side, self.device)
        self._angles_K = class_angles(config.rotation, self.device).float()
        self._sums = torch.zeros(3, device=self.device)
        self._since = time.monotonic()

    def train_step(self, rows: Rows) -> None:
        """One optimizer step on a batch of rows, see `example_rows`."""
        rate = learning_rate(self.config, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        reseed_dropout(self.model, (self.config.train.seed * 2**20 + self.step) * 64 + self.rank)
        self._module.train()
        batch = {k: torch.from_numpy(v).to(self.device, non_blocking=True) for k, v in rows.items()}
        a_BCHW, b_BCHW, label_B = self._views(batch)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            logits_BK = self._module(a_BCHW, b_BCHW)
        loss = rotation_loss(logits_BK, label_B)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.optimizer.step()
        self.step += 1
        correct = (logits_BK.argmax(1) == label_B).float().mean()
        self._sums += torch.stack([loss.detach(), correct, torch.ones_like(loss)])
        if self.step % self.config.train.log_every == 0 or self.step == self.config.train.steps:
            self._log(rate, len(label_B))

    def _views(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        first = standardise(batch["slice"], batch["mean"], batch["std"])
        second = standardise(batch["twin"], batch["mean"], batch["std"])
        angle = batch["orientation_deg"]
        relative = self._angles_K[batch["label"]]
        a_BCHW = make_views(first, angle, self._mask_HW)
        b_BCHW = make_views(second, angle + relative, self._mask_HW)
        layout = torch.channels_last
        return (
            a_BCHW.contiguous(memory_format=layout),
            b_BCHW.contiguous(memory_format=layout),
            batch["label"],
        )

    def check_loss(self) -> None:
        """Raise `TrainingError` if a loss since the last row of metrics was not finite."""
        loss = float(self._sums[0])
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss is {loss} at step {self.step}; lower train.learning_rate "
                f"({self.config.train.learning_rate})"
            )

    def _log(self, rate: float, pairs: int) -> None:
        self.check_loss()
        loss, accuracy, count = self._sums.tolist()
        self._sums.zero_()
        now = time.monotonic()
        self.metrics.rows.append(
            {
                "step": float(self.step),
                "loss": loss / count,
                "accuracy": accuracy / count,
                "learning_rate": rate,
                "slices_per_second": 2 * pairs * count / max(now - self._since, 1e-9),
            }
        )
        self._since = now


def train(
    trainer: Trainer,
    rounds: Iterable[Rows],
    *,
    on_log: Callable[[dict[str, float]], None] = lambda row: None,
    on_checkpoint: Callable[[Trainer], None] = lambda trainer: None,
) -> None:
    """Train from the trainer's step to the configured last one.

    Parameters
    ----------
    trainer
        Fresh, or restored from a checkpoint.
    rounds
        Rounds of examples, the first one being round `first_round(trainer)`.
    on_log
        Called with every new row of metrics.
    on_checkpoint
        Called every `checkpoint_every` steps and after the last.

    Raises
    ------
    TrainingError
        If the loss is not finite, or the rounds end early.
    """
    config = trainer.config.train
    for batch in _batches(trainer, rounds):
        logged = len(trainer.metrics.rows)
        trainer.train_step(batch)
        for row in trainer.metrics.rows[logged:]:
            on_log(row)
        if trainer.step % config.checkpoint_every == 0 or trainer.step == config.steps:
            # A checkpoint of broken weights would take the place of the last good one.
            trainer.check_loss()
            on_checkpoint(trainer)
        if trainer.step >= config.steps:
            return
    if trainer.step < config.steps:
        raise TrainingError(
            f"the examples ended at step {trainer.step} of {config.steps}; a reader stopped early"
        )


def first_round(trainer: Trainer) -> int:
    """Round that the trainer's next step takes its examples from."""
    return trainer.step // examples.steps_per_round(trainer.config.train)


def num_rounds(config: RunConfig) -> int:
    """Rounds that the whole training reads."""
    return -(-config.train.steps // examples.steps_per_round(config.train))


def _batches(trainer: Trainer, rounds: Iterable[Rows]) -> Iterator[Rows]:
    config = trainer.config.train
    if trainer.step >= config.steps:
        return
    skip = trainer.step % examples.steps_per_round(config)
    for rows in rounds:
        num_runs = len(rows["label"]) // config.run_length
        for inner in range(skip, examples.steps_per_round(config)):
            picked = list(examples.batch_rows(config, inner, num_runs))
            yield {key: value[picked] for key, value in rows.items()}
        skip = 0
