"""The self-trained network on storage: weights as safetensors, the rest as JSON, written last."""

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
# Settings of self-training that count while it learns; the others count when faces are found.
_LEARNED_WITH = ("steps", "slabs", "neighbours", "cues", "learning_rate", "near_fraction")


@dataclass(frozen=True, kw_only=True, slots=True)
class SelfTrainedModel:
    """A self-trained network ready for use.

    Parameters
    ----------
    network
        The network, in evaluation mode.
    digest
        SHA-256 of its weights.
    learned_with
        Settings of `self_train` that it was trained with.
    method_version
        `METHOD_VERSION` of the code that trained it.
    """

    network: SelfTrainedNetwork
    digest: str
    learned_with: dict[str, Any] = field(default_factory=dict)
    method_version: int = METHOD_VERSION


def digest_of_boxes(
    config: RunConfig, trained: TrainedModel, self_trained: SelfTrainedModel | None
) -> str:
    """`box_settings_digest` of the boxes that these networks find.

    Settings that counted in training come from the networks, whatever `config` says now: a
    checkpoint of 100 of 1,500 steps counts as one of 100 steps.

    Parameters
    ----------
    config
        Settings that faces are found with.
    trained, self_trained
        The networks that find them.
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
    """Write the network beside the encoder's checkpoint at `url`; returns its digest."""
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
    """Whether a finished self-trained network lies at `url`."""
    return store.exists(store.join(url, MANIFEST))


def load_self_trained(url: str, trained: TrainedModel) -> SelfTrainedModel | None:
    """Self-trained network beside the checkpoint of `trained`; None where there is none.

    Raises
    ------
    CheckpointError
        If it is damaged, or belongs to another encoder.
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
