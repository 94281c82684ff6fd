"""Checkpoints: what is kept, what belongs together, and what is refused."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch

from ctray.config import RunConfig
from ctray.core.errors import CheckpointError, CtrayError
from ctray.learn.pretext.checkpoint import (
    checkpoint_step,
    load_model,
    read_metrics,
    restore,
    save_checkpoint,
    weights_digest,
)
from ctray.learn.pretext.training import Trainer, local_rounds, train
from ctray.preprocess.prepare import Prepared
from ctray.storage import store

CPU = torch.device("cpu")
ConfigOf = Callable[..., RunConfig]


@pytest.fixture(scope="module")
def trainer(config_of: ConfigOf, small_volumes: list[Prepared]) -> Trainer:
    """Trained for three steps of nine."""
    config = config_of(train={"steps": 3, "log_every": 1})
    made = Trainer(config, max(small_volumes[0].shape), device=CPU)
    train(made, [local_rounds(small_volumes, config, made.side)(0)])
    return made


@pytest.fixture
def saved(trainer: Trainer, tmp_path: Path) -> Path:
    save_checkpoint(str(tmp_path / "checkpoint"), trainer)
    return tmp_path / "checkpoint"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def fresh(trainer: Trainer, **sections: Any) -> Trainer:
    data = trainer.config.model_dump(mode="json")
    for section, values in sections.items():
        data[section] |= values
    return Trainer(RunConfig.model_validate(data), trainer.side, device=CPU)


@pytest.mark.parametrize("place", ["disk", "memory://checkpoints-of-tests/one"])
def test_model_comes_back_as_it_was(trainer: Trainer, tmp_path: Path, place: str) -> None:
    url = str(tmp_path / "deep" / "checkpoint") if place == "disk" else place
    digest = save_checkpoint(url, trainer)
    loaded = load_model(url)
    assert loaded.digest == digest == weights_digest(loaded.model.state_dict())
    assert (loaded.side, loaded.step, loaded.config) == (trainer.side, 3, trainer.config)
    assert not loaded.model.training
    a, b = torch.randn(2, 4, 1, trainer.side, trainer.side)
    trainer.model.eval()
    with torch.no_grad():
        assert torch.equal(loaded.model(a, b), trainer.model(a, b))
    assert read_metrics(url) == trainer.metrics
    assert checkpoint_step(url) == 3


def test_files_are_safetensors_json_and_parquet(saved: Path, trainer: Trainer) -> None:
    manifest = json.loads((saved / "checkpoint.json").read_text())
    assert names(saved) == {"checkpoint.json", *manifest["files"].values()}
    weights = safetensors.torch.load_file(saved / manifest["files"]["weights"])
    assert weights.keys() == trainer.model.state_dict().keys()
    table = pq.read_table(io.BytesIO((saved / manifest["files"]["metrics"]).read_bytes()))
    assert table.column("step").to_pylist() == [1, 2, 3]
    assert {"step", "digest", "config", "ctray_version"} <= manifest.keys()


def test_digest_tells_weights_names_and_shapes_apart() -> None:
    one = {"a": torch.arange(6.0), "b": torch.zeros(2)}
    others = [
        {"a": torch.arange(6.0) + 1e-6, "b": torch.zeros(2)},
        {"a": torch.arange(6.0).reshape(2, 3), "b": torch.zeros(2)},
        {"A": torch.arange(6.0), "b": torch.zeros(2)},
        {"a": torch.arange(6.0).double(), "b": torch.zeros(2)},
        {"a": torch.arange(6.0)},
    ]
    digests = {weights_digest(weights) for weights in [one, *others]}
    assert len(digests) == 6
    assert weights_digest(dict(reversed(one.items()))) == weights_digest(one)


def test_digest_does_not_depend_on_the_memory_layout() -> None:
    image = torch.randn(2, 3, 4, 5)
    last = image.contiguous(memory_format=torch.channels_last)
    assert weights_digest({"a": image}) == weights_digest({"a": last})


# --- one after the other --------------------------------------------------------------------


def test_next_checkpoint_replaces_the_one_before(saved: Path, trainer: Trainer) -> None:
    before = names(saved)
    later = fresh(trainer)
    restore(later, str(saved))
    later.step = 7
    save_checkpoint(str(saved), later)
    assert len(names(saved)) == 4
    assert names(saved) & before == {"checkpoint.json"}
    assert checkpoint_step(str(saved)) == 7


def test_checkpoint_that_was_cut_off_leaves_the_one_before(
    saved: Path, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever write is the last one: the checkpoint is the old one, or the new one whole."""
    digest = load_model(str(saved)).digest
    write, count = store.write_bytes, [0]

    class PowerCut(BaseException):
        pass

    for survived in range(4):
        later = fresh(trainer)
        restore(later, str(saved))
        later.step = 4 + survived
        with torch.no_grad():
            next(later.model.parameters()).add_(1)
        count[0] = 0

        def dying(url: str, data: bytes, survived: int = survived) -> None:
            if count[0] == survived:
                raise PowerCut
            count[0] += 1
            write(url, data)

        monkeypatch.setattr(store, "write_bytes", dying)
        with pytest.raises(PowerCut):
            save_checkpoint(str(saved), later)
        monkeypatch.undo()
        assert load_model(str(saved)).digest == digest
        assert checkpoint_step(str(saved)) == 3
        assert restore(fresh(trainer), str(saved))


def test_no_checkpoint(tmp_path: Path, trainer: Trainer) -> None:
    url = str(tmp_path / "nothing")
    assert checkpoint_step(url) is None
    assert read_metrics(url) == []
    assert restore(fresh(trainer), url) is False
    with pytest.raises(CheckpointError, match=r"holds no checkpoint; run ctray pretrain"):
        load_model(url)


# --- damage ---------------------------------------------------------------------------------


def refuses(saved: Path, trainer: Trainer, *, model: bool = True) -> str:
    """Message with which resuming, and loading the model, refuse."""
    with pytest.raises(CheckpointError) as caught:
        restore(fresh(trainer), str(saved))
    assert "checkpoint" in str(caught.value)
    if model:
        with pytest.raises(CheckpointError):
            load_model(str(saved))
    return str(caught.value)


def file_of(saved: Path, what: str) -> Path:
    name = json.loads((saved / "checkpoint.json").read_text())["files"][what]
    return saved / name


@pytest.mark.parametrize("keep", [0, 4, 1000])
@pytest.mark.parametrize("what", ["weights", "optimizer"])
def test_truncated_tensors(saved: Path, trainer: Trainer, what: str, keep: int) -> None:
    path = file_of(saved, what)
    path.write_bytes(path.read_bytes()[:keep])
    assert path.name in refuses(saved, trainer, model=what == "weights")


@pytest.mark.parametrize("what", ["weights", "optimizer"])
def test_missing_tensors(saved: Path, trainer: Trainer, what: str) -> None:
    path = file_of(saved, what)
    path.unlink()
    assert path.name in refuses(saved, trainer, model=what == "weights")


def test_single_bit_of_the_weights(saved: Path, trainer: Trainer) -> None:
    path = file_of(saved, "weights")
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    assert "do not match their digest" in refuses(saved, trainer)


def test_damaged_metrics(saved: Path, trainer: Trainer) -> None:
    file_of(saved, "metrics").write_bytes(b"PAR1 not really")
    refuses(saved, trainer, model=False)


def test_missing_metrics(saved: Path, trainer: Trainer) -> None:
    file_of(saved, "metrics").unlink()
    refuses(saved, trainer, model=False)


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "null", '{"step": 3}', "\x00\x01"])
def test_damaged_manifest(saved: Path, trainer: Trainer, text: str) -> None:
    (saved / "checkpoint.json").write_text(text)
    assert "checkpoint.json" in refuses(saved, trainer)


@pytest.mark.parametrize("key", ["step", "side", "digest", "files", "config"])
def test_manifest_without_a_key(saved: Path, trainer: Trainer, key: str) -> None:
    manifest = json.loads((saved / "checkpoint.json").read_text())
    del manifest[key]
    (saved / "checkpoint.json").write_text(json.dumps(manifest))
    refuses(saved, trainer)


@pytest.mark.parametrize("what", ["weights", "optimizer", "metrics"])
def test_manifest_without_a_file(saved: Path, trainer: Trainer, what: str) -> None:
    manifest = json.loads((saved / "checkpoint.json").read_text())
    del manifest["files"][what]
    (saved / "checkpoint.json").write_text(json.dumps(manifest))
    refuses(saved, trainer)


def test_what_an_earlier_version_did_not_do_is_off(saved: Path) -> None:
    manifest = json.loads((saved / "checkpoint.json").read_text())
    del manifest["config"]["rotation"]["drift"]
    (saved / "checkpoint.json").write_text(json.dumps(manifest))
    assert load_model(str(saved)).config.rotation.drift == 0


def test_configuration_of_a_later_version_is_named(saved: Path) -> None:
    manifest = json.loads((saved / "checkpoint.json").read_text())
    manifest["config"]["train"]["colour"] = "blue"
    (saved / "checkpoint.json").write_text(json.dumps(manifest))
    with pytest.raises(CtrayError, match=r"checkpoint\.json.*train\.colour"):
        load_model(str(saved))


def test_weights_of_another_model(saved: Path, trainer: Trainer) -> None:
    other = {"encoder.other": torch.zeros(3)}
    safetensors.torch.save_file(other, file_of(saved, "weights"))
    manifest = json.loads((saved / "checkpoint.json").read_text())
    manifest["digest"] = weights_digest(other)
    (saved / "checkpoint.json").write_text(json.dumps(manifest))
    assert "do not fit the model" in refuses(saved, trainer)


def test_optimizer_of_another_model(saved: Path, trainer: Trainer) -> None:
    path = file_of(saved, "optimizer")
    tensors = safetensors.torch.load_file(path)
    first = next(name for name in tensors if name.endswith("exp_avg"))
    tensors[first] = torch.zeros(3, 2, 1)
    safetensors.torch.save_file(tensors, path)
    refuses(saved, trainer, model=False)


# --- another configuration ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("encoder", {"embedding_dim": 16}),
        ("rotation", {"twin_range": 0.3}),
        ("train", {"seed": 8}),
        ("train", {"steps": 30}),
        ("preprocess", {"drift": "off"}),
    ],
)
def test_another_configuration_is_refused(
    saved: Path, trainer: Trainer, section: str, values: dict[str, Any]
) -> None:
    with pytest.raises(
        CheckpointError, match=rf"trained with another {section}\.{next(iter(values))}; give"
    ):
        restore(fresh(trainer, **{section: values}), str(saved))


def test_another_working_size_is_refused(saved: Path, trainer: Trainer) -> None:
    other = Trainer(trainer.config, trainer.side + 8, device=CPU)
    with pytest.raises(CheckpointError, match="another working shape"):
        restore(other, str(saved))


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("train", {"num_workers": 2}),
        ("train", {"num_readers": 5}),
        ("train", {"num_gpus_per_worker": 0}),
        ("train", {"checkpoint_every": 1}),
        ("train", {"log_every": 2}),
        ("localize", {"orientations": 2}),
        ("crop", {"margin": 0.2}),
    ],
)
def test_what_changes_nothing_of_the_learning_may_differ(
    saved: Path, trainer: Trainer, section: str, values: dict[str, Any]
) -> None:
    assert restore(fresh(trainer, **{section: values}), str(saved))
