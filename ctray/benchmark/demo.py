"""The demonstration: its phantoms and its settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ctray.config import RunConfig, load_config
from ctray.phantom import Difficulty, Kind


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoArchive:
    """Phantoms of the demonstration.

    Parameters
    ----------
    count, size, seed, kind, difficulty
        As in `ctray.evaluate.phantom_archive.write_phantoms`.
    """

    count: int = 32
    size: int = 128
    seed: int = 2024
    kind: Kind = "embryo"
    difficulty: Difficulty = "paper"


DEMO_ARCHIVE = DemoArchive()


def demo_config(overrides: tuple[str, ...] = ()) -> RunConfig:
    """Return the settings of `demo.yaml`, the same file as `configs/demo.yaml`."""
    return load_config(Path(__file__).with_name("demo.yaml"), overrides)
