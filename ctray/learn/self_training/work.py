"""Self-training of a run, as held by the process that trains."""

from __future__ import annotations

from typing import Any

import torch

from ctray.config import RunConfig
from ctray.learn.prepared_files import read_prepared
from ctray.learn.pretext.checkpoint import load_model
from ctray.learn.pretext.training import best_device
from ctray.learn.self_training.checkpoint import save_self_trained
from ctray.learn.self_training.training import SelfTrainer
from ctray.records.run_folder import RunFolder

# A training volume, with its box as soon as it is found.
Record = dict[str, Any]
# Numbers of steps and of seconds after which training reports its progress.
_CHUNK, _CHUNK_S = 20, 10.0


class SelfTraining:
    """Self-training of a run: the network and its state.

    Parameters
    ----------
    run, config
        Run with a finished checkpoint of the encoder, and its settings.
    records
        Training volumes with their boxes.
    threads
        Number of threads for computing.
    """

    def __init__(
        self, run: RunFolder, config: RunConfig, records: list[Record], threads: int
    ) -> None:
        torch.set_num_threads(threads)
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
        """Run some steps; returns their row of metrics, and whether training is finished."""
        return self._trainer.advance(_CHUNK, _CHUNK_S), self._trainer.finished

    def save(self) -> None:
        """Write the network to the folder of the encoder's checkpoint."""
        save_self_trained(self._run.checkpoint, self._trainer.network, self._config, self._digest)
