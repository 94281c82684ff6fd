"""ctray finds the sample in CT volumes without labels and crops away the rest.

In a plain Python process or a notebook, without Ray:

>>> volume = ctray.open_volume("scan.zarr")
>>> model = ctray.load_model("run/checkpoint")
>>> found = ctray.localize(volume, model)
>>> ctray.crop(volume, found.box, "crop.zarr")
"""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ctray.geometry import Box, VoxelSize
    from ctray.localization.localizer import localize
    from ctray.pretext.checkpoint import load_model
    from ctray.storage.crops import crop
    from ctray.storage.importing import import_volume
    from ctray.storage.volume import Volume, open_volume

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

__version__ = version("ctray")

# Loaded when first used, so that `import ctray` brings in neither zarr nor torch.
_PLACES = {
    "Box": "ctray.geometry",
    "Volume": "ctray.storage.volume",
    "VoxelSize": "ctray.geometry",
    "crop": "ctray.storage.crops",
    "import_volume": "ctray.storage.importing",
    "load_model": "ctray.pretext.checkpoint",
    "localize": "ctray.localization.localizer",
    "open_volume": "ctray.storage.volume",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'ctray' has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)
