"""Boxes are those of the networks that found them, whatever the settings say meanwhile."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from ctray.config import RunConfig, override
from ctray.config.box_settings import METHOD_VERSION, box_settings_digest
from ctray.learn.pretext.checkpoint import TrainedModel, load_model
from ctray.learn.self_training.checkpoint import (
    SelfTrainedModel,
    digest_of_boxes,
    load_self_trained,
    save_self_trained,
)
from ctray.learn.self_training.network import SelfTrainedNetwork
from ctray.localization.localizer import Localizer
from ctray.storage import store


@pytest.fixture
def trained(trained_url: str, tmp_path: Path) -> TrainedModel:
    """A model with a checkpoint of its own, to be changed."""
    shutil.copytree(trained_url, tmp_path / "checkpoint")
    return load_model(str(tmp_path / "checkpoint"))


def self_trained(trained: TrainedModel, config: RunConfig) -> SelfTrainedModel:
    network = SelfTrainedNetwork(trained.model.encoder, config.self_train.neighbours)
    save_self_trained(trained.url, network, config, trained.digest)
    slabs = load_self_trained(trained.url, trained)
    assert slabs is not None
    return slabs


def test_run_that_was_trained_as_it_says_has_the_digest_of_its_settings(
    trained: TrainedModel,
) -> None:
    config = override(trained.config, ("self_train.enabled=true",))
    slabs = self_trained(trained, config)
    assert digest_of_boxes(config, trained, slabs) == box_settings_digest(config)
    assert Localizer(trained, config, slabs).box_settings_digest == box_settings_digest(config)


def test_half_trained_network_has_the_digest_of_what_was_done(trained: TrainedModel) -> None:
    half = replace(trained, step=trained.step // 2)
    settings = (f"train.steps={half.step}",)
    expected = box_settings_digest(override(trained.config, settings))
    assert digest_of_boxes(trained.config, half, None) == expected
    assert expected != box_settings_digest(trained.config)


def test_without_its_network_self_training_does_not_count(trained: TrainedModel) -> None:
    wanted = override(trained.config, ("self_train.enabled=true",))
    without = override(trained.config, ("self_train.enabled=false",))
    assert digest_of_boxes(wanted, trained, None) == box_settings_digest(without)


def test_self_training_counts_as_it_was_done(trained: TrainedModel) -> None:
    """Steps are those of the network; what is decided later is what the settings say now."""
    config = override(trained.config, ("self_train.enabled=true", "self_train.steps=7"))
    slabs = self_trained(trained, config)
    said = override(config, ("self_train.steps=9", "self_train.min_peak=2.5"))
    done = override(config, ("self_train.steps=7", "self_train.min_peak=2.5"))
    assert digest_of_boxes(said, trained, slabs) == box_settings_digest(done)


@pytest.mark.parametrize("name", ["checkpoint.json", "self-trained.json"])
def test_networks_of_an_earlier_method_are_told_apart(trained: TrainedModel, name: str) -> None:
    config = override(trained.config, ("self_train.enabled=true",))
    self_trained(trained, config)
    manifest = f"{trained.url}/{name}"
    told = store.read_json(manifest)
    assert told["method_version"] == METHOD_VERSION
    store.write_json(manifest, {**told, "method_version": 0})
    again = load_model(trained.url)
    network = load_self_trained(trained.url, again)
    assert network is not None
    assert 0 in {again.method_version, network.method_version}
    digest = digest_of_boxes(config, again, network)
    assert digest == box_settings_digest(config, [0])
    assert digest != box_settings_digest(config)


def test_training_that_an_earlier_method_began_stays_its_own(trained: TrainedModel) -> None:
    import torch

    from ctray.learn.pretext.checkpoint import restore, save_checkpoint
    from ctray.learn.pretext.training import Trainer

    manifest = f"{trained.url}/checkpoint.json"
    told = store.read_json(manifest)
    store.write_json(manifest, {**told, "method_version": 0})
    trainer = Trainer(trained.config, trained.side, device=torch.device("cpu"))
    assert restore(trainer, trained.url)
    save_checkpoint(trained.url, trainer)
    assert store.read_json(manifest)["method_version"] == 0
