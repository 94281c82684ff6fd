"""The jobs that a cluster runs: a whole run, its training, or its boxes and crops.

A job has two parts. The first needs no workers: it finds the archive's volumes and refuses what can
be refused. It returns the second part, which is given an executor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ctray.archive.catalog import Catalog, read_catalog
from ctray.cluster.orders import archive_of, run_of
from ctray.config import RunConfig, on_top_of
from ctray.executors.protocol import Executor
from ctray.localization.promise import check_promise
from ctray.pipeline.find_volumes import find_archive
from ctray.pipeline.run import (
    begin_run,
    check_trained,
    localize_stage,
    open_run,
    pretrain_stage,
    report_stage,
    resume_run,
    run_archive,
)
from ctray.pipeline.taking_up import settings_for, take_up
from ctray.records.events import OnEvent
from ctray.records.run_folder import RunFolder, check_output
from ctray.records.volume_record import VolumeRecord
from ctray.storage import store

# The second part of a job. The events of a run go to its second argument.
Work = Callable[[Executor, OnEvent], tuple[RunFolder, Sequence[VolumeRecord]]]
Job = Callable[[RunConfig, OnEvent], Work]


def pretrain_job(config: RunConfig, on_event: OnEvent) -> Work:
    """Catalog, import and training; the receipts are those of volumes that failed."""
    archive, out = archive_of(config), run_of(config)
    settings, found = _look_first(archive, out, config, on_event)

    def work(executor: Executor, on_event: OnEvent) -> tuple[RunFolder, Sequence[VolumeRecord]]:
        run, catalog = begin_run(archive, out, settings, on_event, found)
        pretrain_stage(run, settings, catalog.ok, on_event, executor)
        return run, run.receipts()

    return work


def archive_job(config: RunConfig, on_event: OnEvent) -> Work:
    """A whole run, from the catalog to the report."""
    archive, out = archive_of(config), run_of(config)
    settings, found = _look_first(archive, out, config, on_event)
    check_promise(RunFolder(url=store.normalize(out)), settings)

    def work(executor: Executor, on_event: OnEvent) -> tuple[RunFolder, Sequence[VolumeRecord]]:
        return run_archive(archive, out, settings, on_event, found, executor=executor)

    return work


def localize_job(config: RunConfig, on_event: OnEvent) -> Work:
    """Boxes, crops and report of a trained run, with the settings that it was begun with.

    Raises
    ------
    ConfigError
        If `config` has other values of settings that the run cannot change.
    NotFoundError
        If the run was not begun, or its training is not finished.
    """
    run, begun, archive = resume_run(run_of(config))
    settings = on_top_of(begun, config)
    take_up(run, settings)
    check_trained(run, settings, archive)
    entries = read_catalog(run.catalog)

    def work(executor: Executor, on_event: OnEvent) -> tuple[RunFolder, Sequence[VolumeRecord]]:
        receipts = localize_stage(run, settings, entries, on_event=on_event, executor=executor)
        report_stage(run, on_event)
        return run, receipts

    return work


def _look_first(
    archive: str, out: str, config: RunConfig, on_event: OnEvent
) -> tuple[RunConfig, Catalog]:
    """Return the settings of the run and the volumes of its archive, or refuse the run."""
    check_output(archive, out)
    settings = settings_for(out, config)
    if store.exists(RunFolder(url=store.normalize(out)).manifest):
        # Refuses settings that the run cannot change before the archive is searched.
        open_run(archive, out, settings)
    return settings, find_archive(archive, settings, on_event)


JOBS: dict[str, Job] = {
    "archive": archive_job,
    "pretrain": pretrain_job,
    "localize": localize_job,
}
