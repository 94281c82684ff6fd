"""Self-training in an actor of a Ray session."""

from __future__ import annotations

from typing import Any

import ray
from ray.exceptions import RayError

from ctray.config import RunConfig
from ctray.core.errors import TrainingError
from ctray.executors.ray.autoscaling import Bundle, autoscales, no_room, wait_for_room
from ctray.executors.ray.errors import is_node_death, last_line, own_error
from ctray.executors.ray.session import cluster_cpus
from ctray.executors.ray.training import gpus_per_worker, threads_per_worker
from ctray.learn.self_training.work import Record, SelfTraining
from ctray.records.events import Event, OnEvent, training_event
from ctray.records.run_folder import RunFolder

# More nodes than this taken away one after another show another fault.
_MAX_NODE_DEATHS = 5


def train_slabs(
    run: RunFolder, config: RunConfig, records: list[Record], on_event: OnEvent
) -> None:
    """Train the self-trained network in an actor; see `ctray.executors.protocol.Executor`."""
    # Decided once: if the GPU's node dies, the second try needs a GPU as well.
    # A cluster that grows may have no CPU right now.
    cpus = 1.0 if autoscales() else min(1.0, cluster_cpus())
    bundle = {"CPU": cpus, "GPU": min(1.0, gpus_per_worker(config))}
    node_deaths = 0
    while True:
        try:
            _train(run, config, records, bundle, on_event)
        except RayError as error:
            node_deaths += 1
            # A new try takes minutes at most and repeats the same steps.
            if not is_node_death(error) or node_deaths >= _MAX_NODE_DEATHS:
                raise own_error(error) or TrainingError(
                    f"self-training failed: {last_line(error)}"
                ) from error
        else:
            return


def _train(
    run: RunFolder, config: RunConfig, records: list[Record], bundle: Bundle, on_event: OnEvent
) -> None:
    """Train in one actor, from the first step to the last."""
    steps = config.self_train.steps
    if autoscales():
        _wait_for_node(bundle, steps, on_event)
    options: dict[str, Any] = {"num_cpus": bundle["CPU"], "num_gpus": bundle["GPU"]}
    actor = ray.remote(_SlabTraining).options(**options).remote(run, config, records)
    try:
        finished = False
        while not finished:
            row, finished = ray.get(actor.advance.remote())
            on_event(training_event("self-train", row, steps))
        ray.get(actor.save.remote())
    finally:
        ray.kill(actor)


class _SlabTraining(SelfTraining):
    """Uses as many threads as its own node has CPUs for it."""

    def __init__(self, run: RunFolder, config: RunConfig, records: list[Record]) -> None:
        super().__init__(run, config, records, threads_per_worker(config))


def _wait_for_node(bundle: Bundle, steps: int, on_event: OnEvent) -> None:
    def wait(text: str) -> None:
        on_event(Event(stage="self-train", done=0, total=steps, text=text))

    if not wait_for_room([bundle], on_wait=wait):
        raise TrainingError(no_room("self-training", bundle, "train.num_gpus_per_worker"))
