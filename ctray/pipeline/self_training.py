"""Self-training as a stage of a run: boxes of the training volumes, then training on them.

An `Executor` runs the processes, so nothing here depends on Ray.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ctray.config import RunConfig
from ctray.learn.prepared_files import read_prepared
from ctray.learn.pretext.checkpoint import load_model
from ctray.learn.self_training.checkpoint import has_self_trained
from ctray.learn.self_training.work import Record
from ctray.localization.localizer import Localizer
from ctray.records.events import Event, OnEvent, ignore
from ctray.records.run_folder import RunFolder
from ctray.storage import store

if TYPE_CHECKING:
    from ctray.executors.protocol import Executor


def self_train(
    run: RunFolder, config: RunConfig, executor: Executor, on_event: OnEvent = ignore
) -> None:
    """Train the self-trained network of a run on the boxes of its training volumes, once per run.

    Parameters
    ----------
    run
        Run with a finished checkpoint and the list of its training volumes.
    config
        Settings of the run.
    executor
        Executor that runs the processes.
    on_event
        Called with an event for each box and each row of metrics.

    Raises
    ------
    TrainingError
        If training fails, or no node of the cluster is large enough for it.
    """
    if not config.self_train.enabled or has_self_trained(run.checkpoint):
        return
    records = _ranges(run, config, executor, on_event)
    on_event(Event(stage="self-train", done=0, total=config.self_train.steps))
    executor.train_slabs(run, config, records, on_event)


def _ranges(
    run: RunFolder, config: RunConfig, executor: Executor, on_event: OnEvent
) -> list[Record]:
    """Training volumes with their boxes, in the order of the index. A rerun reads stored boxes."""
    url = run.at("working", "ranges.json")
    if store.exists(url):
        kept: list[Record] = store.read_json(url)
        return kept
    index = [r for r in store.read_json(run.training_index) if not r.get("validation")]
    arguments = (run, config, executor.pool_threads(config.pool))
    found: dict[str, Record] = {}

    def tell(text: str) -> None:
        on_event(Event(stage="boxes", done=len(found), total=len(index), text=text))

    tell("")
    for record in executor.run_pool(FindRanges, arguments, index, config.pool, tell):
        found[record["volume_id"]] = record
        tell(record["volume_id"])
    records = [found[r["volume_id"]] for r in index if r["volume_id"] in found]
    store.write_json(url, records)
    return records


class FindRanges:
    """Finds the box of the pretext task in prepared working levels, in a process of the pool."""

    def __init__(self, run: RunFolder, config: RunConfig, threads: int) -> None:
        torch.set_num_threads(threads)
        # Use the settings of this run; the settings in the checkpoint may differ.
        self._localizer = Localizer(load_model(run.checkpoint), config)

    def __call__(self, record: Record) -> Record:
        """Record of the training index with its box."""
        prepared = read_prepared(record["working_url"])
        ranges = self._localizer.ranges(prepared)
        return {**record, "shape": list(prepared.shape), "ranges": ranges}
