"""Self-training as a stage of a run: boxes of the training volumes, then the slab network."""

from __future__ import annotations

from typing import Any

import ray
import torch
from ray.exceptions import RayError

from ctray.config import RunConfig
from ctray.engine.actors import run_pool, threads_per_actor
from ctray.engine.causes import is_node_death, last_line, own_error
from ctray.engine.events import Event, OnEvent, training_event
from ctray.engine.room import Bundle, autoscales, no_room, wait_for_room
from ctray.engine.session import cluster_cpus
from ctray.engine.stream import read_prepared
from ctray.engine.train import gpus_per_worker, threads_per_worker
from ctray.errors import TrainingError
from ctray.localization.localizer import Localizer
from ctray.localization.self_training import SelfTrainer
from ctray.localization.slab_checkpoint import has_slabs, save_slabs
from ctray.pretext.checkpoint import load_model
from ctray.pretext.training import best_device
from ctray.storage import store
from ctray.storage.run_folder import RunFolder

Record = dict[str, Any]
_CHUNK = 20
# Nodes that may be taken away under it, one after another, before something else must be wrong.
_MAX_NODE_DEATHS = 5


def self_train(run: RunFolder, config: RunConfig, on_event: OnEvent) -> None:
    """Teach the slab network of a run from the boxes of its training volumes; done once.

    Parameters
    ----------
    run
        With a finished checkpoint and the list of its training volumes.
    config
        Of the run.
    on_event
        Told of the boxes and of the steps.

    Raises
    ------
    TrainingError
        If training fails, or the cluster has no kind of node for it.
    """
    if not config.refine.enabled or has_slabs(run.checkpoint):
        return
    records = _ranges(run, config, on_event)
    # Asked once: where the GPU's node dies, what begins anew needs a GPU as well.
    # On a cluster that grows there may be no CPU right now.
    cpus = 1.0 if autoscales() else min(1.0, cluster_cpus())
    bundle = {"CPU": cpus, "GPU": min(1.0, gpus_per_worker(config))}
    node_deaths = 0
    while True:
        try:
            _train(run, config, records, bundle, on_event)
        except RayError as error:
            node_deaths += 1
            # It begins anew: minutes at most, and the same steps.
            if not is_node_death(error) or node_deaths >= _MAX_NODE_DEATHS:
                raise own_error(error) or TrainingError(
                    f"self-training failed: {last_line(error)}"
                ) from error
        else:
            return


def _train(
    run: RunFolder, config: RunConfig, records: list[Record], bundle: Bundle, on_event: OnEvent
) -> None:
    """Train in an actor, from the first step to the last."""
    steps = config.refine.steps
    if autoscales():
        _wait_for_node(bundle, steps, on_event)
    options: dict[str, Any] = {"num_cpus": bundle["CPU"], "num_gpus": bundle["GPU"]}
    actor = ray.remote(_Trainer).options(**options).remote(run, config, records)
    try:
        finished = False
        while not finished:
            row, finished = ray.get(actor.advance.remote())
            on_event(training_event("self-train", row, steps))
        ray.get(actor.save.remote())
    finally:
        ray.kill(actor)


def _wait_for_node(bundle: Bundle, steps: int, on_event: OnEvent) -> None:
    def wait(text: str) -> None:
        on_event(Event(stage="self-train", done=0, total=steps, text=text))

    if not wait_for_room([bundle], on_wait=wait):
        raise TrainingError(no_room("self-training", bundle, "train.num_gpus_per_worker"))


class FindRanges:
    """Finds the box of the pretext task in prepared working levels; an actor of the pool."""

    def __init__(self, run: RunFolder, config: RunConfig, threads: int) -> None:
        torch.set_num_threads(threads)
        # The settings of this run: a checkpoint may have been trained with others after it.
        self._localizer = Localizer(load_model(run.checkpoint), config)

    def __call__(self, record: Record) -> Record:
        """Record of the training index with its box."""
        prepared = read_prepared(record["working_url"])
        ranges = self._localizer.ranges(prepared)
        return {**record, "shape": list(prepared.shape), "ranges": ranges}


def _ranges(run: RunFolder, config: RunConfig, on_event: OnEvent) -> list[Record]:
    """Training volumes with their boxes, in the order of the index; kept for a rerun."""
    url = run.at("working", "ranges.json")
    if store.exists(url):
        kept: list[Record] = store.read_json(url)
        return kept
    index = [r for r in store.read_json(run.training_index) if not r.get("validation")]
    arguments = (run, config, threads_per_actor(config.pool))
    found: dict[str, Record] = {}

    def tell(text: str) -> None:
        on_event(Event(stage="boxes", done=len(found), total=len(index), text=text))

    for record in run_pool(FindRanges, arguments, index, config.pool, tell):
        found[record["volume_id"]] = record
        tell(record["volume_id"])
    records = [found[r["volume_id"]] for r in index if r["volume_id"] in found]
    store.write_json(url, records)
    return records


class _Trainer:
    """Holds the network and its state in one process of the cluster."""

    def __init__(self, run: RunFolder, config: RunConfig, records: list[Record]) -> None:
        torch.set_num_threads(threads_per_worker(config))
        trained = load_model(run.checkpoint)
        self._run, self._config, self._digest = run, config, trained.digest
        self._trainer = SelfTrainer(
            trained.model.encoder,
            lambda index: read_prepared(records[index]["working_url"]),
            [r["ranges"] for r in records],
            [tuple(r["shape"]) for r in records],
            config,
            max(max(r["shape"]) for r in records),
            best_device(),
        )

    def advance(self) -> tuple[dict[str, float], bool]:
        """Some more steps: their row of metrics, and whether they were the last."""
        return self._trainer.advance(_CHUNK), self._trainer.finished

    def save(self) -> None:
        """Write the network beside the encoder's checkpoint."""
        save_slabs(self._run.checkpoint, self._trainer.network, self._config, self._digest)
