"""The root package: what it offers, and that it costs nothing to import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import ctray


def fresh(code: str) -> str:
    """Output of `code` in a Python process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout.strip()


@pytest.mark.parametrize("name", ctray.__all__)
def test_every_promised_name_is_there(name: str) -> None:
    assert getattr(ctray, name) is not None
    assert name in ctray.__all__


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'openvolume'"):
        _ = ctray.openvolume  # type: ignore[attr-defined]


def test_import_brings_in_nothing_heavy() -> None:
    heavy = ("ray", "torch", "zarr", "matplotlib", "scipy", "pyarrow")
    code = f"import sys, ctray; print([m for m in {heavy} if m in sys.modules])"
    assert fresh(code) == "[]"


def test_volumes_and_crops_need_neither_ray_nor_torch() -> None:
    code = (
        "import sys, ctray; ctray.open_volume, ctray.crop, ctray.import_volume;"
        "print([m for m in ('ray', 'torch') if m in sys.modules])"
    )
    assert fresh(code) == "[]"


def test_localizing_needs_no_ray() -> None:
    code = (
        "import sys, ctray; ctray.localize, ctray.load_model;"
        "print([m for m in ('ray',) if m in sys.modules])"
    )
    assert fresh(code) == "[]"


def test_the_two_minutes_of_a_notebook(trained_url: str, tmp_path: Path) -> None:
    """What the package's own docstring shows, on a phantom."""
    from ctray.evaluate.phantom_archive import write_phantoms

    (record,) = write_phantoms(
        str(tmp_path), count=1, size=32, seed=4, noise=0.4, reconstruction_circle=False
    )
    volume = ctray.open_volume(record.url)
    found = ctray.localize(volume, ctray.load_model(trained_url))
    assert found.sample_box is not None
    assert found.crop_box is not None
    done = ctray.crop(volume, found, str(tmp_path / "crop.zarr"))
    # Trained for seconds at a small size: nothing is stated, and 5% of 32 voxels are 2.
    assert found.promise_text.startswith("not calibrated")
    assert found.crop_box == found.sample_box.expand(2, volume.shape)
    assert done.box.contains(found.crop_box)
    assert ctray.open_volume(done.url).shape == done.box.shape
    assert "\n" not in repr(found)
    assert len(repr(found)) < 300

    bare = ctray.crop(volume, found.sample_box, str(tmp_path / "bare.zarr"))
    assert bare.box == found.sample_box
