"""The training of a run's encoder, as passed to the process that trains; independent of Ray."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ctray.config import RunConfig
from ctray.core.errors import CheckpointError, InvalidVolumeError, TrainingError
from ctray.learn.prepared_files import read_prepared
from ctray.learn.pretext.checkpoint import check_resumable, checkpoint_step
from ctray.learn.pretext.examples import Rows
from ctray.learn.pretext.training import validation_rows

# Errors that a retry would not fix.
LASTING_ERRORS = (CheckpointError, InvalidVolumeError, TrainingError)


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderTraining:
    """A training of the encoder.

    Parameters
    ----------
    config
        Configuration of the run.
    side
        Side of the square canvas, pixels.
    checkpoint_url
        Folder of the checkpoint. The training process must be able to write to it.
    training_urls, validation_urls
        Prepared working levels of training volumes and of held-out volumes.
    """

    config: RunConfig
    side: int
    checkpoint_url: str
    training_urls: Sequence[str]
    validation_urls: Sequence[str] = ()

    def is_needed(self) -> bool:
        """Whether training steps remain.

        Raises
        ------
        TrainingError
            If there is no volume to train on.
        CheckpointError
            If the checkpoint belongs to another configuration.
        """
        if (checkpoint_step(self.checkpoint_url) or 0) >= self.config.train.steps:
            return False
        if not self.training_urls:
            raise TrainingError("there is no volume to train on; all volumes failed or are empty")
        check_resumable(self.checkpoint_url, self.config, self.side)
        return True

    def validation(self) -> dict[str, Rows | None]:
        """Rows of held-out volumes, and of training volumes to compare them with."""
        if not self.validation_urls:
            return {}
        return {
            "validation": self._rows_of(self.validation_urls),
            "training": self._rows_of(self.training_urls),
        }

    def _rows_of(self, urls: Sequence[str]) -> Rows | None:
        return validation_rows(
            lambda index: read_prepared(urls[index]), len(urls), self.config, self.side
        )
