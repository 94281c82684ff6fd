"""The digest of the settings that move a box: what counts, and what does not."""

from __future__ import annotations

from typing import Any

import pytest

from ctray.config import RunConfig, override, parse_config
from ctray.config.box_settings import (
    METHOD_VERSION,
    box_settings,
    box_settings_digest,
    changed_box_settings,
)

# Everything that is known to leave boxes where they are. A new setting is not among them: it
# counts until somebody adds it here and to `ctray.config.box_settings`.
SECTIONS_APART = {"catalog", "crop", "pool", "ray", "job", "kube"}
FIELDS_APART = {
    "train.seed",
    "train.max_volumes",
    "train.validation_part",
    "train.checkpoint_every",
    "train.log_every",
    "train.num_workers",
    "train.num_readers",
    "train.num_gpus_per_worker",
    "localize.instances",
}
# Sections of the other pretext task.
OTHER_TASK = {"rotation": {"sorting", "uncertainty"}, "sorting": {"rotation"}}


def flat(config: RunConfig) -> set[str]:
    names = set()
    for section, value in config.model_dump(mode="json").items():
        names |= {f"{section}.{k}" for k in value} if isinstance(value, dict) else {section}
    return names


@pytest.mark.parametrize("task", ["rotation", "sorting"])
def test_every_setting_counts_but_those_that_are_named(task: str) -> None:
    config = parse_config({"task": task})
    apart = {
        name
        for name in flat(config)
        if name.partition(".")[0] in SECTIONS_APART | OTHER_TASK[task] or name in FIELDS_APART
    }
    assert set(box_settings(config)) == flat(config) - apart


@pytest.mark.parametrize(
    "item",
    [
        "preprocess.working_size=96",
        "preprocess.circle=off",
        "preprocess.noise_floor=0",
        "encoder.dropout=0.2",
        "rotation.drift=0",
        "train.steps=1499",
        "train.batch_size=64",
        "train.learning_rate=0.002",
        "localize.spreads=4.5",
        "refine.steps=400",
        "refine.enabled=false",
        "refine.threshold=0.3",
        "refine.min_agreement=0.3",
        "task=sorting",
    ],
)
def test_setting_that_moves_a_box_changes_the_digest(item: str) -> None:
    assert box_settings_digest(override(RunConfig(), (item,))) != box_settings_digest(RunConfig())


@pytest.mark.parametrize(
    "item",
    [
        "crop.max_loss=0.01",
        "crop.margin=0.1",
        "pool.max_size=7",
        "ray.num_cpus=3",
        "job.run=/somewhere",
        "kube.namespace=mine",
        "train.num_readers=5",
        "train.seed=9",
        "train.max_volumes=12",
        "localize.instances=true",
        "sorting.num_slices=5",
        "uncertainty.samples=9",
        'catalog.include=["a*"]',
    ],
)
def test_setting_that_moves_no_box_leaves_the_digest(item: str) -> None:
    assert box_settings_digest(override(RunConfig(), (item,))) == box_settings_digest(RunConfig())


def test_digest_does_not_depend_on_how_settings_were_written() -> None:
    one = parse_config({"localize": {"spreads": 4}, "refine": {"steps": 300}})
    other = parse_config({"refine": {"steps": 300}, "localize": {"spreads": 4.0}})
    assert box_settings_digest(one) == box_settings_digest(other)


def test_networks_of_another_version_have_another_digest() -> None:
    usual = box_settings_digest(RunConfig())
    assert box_settings_digest(RunConfig(), [METHOD_VERSION]) == usual
    older = box_settings_digest(RunConfig(), [METHOD_VERSION - 1])
    assert older not in (usual, box_settings_digest(RunConfig(), [METHOD_VERSION - 2]))


def test_without_self_training_its_settings_say_nothing() -> None:
    off: dict[str, Any] = {"enabled": False}
    one, other = (parse_config({"refine": {**off, "steps": n}}) for n in (7, 8))
    assert box_settings_digest(one) == box_settings_digest(other)


def test_what_differs_is_named() -> None:
    other = override(RunConfig(), ("train.steps=9", "refine.threshold=0.4"))
    theirs = box_settings(RunConfig())
    assert changed_box_settings(other, theirs) == ["train.steps", "refine.threshold"]
    # What one side does not know differs, too.
    del theirs["preprocess.rings"]
    assert changed_box_settings(RunConfig(), theirs) == ["preprocess.rings"]
