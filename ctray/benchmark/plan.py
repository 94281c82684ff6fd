"""What the benchmark measures, and what it may be measured with."""

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
    """What is measured.

    Parameters
    ----------
    purpose
        What for: it decides the seeds, and nothing else does.
    families, scenes, count, size
        Phantoms: `count` of each family in each scene, shape (z, y, x) or one side.
    data
        Folder of real scans, None for none.
    real_families
        What is made of them.
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
        """Archives of the plan, below `url` as far as they have to be made."""
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
            raise ConfigError("nothing to measure: give a family and a scene, or --data")
        return found

    def to_json(self) -> dict[str, Any]:
        """What binds a folder: everything but real scans and variants, which may come later."""
        return {
            "purpose": self.purpose,
            "families": list(self.families),
            "scenes": list(self.scenes),
            "count": self.count,
            "size": self.size if isinstance(self.size, int) else list(self.size),
        }


def committed_config() -> RunConfig:
    """Settings of the benchmark; `configs/benchmark.yaml` of the repository is the same file."""
    return load_config(Path(__file__).with_name("benchmark.yaml"))


def benchmark_config(
    purpose: Purpose, path: str | Path | None = None, overrides: tuple[str, ...] = ()
) -> RunConfig:
    """Settings that a purpose may be run with.

    Raises
    ------
    ConfigError
        If final figures are to be measured with other settings than the committed ones.
    """
    if purpose == "final" and overrides:
        raise ConfigError(
            f"--purpose final takes no --set ({overrides[0]}): nobody tunes on its seeds; use "
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
            "--purpose final measures with configs/benchmark.yaml as it is in the package, so "
            "that nobody tunes on its seeds; use --purpose tuning with other settings"
        )
    unknown = [n for n, settings in (variants or {}).items() if VARIANTS.get(n) != settings]
    if unknown:
        raise ConfigError(
            f"--purpose final takes the variants of the package alone, not {unknown[0]}"
        )
