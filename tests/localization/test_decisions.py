"""The status of a volume when pretext task and self-trained network say different things."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ctray.config import override
from ctray.core.geometry import AXES, Box
from ctray.learn.pretext.checkpoint import TrainedModel, load_model
from ctray.learn.self_training.checkpoint import SelfTrainedModel
from ctray.learn.self_training.network import SelfTrainedNetwork
from ctray.localization import localizer, self_trained
from ctray.localization.localizer import Localization, Localizer
from ctray.phantom import Phantom, make_phantom, preset
from ctray.volumes.volume import open_volume
from ctray.volumes.writer import create_volume

SIDE = 32


@pytest.fixture(scope="module")
def trained(trained_url: str) -> TrainedModel:
    return load_model(trained_url)


def localized(
    folder: Path, voxels: np.ndarray, trained: TrainedModel, odds: float, *settings: str
) -> Localization:
    """Localization with a self-trained network that says the same of every slice, about `odds`."""
    url = str(folder / "volume.zarr")
    writer = create_volume(url, shape=voxels.shape, dtype=voxels.dtype, voxel_size=None)
    for box in writer.grid.shards():
        writer.write(box, voxels[box.slices])
    writer.build_pyramid()
    writer.commit({})
    network = SelfTrainedNetwork(trained.model.encoder, 1)
    with torch.no_grad():
        network.bias.fill_(odds)
    config = override(trained.config, ("self_train.enabled=true", *settings))
    own = SelfTrainedModel(network=network, digest="planted")
    return Localizer(trained, config, own, torch.device("cpu")).localize(open_volume(url))


def test_sure_pretext_task_is_not_overruled(
    trained: TrainedModel, held_out: list[Phantom], tmp_path: Path
) -> None:
    found = localized(tmp_path, held_out[0].volume, trained, -50)
    assert found.status == "uncertain"
    assert found.reason == "only the pretext task is sure of a sample"
    assert found.box is not None, "the guess is kept for whoever reviews it"


def test_faint_sample_counts_where_the_pretext_task_is_sure_of_it(
    trained: TrainedModel, held_out: list[Phantom], tmp_path: Path
) -> None:
    noise = np.random.default_rng(4).normal(100, 20, (SIDE,) * 3).clip(0, 255).astype(np.uint8)
    statuses = {}
    for name, voxels in (("sample", held_out[0].volume), ("noise", noise)):
        (tmp_path / name).mkdir()
        first = localized(tmp_path / name, voxels, trained, 50, "self_train.min_agreement=0")
        assert first.self_trained is not None
        for above in (0.5, 1.5):
            folder = tmp_path / f"{name}-{above}"
            folder.mkdir()
            settings = (
                "self_train.min_agreement=0",
                f"self_train.min_peak={first.self_trained.peak + above}",
            )
            found = localized(folder, voxels, trained, 50, *settings)
            statuses[name, above] = found.status
    assert statuses["sample", 0.5] == "located"
    assert statuses["sample", 1.5] == "uncertain"
    assert statuses["noise", 0.5] == "empty"


def test_volume_of_noise_is_empty(trained: TrainedModel, tmp_path: Path) -> None:
    voxels = np.random.default_rng(4).normal(100, 20, (SIDE,) * 3).clip(0, 255).astype(np.uint8)
    found = localized(tmp_path, voxels, trained, -50)
    assert (found.status, found.box) == ("empty", None)
    assert found.reason


def test_boxes_that_differ_are_for_review(
    trained: TrainedModel, held_out: list[Phantom], tmp_path: Path
) -> None:
    found = localized(tmp_path, held_out[0].volume, trained, 50)
    assert found.status == "uncertain"
    assert "intersection over union" in (found.reason or "")


def test_box_is_that_of_the_self_trained_network(
    trained: TrainedModel, held_out: list[Phantom], tmp_path: Path
) -> None:
    found = localized(tmp_path, held_out[0].volume, trained, 50, "self_train.min_agreement=0")
    assert found.status == "located"
    assert found.box == Box.whole((SIDE,) * 3)
    assert found.face_confidence == (1.0,) * 6
    assert found.self_trained is not None
    assert found.self_trained.scales() == (1.0,) * 6
    # The pretext task has its faces elsewhere: the profile alone does not say how open they are.
    assert found.scales is not None
    assert max(found.scales) > 1
    agreed = found.self_trained.scales(found.box)
    assert agreed == (1.0,) * 6


def planted(monkeypatch: pytest.MonkeyPatch, box: Box) -> None:
    """Let the self-trained network be sure of `box`, in voxels of level 0, and of nothing else."""
    profiles = {}
    for name, (start, stop) in zip(AXES, box.ranges, strict=True):
        middles = 2 * np.arange(SIDE) + 1
        profiles[name] = np.where((middles > start) & (middles < stop), 6.0, -6.0)
    monkeypatch.setattr(self_trained, "pooled_profiles", lambda *_: profiles)


@pytest.fixture(scope="module")
def clear_scan() -> Phantom:
    scan = preset("easy", seed=5, index=2, size=2 * SIDE, reconstruction_circle=False)
    return make_phantom(scan)


@pytest.mark.parametrize("clear", ["auto", "off"])
def test_clear_scan_has_its_faces_from_the_finer_level(
    trained: TrainedModel,
    clear_scan: Phantom,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    clear: str,
) -> None:
    """The network's box is a slice of the working level too small on one side."""
    assert clear_scan.box is not None
    (z0, z1), *others = clear_scan.box.ranges
    planted(monkeypatch, Box.from_ranges([[z0, z1 - 4], *others]))

    found = localized(tmp_path, clear_scan.volume, trained, 0, f"self_train.clear_faces={clear}")

    assert found.self_trained is not None
    assert found.self_trained.factors == (2, 2, 2)
    assert found.self_trained.box is not None
    off = np.abs(np.subtract(found.self_trained.box.faces, clear_scan.box.faces))
    assert found.self_trained.clear is (clear == "auto")
    assert (off.max() <= 1) == (clear == "auto")


@pytest.mark.parametrize(("clear", "status"), [("auto", "located"), ("off", "uncertain")])
def test_grey_values_and_network_outvote_the_pretext_task(
    trained: TrainedModel,
    clear_scan: Phantom,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    clear: str,
    status: str,
) -> None:
    assert clear_scan.box is not None
    planted(monkeypatch, clear_scan.box)
    # Whatever the pretext task says is another box.
    settings = (
        f"self_train.clear_faces={clear}",
        "self_train.min_agreement=1",
        "localize.threshold=0.0",
    )
    found = localized(tmp_path, clear_scan.volume, trained, 0, *settings)
    assert found.status == status


def test_pretext_task_is_sure_only_where_all_axes_are(
    trained: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(4).normal(100, 20, (SIDE,) * 3).clip(0, 255).astype(np.uint8)
    statuses = []
    for least in (0.3, 0.9):
        profiles = {name: np.full(SIDE, 0.15) for name in AXES}
        for name, peak in zip(AXES, (0.9, 0.9, least), strict=True):
            profiles[name][8:20] = peak
        monkeypatch.setattr(localizer, "certainty_profiles", lambda *_, p=profiles: p)
        folder = tmp_path / str(least)
        folder.mkdir()
        statuses.append(localized(folder, noise, trained, -50).status)
    assert statuses == ["empty", "uncertain"]


def test_without_self_training_the_box_is_that_of_the_pretext_task(
    trained: TrainedModel, held_out: list[Phantom], tmp_path: Path
) -> None:
    found = localized(tmp_path, held_out[0].volume, trained, 50, "self_train.enabled=false")
    assert found.status == "located"
    assert found.self_trained is None
    assert found.box != Box.whole((SIDE,) * 3)
