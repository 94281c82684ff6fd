"""The sorting task: its loss and metric against their formulas, its examples, that it learns."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctray.config import RunConfig, SortingConfig, random_displacement
from ctray.core.errors import TrainingError
from ctray.learn.pretext.examples import num_rounds, slice_weights, sorting_axes, sorting_example
from ctray.learn.pretext.rows import sorting_rows
from ctray.learn.pretext.sorting import (
    mean_displacement,
    rank_displacement,
    ranking_loss,
)
from ctray.learn.pretext.training import Trainer, local_rounds, train, validation_rows
from ctray.preprocess.field_of_view import FieldOfView
from ctray.preprocess.prepare import Prepared

ConfigOf = Callable[..., RunConfig]


def bags(seed: int, count: int, k: int, ties: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    position = rng.integers(0, 5 if ties else 1000, (count, k)) / 1000
    return torch.tensor(rng.normal(0, 0.3, (count, k))), torch.tensor(position)


def loss_by_the_formula(score: torch.Tensor, position: torch.Tensor, margin: float) -> torch.Tensor:
    """Paper 2.1, pair by pair: where position i is above j, score i must be above j + margin."""
    terms = [
        torch.clamp(margin - (bag[i] - bag[j]), min=0)
        for bag, where in zip(score, position, strict=True)
        for i in range(len(bag))
        for j in range(len(bag))
        if where[i] > where[j]
    ]
    return torch.stack(terms).mean() if terms else score.sum() * 0


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 4), k=st.integers(2, 7), ties=st.booleans())
def test_loss_and_gradient_are_those_of_the_formula(
    seed: int, count: int, k: int, ties: bool
) -> None:
    score, position = bags(seed, count, k, ties)
    ours, plain = score.clone().requires_grad_(), score.clone().requires_grad_()
    found, expected = ranking_loss(ours, position, 0.2), loss_by_the_formula(plain, position, 0.2)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-7)
    found.backward()
    expected.backward()
    assert ours.grad is not None
    assert plain.grad is not None
    np.testing.assert_allclose(ours.grad, plain.grad, rtol=1e-5, atol=1e-7)


def test_order_with_the_margin_kept_costs_nothing() -> None:
    position = torch.tensor([[0.4, 0.1, 0.9]])
    assert float(ranking_loss(torch.tensor([[0.21, 0.0, 0.42]]), position, 0.2)) == 0
    # One pair of three lacks 0.01 of its margin.
    found = ranking_loss(torch.tensor([[0.19, 0.0, 0.42]]), position, 0.2)
    assert float(found) == pytest.approx(0.01 / 3, rel=1e-4)


def test_bag_of_equal_positions_has_no_order() -> None:
    score = torch.tensor([[1.0, 2.0]], requires_grad=True)
    loss = ranking_loss(score, torch.tensor([[0.5, 0.5]]), 0.2)
    loss.backward()
    assert loss.item() == 0
    assert score.grad is not None
    assert not score.grad.any()


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), k=st.integers(2, 15))
def test_displacement_is_the_papers(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    position, score = rng.permutation(100)[:k] / 100, rng.permutation(100)[:k] / 100
    found = mean_displacement(torch.tensor(score[None]), torch.tensor(position[None]))
    expected = np.abs(np.argsort(position) - np.argsort(score)).mean()
    assert float(found[0]) == pytest.approx(expected)


def test_random_order_gives_what_the_formula_says() -> None:
    """3.97 for the paper's 12 slices, by both versions."""
    assert random_displacement(12) == pytest.approx(3.97, abs=0.005)
    rng = np.random.default_rng(3)
    score, position = (torch.tensor(rng.random((4000, 12))) for _ in range(2))
    for displacement in (mean_displacement, rank_displacement):
        found = displacement(score, position)
        # The mean of 4,000 orders lies within five of its standard errors.
        assert float(found.mean()) == pytest.approx(
            random_displacement(12), abs=5 * float(found.std()) / math.sqrt(4000)
        )


def test_right_order_has_no_displacement_in_any_scale() -> None:
    position = torch.tensor([[0.9, 0.1, 0.5, 0.3]])
    assert float(mean_displacement(position * 7 - 3, position)) == 0
    assert float(rank_displacement(position * 7 - 3, position)) == 0


def test_two_neighbours_that_change_places() -> None:
    """By rank each is 1 off; as printed by how far apart they were drawn: places 0 and 3."""
    position = torch.tensor([[0.2, 0.8, 0.9, 0.3]])
    score = torch.tensor([[0.3, 0.8, 0.9, 0.2]])
    assert float(rank_displacement(score, position)) == 2 / 4
    assert float(mean_displacement(score, position)) == 6 / 4


# --- examples -------------------------------------------------------------------------------


def test_gaussian_weights_are_the_generalized_gaussian() -> None:
    config = SortingConfig(sampling="gaussian", gaussian_shape=2, gaussian_scale=0.2)
    weights = slice_weights(101, config)
    assert weights.sum() == pytest.approx(1)
    assert weights.argmax() == 50
    x = 20 / 101
    assert weights[70] / weights[50] == pytest.approx(math.exp(-((x / 0.2) ** 2)))


def test_default_gaussian_spares_the_ends_and_nothing_else() -> None:
    weights = slice_weights(100, SortingConfig(sampling="gaussian")) * 100
    assert weights[:3].max() < 0.1
    assert weights[15:85].min() > 0.7
    assert weights[15:85].max() < 1.4
    np.testing.assert_allclose(weights, weights[::-1], rtol=1e-9)


def test_uniform_weights_are_uniform() -> None:
    np.testing.assert_array_equal(slice_weights(8, SortingConfig()), np.full(8, 1 / 8))


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**40),
    n=st.integers(0, 2**50),
    sampling=st.sampled_from(["uniform", "gaussian"]),
)
def test_example_is_a_function_of_seed_and_number(seed: int, n: int, sampling: Any) -> None:
    config = SortingConfig(sampling=sampling)
    one, other = (sorting_example(seed, n, (17, 40, 23), config) for _ in range(2))
    assert (one.axis, one.indices) == (other.axis, other.indices)
    np.testing.assert_array_equal(one.views.matrix, other.views.matrix)
    assert one.axis == 1
    assert len(set(one.indices)) == config.num_slices
    assert set(one.indices) <= set(range(40))


def test_examples_differ_and_are_in_no_order() -> None:
    found = [sorting_example(0, n, (40, 9, 9), SortingConfig()).indices for n in range(20)]
    assert len(set(found)) == 20
    assert all(list(indices) != sorted(indices) for indices in found)


def test_short_axis_is_drawn_from_with_repetition() -> None:
    example = sorting_example(0, 0, (5, 3, 3), SortingConfig())
    assert len(example.indices) == 12
    assert set(example.indices) <= set(range(5))


def test_axes_of_choice_are_all_used() -> None:
    config = SortingConfig(axes=("z", "x"))
    assert sorting_axes((9, 30, 9), config) == [0, 2]
    assert {sorting_example(0, n, (20, 30, 20), config).axis for n in range(40)} == {0, 2}


def test_axis_of_one_slice_has_no_order() -> None:
    with pytest.raises(TrainingError, match="fewer than two slices"):
        sorting_example(0, 0, (1, 30, 30), SortingConfig(axes=("z",)))


def ramp(shape: tuple[int, int, int], seed: int) -> Prepared:
    """A volume whose slices along z grow brighter, whatever is done to them in their plane."""
    rng = np.random.default_rng(seed)
    grey = np.linspace(60, 200, shape[0])[:, None, None] + rng.normal(0, 10, shape)
    voxels = np.clip(grey, 0, 255).astype(np.uint8)
    return Prepared(
        voxels=voxels,
        noise=np.full((64, 64, 64), 128, np.uint8),
        mean=float(voxels.mean()),
        std=float(voxels.std()),
        window=(0.0, 255.0),
        field_of_view=FieldOfView(),
        factors=(1, 1, 1),
    )


def test_rows_are_complete_bags_of_one_volume(config_of: ConfigOf) -> None:
    config = config_of(task="sorting")
    prepared = ramp((40, 20, 24), 0)
    rows = sorting_rows(prepared, config, range(6, 9), 24)
    assert rows["slices"].shape == (3, 12, 24, 24)
    assert rows["slices"].dtype == np.uint8
    for row, n in enumerate(range(6, 9)):
        example = sorting_example(config.train.seed, n, prepared.shape, config.sorting)
        np.testing.assert_allclose(rows["position"][row], np.array(example.indices) / 40)
        for place, index in enumerate(example.indices):
            plain = rows["slices"][row, place, 2:22]
            np.testing.assert_array_equal(plain, prepared.voxels[index])


# --- learning -------------------------------------------------------------------------------


def sorting_config(config_of: ConfigOf, **train: Any) -> RunConfig:
    return config_of(
        task="sorting",
        sorting={"augment": "light"},
        encoder={"pool_grid": 1},
        train={"steps": 60, "batch_size": 4, "run_length": 4, "interleave": 4, **train},
    )


def test_order_that_can_be_seen_is_learned_and_holds_for_other_volumes(
    config_of: ConfigOf,
) -> None:
    config = sorting_config(config_of, learning_rate=1e-2, checkpoint_every=60)
    volumes = [ramp((40, 16, 16), seed) for seed in range(4)]
    others = [ramp((40, 16, 16), seed) for seed in (7, 8)]
    trainer = Trainer(config, 16, device=torch.device("cpu"))
    load = local_rounds(volumes, config, 16)
    held_out = validation_rows(lambda i: others[i], 2, config, 16)
    assert held_out is not None
    before = trainer.validate(held_out)
    train(
        trainer,
        (load(i) for i in range(num_rounds(config))),
        validation={"validation": held_out, "none": None},
    )
    last = trainer.metrics[-1]
    assert before["displacement"] > 2
    assert last["validation_displacement"] < 0.8
    assert last["validation_rank_displacement"] < last["validation_displacement"]
    assert {"loss", "displacement", "rank_displacement", "slices_per_second"} <= last.keys()
    assert "none_loss" not in last


def test_looking_at_held_out_volumes_changes_nothing_of_what_is_learned(
    config_of: ConfigOf,
) -> None:
    from ctray.learn.pretext.checkpoint import weights_digest

    config = sorting_config(config_of, steps=6, checkpoint_every=2)
    volumes = [ramp((30, 16, 16), seed) for seed in range(3)]
    digests = []
    for looked_at in ({}, {"validation": validation_rows(lambda i: volumes[i], 1, config, 16)}):
        trainer = Trainer(config, 16, device=torch.device("cpu"))
        load = local_rounds(volumes, config, 16)
        train(trainer, (load(i) for i in range(num_rounds(config))), validation=looked_at)
        digests.append(weights_digest(trainer.model.state_dict()))
    assert digests[0] == digests[1]


def test_validation_examples_are_none_of_training_and_not_augmented(config_of: ConfigOf) -> None:
    config = sorting_config(config_of)
    volume = ramp((40, 16, 16), 0)
    rows = validation_rows(lambda i: volume, 1, config, 16)
    assert rows is not None
    assert len(rows["mean"]) == 256
    trained = sorting_rows(volume, config, range(512), 16)["position"].tolist()
    assert not any(position in trained for position in rows["position"].tolist())
    trainer = Trainer(config, 16, device=torch.device("cpu"))
    assert trainer.validate(rows) == trainer.validate(rows)


def test_no_volume_to_validate_on_is_none(config_of: ConfigOf) -> None:
    assert validation_rows(lambda i: ramp((9, 9, 9), i), 0, config_of(), 9) is None
