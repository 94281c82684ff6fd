"""Real specimens in harder scans: truth, contrast, and the same again from the same seed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from ctray.core.errors import ConfigError
from ctray.phantom.hybrid import MEDIUM_QUANTILE, hybrid_phantom, noisy_scan
from ctray.phantom.render import tight_box

SHAPE = (22, 44, 48)


def scan() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """A head as the real ones are: air at 0, tissue about 10, some bone, a thin dark ear."""
    z, y, x = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    mask = np.zeros(SHAPE, np.uint8)
    mask[((z - 9) / 9) ** 2 + ((y - 20) / 12) ** 2 + ((x - 20) / 11) ** 2 < 1] = 1
    mask[8:12, 19:22, 31:36] = 2
    rng = np.random.default_rng(7)
    volume = np.where(mask == 1, rng.normal(10, 2, SHAPE), 0)
    volume[7:11, 14:18, 14:18] = 120
    volume[mask == 2] = 2
    return np.clip(np.rint(volume), 0, 255).astype(np.uint8), mask


def test_hybrid_keeps_the_specimen_and_hides_it() -> None:
    volume, mask = scan()
    phantom = hybrid_phantom(volume, mask, seed=5, index=2)
    assert phantom.mask.sum() == (mask > 0).sum()
    assert phantom.box == tight_box(phantom.mask)
    own = tight_box(mask > 0)
    assert own is not None
    assert phantom.box.shape == own.shape
    np.testing.assert_array_equal(phantom.mask[phantom.box.slices], mask[own.slices] > 0)
    assert not phantom.medium[phantom.mask].any()
    # Soft tissue: about a quarter of it is darker than the medium, noise aside.
    grey = phantom.volume.astype(float)
    medium = grey[phantom.medium].mean()
    soft = np.zeros_like(phantom.mask)
    soft[phantom.box.slices] = mask[own.slices] == 1
    darker = grey[soft].mean() - medium
    spread = grey[phantom.medium].std()
    assert 0 < darker < spread
    assert 0 < MEDIUM_QUANTILE < 0.5


def test_hybrid_is_a_function_of_seed_and_index() -> None:
    volume, mask = scan()
    first = hybrid_phantom(volume, mask, seed=5, index=2)
    again = hybrid_phantom(volume, mask, seed=5, index=2)
    other = hybrid_phantom(volume, mask, seed=5, index=3)
    np.testing.assert_array_equal(first.volume, again.volume)
    assert not np.array_equal(first.volume, other.volume)


def test_noisy_scan_has_a_background_and_keeps_its_place() -> None:
    volume, mask = scan()
    noisy = noisy_scan(volume, mask, seed=1, index=0)
    assert noisy.shape == volume.shape
    assert noisy.dtype == np.uint8
    assert (noisy[mask == 0] == 0).mean() < 0.02, "air is no longer clipped"
    tissue, background = np.median(noisy[mask == 1]), np.median(noisy[mask == 0])
    assert 25 < tissue - background < 55
    np.testing.assert_array_equal(noisy, noisy_scan(volume, mask, seed=1, index=0))
    assert not np.array_equal(noisy, noisy_scan(volume, mask, seed=2, index=0))


def test_scans_without_a_specimen_are_refused() -> None:
    volume, mask = scan()
    with pytest.raises(ConfigError, match="no voxel"):
        hybrid_phantom(volume, np.zeros_like(mask), seed=0, index=0)
    with pytest.raises(ConfigError, match="shape"):
        hybrid_phantom(volume, mask[1:], seed=0, index=0)
    with pytest.raises(ConfigError, match="soft tissue"):
        noisy_scan(volume, np.zeros_like(mask), seed=0, index=0)
