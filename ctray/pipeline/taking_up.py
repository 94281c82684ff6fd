"""Continuing a run with its own settings, and with new values of settings that may still change.

The field of each setting defines which results depend on it (`ctray.config.binding`). Until a run
has a catalog, all settings may change, because no work has been done. Until it has a box, settings
that affect only boxes may change.
"""

from __future__ import annotations

from dataclasses import replace

from ctray.config import (
    BOX_KINDS,
    KEPT_KINDS,
    Binds,
    RunConfig,
    changed_settings,
    on_top_of,
    with_settings_of,
)
from ctray.core.errors import ConfigError, NotFoundError
from ctray.records.receipt_query import all_receipts
from ctray.records.run_folder import RunFolder
from ctray.records.run_manifest import RunManifest, read_manifest, write_manifest
from ctray.records.volume_record import VolumeRecord
from ctray.storage import store


def settings_for(run_url: str, given: RunConfig) -> RunConfig:
    """Settings for a run: the given settings, on top of the run's own settings if it exists.

    Parameters
    ----------
    run_url
        Folder of a new or an existing run.
    given
        Settings from a file and from options; see `ctray.config.on_top_of`.
    """
    run = RunFolder(url=store.normalize(run_url))
    begun = read_manifest(run)
    if begun is None or not store.exists(run.catalog):
        return given
    return on_top_of(begun.config, given)


def take_up(run: RunFolder, settings: RunConfig) -> None:
    """Continue an existing run with settings that may differ from its own.

    New settings of crops and of the choice of volumes are written to `run.json`.

    Raises
    ------
    ConfigError
        If settings that move boxes differ.
    """
    begun = begun_manifest(run)
    fixed = list(BOX_KINDS)
    if not _has_boxes(run):
        fixed.remove(Binds.BOX)
    changed = changed_settings(begun.config, settings, *fixed)
    if changed:
        raise ConfigError(
            f"{run.url} was begun with another {', '.join(changed)}; leave that out to go on with "
            "the settings in run.json, or give another --out"
        )
    # Settings of how and where work runs apply to this command only.
    kept = with_settings_of(begun.config, settings, *BOX_KINDS, *KEPT_KINDS)
    if kept != begun.config:
        write_manifest(run, replace(begun, config=kept))


def begun_manifest(run: RunFolder) -> RunManifest:
    """Manifest of an existing run; raises `NotFoundError` if the folder is not a run."""
    manifest = read_manifest(run)
    if manifest is None:
        raise NotFoundError(f"{run.url} is no run: it has no run.json")
    return manifest


def _has_boxes(run: RunFolder) -> bool:
    """Whether any volume was localized with a status other than `failed`."""
    return any(
        isinstance(record, VolumeRecord) and record.status != "failed"
        for _, record in all_receipts(run)
    )
