"""The archives of the benchmark: phantoms of many scenes, real scans, and mixtures of the two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ctray.config import PoolConfig
from ctray.core.errors import ConfigError, CtrayError, NotFoundError
from ctray.core.geometry import Triple, VoxelSize
from ctray.evaluate.phantom_archive import KnownScan, write_phantom, write_scan
from ctray.evaluate.truth import SixInts, Truth, read_truths
from ctray.executors.protocol import Executor
from ctray.formats.opening import open_source
from ctray.phantom import Kind, PhantomSpec
from ctray.phantom.hybrid import hybrid_phantom, noisy_scan
from ctray.phantom.render import tight_box
from ctray.phantom.scenes import (
    REAL_FAMILIES,
    REAL_SCENE,
    Purpose,
    benchmark_seed,
    benchmark_spec,
    scans_for,
    volume_id,
)
from ctray.records.events import Event, OnEvent
from ctray.storage import store

PHANTOMS = "phantoms"
# Below the folder that a user gives, where there is such a folder.
SCANS_FOLDER = "mouse_heads_tube"


@dataclass(frozen=True, kw_only=True, slots=True)
class PhantomItem:
    """One phantom to be written."""

    dst: str
    name: str
    scene: str
    spec: PhantomSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class ScanItem:
    """One real scan to be changed and written; `truth` is that of the scan as it is."""

    dst: str
    name: str
    family: str
    source: str
    seed: int
    index: int
    truth: Truth


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkArchive:
    """Volumes that are learned from together.

    Parameters
    ----------
    name
        ``phantoms``, ``heads``, ``heads-noisy`` or ``hybrid``.
    url
        Where the volumes are, or will be.
    truth_url
        Where the truth is.
    groups
        Volume ids by (family, scene).
    items
        What has to be written first.
    """

    name: str
    url: str
    truth_url: str
    groups: dict[tuple[str, str], tuple[str, ...]]
    items: tuple[PhantomItem | ScanItem, ...] = ()


def phantom_archive(
    url: str,
    purpose: Purpose,
    *,
    families: Sequence[Kind],
    scenes: Sequence[str],
    count: int,
    size: int | Triple,
) -> BenchmarkArchive:
    """One archive of `count` phantoms of every family in every scene.

    Raises
    ------
    ConfigError
        If a name is unknown or a number out of range.
    """
    if count < 1:
        raise ConfigError(f"benchmark count={count} must be at least 1")
    items: list[PhantomItem] = []
    groups: dict[tuple[str, str], tuple[str, ...]] = {}
    for family in families:
        for scene in scenes:
            names = tuple(volume_id(family, scene, i) for i in range(count))
            groups[family, scene] = names
            specs = [benchmark_spec(purpose, family, scene, i, size) for i in range(count)]
            items += [
                PhantomItem(dst=url, name=name, scene=scene, spec=spec)
                for name, spec in zip(names, specs, strict=True)
            ]
    return BenchmarkArchive(
        name=PHANTOMS, url=url, truth_url=url, groups=groups, items=tuple(items)
    )


def scan_archives(
    url: str, data_url: str, purpose: Purpose, families: Sequence[str] = REAL_FAMILIES
) -> list[BenchmarkArchive]:
    """Archives of real scans.

    ``heads`` are the scans as they are, all of them; ``heads-noisy`` and ``hybrid`` change those
    that the purpose may use (`ctray.phantom.scenes.scans_for`).

    Raises
    ------
    NotFoundError
        If there are no scans with a truth, or none with a mask.
    """
    scans_url = store.normalize(data_url)
    inner = store.join(scans_url, SCANS_FOLDER)
    scans_url = inner if store.exists(inner) else scans_url
    truths = read_truths(scans_url)
    everything = sorted(truths)
    found = []
    for family in families:
        if family == "heads":
            groups = {(family, REAL_SCENE): tuple(everything)}
            found.append(
                BenchmarkArchive(name=family, url=scans_url, truth_url=scans_url, groups=groups)
            )
            continue
        own = store.join(url, family)
        seed = benchmark_seed(purpose, family, REAL_SCENE)
        items = [
            ScanItem(
                dst=own,
                name=f"{family}-{name}",
                family=family,
                source=store.join(scans_url, name),
                seed=seed,
                index=everything.index(name),
                truth=truths[name],
            )
            for name in scans_for(purpose, everything)
            if truths[name].mask_url is not None
        ]
        if not items:
            raise NotFoundError(f"{data_url}: no scan with a mask for the family {family}")
        names = {(family, REAL_SCENE): tuple(item.name for item in items)}
        found.append(
            BenchmarkArchive(name=family, url=own, truth_url=own, groups=names, items=tuple(items))
        )
    return found


def make_archive(
    archive: BenchmarkArchive, pool: PoolConfig, on_event: OnEvent, executor: Executor
) -> None:
    """Write what is missing of an archive, several volumes at once.

    Raises
    ------
    CtrayError
        If a volume cannot be made or written.
    """
    names = {i.name for i in archive.items}
    done: set[str] = set()
    # A phantom's worker needs no accelerator.
    plain = pool.model_copy(update={"num_gpus": 0.0})
    for name in executor.run_pool(MakeVolume, (), archive.items, plain):
        done.add(name)
        on_event(Event(stage="make", done=len(done), total=len(names), text=name))
    if done != names:
        missing = sorted(names - done)[0]
        raise CtrayError(f"{missing} could not be made: its worker died, probably of memory")


class MakeVolume:
    """Writes one volume of an archive and its truth, unless they are there."""

    def __call__(self, item: PhantomItem | ScanItem) -> str | CtrayError:
        """Write what is missing of an item; its name."""
        try:
            if isinstance(item, PhantomItem):
                write_phantom(item.dst, item.spec, volume_id=item.name, difficulty=item.scene)
            else:
                write_changed_scan(item)
        except CtrayError as error:
            return error
        return item.name


def write_changed_scan(item: ScanItem) -> None:
    """Write the version of a real scan that its family asks for."""
    # The recipe tells archives apart, wherever the scans lie on this machine.
    recipe = {
        "family": item.family,
        "scan": item.truth.volume_id,
        "seed": item.seed,
        "index": item.index,
    }
    write_scan(
        item.dst,
        lambda: _changed_scan(item),
        volume_id=item.name,
        recipe=recipe,
        difficulty=REAL_SCENE,
    )


def _changed_scan(item: ScanItem) -> KnownScan:
    volume, size = _read(store.join(item.source, "volume.tif"))
    assert item.truth.mask_url is not None, "scans without a mask are no items"
    mask, _ = _read(item.truth.mask_url)
    if item.family == "hybrid":
        phantom = hybrid_phantom(volume, mask, seed=item.seed, index=item.index)
        scan = KnownScan(
            volume=phantom.volume,
            box=tight_box(phantom.mask),
            specimens=phantom.boxes,
            arrays={"mask": phantom.mask.astype(np.uint8)},
            tolerance=_thin_parts(mask),
        )
    else:
        scan = KnownScan(
            volume=noisy_scan(volume, mask, seed=item.seed, index=item.index),
            box=item.truth.box,
            specimens=[],
            arrays={"mask": (mask > 0).astype(np.uint8)},
            tolerance=item.truth.tolerance,
            touching=item.truth.touching,
        )
    return replace(scan, voxel_size=size) if size is not None else scan


def _thin_parts(mask: npt.NDArray[Any]) -> SixInts:
    """Voxels by which thin parts alone, such as ears, move each face: what a face may be off.

    They fade into a noisy medium; with more than two voxels a face is reported apart.
    """
    whole, bulk = tight_box(mask > 0), tight_box(mask == 1)
    if whole is None or bulk is None:
        raise ConfigError("the mask marks no soft tissue; give another scan")
    ends = zip(whole.ranges, bulk.ranges, strict=True)
    z0, z1, y0, y1, x0, x1 = (abs(a - b) for w, k in ends for a, b in zip(w, k, strict=True))
    return (z0, z1, y0, y1, x0, x1)


def _read(url: str) -> tuple[npt.NDArray[Any], VoxelSize | None]:
    with open_source(url) as source:
        return source.read(0, source.shape[0]), source.voxel_size
