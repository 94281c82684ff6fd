"""Ray Data gives exactly the examples of the plain loop, in their order."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ctray.config import RunConfig
from ctray.executors.ray.stream import example_stream, rounds
from ctray.learn.pretext.examples import Rows, num_rounds
from ctray.learn.pretext.training import local_rounds
from ctray.preprocess.prepare import Prepared

pytestmark = pytest.mark.ray

ConfigOf = Callable[..., RunConfig]


def check_equal(found: Rows, expected: Rows) -> None:
    assert found.keys() >= expected.keys()
    for key, values in expected.items():
        assert found[key].dtype == values.dtype, key
        np.testing.assert_array_equal(found[key], values, err_msg=key)


@pytest.mark.parametrize("task", ["rotation", "sorting"])
@pytest.mark.parametrize(("readers", "first_round"), [(1, 0), (3, 2)])
def test_stream_is_the_plain_loop(
    ray_cpus: int,
    config_of: ConfigOf,
    working_urls: list[str],
    stored_volumes: list[Prepared],
    readers: int,
    first_round: int,
    task: str,
) -> None:
    config = config_of(task=task, train={"steps": 17, "num_readers": readers})
    side = max(stored_volumes[0].shape)
    stream = example_stream(config, working_urls, side, first_round=first_round)
    found = list(rounds(stream, config))
    plain = local_rounds(stored_volumes, config, side)
    # 17 steps, 3 a round.
    assert num_rounds(config) == 6
    assert len(found) == 6 - first_round
    for index, rows in enumerate(found, start=first_round):
        check_equal(rows, plain(index))


def test_ranks_share_the_plain_loop(
    ray_cpus: int, config_of: ConfigOf, working_urls: list[str], stored_volumes: list[Prepared]
) -> None:
    """Runs go round robin: worker 0 reads runs 0 and 2 of a round, worker 1 runs 1 and 3."""
    config = config_of(train={"steps": 6, "num_readers": 1, "num_workers": 2})
    side, length = max(stored_volumes[0].shape), config.train.run_length
    plain = local_rounds(stored_volumes, config_of(train={"steps": 6}), side)
    shares = [
        list(rounds(example_stream(config, working_urls, side, first_round=0, rank=rank), config))
        for rank in range(2)
    ]
    for index in range(2):
        expected = plain(index)
        for rank in range(2):
            runs = [np.arange(run * length, (run + 1) * length) for run in (rank, rank + 2)]
            picked = np.concatenate(runs)
            share = {key: values[picked] for key, values in expected.items()}
            check_equal(shares[rank][index], share)
