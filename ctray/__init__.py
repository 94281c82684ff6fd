"""ctray finds the sample in CT volumes without labels and crops away the rest.

In a plain Python process or a notebook, without Ray:

>>> volume = ctray.open_volume("scan.zarr")
>>> model = ctray.load_model("run/checkpoint")
>>> found = ctray.localize(volume, model)
>>> found
<VolumeRecord located; sample_box z 41:118 y 22:87 x 30:96; crop_box z 38:121 y 20:90 ...>
>>> ctray.crop(volume, found, "crop.zarr")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ctray.core.version import __version__

if TYPE_CHECKING:
    from ctray.archive.importing import import_volume
    from ctray.core.geometry import Box, VoxelSize
    from ctray.learn.pretext.checkpoint import load_model
    from ctray.localization.python_crop import crop
    from ctray.localization.python_localize import localize
    from ctray.volumes.volume import Volume, open_volume

__all__ = [
    "Box",
    "Volume",
    "VoxelSize",
    "__version__",
    "crop",
    "import_volume",
    "load_model",
    "localize",
    "open_volume",
]


# Loaded when first used, so that `import ctray` brings in neither zarr nor torch.
_PLACES = {
    "Box": "ctray.core.geometry",
    "Volume": "ctray.volumes.volume",
    "VoxelSize": "ctray.core.geometry",
    "crop": "ctray.localization.python_crop",
    "import_volume": "ctray.archive.importing",
    "load_model": "ctray.learn.pretext.checkpoint",
    "localize": "ctray.localization.python_localize",
    "open_volume": "ctray.volumes.volume",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'ctray' has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)
