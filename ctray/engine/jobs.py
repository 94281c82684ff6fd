"""The jobs that a cluster runs: training, boxes and crops, or all of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ctray.config import RunConfig, on_top_of
from ctray.engine.archive import (
    catalog_stage,
    check_trained,
    localize_stage,
    open_run,
    pretrain_stage,
    resume_run,
    run_archive,
)
from ctray.engine.binding import settings_for, take_up
from ctray.engine.events import OnEvent
from ctray.errors import ConfigError
from ctray.storage.catalog import read_catalog
from ctray.storage.run_folder import Receipt, RunFolder, check_output
from ctray.storage.run_lock import hold_run

Job = Callable[[RunConfig, OnEvent], tuple[RunFolder, Sequence[Receipt]]]


def pretrain_job(config: RunConfig, on_event: OnEvent) -> tuple[RunFolder, Sequence[Receipt]]:
    """Catalog, import and training; receipts of what could not be read or prepared."""
    archive, out = _archive_of(config), run_of(config)
    check_output(archive, out)
    with hold_run(out):
        config = settings_for(out, config)
        run = open_run(archive, out, config)
        catalog = catalog_stage(run, archive, config, on_event)
        pretrain_stage(run, config, catalog.ok, on_event)
    return run, run.receipts()


def localize_job(config: RunConfig, on_event: OnEvent) -> tuple[RunFolder, Sequence[Receipt]]:
    """Boxes and crops of a run that is trained, with the settings that it was begun with.

    Raises
    ------
    ConfigError
        If `config` says otherwise about what binds the run.
    """
    run, begun, archive = resume_run(run_of(config))
    with hold_run(run.url):
        settings = on_top_of(begun, config)
        take_up(run, settings)
        check_trained(run, settings, archive)
        entries = read_catalog(run.catalog)
        return run, localize_stage(run, settings, entries, on_event=on_event)


def archive_job(config: RunConfig, on_event: OnEvent) -> tuple[RunFolder, Sequence[Receipt]]:
    """All of a run, from the catalog to the table of boxes."""
    settings = settings_for(run_of(config), config)
    return run_archive(_archive_of(config), run_of(config), settings, on_event)


JOBS: dict[str, Job] = {
    "archive": archive_job,
    "pretrain": pretrain_job,
    "localize": localize_job,
}


def run_of(config: RunConfig) -> str:
    """Folder of the run that a job works on; `ConfigError` if none is given."""
    if config.job.run is None:
        raise ConfigError("no run: set job.run in the configuration, or give --out")
    return config.job.run


def _archive_of(config: RunConfig) -> str:
    if config.job.archive is None:
        raise ConfigError("no archive: set job.archive in the configuration, or give --archive")
    return config.job.archive


def check_job(name: str, config: RunConfig) -> None:
    """Raise `ConfigError` where a configuration does not say what the job `name` works on."""
    run_of(config)
    if name != "localize":
        _archive_of(config)
