"""What every executor promises, run over each of them and over the example in CONTRIBUTING."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from ctray.config import PoolConfig, RayConfig, RunConfig
from ctray.core.errors import CheckpointError, CtrayError, TrainingError
from ctray.executors.protocol import Executor
from ctray.executors.session import EXECUTORS, executor_session
from ctray.learn.pretext.checkpoint import load_model
from ctray.learn.pretext.work import EncoderTraining
from ctray.learn.self_training.checkpoint import load_self_trained
from ctray.preprocess.prepare import Prepared
from ctray.records.events import Event
from ctray.records.run_folder import RunFolder

pytestmark = pytest.mark.ray

TWO = PoolConfig(num_cpus=0.5, max_size=2)
# Digest of the weights that each executor trained, which must all be the same.
DIGESTS: dict[str, set[str]] = {}


# Workers are found by name in other processes, and so they live on the module's top.
class Square:
    def __call__(self, item: int) -> tuple[int, int]:
        return item, item**2


class Deadly:
    """Dies of item 2."""

    def __call__(self, item: int) -> int:
        if item == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return item


class NoModel:
    def __init__(self) -> None:
        raise CheckpointError("the folder holds no checkpoint")


class Failing:
    """Returns or raises an error, as the item says."""

    def __call__(self, item: str) -> CtrayError:
        error = CtrayError("the output cannot be written")
        if item == "raises":
            raise error
        return error


@dataclass
class Case:
    kind: str
    executor: Executor


@pytest.fixture(scope="module", params=[*EXECUTORS, "serial"])
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    if request.param == "ray":
        request.getfixturevalue("ray_cpus")
        import ray.cloudpickle

        # Workers of Ray do not find the modules of tests.
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(EXECUTORS, "serial", "serial_executor")
        patch.syspath_prepend(Path(__file__).parent)
        with executor_session(RayConfig(num_cpus=2), kind=request.param) as executor:
            yield Case(request.param, executor)
    torch.set_num_threads(threads)


def test_every_item_gives_its_result_once(case: Case) -> None:
    found = list(case.executor.run_pool(Square, (), range(5), TWO))
    assert sorted(found) == [(n, n**2) for n in range(5)]


def test_no_item_makes_no_worker(case: Case) -> None:
    assert list(case.executor.run_pool(NoModel, (), [], TWO)) == []


def test_worker_that_cannot_be_made_says_why(case: Case) -> None:
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        list(case.executor.run_pool(NoModel, (), range(3), TWO))


@pytest.mark.parametrize("how", ["returns", "raises"])
def test_an_error_of_the_worker_ends_the_run(case: Case, how: str) -> None:
    with pytest.raises(CtrayError, match="the output cannot be written"):
        list(case.executor.run_pool(Failing, (), [how], TWO))


def test_an_item_that_kills_its_process_costs_no_other(case: Case) -> None:
    if case.kind == "serial":
        pytest.skip("its process is that of the tests")
    found = list(case.executor.run_pool(Deadly, (), range(4), TWO))
    assert sorted(found) == [0, 1, 3]


def test_a_pool_has_processes_and_threads(case: Case) -> None:
    assert case.executor.pool_capacity(TWO) >= 1
    assert case.executor.pool_threads(TWO) >= 1


def test_events_can_be_monitored(case: Case) -> None:
    case.executor.monitor("/run")(Event(stage="localize", done=1, total=2, status="located"))


@pytest.fixture(scope="module")
def trained(
    case: Case,
    config_of: Callable[..., RunConfig],
    working_urls: list[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[EncoderTraining, list[float]]:
    training = EncoderTraining(
        config=config_of(encoder={"dropout": 0.3}, self_train={"enabled": True, "steps": 3}),
        side=24,
        checkpoint_url=RunFolder(url=str(tmp_path_factory.mktemp(case.kind))).checkpoint,
        training_urls=working_urls,
    )
    logged: list[float] = []
    case.executor.train_encoder(training, lambda row: logged.append(row["step"]), lambda step: None)
    return training, logged


def test_training_gives_the_same_weights_everywhere(
    case: Case, trained: tuple[EncoderTraining, list[float]]
) -> None:
    training, logged = trained
    assert logged == [3, 6, 9]
    found = load_model(training.checkpoint_url)
    assert found.step == 9
    assert len(DIGESTS.setdefault("encoder", set()) | {found.digest}) == 1
    DIGESTS["encoder"].add(found.digest)


def test_finished_training_is_left_alone(
    case: Case, trained: tuple[EncoderTraining, list[float]]
) -> None:
    logged: list[Any] = []
    case.executor.train_encoder(trained[0], logged.append, logged.append)
    assert logged == []


def test_training_without_volumes_is_refused(
    case: Case, config_of: Callable[..., RunConfig], tmp_path: Path
) -> None:
    nothing = EncoderTraining(
        config=config_of(), side=24, checkpoint_url=str(tmp_path), training_urls=[]
    )
    with pytest.raises(TrainingError, match="no volume to train on"):
        case.executor.train_encoder(nothing, lambda row: None, lambda step: None)


def test_self_training_gives_the_same_weights_everywhere(
    case: Case, trained: tuple[EncoderTraining, list[float]], stored_volumes: list[Prepared]
) -> None:
    training, _ = trained
    records = [
        {"working_url": url, "shape": volume.shape, "ranges": [[6, 18]] * 3}
        for url, volume in zip(training.training_urls, stored_volumes, strict=True)
    ]
    run = RunFolder(url=str(Path(training.checkpoint_url).parent))
    assert run.checkpoint == training.checkpoint_url
    events: list[Event] = []
    case.executor.train_slabs(run, training.config, records, events.append)
    assert (events[-1].done, events[-1].total) == (3, 3)
    found = load_self_trained(run.checkpoint, load_model(run.checkpoint))
    assert found is not None
    assert len(DIGESTS.setdefault("slabs", set()) | {found.digest}) == 1
    DIGESTS["slabs"].add(found.digest)
