"""Checkpoints: weights and optimizer as safetensors, everything else as JSON, never pickle.

`checkpoint.json` names the files that belong together and is written last. So after an interrupted
write, the previous checkpoint remains valid.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from ctray.config import Binds, RunConfig, changed_settings, recorded_config
from ctray.config.box_settings import METHOD_VERSION
from ctray.core.errors import CheckpointError, NotFoundError
from ctray.core.version import __version__
from ctray.learn.pretext.encoder import PretextModel, on_device
from ctray.learn.pretext.tasks import build_model
from ctray.learn.pretext.training import Trainer
from ctray.storage import store

MANIFEST = "checkpoint.json"

_MANIFEST_KEYS = {"step", "side", "digest", "files", "config", "method_version"}
_FILES = {"weights", "optimizer", "metrics"}


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedModel:
    """A model from a checkpoint, ready for use.

    Parameters
    ----------
    model
        Model in evaluation mode, on the CPU.
    config
        Configuration of its training.
    side
        Side of the square canvas, pixels.
    step
        Optimizer steps done.
    digest
        SHA-256 of the weights. The same seed gives the same digest on the same machine's CPU.
    url
        Folder of the checkpoint.
    method_version
        `METHOD_VERSION` of the code that trained the model.
    """

    model: PretextModel
    config: RunConfig
    side: int
    step: int
    digest: str
    url: str
    method_version: int = METHOD_VERSION


def weights_digest(weights: dict[str, Tensor]) -> str:
    """SHA-256 of the names, shapes, dtypes and bytes of all weights, ordered by name."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name].detach().cpu().contiguous()
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()


def save_checkpoint(url: str, trainer: Trainer) -> str:
    """Write the trainer's state to the folder `url` and return the weights' digest."""
    weights = portable(trainer.model.state_dict())
    step = trainer.step
    names = {
        "weights": f"weights-{step:07d}.safetensors",
        "optimizer": f"optimizer-{step:07d}.safetensors",
        "metrics": f"metrics-{step:07d}.parquet",
    }
    before = _read_manifest(url)
    store.write_bytes(store.join(url, names["weights"]), safetensors.torch.save(weights))
    store.write_bytes(
        store.join(url, names["optimizer"]), safetensors.torch.save(_optimizer_tensors(trainer))
    )
    _write_metrics(store.join(url, names["metrics"]), trainer.metrics)
    digest = weights_digest(weights)
    manifest = {
        "step": step,
        "side": trainer.side,
        "digest": digest,
        "files": names,
        "config": trainer.config.model_dump(mode="json"),
        # Training that began with an earlier version of the method keeps that version.
        "method_version": METHOD_VERSION if before is None else before["method_version"],
        "ctray_version": __version__,
        "torch_version": torch.__version__,
    }
    store.write_json(store.join(url, MANIFEST), manifest)
    for name in (before or {"files": {}})["files"].values():
        if name not in names.values():
            store.delete_file(store.join(url, name))
    return digest


def restore(trainer: Trainer, url: str) -> bool:
    """Load the state of the checkpoint at `url` into the trainer; False if there is none.

    Raises
    ------
    CheckpointError
        If the checkpoint is damaged or belongs to another configuration.
    """
    manifest = _read_manifest(url)
    if manifest is None:
        return False
    _check_fits(url, manifest, trainer.config, trainer.side)
    _load_weights(trainer.model, url, manifest)
    _load_optimizer(trainer, store.join(url, manifest["files"]["optimizer"]))
    trainer.step = int(manifest["step"])
    trainer.metrics = read_metrics(url)
    return True


def check_resumable(url: str, config: RunConfig, side: int) -> None:
    """Raise `CheckpointError` if training cannot continue from an existing checkpoint at `url`."""
    manifest = _read_manifest(url)
    if manifest is not None:
        _check_fits(url, manifest, config, side)


def load_model(url: str) -> TrainedModel:
    """Model of the checkpoint at `url`.

    Raises
    ------
    CheckpointError
        If the checkpoint is missing or damaged.
    """
    manifest = _read_manifest(url)
    if manifest is None:
        raise CheckpointError(f"{url} holds no checkpoint; run ctray pretrain first")
    config = recorded_config(manifest["config"], source=f"{url}/{MANIFEST}")
    model = build_model(config)
    _load_weights(model, url, manifest)
    model.eval()
    return TrainedModel(
        model=on_device(model, torch.device("cpu")),
        config=config,
        side=int(manifest["side"]),
        step=int(manifest["step"]),
        digest=str(manifest["digest"]),
        url=url,
        method_version=int(manifest["method_version"]),
    )


def checkpoint_step(url: str) -> int | None:
    """Step of the checkpoint at `url`, or None if there is none."""
    manifest = _read_manifest(url)
    return None if manifest is None else int(manifest["step"])


def read_metrics(url: str) -> list[dict[str, float]]:
    """Rows of training metrics up to the checkpoint at `url`; empty if there is none."""
    manifest = _read_manifest(url)
    if manifest is None:
        return []
    metrics = store.join(url, manifest["files"]["metrics"])
    try:
        table = pq.read_table(io.BytesIO(store.read_bytes(metrics)))
    except (pa.ArrowException, NotFoundError) as error:
        raise CheckpointError(f"{metrics} is missing or damaged: {error}") from error
    return [{k: v for k, v in row.items() if v is not None} for row in table.to_pylist()]


def _read_manifest(url: str) -> dict[str, Any] | None:
    try:
        data = store.read_bytes(store.join(url, MANIFEST))
    except NotFoundError:
        return None
    damaged = CheckpointError(f"{url}/{MANIFEST} is damaged; move it away to train anew")
    try:
        manifest: Any = json.loads(data)
    except ValueError as error:
        raise damaged from error
    if not isinstance(manifest, dict) or not manifest.keys() >= _MANIFEST_KEYS:
        raise damaged
    if not isinstance(manifest["files"], dict) or not manifest["files"].keys() >= _FILES:
        raise damaged
    return manifest


def _check_fits(url: str, manifest: dict[str, Any], config: RunConfig, side: int) -> None:
    theirs = recorded_config(manifest["config"], source=f"{url}/{MANIFEST}")
    changed = changed_settings(theirs, config, Binds.TRAINING)
    if changed or manifest["side"] != side:
        changed = changed or ["working shape"]
        raise CheckpointError(
            f"{url} was trained with another {', '.join(changed)}; give another output, "
            "or the configuration that it was started with"
        )


def _load_weights(model: torch.nn.Module, url: str, manifest: dict[str, Any]) -> None:
    weights = read_tensors(store.join(url, manifest["files"]["weights"]))
    if weights_digest(weights) != manifest["digest"]:
        raise CheckpointError(f"{url}: the weights do not match their digest; the file is damaged")
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(f"{url}: the weights do not fit the model: {error}") from error


def _load_optimizer(trainer: Trainer, url: str) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in read_tensors(url).items():
        index, _, name = key.partition(".")
        state.setdefault(int(index) if index.isdigit() else -1, {})[name] = value
    shapes = [p.shape for group in trainer.optimizer.param_groups for p in group["params"]]
    # torch loads any state, and only the next step would fail.
    fits = state.keys() == set(range(len(shapes))) and all(
        value.dim() == 0 or value.shape == shapes[index]
        for index, part in state.items()
        for value in part.values()
    )
    if not fits:
        raise CheckpointError(f"{url}: the optimizer's state does not fit the model")
    full = trainer.optimizer.state_dict()
    full["state"] = state
    trainer.optimizer.load_state_dict(full)


def read_tensors(url: str) -> dict[str, Tensor]:
    """Tensors of a safetensors file; raises `CheckpointError` if it is missing or damaged."""
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load(store.read_bytes(url))
    except (SafetensorError, NotFoundError) as error:
        raise CheckpointError(f"{url} is missing or damaged: {error}") from error
    return tensors


def portable(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors on the CPU, ready to write."""
    return {name: value.detach().cpu().contiguous() for name, value in state.items()}


def _optimizer_tensors(trainer: Trainer) -> dict[str, Tensor]:
    state = trainer.optimizer.state_dict()["state"]
    return portable(
        {f"{index}.{name}": value for index, part in state.items() for name, value in part.items()}
    )


def _write_metrics(url: str, rows: list[dict[str, float]]) -> None:
    buffer = io.BytesIO()
    # Collect all names in the order of first use, because validation adds columns to some rows
    # only.
    names = dict.fromkeys(name for row in rows for name in row) or {"step": None}
    schema = pa.schema([(name, pa.float64()) for name in names])
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), buffer)
    store.write_bytes(url, buffer.getvalue())
