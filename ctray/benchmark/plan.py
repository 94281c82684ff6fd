"""The plan of a benchmark, and the settings that its purpose allows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ctray.benchmark.archives import BenchmarkArchive, phantom_archive, scan_archives
from ctray.benchmark.variants import VARIANTS
from ctray.config import RunConfig, load_config, override
from ctray.core.errors import ConfigError
from ctray.core.geometry import Triple
from ctray.phantom import Kind
from ctray.phantom.scenes import FAMILIES, REAL_FAMILIES, SCENES, Purpose
from ctray.storage import store


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkPlan:
    """The volumes and variants of a benchmark.

    Parameters
    ----------
    purpose
        Purpose of the figures. It alone decides the seeds.
    families, scenes, count, size
        `count` phantoms of each family in each scene, with a shape (z, y, x) or one side.
    data
        Folder of real scans; None for none.
    real_families
        Families that are made of them.
    variants
        `section.key=value` settings of further runs, by name.
    """

    purpose: Purpose = "tuning"
    families: tuple[Kind, ...] = FAMILIES
    scenes: tuple[str, ...] = tuple(SCENES)
    count: int = 4
    size: int | Triple = 128
    data: str | None = None
    real_families: tuple[str, ...] = REAL_FAMILIES
    variants: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def archives(self, url: str) -> list[BenchmarkArchive]:
        """Return the archives of the plan; new ones are below `url`."""
        found = []
        if self.families and self.scenes:
            found.append(
                phantom_archive(
                    store.join(url, "phantoms"),
                    self.purpose,
                    families=self.families,
                    scenes=self.scenes,
                    count=self.count,
                    size=self.size,
                )
            )
        if self.data is not None and self.real_families:
            found += scan_archives(url, self.data, self.purpose, self.real_families)
        if not found:
            raise ConfigError("the plan is empty: give a family and a scene, or --data")
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the fixed part of a plan: all but real scans and variants, which may be added."""
        return {
            "purpose": self.purpose,
            "families": list(self.families),
            "scenes": list(self.scenes),
            "count": self.count,
            "size": self.size if isinstance(self.size, int) else list(self.size),
        }


def committed_config() -> RunConfig:
    """Return the settings of `benchmark.yaml`, the same file as `configs/benchmark.yaml`."""
    return load_config(Path(__file__).with_name("benchmark.yaml"))


def benchmark_config(
    purpose: Purpose, path: str | Path | None = None, overrides: tuple[str, ...] = ()
) -> RunConfig:
    """Return the settings for a purpose.

    Raises
    ------
    ConfigError
        If final figures are asked for with other settings than the committed ones.
    """
    if purpose == "final" and overrides:
        raise ConfigError(
            f"--purpose final takes no --set ({overrides[0]}): its seeds are not for tuning; use "
            "--purpose tuning, then change configs/benchmark.yaml"
        )
    base = committed_config() if path is None else load_config(path)
    config = override(base, overrides)
    check_final(purpose, config)
    return config


def check_final(
    purpose: Purpose, config: RunConfig, variants: Mapping[str, tuple[str, ...]] | None = None
) -> None:
    """Raise a `ConfigError` if final figures would be measured with settings of one's own."""
    if purpose != "final":
        return
    if config != committed_config():
        raise ConfigError(
            "--purpose final only takes configs/benchmark.yaml: its seeds are not for tuning; use "
            "--purpose tuning with other settings"
        )
    unknown = [n for n, settings in (variants or {}).items() if VARIANTS.get(n) != settings]
    if unknown:
        raise ConfigError(f"--purpose final only takes the package's variants, not {unknown[0]}")
