"""Layouts of programs that do not describe themselves: httomo, BigDataViewer, Imaris."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from ctray.core.errors import InvalidVolumeError
from ctray.formats.hdf5.axes import Axes
from ctray.formats.hdf5.files import Hdf5Files
from ctray.formats.hdf5.links import small_value
from ctray.formats.hdf5.tree import Array, Tree


def httomo_axes(files: Hdf5Files, tree: Tree, array: Array) -> Axes | None:
    """Axes of a reconstruction that httomo saved; None for other datasets.

    httomo writes `data` with `angles` and `data_dims/detector_x_y` beside it, for projections and
    for reconstructions. A reconstruction has the detector's rows along its second axis, and two
    equal sides that differ from the number of angles.
    """
    dims = tree.root.groups.get("data_dims")
    size = dims.arrays.get("detector_x_y") if dims is not None else None
    angles = tree.root.arrays.get("angles")
    shape = array.shape or ()
    if size is None or angles is None or len(shape) != 3 or angles.shape is None:
        return None
    values = small_value(files.item(size.place.url, size.place.path))
    if values is None or values.size != 2:
        return None
    rows = int(values.reshape(-1)[1])
    if shape[1] != rows or shape[0] != shape[2] or angles.shape == (shape[0],):
        return None
    return Axes(names=("y", "z", "x"), scales=(None, None, None), source="httomo's layout")


def is_unsigned(path: str, dtype: np.dtype[Any]) -> bool:
    """Whether signed integers stand for unsigned ones, as in BigDataViewer's `cells`."""
    return dtype == np.int16 and re.fullmatch(r"/t\d{5}/s\d{2,}/\d+/cells", path) is not None


def refuse_imaris(files: Hdf5Files, tree: Tree) -> None:
    """Refuse Imaris files, because their datasets are padded beyond the image.

    Raises
    ------
    InvalidVolumeError
        If the file is an Imaris file.
    """
    data = tree.root.groups.get("DataSet")
    if data is not None and any(name.startswith("ResolutionLevel") for name in data.groups):
        raise InvalidVolumeError(
            f"{files.url}: ctray does not read Imaris files; export it as TIFF or OME-Zarr"
        )
