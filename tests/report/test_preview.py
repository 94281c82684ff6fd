"""Pictures that a run keeps of a volume."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ctray.config import RunConfig
from ctray.core.geometry import AXES, Box
from ctray.localization.dropout_map import UncertaintyMap
from ctray.localization.localizer import Localization, PreparedVolume
from ctray.localization.stretches import Stretch
from ctray.phantom import Phantom
from ctray.preprocess.prepare import prepare
from ctray.report.preview import preview_of
from ctray.volumes.working import WorkingLevel

SIDE = 24


@pytest.fixture(scope="module")
def volume(
    config_of: Callable[..., RunConfig], phantom_of: Callable[..., Phantom]
) -> PreparedVolume:
    voxels = phantom_of(0).volume
    prepared = prepare(voxels, (2, 2, 2), config_of().preprocess)
    level = WorkingLevel(voxels=voxels, factors=(2, 2, 2))
    return PreparedVolume(
        url="scan.zarr", shape=(48,) * 3, level=level, prepared=prepared, bytes_read=0, seconds=0
    )


def test_slices_lie_in_the_middle_of_the_box(volume: PreparedVolume) -> None:
    box = Box(start=(4, 8, 12), stop=(12, 16, 40))
    preview = preview_of(volume, Localization(status="located", box=box))
    assert preview is not None
    assert volume.prepared is not None
    # Level 0 has two voxels for each of the working level.
    middle = volume.level.voxels[4].astype(float)
    assert np.corrcoef(preview.slices["z"].ravel(), middle.ravel())[0, 1] > 0.9
    for pictures in (preview.slices, preview.projections):
        assert {name: p.shape for name, p in pictures.items()} == dict.fromkeys(AXES, (SIDE, SIDE))
        assert all(p.dtype == np.uint8 and p.std() > 0 for p in pictures.values())


def test_empty_volume_has_pictures_and_a_constant_one_has_none(volume: PreparedVolume) -> None:
    found = Localization(status="empty", reason="no structure")
    preview = preview_of(volume, found)
    assert preview is not None
    assert len(preview.pictures()) == 6
    constant = PreparedVolume(
        url="scan.zarr",
        shape=(48,) * 3,
        level=volume.level,
        prepared=None,
        bytes_read=0,
        seconds=0,
    )
    assert preview_of(constant, found) is None


def test_uncertainty_map_and_its_region_are_drawn_at_the_working_level(
    volume: PreparedVolume,
) -> None:
    values = np.full((SIDE, 12, 12), 0.2, np.float32)
    values[8:16, 4:8, 4:8] = 1.0
    uncertainty = UncertaintyMap(values=values, cell=(1, 2, 2), offset=(0, 0, 0), scale=1.0, axis=0)
    stretch = Stretch(start=8, stop=16, threshold=0.5, background=0.2, confidence=(1.0, 1.0))
    found = Localization(
        status="located",
        box=Box(start=(16, 16, 16), stop=(32, 32, 32)),
        stretches=dict.fromkeys(AXES, stretch),
        uncertainty=uncertainty,
        cells=values > 0.5,
    )
    preview = preview_of(volume, found)
    assert preview is not None
    assert len(preview.pictures()) == 12
    assert preview.variances["z"].shape == (SIDE, SIDE)
    # 0 is the background, 255 the highest.
    assert (preview.variances["z"][10, 10], preview.variances["z"][0, 0]) == (255, 0)
    assert set(np.unique(preview.regions["x"])) == {0, 255}
    assert preview.regions["x"][10, 10] == 255
