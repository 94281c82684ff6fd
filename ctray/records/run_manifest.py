"""`run.json`: the archive and the settings of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ctray.config import RunConfig, recorded_config
from ctray.core.errors import ConfigError, CtrayError, NotFoundError
from ctray.core.version import __version__
from ctray.records.run_folder import RunFolder
from ctray.storage import store


@dataclass(frozen=True, kw_only=True, slots=True)
class RunManifest:
    """The content of `run.json`.

    Parameters
    ----------
    archive
        URL of the archive.
    config
        Settings of the run.
    coverage
        Counts from the catalog that show how much of the archive the run covers; None before the
        catalog exists.
    """

    archive: str
    config: RunConfig
    coverage: dict[str, Any] | None = field(default=None, compare=False)


def write_manifest(run: RunFolder, manifest: RunManifest) -> None:
    """Write `run.json`."""
    told = {
        "archive": manifest.archive,
        "config": manifest.config.model_dump(mode="json"),
        "ctray_version": __version__,
        **({"coverage": manifest.coverage} if manifest.coverage is not None else {}),
    }
    store.write_json(run.manifest, told)


def read_manifest(run: RunFolder) -> RunManifest | None:
    """Content of `run.json`; None if there is no such file.

    Raises
    ------
    CtrayError
        If the file is damaged; the message names it.
    """
    try:
        data = store.read_json(run.manifest)
    except NotFoundError:
        return None
    remedy = "put back a copy of it, or give another run folder"
    if not isinstance(data, dict):
        raise CtrayError(f"{run.manifest} is damaged: no JSON object; {remedy}")
    if not isinstance(data.get("archive"), str) or not isinstance(data.get("config"), dict):
        raise CtrayError(f"{run.manifest} is damaged: it names no archive or settings; {remedy}")
    try:
        config = recorded_config(data["config"], source=run.manifest)
    except ConfigError as error:
        raise ConfigError(f"{error}; was it written by another version of ctray?") from error
    coverage = data.get("coverage")
    return RunManifest(
        archive=data["archive"],
        config=config,
        coverage=coverage if isinstance(coverage, dict) else None,
    )
