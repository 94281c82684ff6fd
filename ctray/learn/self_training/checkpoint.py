"""The self-trained network in storage: weights as safetensors, then the rest as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import safetensors.torch

from ctray.config import RunConfig
from ctray.config.box_settings import METHOD_VERSION, box_settings_digest
from ctray.core.errors import CheckpointError, NotFoundError
from ctray.core.version import __version__
from ctray.learn.pretext.checkpoint import TrainedModel, portable, read_tensors, weights_digest
from ctray.learn.self_training.network import SelfTrainedNetwork
from ctray.storage import store

MANIFEST = "self-trained.json"
_WEIGHTS = "self-trained.safetensors"
# Settings of self-training that affect training. The others affect how faces are found.
_LEARNED_WITH = ("steps", "slabs", "neighbours", "cues", "learning_rate", "near_fraction")


@dataclass(frozen=True, kw_only=True, slots=True)
class SelfTrainedModel:
    """A self-trained network ready for use.

    Parameters
    ----------
    network
        The network, in evaluation mode.
    digest
        SHA-256 of the network's weights.
    learned_with
        Settings of `self_train` during training.
    method_version
        `METHOD_VERSION` of the code that trained the network.
    """

    network: SelfTrainedNetwork
    digest: str
    learned_with: dict[str, Any] = field(default_factory=dict)
    method_version: int = METHOD_VERSION


def digest_of_boxes(
    config: RunConfig, trained: TrainedModel, self_trained: SelfTrainedModel | None
) -> str:
    """`box_settings_digest` of the boxes that these networks find.

    Settings that affected training come from the networks, not from `config`. For example, a
    checkpoint after 100 of 1,500 steps counts as 100 steps.

    Parameters
    ----------
    config
        Settings for finding faces.
    trained, self_trained
        Networks that find the faces.
    """
    train = trained.config.train.model_copy(update={"steps": trained.step})
    learned = {} if self_trained is None else self_trained.learned_with
    settings = config.self_train.model_copy(
        update={"enabled": self_trained is not None}
        | {name: learned[name] for name in _LEARNED_WITH if name in learned}
    )
    used = config.model_copy(update={"train": train, "self_train": settings})
    versions = [trained.method_version]
    versions += [] if self_trained is None else [self_trained.method_version]
    return box_settings_digest(used, versions)


def save_self_trained(
    url: str, network: SelfTrainedNetwork, config: RunConfig, encoder_digest: str
) -> str:
    """Write the network to the folder `url` of the encoder's checkpoint; returns its digest."""
    weights = portable(network.state_dict())
    digest = weights_digest(weights)
    store.write_bytes(store.join(url, _WEIGHTS), safetensors.torch.save(weights))
    manifest = {
        "digest": digest,
        "encoder_digest": encoder_digest,
        "neighbours": network.neighbours,
        "cues": network.cues is not None,
        "config": config.self_train.model_dump(mode="json"),
        "method_version": METHOD_VERSION,
        "ctray_version": __version__,
    }
    store.write_json(store.join(url, MANIFEST), manifest)
    return digest


def has_self_trained(url: str) -> bool:
    """Whether the folder `url` contains a finished self-trained network."""
    return store.exists(store.join(url, MANIFEST))


def load_self_trained(url: str, trained: TrainedModel) -> SelfTrainedModel | None:
    """Self-trained network in the checkpoint folder of `trained`, or None if there is none.

    Raises
    ------
    CheckpointError
        If the network is damaged or belongs to another encoder.
    """
    try:
        manifest: dict[str, Any] = store.read_json(store.join(url, MANIFEST))
    except NotFoundError:
        return None
    if manifest.get("encoder_digest") != trained.digest:
        raise CheckpointError(
            f"{url}/{MANIFEST} was trained from another encoder; delete it, and run ctray "
            "pretrain again"
        )
    network = SelfTrainedNetwork(
        trained.model.encoder,
        int(manifest["neighbours"]),
        cues=bool(manifest["cues"]),
    )
    weights = read_tensors(store.join(url, _WEIGHTS))
    if weights_digest(weights) != manifest["digest"]:
        raise CheckpointError(
            f"{url}/{_WEIGHTS} does not match its digest; the file is damaged, delete "
            f"{MANIFEST} and run ctray pretrain again"
        )
    network.load_state_dict(weights)
    network.eval()
    return SelfTrainedModel(
        network=network,
        digest=str(manifest["digest"]),
        learned_with=dict(manifest["config"]),
        method_version=int(manifest["method_version"]),
    )
