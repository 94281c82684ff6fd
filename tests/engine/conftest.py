"""One real Ray session for all tests of the engine, and small archives for it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile

from ctray.config import RayConfig, RunConfig
from ctray.phantom import Phantom, make_phantom, preset
from ctray.preprocess.prepare import Prepared
from ctray.storage.catalog import Catalog
from ctray.storage.phantoms import write_phantoms
from ctray.storage.run_folder import RunFolder

VOXEL_UM = 2.5


class SharedRay:
    """The session that tests share, begun when one asks for it."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def begin(self) -> None:
        import ray

        from ctray.engine.session import ray_session

        if not ray.is_initialized():
            self._stack.enter_context(ray_session(RayConfig(num_cpus=2, object_store_mb=100)))

    def end(self) -> None:
        """For a test that needs a cluster of its own; the next module begins a new one."""
        self._stack.close()


@pytest.fixture(scope="session")
def shared_ray() -> Iterator[SharedRay]:
    # Sockets live in there: the path must be short.
    folder = tempfile.mkdtemp(prefix="ct-", dir="/tmp")
    session = SharedRay()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", folder)
        yield session
        session.end()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def ray_cpus(shared_ray: SharedRay) -> int:
    """A Ray session of two logical CPUs; every test of the engine runs in it."""
    shared_ray.begin()
    return 2


@pytest.fixture(scope="session")
def working_urls(
    small_volumes: list[Prepared], tmp_path_factory: pytest.TempPathFactory
) -> list[str]:
    """The small volumes as files that readers of other processes open."""
    folder = tmp_path_factory.mktemp("working")
    urls = []
    for i, volume in enumerate(small_volumes):
        (folder / f"{i}.npz").write_bytes(volume.to_bytes())
        urls.append(str(folder / f"{i}.npz"))
    return urls


@pytest.fixture(scope="session")
def stored_volumes(working_urls: list[str]) -> list[Prepared]:
    """The small volumes as readers see them: mean and spread are rounded in the file."""
    return [Prepared.from_bytes(Path(url).read_bytes()) for url in working_urls]


@pytest.fixture(scope="session")
def write_tiff_folder() -> Callable[[Path, np.ndarray], None]:
    """Writes a volume as a folder of single pages."""

    def write(folder: Path, voxels: np.ndarray) -> None:
        folder.mkdir(parents=True)
        resolution = (1e4 / VOXEL_UM,) * 2
        for z, plane in enumerate(voxels):
            tifffile.imwrite(
                folder / f"slice_{z:04d}.tif",
                plane,
                resolution=resolution,
                resolutionunit="CENTIMETER",
            )

    return write


@pytest.fixture
def mixed_archive(
    tmp_path: Path,
    phantom_of: Callable[..., Phantom],
    write_tiff_folder: Callable[[Path, np.ndarray], None],
) -> tuple[Path, dict[str, np.ndarray]]:
    """A TIFF folder, an HDF5 file, an OME-Zarr and a TIFF that is cut off; voxels by volume id."""
    archive = tmp_path / "archive"
    voxels = {"embryo_a": phantom_of(0, 24).volume, "embryo_b": phantom_of(1, (24, 28, 26)).volume}
    write_tiff_folder(archive / "embryo_a", voxels["embryo_a"])
    with h5py.File(archive / "embryo_b.h5", "w") as file:
        file["entry/data"] = voxels["embryo_b"]
    options = {"size": 24, "seed": 5, "reconstruction_circle": False}
    write_phantoms(str(archive), count=1, **options)
    voxels["embryo-0000"] = make_phantom(preset("easy", **options)).volume
    tifffile.imwrite(archive / "cut_off.tif", voxels["embryo_a"])
    whole = (archive / "cut_off.tif").read_bytes()
    (archive / "cut_off.tif").write_bytes(whole[: len(whole) // 3])
    return archive, voxels


@pytest.fixture(scope="session")
def as_trained() -> Callable[[RunFolder, RunConfig], None]:
    """Makes a run one whose training is done, as far as its files tell."""
    from ctray.pretext.checkpoint import save_checkpoint
    from ctray.pretext.training import Trainer

    def write(run: RunFolder, config: RunConfig) -> None:
        trainer = Trainer(config, config.preprocess.working_size)
        trainer.step = config.train.steps
        save_checkpoint(run.checkpoint, trainer)

    return write


@pytest.fixture
def begun(
    mixed_archive: tuple[Path, Any],
    archive_config: RunConfig,
    as_trained: Callable[[RunFolder, RunConfig], None],
    tmp_path: Path,
) -> tuple[RunFolder, Catalog]:
    """A run over `mixed_archive` with its catalog and an untrained checkpoint."""
    from ctray.engine.archive import catalog_stage, open_run

    folder, _ = mixed_archive
    run = open_run(str(folder), str(tmp_path / "run"), archive_config)
    catalog = catalog_stage(run, str(folder), archive_config)
    as_trained(run, archive_config)
    return run, catalog


@pytest.fixture(scope="session")
def archive_settings(settings_of: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """Settings with which a whole run takes seconds, and finds some box in every volume.

    Nine steps teach nothing; Otsu's threshold on whatever the profile is gives boxes that are
    neither empty nor whole, which is what crops are to be tested with.
    """
    return settings_of(localize={"threshold": "otsu", "min_peak": 0.0})


@pytest.fixture(scope="session")
def archive_config(archive_settings: dict[str, Any]) -> RunConfig:
    """`archive_settings` as a configuration."""
    return RunConfig.model_validate(archive_settings)
