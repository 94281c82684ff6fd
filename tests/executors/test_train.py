"""Ray Train learns exactly what the plain loop learns, and goes on where it stopped."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from ray.util import list_named_actors

from ctray.config import RunConfig
from ctray.core.errors import CheckpointError, InvalidVolumeError, TrainingError
from ctray.executors.ray.stream import example_stream
from ctray.executors.ray.training import data_config, train_encoder
from ctray.learn.pretext.checkpoint import load_model, read_metrics, save_checkpoint
from ctray.learn.pretext.examples import num_rounds
from ctray.learn.pretext.training import Trainer, local_rounds, train
from ctray.learn.pretext.work import EncoderTraining
from ctray.preprocess.prepare import Prepared

pytestmark = pytest.mark.ray

ConfigOf = Callable[..., RunConfig]
SIDE = 24


def pretrain(
    config: RunConfig,
    urls: list[str],
    side: int,
    checkpoint: str,
    on_log: Callable[[dict[str, float]], None] = lambda row: None,
    validation_urls: Sequence[str] = (),
) -> None:
    train_encoder(
        EncoderTraining(
            config=config,
            side=side,
            checkpoint_url=checkpoint,
            training_urls=urls,
            validation_urls=validation_urls,
        ),
        on_log,
    )


def plain_checkpoints(config: RunConfig, volumes: list[Prepared], folder: Path) -> Path:
    """Checkpoints `step-5` and `step-9` of the plain loop, in `folder`."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)  # as many as a Ray Train worker gets
    trainer = Trainer(config, SIDE, device=torch.device("cpu"))
    load = local_rounds(volumes, config, SIDE)
    train(
        trainer,
        (load(i) for i in range(num_rounds(config))),
        on_checkpoint=lambda t: save_checkpoint(str(folder / f"step-{t.step}"), t) and None,
    )
    torch.set_num_threads(threads)
    return folder


@pytest.fixture(scope="module")
def plain_run(
    config_of: ConfigOf, stored_volumes: list[Prepared], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    config = config_of(encoder={"dropout": 0.3})
    return plain_checkpoints(config, stored_volumes, tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize(
    ("readers", "resume"), [(1, False), (3, True)], ids=["one reader", "three readers, resumed"]
)
def test_ray_train_gives_the_weights_of_the_plain_loop(
    ray_cpus: int,
    config_of: ConfigOf,
    working_urls: list[str],
    plain_run: Path,
    tmp_path: Path,
    readers: int,
    resume: bool,
) -> None:
    """Step 5 lies within a round of three steps, so that resuming has to skip two of them."""
    config = config_of(encoder={"dropout": 0.3}, train={"num_readers": readers})
    url = tmp_path / "checkpoint"
    if resume:
        shutil.copytree(plain_run / "step-5", url)
    logged: list[float] = []
    pretrain(config, working_urls, SIDE, str(url), on_log=lambda row: logged.append(row["step"]))
    found, expected = load_model(str(url)), load_model(str(plain_run / "step-9"))
    assert found.step == expected.step == 9
    assert found.digest == expected.digest
    assert logged == ([6, 9] if resume else [3, 6, 9])
    assert [row["step"] for row in read_metrics(str(url))] == [3, 6, 9]


def test_sorting_gives_the_same_weights_however_it_is_read_and_stopped(
    ray_cpus: int,
    config_of: ConfigOf,
    working_urls: list[str],
    stored_volumes: list[Prepared],
    tmp_path: Path,
) -> None:
    """Augmentation and dropout included; held-out volumes and a stop at step 5 change nothing."""
    config = config_of(task="sorting", encoder={"dropout": 0.3, "pool_grid": 1})
    plain = plain_checkpoints(config, stored_volumes[:2], tmp_path / "plain")
    expected = load_model(str(plain / "step-9")).digest
    for readers, held_out in ((1, []), (3, working_urls[2:])):
        url = tmp_path / f"readers-{readers}"
        changed = config.model_copy(
            update={"train": config.train.model_copy(update={"num_readers": readers})}
        )
        if held_out:
            shutil.copytree(plain / "step-5", url)
        pretrain(changed, working_urls[:2], SIDE, str(url), validation_urls=held_out)
        assert load_model(str(url)).digest == expected
        rows = read_metrics(str(url))
        validated = [row["step"] for row in rows if "validation_displacement" in row]
        assert validated == ([9] if held_out else [])


def test_ray_train_keeps_rows_in_their_order(
    ray_cpus: int, config_of: ConfigOf, working_urls: list[str]
) -> None:
    """Its options: rows that come in order by chance prove nothing, readers overtake under load."""
    stream = example_stream(config_of(), working_urls, SIDE, first_round=0)
    (shards,) = data_config().configure({"rank-0": stream}, 1, None, None)
    assert shards["rank-0"].get_context().execution_options.preserve_order


def test_two_workers_finish(
    ray_cpus: int, config_of: ConfigOf, working_urls: list[str], tmp_path: Path
) -> None:
    config = config_of(train={"num_workers": 2, "num_readers": 1})
    url = str(tmp_path / "checkpoint")
    pretrain(config, working_urls, SIDE, url)
    found = load_model(url)
    assert found.step == 9
    alone = load_model(url).model.state_dict()
    assert all(torch.isfinite(value).all() for value in alone.values())
    assert [row["step"] for row in read_metrics(url)] == [3, 6, 9]
    check_nothing_stays_with_the_workers()


def check_nothing_stays_with_the_workers() -> None:
    """An actor that Ray made on their node for good would keep an autoscaler from taking it."""
    deadline = time.monotonic() + 30
    expected = {"datasets_stats_actor", "ActorLocationTracker", "AutoscalingCoordinator"}
    while True:
        # Those that `keep_data_actors_here` makes on the driver's node; others end with training.
        found = {actor["name"] for actor in list_named_actors(all_namespaces=True)}
        if found == expected:
            return
        assert time.monotonic() < deadline, found
        time.sleep(0.2)


def test_finished_training_is_left_alone(
    ray_cpus: int, config_of: ConfigOf, working_urls: list[str], plain_run: Path, tmp_path: Path
) -> None:
    url = tmp_path / "checkpoint"
    shutil.copytree(plain_run / "step-9", url)
    before = {path.name: path.stat().st_mtime_ns for path in url.iterdir()}
    pretrain(config_of(encoder={"dropout": 0.3}), working_urls, SIDE, str(url))
    assert {path.name: path.stat().st_mtime_ns for path in url.iterdir()} == before


# --- what cannot work -----------------------------------------------------------------------


def test_checkpoint_of_another_configuration_is_refused(
    ray_cpus: int, config_of: ConfigOf, working_urls: list[str], plain_run: Path, tmp_path: Path
) -> None:
    """At once, and the checkpoint stays as it was."""
    url = tmp_path / "checkpoint"
    shutil.copytree(plain_run / "step-5", url)
    with pytest.raises(CheckpointError, match="trained with another encoder"):
        pretrain(config_of(encoder={"embedding_dim": 16}), working_urls, SIDE, str(url))
    assert load_model(str(url)).step == 5


@pytest.mark.slow
def test_damaged_working_volume_is_named(
    ray_cpus: int, config_of: ConfigOf, working_urls: list[str], tmp_path: Path
) -> None:
    # The reader's own error arrives through Ray Data, and no second attempt is made.
    bad = tmp_path / "bad.npz"
    bad.write_bytes(b"no archive")
    with pytest.raises(InvalidVolumeError, match=r"bad\.npz is missing or damaged") as caught:
        pretrain(config_of(), [*working_urls, str(bad)], SIDE, str(tmp_path / "checkpoint"))
    assert "\n" not in str(caught.value)


def test_too_few_cpus_are_told_at_once(
    ray_cpus: int, config_of: ConfigOf, working_urls: list[str], tmp_path: Path
) -> None:
    config = config_of(train={"num_workers": 4, "num_readers": 3})
    with pytest.raises(TrainingError, match=r"needs 5 CPUs .* Ray has 2; lower"):
        pretrain(config, working_urls, SIDE, str(tmp_path / "checkpoint"))


def test_missing_gpus_are_told_at_once(
    ray_cpus: int, config_of: ConfigOf, working_urls: list[str], tmp_path: Path
) -> None:
    config = config_of(train={"num_gpus_per_worker": 64})
    with pytest.raises(TrainingError, match=r"needs 64 GPUs and Ray has \d+; lower"):
        pretrain(config, working_urls, SIDE, str(tmp_path / "checkpoint"))


def test_no_volume_is_told_at_once(ray_cpus: int, config_of: ConfigOf, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no volume to train on"):
        pretrain(config_of(), [], SIDE, str(tmp_path / "checkpoint"))
