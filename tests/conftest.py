"""What the tests of several modules share: small settings, phantoms made ready, real volumes."""

from __future__ import annotations

import fcntl
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from run_fixtures import (
    archive_config,
    archive_settings,
    as_trained,
    begun,
    mixed_archive,
    ray_cpus,
    shared_ray,
    stored_volumes,
    working_urls,
    write_tiff_folder,
)
from s3_servers import ceph_server, moto_server
from store_fixtures import base_url, ceph

from ctray.config import RunConfig, parse_config
from ctray.phantom import Phantom, make_phantom, preset
from ctray.preprocess.prepare import Prepared, prepare

__all__ = [
    "archive_config",
    "archive_settings",
    "as_trained",
    "base_url",
    "begun",
    "ceph",
    "ceph_server",
    "mixed_archive",
    "moto_server",
    "ray_cpus",
    "shared_ray",
    "stored_volumes",
    "working_urls",
    "write_tiff_folder",
]

REPOSITORY = Path(__file__).resolve().parents[1]
SIDE = 24


# Speed is no matter of tests: a machine that is busy with others must not fail them.
hypothesis.settings.register_profile("ctray", deadline=None)
hypothesis.settings.load_profile("ctray")


def pytest_configure() -> None:
    """Before torch is loaded: its idle threads must not turn about where others could work."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `-n 2`, one process runs all tests of a file: what they share is made once.

    Two Ray sessions may then run at a time. Files go out in the order of collection.
    """
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False
    return LoadFileScheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that share a Ray session first, then those that start their own, then short tests.

    A process so starts the shared session once, and short tests at the end keep all processes busy.
    """
    places: dict[Path, int] = {}
    for item in items:
        place = 2
        if "ray_cpus" in getattr(item, "fixturenames", ()):
            place = 0
        elif item.get_closest_marker("ray") or item.get_closest_marker("slow"):
            place = 1
        places[item.path] = min(place, places.get(item.path, place))
    items.sort(key=lambda item: places[item.path])


def small_settings(**sections: dict[str, Any]) -> dict[str, Any]:
    """Settings with which a step takes milliseconds; `sections` win over them.

    The numbers are small and uneven on purpose: 4 runs of 6 examples make a round of 24, which
    is 3 steps of 8.
    """
    small: dict[str, dict[str, Any]] = {
        # 24 voxels are too few to search a container in, which takes seconds.
        "preprocess": {
            "working_size": SIDE,
            "container": "off",
            "circle": "off",
            "noise_floor": 0.0,
        },
        "encoder": {"widths": [4, 6, 8], "embedding_dim": 8, "pool_grid": 2},
        "rotation": {"angle_step": 90},
        # Networks of a few steps draw boxes anywhere, which it would leave for review.
        "localize": {"last_look": "off"},
        # Tests of self-training ask for it.
        "self_train": {"enabled": False},
        "train": {
            "steps": 9,
            "batch_size": 8,
            "run_length": 6,
            "interleave": 4,
            "checkpoint_every": 5,
            "log_every": 3,
        },
        "pool": {"num_cpus": 0.5, "max_size": 2},
        "ray": {"num_cpus": 2, "object_store_mb": 100},
    }
    for name, values in sections.items():
        small[name] = {**small.get(name, {}), **values} if isinstance(values, dict) else values
    return small


def small_config(**sections: Any) -> RunConfig:
    """`small_settings` as a configuration."""
    return parse_config(small_settings(**sections))


def easy_phantom(index: int, size: int = SIDE, **options: Any) -> Phantom:
    """A sample clearly brighter than its medium, without reconstruction circle unless asked."""
    options = {"reconstruction_circle": False, **options}
    return make_phantom(preset("easy", seed=3, index=index, size=size, **options))


@pytest.fixture(scope="session")
def config_of() -> Callable[..., RunConfig]:
    """`small_config`: small settings, with sections replaced."""
    return small_config


@pytest.fixture(scope="session")
def settings_of() -> Callable[..., dict[str, Any]]:
    """`small_settings`: the same as plain values, for a YAML file."""
    return small_settings


@pytest.fixture(scope="session")
def phantom_of() -> Callable[..., Phantom]:
    """`easy_phantom`."""
    return easy_phantom


@pytest.fixture(scope="session")
def small_volumes() -> list[Prepared]:
    """Three phantoms of 24 voxels, prepared; nobody changes them."""
    settings = small_config().preprocess
    return [prepare(easy_phantom(i).volume, (1, 1, 1), settings) for i in range(3)]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real volumes."""
    folder = Path(os.environ.get("CTRAY_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real volumes in {folder}: set CTRAY_TEST_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def trained_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Checkpoint of a model that was trained for a few seconds on 12 phantoms of 32 voxels.

    Phantoms 12 and above are held out. With `-n 2`, the first process that asks trains it for all.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    url = folder / "trained"
    with (folder / "trained.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (url / "checkpoint.json").exists():
            train_phantoms(str(url))
    return str(url)


def train_phantoms(url: str) -> None:
    """Write the checkpoint of `trained_url`."""
    import torch

    from ctray.learn.pretext.checkpoint import save_checkpoint
    from ctray.learn.pretext.examples import num_rounds
    from ctray.learn.pretext.training import Trainer, local_rounds, train

    config = trained_config()
    volumes = [prepare(noisy_phantom(i).volume, (1, 1, 1), config.preprocess) for i in range(12)]
    trainer = Trainer(config, TRAINED_SIDE, device=torch.device("cpu"))
    load = local_rounds(volumes, config, TRAINED_SIDE)
    train(trainer, (load(i) for i in range(num_rounds(config))))
    save_checkpoint(url, trainer)


TRAINED_SIDE = 32


def trained_config() -> RunConfig:
    """Settings of `trained_url`: three classes and a quick encoder."""
    return small_config(
        preprocess={"working_size": TRAINED_SIDE},
        encoder={"widths": [12, 24, 32], "embedding_dim": 32, "pool_grid": 4, "dropout": 0.0},
        train={
            "steps": 400,
            "batch_size": 32,
            "run_length": 32,
            "interleave": 8,
            "log_every": 50,
            "learning_rate": 3e-3,
        },
    )


def noisy_phantom(index: int) -> Phantom:
    """A phantom of `trained_url`: with so much noise that empty slices tell nothing."""
    return easy_phantom(index, TRAINED_SIDE, noise=0.4)


@pytest.fixture(scope="session")
def held_out() -> list[Phantom]:
    """Phantoms that `trained_url` has not seen."""
    return [noisy_phantom(12 + i) for i in range(3)]


@pytest.fixture
def peak_bytes() -> Callable[[Callable[[], object]], int]:
    """How many bytes Python and NumPy took at most while something ran."""

    def measure(work: Callable[[], object]) -> int:
        tracemalloc.start()
        try:
            work()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    return measure
