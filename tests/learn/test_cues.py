"""Cues: what they show, and in which units."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ctray.config import PreprocessConfig
from ctray.learn.self_training.cues import NUM_CUES, SlabSource, cue_values, find_cues
from ctray.preprocess.prepare import Prepared, prepare

SIDE = 32
SAMPLE = np.s_[10:16, 8:20, 12:24]


def prepared_of(change: Callable[[np.ndarray, np.random.Generator], None]) -> Prepared:
    """Noise of one grey value, changed at `SAMPLE`."""
    rng = np.random.default_rng(5)
    volume = rng.normal(0, 1, (SIDE, SIDE, SIDE))
    change(volume, rng)
    plain = PreprocessConfig(circle="off", container="off", rings="off", drift="off", noise_floor=0)
    return prepare(volume.astype(np.float32), (1, 1, 1), plain)


def rough(volume: np.ndarray, rng: np.random.Generator) -> None:
    blobs = rng.normal(0, 6, (3, 6, 6)).repeat(2, 0).repeat(2, 1).repeat(2, 2)
    volume[SAMPLE] += blobs - blobs.mean()


def bright(volume: np.ndarray, rng: np.random.Generator) -> None:
    volume[SAMPLE] += 5


def inner_and_outer(values: np.ndarray) -> tuple[float, float]:
    mask = np.zeros(values.shape, dtype=bool)
    mask[SAMPLE] = True
    return float(np.median(values[mask])), float(np.median(values[~mask]))


@pytest.mark.parametrize(("change", "cue"), [(rough, 0), (bright, 1)])
def test_each_cue_shows_what_it_is_for(
    change: Callable[[np.ndarray, np.random.Generator], None], cue: int
) -> None:
    inner, outer = inner_and_outer(cue_values(find_cues(prepared_of(change)))[cue])

    assert inner > 3  # spreads of what is there
    assert abs(outer) < 0.3


def test_what_is_the_same_in_all_slices_is_no_difference() -> None:
    def tube(volume: np.ndarray, rng: np.random.Generator) -> None:
        volume[:, :, 20:] += 40

    difference = cue_values(find_cues(prepared_of(tube)))[1]

    assert abs(np.median(difference[:, :, 22:]) - np.median(difference[:, :, :18])) < 0.3


def test_cues_are_bytes_within_their_bounds() -> None:
    cues = find_cues(prepared_of(bright))

    assert cues.dtype == np.uint8
    assert cues.shape == (NUM_CUES, SIDE, SIDE, SIDE)
    everything = cue_values(np.arange(256, dtype=np.uint8))
    assert everything.min() == -6
    assert everything.max() == pytest.approx(9.9375)


def test_source_without_cues_has_none() -> None:
    prepared = prepared_of(bright)

    assert SlabSource.of(prepared, cues=False).cues is None
    assert SlabSource.of(prepared, cues=True).shape == prepared.shape
