"""The training loop: repeatable to the bit, resumable at any step, and it learns."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from ctray.config import RunConfig
from ctray.core.errors import TrainingError
from ctray.learn.pretext.checkpoint import read_metrics, restore, save_checkpoint, weights_digest
from ctray.learn.pretext.examples import Rows, num_rounds
from ctray.learn.pretext.tasks import build_model
from ctray.learn.pretext.training import (
    Trainer,
    first_round,
    learning_rate,
    local_rounds,
    train,
)
from ctray.preprocess.prepare import Prepared

CPU = torch.device("cpu")
ConfigOf = Callable[..., RunConfig]


def trainer_of(config: RunConfig, volumes: list[Prepared]) -> Trainer:
    return Trainer(config, max(volumes[0].shape), device=CPU)


def rounds_for(trainer: Trainer, volumes: list[Prepared]) -> Iterator[Rows]:
    load = local_rounds(volumes, trainer.config, trainer.side)
    return (load(i) for i in range(first_round(trainer), num_rounds(trainer.config)))


def run(config: RunConfig, volumes: list[Prepared], **calls: Any) -> Trainer:
    trainer = trainer_of(config, volumes)
    train(trainer, rounds_for(trainer, volumes), **calls)
    return trainer


def digest(trainer: Trainer) -> str:
    return weights_digest(trainer.model.state_dict())


class StopTrainingError(Exception):
    """Ends a training in its middle, as a kill would."""


def stop_at(step: int) -> Callable[[Trainer], None]:
    def check(trainer: Trainer) -> None:
        if trainer.step == step:
            raise StopTrainingError

    return check


# --- the same again -------------------------------------------------------------------------


def test_same_seed_gives_the_same_weights(
    config_of: ConfigOf, small_volumes: list[Prepared]
) -> None:
    config = config_of(encoder={"dropout": 0.3})
    first = run(config, small_volumes)
    torch.manual_seed(99)  # the global generator must not matter
    torch.rand(7)
    assert digest(run(config, small_volumes)) == digest(first)
    assert first.step == config.train.steps


def test_drift_is_added_in_training_alone(
    config_of: ConfigOf, small_volumes: list[Prepared]
) -> None:
    none, some = (config_of(rotation={"drift": drift}) for drift in (0.0, 0.5))
    trainers = [trainer_of(config, small_volumes) for config in (none, some)]
    rows = next(rounds_for(trainers[0], small_volumes))
    # Of the same weights, validation says the same.
    first, second = (trainer.validate(rows) for trainer in trainers)
    assert first == second
    assert digest(run(none, small_volumes)) != digest(run(some, small_volumes))


def test_global_generator_is_left_alone(config_of: ConfigOf, small_volumes: list[Prepared]) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run(config_of(train={"steps": 2}), small_volumes)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("seed", [0, 1, 2**40, 2**63 - 1])
def test_seed_decides_the_weights(
    config_of: ConfigOf, small_volumes: list[Prepared], seed: int
) -> None:
    config = config_of(train={"seed": seed, "steps": 2})
    again = digest(run(config, small_volumes))
    assert digest(run(config, small_volumes)) == again
    assert again != digest(run(config_of(train={"seed": 17, "steps": 2}), small_volumes))


def test_initial_weights_depend_on_the_seed_alone(config_of: ConfigOf) -> None:
    one, again, other = (
        weights_digest(build_model(config_of(train={"seed": s})).state_dict()) for s in (1, 1, 2)
    )
    assert one == again != other


# A round has 3 steps: 3 and 6 are at the seam of two rounds, the others within one.
@pytest.mark.parametrize("stop", [1, 3, 4, 5, 6, 8])
def test_resumed_training_gives_the_same_bits(
    config_of: ConfigOf, small_volumes: list[Prepared], tmp_path: Any, stop: int
) -> None:
    config = config_of(encoder={"dropout": 0.3}, train={"checkpoint_every": 1, "log_every": 1})
    whole = run(config, small_volumes)
    url = str(tmp_path / "checkpoint")

    def save_until(trainer: Trainer) -> None:
        save_checkpoint(url, trainer)
        stop_at(stop)(trainer)

    with pytest.raises(StopTrainingError):
        run(config, small_volumes, on_checkpoint=save_until)
    resumed = trainer_of(config, small_volumes)
    assert restore(resumed, url)
    assert resumed.step == stop
    train(resumed, rounds_for(resumed, small_volumes))
    assert resumed.step == config.train.steps
    assert digest(resumed) == digest(whole)
    ours, theirs = resumed.optimizer.state_dict()["state"], whole.optimizer.state_dict()["state"]
    assert ours.keys() == theirs.keys()
    for index, state in theirs.items():
        for name, value in state.items():
            assert torch.equal(ours[index][name], value), (index, name)
    for key in ("step", "loss", "accuracy", "learning_rate"):
        assert [r[key] for r in resumed.metrics] == [r[key] for r in whole.metrics], key


def test_resuming_a_finished_training_does_nothing(
    config_of: ConfigOf, small_volumes: list[Prepared], tmp_path: Any
) -> None:
    url = str(tmp_path / "checkpoint")
    config = config_of()
    before = save_checkpoint(url, run(config, small_volumes))
    again = trainer_of(config, small_volumes)
    restore(again, url)
    train(again, iter(()), on_checkpoint=lambda _: pytest.fail("nothing was to be done"))
    assert digest(again) == before


# --- it learns ------------------------------------------------------------------------------


def test_loss_falls_on_easy_phantoms(trained_url: str) -> None:
    rows = read_metrics(trained_url)
    chance = math.log(3)
    assert rows[0]["loss"] == pytest.approx(chance, abs=0.15)
    assert rows[-1]["loss"] < 0.75 * chance
    assert rows[-1]["accuracy"] > 0.5
    assert all(row["slices_per_second"] > 0 for row in rows)


def test_batch_of_empty_volumes_cannot_be_learned(config_of: ConfigOf) -> None:
    """Noise alone has no orientation: what is learned from it would be a leak."""
    from ctray.preprocess.prepare import prepare

    rng = np.random.default_rng(0)
    config = config_of(
        encoder={"widths": [8, 12, 16], "pool_grid": 4, "embedding_dim": 16},
        train={"steps": 120, "log_every": 60, "batch_size": 24, "checkpoint_every": 1000},
    )
    volumes = [
        prepare(rng.normal(100, 10, (24, 24, 24)), (1, 1, 1), config.preprocess) for _ in range(4)
    ]
    trained = run(config, volumes)
    # 60 x 24 pairs with chance 1/3: spread 0.0124, so this is five spreads.
    assert trained.metrics[-1]["accuracy"] < 1 / 3 + 0.062


# --- learning rate, log, checkpoints --------------------------------------------------------


def test_learning_rate_rises_then_falls_to_nothing(config_of: ConfigOf) -> None:
    config = config_of(train={"steps": 200, "warmup": 0.1, "learning_rate": 0.5})
    rates = [learning_rate(config, step) for step in range(201)]
    top = rates.index(max(rates))
    assert top == 20
    assert rates[top] == 0.5
    assert 0 < rates[0] < 0.05
    assert all(a < b for a, b in pairwise(rates[: top + 1]))
    assert all(a > b for a, b in pairwise(rates[top:]))
    assert rates[110] == pytest.approx(0.25)  # half way down the cosine
    assert rates[200] == pytest.approx(0, abs=1e-12)


def test_learning_rate_without_warm_up_begins_at_its_peak(config_of: ConfigOf) -> None:
    config = config_of(train={"warmup": 0.0, "learning_rate": 0.5})
    assert learning_rate(config, 0) == 0.5


def test_rows_and_checkpoints_come_when_asked_for(
    config_of: ConfigOf, small_volumes: list[Prepared]
) -> None:
    config = config_of(train={"steps": 11, "log_every": 4, "checkpoint_every": 5})
    logged: list[float] = []
    saved: list[int] = []
    run(
        config,
        small_volumes,
        on_log=lambda row: logged.append(row["step"]),
        on_checkpoint=lambda trainer: saved.append(trainer.step),
    )
    assert logged == [4, 8, 11]
    assert saved == [5, 10, 11]


def test_logged_loss_is_the_mean_over_its_steps(
    config_of: ConfigOf, small_volumes: list[Prepared]
) -> None:
    each = run(config_of(train={"log_every": 1}), small_volumes).metrics
    every = run(config_of(train={"log_every": 3}), small_volumes).metrics
    assert len(each) == 9
    for i, row in enumerate(every):
        expected = np.mean([r["loss"] for r in each[3 * i : 3 * i + 3]])
        assert row["loss"] == pytest.approx(expected, rel=1e-5)


def test_number_of_workers_does_not_change_the_step_count(config_of: ConfigOf) -> None:
    for workers in (1, 2, 4):
        config = config_of(train={"steps": 10, "num_workers": workers})
        assert num_rounds(config) == 4  # 10 steps, 3 a round


# --- what cannot go on ----------------------------------------------------------------------


def with_rate(config: RunConfig, rate: float) -> RunConfig:
    """A learning rate that no configuration takes, but weights that broke otherwise stand for."""
    return config.model_copy(
        update={"train": config.train.model_copy(update={"learning_rate": rate})}
    )


def test_loss_that_is_not_finite_ends_the_training(
    config_of: ConfigOf, small_volumes: list[Prepared]
) -> None:
    config = with_rate(config_of(train={"warmup": 0, "log_every": 2}), 1e30)
    with pytest.raises(TrainingError, match=r"loss is (nan|inf) at step \d+; lower train\.learn"):
        run(config, small_volumes)


def test_no_checkpoint_is_written_of_weights_that_are_not_finite(
    config_of: ConfigOf, small_volumes: list[Prepared]
) -> None:
    """Metrics come seldom: a checkpoint between two of them must not overwrite the good one."""
    config = with_rate(config_of(train={"warmup": 0, "log_every": 9, "checkpoint_every": 4}), 1e30)
    with pytest.raises(TrainingError, match="the loss is"):
        run(
            config,
            small_volumes,
            on_checkpoint=lambda trainer: pytest.fail(f"checkpoint at step {trainer.step}"),
        )


def test_examples_that_end_early_are_an_error(
    config_of: ConfigOf, small_volumes: list[Prepared]
) -> None:
    trainer = trainer_of(config_of(), small_volumes)
    load = local_rounds(small_volumes, trainer.config, trainer.side)
    with pytest.raises(TrainingError, match="ended at step 3 of 9"):
        train(trainer, [load(0)])
