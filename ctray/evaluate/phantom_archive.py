"""An archive of phantoms in storage, with its truth in a folder next to the volumes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ctray.core.errors import ConfigError
from ctray.core.geometry import Box, Triple, VoxelSize
from ctray.phantom import Difficulty, Kind, PhantomSpec, make_phantom, preset
from ctray.storage import store
from ctray.volumes.group import is_committed
from ctray.volumes.writer import create_volume

VOXEL_SIZE = VoxelSize(z_um=10.0, y_um=10.0, x_um=10.0)
TRUTH_FOLDER = "truth"


@dataclass(frozen=True, kw_only=True)
class KnownScan:
    """A scan in memory, with its truth.

    Parameters
    ----------
    volume
        Grey values (z, y, x).
    box, specimens
        Tight box of the whole sample (None if the volume is empty), and tight box of each specimen.
    arrays
        Truth arrays by name, uint8, of the volume's shape; always contains ``mask``.
    tolerance, touching
        Values for six faces as in `ctray.evaluate.truth.Truth`. None means an exact truth, and
        touching faces wherever the box ends at the volume's border.
    """

    volume: npt.NDArray[Any]
    box: Box | None
    specimens: list[Box]
    arrays: dict[str, npt.NDArray[Any]]
    voxel_size: VoxelSize = VOXEL_SIZE
    tolerance: tuple[int, ...] | None = None
    touching: tuple[bool, ...] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class PhantomRecord:
    """One phantom in storage.

    Parameters
    ----------
    volume_id
        Name of the volume.
    url
        URL of the OME-Zarr volume.
    truth_url
        URL of the truth as JSON: box, specimens' boxes, spec, and file names of mask and labels.
    box
        Tight box of the whole sample; None for an empty volume.
    skipped
        Whether the phantom already existed.
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

    The volume of a phantom is committed last. A rerun skips phantoms with a committed volume.

    Parameters
    ----------
    dst
        URL or path of the archive; volumes are named ``<kind>-<index>``.
    count, size, seed, kind, difficulty
        Number of phantoms, shape (z, y, x) in voxels or one side, kind and scene; see
        `ctray.phantom.preset`.
    progress
        Called with each record.
    **overrides
        Fields of `PhantomSpec` or `SceneSpec` that replace the preset's.

    Raises
    ------
    ConfigError
        If an option is unknown or out of range, `count` is below 1, or `dst` contains phantoms with
        other options.
    """
    if count < 1:
        raise ConfigError(f"phantom count={count} must be at least 1")
    dst = store.normalize(dst)
    options = {"size": size, "kind": kind, **overrides}
    records = []
    for index in range(count):
        spec = preset(difficulty, seed=seed, index=index, **options)
        name = f"{spec.kind}-{spec.index:04d}"
        record = write_phantom(dst, spec, volume_id=name, difficulty=difficulty)
        records.append(record)
        if progress is not None:
            progress(record)
    return records


def read_truth(url: str) -> tuple[Box | None, list[Box]]:
    """Box of the whole sample (None if empty) and the boxes of its specimens, from a truth file."""
    truth = store.read_json(url)
    box = truth["box"]
    return (
        None if box is None else Box.from_ranges(box),
        [Box.from_ranges(ranges) for ranges in truth["specimens"]],
    )


def write_phantom(dst: str, spec: PhantomSpec, *, volume_id: str, difficulty: str) -> PhantomRecord:
    """Write one phantom to the archive `dst`, unless it exists; see `write_scan`.

    Parameters
    ----------
    dst
        URL of the archive; several families and scenes may share it.
    spec
        Specification of the phantom.
    volume_id
        Name of the volume.
    difficulty
        Name of the scene, which is stored in the truth.
    """

    def make() -> KnownScan:
        phantom = make_phantom(spec)
        arrays: dict[str, npt.NDArray[Any]] = {"mask": phantom.mask.astype(np.uint8)}
        if phantom.labels.any():
            arrays["labels"] = phantom.labels
        if len(phantom.boxes) > 1:
            arrays["specimens"] = phantom.specimens
        return KnownScan(
            volume=phantom.volume, box=phantom.box, specimens=phantom.boxes, arrays=arrays
        )

    return write_scan(dst, make, volume_id=volume_id, recipe=spec.to_json(), difficulty=difficulty)


def write_scan(
    dst: str,
    make: Callable[[], KnownScan],
    *,
    volume_id: str,
    recipe: dict[str, Any],
    difficulty: str,
) -> PhantomRecord:
    """Write a scan and its truth to the archive `dst`, unless they exist.

    Parameters
    ----------
    dst
        URL of the archive.
    make
        Function that makes the scan. It depends only on `recipe` and is not called for an existing
        scan.
    volume_id, difficulty
        Names of the volume and of its scene.
    recipe
        Plain values that distinguish this scan from all others.

    Raises
    ------
    ConfigError
        If a scan with this name and another recipe exists.
    """
    url = store.join(dst, f"{volume_id}.zarr")
    truth_url = store.join(dst, TRUTH_FOLDER, f"{volume_id}.json")
    if store.exists(truth_url) and store.read_json(truth_url)["spec"] != recipe:
        raise ConfigError(f"{truth_url} describes a phantom of other options; give another folder")
    done = is_committed(url)
    if done:
        box, _ = read_truth(truth_url)
    else:
        scan = make()
        box = scan.box
        about = {"volume_id": volume_id, "difficulty": difficulty}
        _write_truth(truth_url, scan, {**about, "spec": recipe})
        _write_volume(
            url, scan.volume, scan.voxel_size, {"phantom": recipe, "difficulty": difficulty}
        )
    return PhantomRecord(volume_id=volume_id, url=url, truth_url=truth_url, box=box, skipped=done)


def _write_truth(truth_url: str, scan: KnownScan, about: dict[str, Any]) -> None:
    """Write the truth, with its JSON first, so that existing arrays always belong to that spec."""
    volume_id = about["volume_id"]
    names = {what: f"{volume_id}-{what}.zarr" for what in scan.arrays}
    truth = {
        **about,
        "box": scan.box.ranges if scan.box else None,
        "specimens": [box.ranges for box in scan.specimens],
        "sample_voxels": int(np.count_nonzero(scan.arrays["mask"])),
        "shape": list(scan.volume.shape),
        "voxel_size_um": list(scan.voxel_size.um),
        "files": names,
    }
    if scan.tolerance is not None:
        truth["tolerance"] = list(scan.tolerance)
    if scan.touching is not None:
        truth["touching"] = list(scan.touching)
    store.write_json(truth_url, truth)
    folder = truth_url.rpartition("/")[0]
    for what, array in scan.arrays.items():
        url = store.join(folder, names[what])
        if not is_committed(url):
            # One level only, because a mean of labels is meaningless.
            about = {"truth_of": f"{volume_id}.zarr"}
            _write_volume(url, array, scan.voxel_size, about, num_levels=1)


def _write_volume(
    url: str,
    array: npt.NDArray[Any],
    voxel_size: VoxelSize,
    provenance: dict[str, Any],
    *,
    num_levels: int | None = None,
) -> None:
    writer = create_volume(
        url, shape=array.shape, dtype=array.dtype, voxel_size=voxel_size, num_levels=num_levels
    )
    for box in writer.grid.shards():
        writer.write(box, array[box.slices])
    writer.build_pyramid()
    writer.commit(provenance)
