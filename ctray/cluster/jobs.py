"""The jobs that a cluster runs: training, boxes and crops, or all of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ctray.archive.catalog import read_catalog
from ctray.cluster.orders import archive_of, run_of
from ctray.config import RunConfig, on_top_of
from ctray.executors.executor import Executor
from ctray.pipeline.run import (
    begin_run,
    check_trained,
    localize_stage,
    pretrain_stage,
    report_stage,
    resume_run,
    run_archive,
)
from ctray.pipeline.taking_up import settings_for, take_up
from ctray.records.events import OnEvent
from ctray.records.run_folder import RunFolder, check_output
from ctray.records.run_lock import hold_run
from ctray.records.volume_record import VolumeRecord

# Settings, who is told, and who runs the processes: None is the Ray session that is running.
Job = Callable[[RunConfig, OnEvent, Executor | None], tuple[RunFolder, Sequence[VolumeRecord]]]


def pretrain_job(
    config: RunConfig, on_event: OnEvent, executor: Executor | None = None
) -> tuple[RunFolder, Sequence[VolumeRecord]]:
    """Catalog, import and training; receipts of what could not be read or prepared."""
    archive, out = archive_of(config), run_of(config)
    check_output(archive, out)
    with hold_run(out):
        config = settings_for(out, config)
        run, catalog = begin_run(archive, out, config, on_event)
        pretrain_stage(run, config, catalog.ok, on_event, executor)
    return run, run.receipts()


def localize_job(
    config: RunConfig, on_event: OnEvent, executor: Executor | None = None
) -> tuple[RunFolder, Sequence[VolumeRecord]]:
    """Boxes, crops and report of a run that is trained, with the settings that it was begun with.

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
        receipts = localize_stage(run, settings, entries, on_event=on_event, executor=executor)
        report_stage(run, on_event)
    return run, receipts


def archive_job(
    config: RunConfig, on_event: OnEvent, executor: Executor | None = None
) -> tuple[RunFolder, Sequence[VolumeRecord]]:
    """All of a run, from the catalog to the report."""
    settings = settings_for(run_of(config), config)
    return run_archive(archive_of(config), run_of(config), settings, on_event, executor=executor)


JOBS: dict[str, Job] = {
    "archive": archive_job,
    "pretrain": pretrain_job,
    "localize": localize_job,
}
