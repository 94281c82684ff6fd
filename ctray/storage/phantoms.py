"""An archive of phantoms on storage, with its truth beside the volumes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ctray.errors import ConfigError
from ctray.geometry import Box, Triple, VoxelSize
from ctray.phantom import Difficulty, Kind, Phantom, PhantomSpec, make_phantom, preset
from ctray.storage import store
from ctray.storage.writer import create_volume, is_committed

VOXEL_SIZE = VoxelSize(z_um=10.0, y_um=10.0, x_um=10.0)
TRUTH_FOLDER = "truth"


@dataclass(frozen=True, kw_only=True, slots=True)
class PhantomRecord:
    """One phantom on storage.

    Parameters
    ----------
    volume_id
        Name of the volume, ``<kind>-<index>``.
    url
        The OME-Zarr volume.
    truth_url
        The truth as JSON: box, instances' boxes, spec, and the URLs of mask and labels.
    box
        Tight box of all of the sample; None for an empty volume.
    skipped
        Whether an earlier run had finished it.
    """

    volume_id: str
    url: str
    truth_url: str
    box: Box | None
    skipped: bool


def write_phantoms(
    dst: str,
    *,
    count: int,
    size: int | Triple = 64,
    seed: int = 0,
    kind: Kind = "embryo",
    difficulty: Difficulty = "easy",
    progress: Callable[[PhantomRecord], None] | None = None,
    **overrides: Any,
) -> list[PhantomRecord]:
    """Write `count` phantoms to `dst` and their truth to ``dst/truth``.

    A phantom is finished when its volume is committed, which is done last; a rerun skips it.

    Parameters
    ----------
    dst
        URL or path of the archive.
    count, size, seed, kind, difficulty
        Number of phantoms, shape (z, y, x) in voxels or one side, and what is shown; see
        `ctray.phantom.preset`.
    progress
        Called with each record.
    **overrides
        Fields of `PhantomSpec` or `SceneSpec` that replace the preset's.

    Raises
    ------
    ConfigError
        If an option is unknown or out of range, `count` is below 1, or `dst` holds phantoms of
        other options.
    """
    if count < 1:
        raise ConfigError(f"phantom count={count} must be at least 1")
    dst = store.normalize(dst)
    options = {"size": size, "kind": kind, **overrides}
    records = []
    for index in range(count):
        spec = preset(difficulty, seed=seed, index=index, **options)
        record = _write_one(dst, spec, difficulty)
        records.append(record)
        if progress is not None:
            progress(record)
    return records


def read_truth(url: str) -> tuple[Box | None, list[Box]]:
    """Box of all of the sample (None: empty) and the boxes of its instances, from a truth file."""
    truth = store.read_json(url)
    box = truth["box"]
    return (
        None if box is None else Box.from_ranges(box),
        [Box.from_ranges(ranges) for ranges in truth["instances"]],
    )


def _write_one(dst: str, spec: PhantomSpec, difficulty: str) -> PhantomRecord:
    volume_id = f"{spec.kind}-{spec.index:04d}"
    url = store.join(dst, f"{volume_id}.zarr")
    truth_url = store.join(dst, TRUTH_FOLDER, f"{volume_id}.json")
    if store.exists(truth_url) and store.read_json(truth_url)["spec"] != spec.to_json():
        raise ConfigError(
            f"{truth_url} tells of a phantom of other options than asked for; give another folder"
        )
    done = is_committed(url)
    if done:
        box, _ = read_truth(truth_url)
    else:
        phantom = make_phantom(spec)
        box = phantom.box
        _write_truth(truth_url, volume_id, phantom, difficulty)
        _write_volume(url, phantom.volume, {"phantom": spec.to_json(), "difficulty": difficulty})
    return PhantomRecord(volume_id=volume_id, url=url, truth_url=truth_url, box=box, skipped=done)


def _write_truth(truth_url: str, volume_id: str, phantom: Phantom, difficulty: str) -> None:
    """Write the truth, its JSON first: arrays beside it are then always of that spec."""
    arrays: dict[str, npt.NDArray[Any]] = {"mask": phantom.mask.astype(np.uint8)}
    if phantom.labels.any():
        arrays["labels"] = phantom.labels
    if len(phantom.boxes) > 1:
        arrays["instances"] = phantom.instances
    names = {what: f"{volume_id}-{what}.zarr" for what in arrays}
    truth = {
        "volume_id": volume_id,
        "difficulty": difficulty,
        "box": phantom.box.ranges if phantom.box else None,
        "instances": [box.ranges for box in phantom.boxes],
        "sample_voxels": int(phantom.mask.sum()),
        "shape": list(phantom.volume.shape),
        "voxel_size_um": list(VOXEL_SIZE.um),
        "files": names,
        "spec": phantom.spec.to_json(),
    }
    store.write_json(truth_url, truth)
    folder = truth_url.rpartition("/")[0]
    for what, array in arrays.items():
        url = store.join(folder, names[what])
        if not is_committed(url):
            # One level: a mean of labels means nothing.
            _write_volume(url, array, {"truth_of": f"{volume_id}.zarr"}, num_levels=1)


def _write_volume(
    url: str,
    array: npt.NDArray[Any],
    provenance: dict[str, Any],
    *,
    num_levels: int | None = None,
) -> None:
    writer = create_volume(
        url, shape=array.shape, dtype=array.dtype, voxel_size=VOXEL_SIZE, num_levels=num_levels
    )
    for box in writer.grid.shards():
        writer.write(box, array[box.slices])
    writer.build_pyramid()
    writer.commit(provenance)
