"""Waiting for nodes that an autoscaler may add, on a session that has none."""

from __future__ import annotations

import threading

import pytest
import ray
from ray.exceptions import ActorDiedError

from ctray.executors.ray import autoscaling
from ctray.executors.ray.autoscaling import Patience, autoscales, wait_for_room

pytestmark = pytest.mark.ray


def test_a_session_of_its_own_does_not_grow(ray_cpus: int) -> None:
    assert not autoscales()


def test_room_that_is_there_is_found(ray_cpus: int) -> None:
    assert wait_for_room([{"CPU": 1.0, "GPU": 0.0}] * ray_cpus)
    # It is given back: whoever asked takes it now.
    assert wait_for_room([{"CPU": float(ray_cpus)}])


def test_no_kind_of_node_is_no_room(ray_cpus: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autoscaling, "_POLL_S", 0.05)
    asked: list[autoscaling.Bundle] = []

    def refused(bundle: autoscaling.Bundle) -> bool:
        asked.append(bundle)
        # Once is not enough: an answer may be older than the question.
        return len(asked) != 2

    assert not wait_for_room([{"CPU": 1.0}, {"CPU": 0.5, "GPU": 1.0}], refused)
    assert asked == [{"CPU": 0.5, "GPU": 1.0}] * 5


def test_a_busy_node_is_waited_for(ray_cpus: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autoscaling, "_POLL_S", 0.05)

    # In here, so that it is sent whole: workers do not find the module of a test.
    class Busy:
        def ready(self) -> None:
            """Answer once all CPUs are taken."""

    busy = ray.remote(num_cpus=ray_cpus)(Busy).remote()
    ray.get(busy.ready.remote())
    threading.Timer(0.5, ray.kill, (busy,)).start()
    # The autoscaler can add nothing; the node that is there becomes free.
    assert wait_for_room([{"CPU": float(ray_cpus)}], lambda bundle: True)
    with pytest.raises(ActorDiedError):
        ray.get(busy.ready.remote())


def test_what_is_waited_for_is_told_now_and_then(ray_cpus: int) -> None:
    now, told = [0.0], list[str]()
    patience = Patience(bundle={"CPU": 64.0, "GPU": 0.5}, on_wait=told.append, clock=lambda: now[0])
    for moment in (0, 5, 12, 30, 41, 43, 72):
        now[0] = float(moment)
        patience.wait()
    node = "waiting for the cluster to add a node with 64 CPUs and 0.5 GPUs"
    assert told == [f"{node}, {n} s so far" for n in (12, 43)]
    patience.over()
    patience.over()
    assert told[2:] == ["Ray workers are ready"]
    now[0] = 100.0
    patience.wait()
    assert len(told) == 3, "it has only begun to wait"


def test_a_node_that_is_busy_or_loading_is_not_asked_for(ray_cpus: int) -> None:
    told: list[str] = []
    now = iter((0.0, 10.0))
    patience = Patience(
        bundle={"CPU": 1.0, "GPU": 0.0}, on_wait=told.append, clock=lambda: next(now)
    )
    patience.wait()
    patience.wait()
    assert told == ["waiting for a process with 1 CPU to start, 10 s so far"]


def test_several_bundles_are_told_as_such(ray_cpus: int) -> None:
    told: list[str] = []
    now = iter((0.0, 10.0))
    patience = Patience(bundle={"CPU": 1.0}, count=3, on_wait=told.append, clock=lambda: next(now))
    patience.wait()
    patience.wait()
    assert told == ["waiting for room for 3 times 1 CPU, 10 s so far"]
