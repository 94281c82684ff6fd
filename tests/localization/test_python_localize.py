"""One call from a volume to its record."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import ctray
from ctray.config import parse_config
from ctray.core.version import __version__
from ctray.learn.pretext.checkpoint import TrainedModel, load_model
from ctray.phantom import Phantom
from ctray.volumes.volume import Volume, open_volume
from ctray.volumes.writer import create_volume


@pytest.fixture(scope="module")
def trained(trained_url: str) -> TrainedModel:
    return load_model(trained_url)


def stored(folder: Path, voxels: np.ndarray) -> Volume:
    url = str(folder / "volume.zarr")
    writer = create_volume(url, shape=voxels.shape, dtype=voxels.dtype, voxel_size=None)
    for box in writer.grid.shards():
        writer.write(box, voxels[box.slices])
    writer.build_pyramid()
    writer.commit({})
    return open_volume(url)


def test_record_tells_volume_network_and_promise(
    trained: TrainedModel, held_out: list[Phantom], tmp_path: Path
) -> None:
    volume = stored(tmp_path, held_out[0].volume)
    found = ctray.localize(volume, trained, parse_config({"crop": {"margin": 0.1}}))
    assert (found.volume_id, found.source_url, found.imported_url) == ("", volume.url, None)
    assert (found.shape, found.dtype, found.ctray_version) == ([32] * 3, "uint8", __version__)
    assert (found.method, found.model_digest) == ("rotation", trained.digest)
    assert found.face_confidence is not None
    assert found.confidence == min(found.face_confidence)
    # A tenth of 32 voxels, rounded up.
    assert (found.promise, found.margins) == ("fixed margin", (4,) * 6)
    assert found.sample_box is not None
    assert found.crop_box == found.asked_box == found.sample_box.expand(4, volume.shape)


def test_empty_volume_has_no_box_to_cut(trained: TrainedModel, tmp_path: Path) -> None:
    found = ctray.localize(stored(tmp_path, np.full((32,) * 3, 7, np.uint8)), trained)
    assert found.status == "empty"
    assert found.sample_box is found.crop_box is found.margins is found.promise is None
