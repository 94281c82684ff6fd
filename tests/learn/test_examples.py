"""Which slices an example is made of, and how examples become batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctray.config import RotationConfig, RunConfig, TrainConfig, parse_config
from ctray.core.errors import TrainingError
from ctray.learn.pretext.examples import (
    batch_rows,
    examples_of_run,
    rotation_example,
    runs_of_round,
    steps_per_round,
    volume_of_run,
)

SHAPE = (11, 13, 17)
SEEDS = st.integers(0, 2**31)
NUMBERS = st.integers(0, 10**6)


@given(seed=SEEDS, n=NUMBERS)
def test_example_is_a_function_of_seed_and_number(seed: int, n: int) -> None:
    np.random.seed(n % 1000)  # noqa: NPY002  # a global generator must not matter
    first = rotation_example(seed, n, SHAPE, RotationConfig())
    np.random.random(3)  # noqa: NPY002
    assert rotation_example(seed, n, SHAPE, RotationConfig()) == first


def test_examples_differ_from_one_another_and_between_seeds() -> None:
    config = RotationConfig()
    one = [rotation_example(5, n, SHAPE, config) for n in range(200)]
    other = [rotation_example(6, n, SHAPE, config) for n in range(200)]
    assert len({e.orientation_deg for e in one + other}) == 400


@given(
    seed=SEEDS,
    n=NUMBERS,
    shape=st.tuples(*[st.integers(2, 40)] * 3),
    twin_range=st.floats(0.001, 0.5),
    axes=st.sets(st.sampled_from("zyx"), min_size=1),
)
def test_twin_is_another_slice_in_range(
    seed: int, n: int, shape: tuple[int, int, int], twin_range: float, axes: set[str]
) -> None:
    config = RotationConfig(twin_range=twin_range, axes=tuple(sorted(axes)))
    example = rotation_example(seed, n, shape, config)
    extent = shape[example.axis]
    assert "zyx"[example.axis] in axes
    assert 0 <= example.index < extent
    assert 0 <= example.twin < extent
    assert 1 <= abs(example.twin - example.index) <= max(1, round(twin_range * extent))
    assert 0 <= example.label < config.num_classes
    assert 0 <= example.orientation_deg < 360


def test_all_classes_axes_slices_and_both_sides_come_up() -> None:
    config = RotationConfig(twin_range=0.2)
    seen = [rotation_example(1, n, SHAPE, config) for n in range(3000)]
    assert {e.label for e in seen} == set(range(7))
    assert {e.axis for e in seen} == {0, 1, 2}
    for axis, extent in enumerate(SHAPE):
        along = [e for e in seen if e.axis == axis]
        assert {e.index for e in along} == set(range(extent))
        reach = round(0.2 * extent)
        offsets = {e.twin - e.index for e in along}
        assert offsets == set(range(-reach, reach + 1)) - {0}


def test_classes_are_equally_likely() -> None:
    labels = [rotation_example(2, n, SHAPE, RotationConfig()).label for n in range(3500)]
    counts = np.bincount(labels, minlength=7)
    # 500 expected, binomial spread 21: six spreads never happen by chance.
    assert abs(counts - 500).max() < 6 * 21


def test_axis_of_a_single_slice_is_left_out() -> None:
    seen = {rotation_example(0, n, (1, 5, 5), RotationConfig()).axis for n in range(60)}
    assert seen == {1, 2}


def test_nothing_to_pair_is_an_error_with_the_shape() -> None:
    with pytest.raises(TrainingError, match=r"\(1, 5, 5\).*along z"):
        rotation_example(0, 0, (1, 5, 5), RotationConfig(axes=("z",)))


# --- runs and rounds ------------------------------------------------------------------------


@given(seed=SEEDS, count=st.integers(1, 30), cycle=st.integers(0, 50))
def test_every_volume_comes_once_a_cycle(seed: int, count: int, cycle: int) -> None:
    runs = range(cycle * count, (cycle + 1) * count)
    assert sorted(volume_of_run(seed, run, count) for run in runs) == list(range(count))


def test_cycles_are_in_different_orders() -> None:
    orders = {tuple(volume_of_run(0, c * 9 + i, 9) for i in range(9)) for c in range(20)}
    assert len(orders) == 20


def test_no_volume_is_an_error() -> None:
    with pytest.raises(TrainingError, match="no volume to train on"):
        volume_of_run(0, 0, 0)


@st.composite
def trains(draw: st.DrawFn) -> TrainConfig:
    workers = draw(st.integers(1, 4))
    interleave = workers * draw(st.integers(1, 3))
    batch = interleave * draw(st.integers(1, 4))
    length = draw(st.integers(1, 4)) * batch // interleave
    return TrainConfig(
        batch_size=batch, run_length=length, interleave=interleave, num_workers=workers
    )


def numbers_of(train: TrainConfig, round_index: int, rank: int) -> list[int]:
    """Numbers of the examples of a round as a worker sees its rows."""
    return [
        n
        for run in runs_of_round(train, round_index, rank)
        for n in range(run * train.run_length, (run + 1) * train.run_length)
    ]


@given(train=trains(), round_index=st.integers(0, 5))
def test_workers_share_the_batches_of_the_single_one(train: TrainConfig, round_index: int) -> None:
    alone = train.model_copy(update={"num_workers": 1})
    whole = numbers_of(alone, round_index, 0)
    for step in range(steps_per_round(train)):
        expected = [whole[row] for row in batch_rows(alone, step, alone.interleave)]
        parts = []
        for rank in range(train.num_workers):
            rows = numbers_of(train, round_index, rank)
            num_runs = train.interleave // train.num_workers
            part = [rows[row] for row in batch_rows(train, step, num_runs)]
            assert len(part) == train.batch_size // train.num_workers
            parts += part
        assert sorted(parts) == sorted(expected)
        assert len(expected) == train.batch_size


@given(train=trains(), last=st.integers(1, 5))
def test_every_example_is_used_once(train: TrainConfig, last: int) -> None:
    used: list[int] = []
    for round_index in range(last):
        for rank in range(train.num_workers):
            rows = numbers_of(train, round_index, rank)
            num_runs = train.interleave // train.num_workers
            for step in range(steps_per_round(train)):
                used += [rows[row] for row in batch_rows(train, step, num_runs)]
    assert sorted(used) == list(range(last * train.interleave * train.run_length))


@given(train=trains())
def test_batch_mixes_all_runs_of_its_round_evenly(train: TrainConfig) -> None:
    for step in range(steps_per_round(train)):
        runs = [row // train.run_length for row in batch_rows(train, step, train.interleave)]
        assert set(np.bincount(runs, minlength=train.interleave)) == {
            train.batch_size // train.interleave
        }


@settings(max_examples=20)
@given(run=st.integers(0, 1000))
def test_run_is_its_consecutive_examples(run: int) -> None:
    numbers = list(examples_of_run(run, TrainConfig(run_length=32)))
    assert numbers == [32 * run + i for i in range(32)]


def test_rows_of_a_run_are_the_slices_that_its_examples_name(
    config_of: Any, small_volumes: Any
) -> None:
    from ctray.learn.pretext.rows import example_rows

    config: RunConfig = config_of()
    volume = small_volumes[1]
    side = max(volume.shape)
    numbers = examples_of_run(4, config.train)
    rows = example_rows(volume, config, numbers, side)
    seed = config.train.seed
    chosen = [rotation_example(seed, n, volume.shape, config.rotation) for n in numbers]
    assert len(chosen) == len(rows["label"]) == config.train.run_length
    for i, example in enumerate(chosen):
        plain = np.take(volume.voxels, example.index, axis=example.axis)
        twin = np.take(volume.voxels, example.twin, axis=example.axis)
        np.testing.assert_array_equal(rows["slice"][i], plain)
        np.testing.assert_array_equal(rows["twin"][i], twin)
        assert rows["label"][i] == example.label
        assert rows["orientation_deg"][i] == np.float32(example.orientation_deg)
        assert rows["mean"][i] == np.float32(volume.mean)
        assert rows["std"][i] == np.float32(volume.std)


def test_workers_do_not_change_the_numbering_of_a_default_run() -> None:
    many = parse_config({"train": {"num_workers": 4}}).train
    shares = [runs_of_round(many, 3, rank) for rank in range(4)]
    assert sorted(run for share in shares for run in share) == list(range(24, 32))
