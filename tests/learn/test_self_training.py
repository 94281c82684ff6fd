"""Slabs, the network over them, and what it learns from boxes alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ctray.config import RunConfig
from ctray.core.errors import CheckpointError, TrainingError
from ctray.learn.pretext.checkpoint import TrainedModel, load_model, weights_digest
from ctray.learn.self_training.checkpoint import (
    has_self_trained,
    load_self_trained,
    save_self_trained,
)
from ctray.learn.self_training.cues import NUM_CUES, SlabSource, cue_values, find_cues
from ctray.learn.self_training.network import (
    SelfTrainedNetwork,
    evidence_maps,
    pooled_profiles,
)
from ctray.learn.self_training.slabs import slab_tensor
from ctray.learn.self_training.training import (
    Ranges,
    SelfTrainer,
    draw_slabs,
    resident_volumes,
)
from ctray.localization.profile_faces import find_faces
from ctray.phantom import Phantom, make_phantom, preset
from ctray.preprocess.prepare import Prepared, prepare

CPU = torch.device("cpu")
SIDE = 32


def noisy(index: int) -> Phantom:
    return make_phantom(
        preset("easy", seed=21, index=index, size=SIDE, reconstruction_circle=False, noise=0.3)
    )


@pytest.fixture(scope="module")
def trained(trained_url: str) -> TrainedModel:
    return load_model(trained_url)


@pytest.fixture(scope="module")
def phantoms() -> list[Phantom]:
    return [noisy(i) for i in range(12)]


@pytest.fixture(scope="module")
def volumes(phantoms: list[Phantom], trained: TrainedModel) -> list[Prepared]:
    return [prepare(p.volume, (1, 1, 1), trained.config.preprocess) for p in phantoms]


def true_ranges(phantom: Phantom) -> Ranges:
    assert phantom.box is not None
    z, y, x = phantom.box.ranges
    return ((z[0], z[1]), (y[0], y[1]), (x[0], x[1]))


def settings(config_of: Callable[..., RunConfig], **own: object) -> RunConfig:
    return config_of(self_train={"enabled": True, "steps": 4, "slabs": 12, **own})


def trainer_of(
    trained: TrainedModel, volumes: list[Prepared], ranges: list[Ranges], config: RunConfig
) -> SelfTrainer:
    return SelfTrainer(
        trained.model.encoder,
        lambda i: volumes[i],
        ranges,
        [v.shape for v in volumes],
        config,
        SIDE,
        CPU,
    )


def test_slab_holds_the_neighbours_and_mirrors_at_the_ends(volumes: list[Prepared]) -> None:
    volume = volumes[0]
    x_BKSHW = slab_tensor(SlabSource.of(volume, cues=True), 1, [0, 7, 31], 2, SIDE, CPU)

    plain = (volume.voxels.astype(np.float32) - volume.mean) / volume.std
    seen = np.stack([plain, *cue_values(find_cues(volume))])
    expected = [[2, 1, 0, 1, 2], [5, 6, 7, 8, 9], [29, 30, 31, 30, 29]]
    assert x_BKSHW.shape == (3, 1 + NUM_CUES, 5, SIDE, SIDE)
    for slab, rows in zip(x_BKSHW, expected, strict=True):
        wanted = seen[:, :, rows].transpose(0, 2, 1, 3)
        np.testing.assert_allclose(slab.numpy(), wanted, rtol=1e-5, atol=1e-6)


def test_network_starts_from_the_encoder_and_leaves_it_as_it_was(trained: TrainedModel) -> None:
    before = weights_digest(trained.model.state_dict())
    network = SelfTrainedNetwork(trained.model.encoder, 2)

    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1.0)

    assert weights_digest(trained.model.state_dict()) == before
    assert network(torch.zeros(3, 1 + NUM_CUES, 5, SIDE, SIDE)).shape == (3,)


def test_slice_is_as_sure_as_its_surest_cell(trained: TrainedModel) -> None:
    network = SelfTrainedNetwork(trained.model.encoder, 1)
    empty = torch.full((1, 8, 8), -6.0)
    one = empty.clone()
    one[0, 3, 5] = 9.0

    low, high = network.pool(torch.cat([empty, one])).tolist()

    assert high > 9.0 - 0.5 * np.log(64) + network.bias.item() - 1e-3
    assert low < -2


def test_examples_are_a_function_of_seed_and_step(config_of: Callable[..., RunConfig]) -> None:
    config = settings(config_of)
    ranges: list[Ranges] = [((4, 9), (5, 20), (6, 30)), None]
    shapes = [(32, 32, 32), (24, 32, 32)]

    first, again = (draw_slabs(config, 3, [0, 1], ranges, shapes) for _ in range(2))

    assert first == again
    assert first != draw_slabs(config, 4, [0, 1], ranges, shapes)


def test_slabs_are_told_what_the_box_says_of_their_middle(
    config_of: Callable[..., RunConfig],
) -> None:
    config = settings(config_of, slabs=600)
    box = ((4.0, 9.0), (5.0, 20.0), (6.5, 30.0))

    for slabs in draw_slabs(config, 0, [0], [box], [(32, 32, 32)]):
        low, high = box[slabs.axis]
        expected = [low < middle + 0.5 < high for middle in slabs.middles]
        assert slabs.holds == expected
        # Near either face, in and out, there is something to learn.
        assert 0.1 < np.mean(slabs.holds) < 0.9
        assert 0 <= min(slabs.middles) <= max(slabs.middles) < 32


def test_empty_volumes_teach_what_holds_nothing(config_of: Callable[..., RunConfig]) -> None:
    for slabs in draw_slabs(settings(config_of), 0, [0], [None], [(32, 32, 32)]):
        assert not any(slabs.holds)


def test_few_volumes_are_all_in_memory_and_many_in_turn() -> None:
    assert resident_volumes(0, 5, 7, 1000) == list(range(7))
    seen = {i for step in range(0, 4000, 40) for i in resident_volumes(0, step, 40, 1000)}
    assert seen == set(range(40))
    assert len(resident_volumes(0, 0, 40, 1000)) == 12
    # Volumes of 200 MB: no more than two at a time.
    assert len(resident_volumes(0, 0, 40, 200_000_000)) == 2


def test_same_seed_gives_the_same_weights_however_it_is_cut_into_parts(
    trained: TrainedModel,
    volumes: list[Prepared],
    phantoms: list[Phantom],
    config_of: Callable[..., RunConfig],
) -> None:
    ranges = [true_ranges(p) for p in phantoms]
    digests = []
    for parts in ([4], [1, 3]):
        trainer = trainer_of(trained, volumes, ranges, settings(config_of))
        for steps in parts:
            row = trainer.advance(steps)
        assert trainer.finished
        assert row["step"] == 4
        digests.append(weights_digest(trainer.network.state_dict()))
    assert digests[0] == digests[1]


def test_errors_of_single_boxes_are_not_learned(
    trained: TrainedModel,
    volumes: list[Prepared],
    phantoms: list[Phantom],
    config_of: Callable[..., RunConfig],
) -> None:
    """Boxes of which every third face is off by 6 of 32 slices teach better faces than their own.

    In or out with equal chance, as the faces of a pretext task are.
    """
    rng = np.random.default_rng(3)
    given: list[Ranges] = []
    errors = []
    for phantom in phantoms:
        faces = np.array(true_ranges(phantom), dtype=float)
        off = rng.choice([-6.0, 0, 0, 0, 0, 6.0], size=(3, 2))
        moved = np.clip(faces + off, 0, SIDE)
        errors.append(np.abs(moved - faces).mean())
        given.append(tuple((float(a), float(b)) for a, b in moved))  # type: ignore[arg-type]
    config = settings(config_of, steps=120, slabs=48)
    trainer = trainer_of(trained, volumes, given, config)
    trainer.advance(120)

    found = []
    for volume, phantom in zip(volumes, phantoms, strict=True):
        maps = evidence_maps(trainer.network, SlabSource.of(volume, cues=True), SIDE)
        profiles = pooled_profiles(trainer.network, maps)
        for name, (start, stop) in zip("zyx", true_ranges(phantom) or (), strict=True):
            faces = find_faces(profiles[name], -0.5)
            assert faces is not None
            found += [abs(faces.start - start), abs(faces.stop - stop)]
    assert np.mean(errors) > 1.5
    assert np.mean(found) < 0.6 * np.mean(errors)


def test_without_volumes_there_is_nothing_to_learn(
    trained: TrainedModel, config_of: Callable[..., RunConfig]
) -> None:
    with pytest.raises(TrainingError, match="no volume"):
        trainer_of(trained, [], [], settings(config_of))


@pytest.mark.parametrize("cues", [True, False])
def test_network_survives_its_files(trained: TrainedModel, tmp_path: Path, cues: bool) -> None:
    url = str(tmp_path)
    network = SelfTrainedNetwork(trained.model.encoder, 2, cues=cues)
    assert not has_self_trained(url)
    assert load_self_trained(url, trained) is None

    digest = save_self_trained(url, network, trained.config, trained.digest)
    loaded = load_self_trained(url, trained)

    assert loaded is not None
    assert loaded.digest == digest == weights_digest(loaded.network.state_dict())
    assert (loaded.network.cues is not None) == cues


def test_network_of_another_encoder_or_damaged_is_refused(
    trained: TrainedModel, tmp_path: Path
) -> None:
    url = str(tmp_path)
    save_self_trained(url, SelfTrainedNetwork(trained.model.encoder, 2), trained.config, "another")
    with pytest.raises(CheckpointError, match="another encoder"):
        load_self_trained(url, trained)

    save_self_trained(
        url, SelfTrainedNetwork(trained.model.encoder, 2), trained.config, trained.digest
    )
    weights = tmp_path / "self-trained.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match="does not match its digest"):
        load_self_trained(url, trained)
