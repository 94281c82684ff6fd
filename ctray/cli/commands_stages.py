"""Commands for single stages of a run: pretrain, localize, crop, report."""

from __future__ import annotations

import click

from ctray.cli.options import (
    archive_names_options,
    change_options,
    config_options,
    echo,
    out_option,
    print_json,
    ray_options,
    run_argument,
    shared_options,
    specimens_option,
    surround_option,
)
from ctray.cli.running import (
    asked_settings,
    end,
    failures_of,
    finish,
    held_output,
    held_run,
    look_first,
    run_facts,
)


@click.command(short_help="Find the volumes of an archive and train on them.")
@click.argument("archive")
@out_option
@config_options
@archive_names_options
@ray_options
@shared_options()
def pretrain(
    archive: str,
    out: str,
    config: str | None,
    overrides: tuple[str, ...],
    ray: tuple[str, ...],
    as_json: bool,
) -> None:
    """Find the volumes of ARCHIVE, import them where needed, and train the networks.

    `ctray localize` continues from there.
    """
    from ctray.cli.progress import reporter
    from ctray.config import load_config

    given = load_config(config, (*ray, *overrides))
    with reporter() as progress, held_output(archive, out, progress.note):
        found = look_first(archive, out, given, progress)
        from ctray.executors.session import executor_session
        from ctray.pipeline.run import begin_run, pretrain_stage
        from ctray.pipeline.taking_up import settings_for

        settings = settings_for(out, given)
        folder, catalog = begin_run(archive, out, settings, progress, found)
        with executor_session(settings.ray, progress.note) as executor:
            pretrain_stage(folder, settings, catalog.ok, progress, executor)
    failures = failures_of(r for r in folder.receipts() if r.status == "failed")
    if as_json:
        print_json({"run": folder.url, "checkpoint": folder.checkpoint, **failures})
    else:
        echo(f"checkpoint {folder.checkpoint}")
        echo(f"next: ctray localize {out}")
    end(failures["failed"], len(catalog))


@click.command(short_help="Localize and crop volumes that have no receipt yet.")
@run_argument
@click.option("--no-crop", is_flag=True, help="Write boxes only. `ctray crop` can follow.")
@specimens_option
@surround_option
@change_options
@ray_options
@shared_options()
def localize(
    run_url: str,
    no_crop: bool,
    specimens: bool,
    keep_surround: bool,
    overrides: tuple[str, ...],
    ray: tuple[str, ...],
    as_json: bool,
) -> None:
    """Localize and crop the sample in every volume of RUN that has no receipt yet.

    Settings are those of the run. A setting that moves boxes cannot change once RUN has boxes.
    """
    asked = (*asked_settings(specimens, keep_surround), *ray, *overrides)
    _localize(run_url, as_json, crop=not no_crop, only_localized=False, overrides=asked)


@click.command(short_help="Write missing crops, or cut crops again with other settings.")
@run_argument
@surround_option
@change_options
@ray_options
@shared_options()
def crop(
    run_url: str,
    keep_surround: bool,
    overrides: tuple[str, ...],
    ray: tuple[str, ...],
    as_json: bool,
) -> None:
    """Write the missing crops of RUN, and cut crops again that were cut with other settings.

    Settings are those of the run. Settings of crops that are given here are kept in the run.
    """
    asked = (*asked_settings(False, keep_surround), *ray, *overrides)
    _localize(run_url, as_json, crop=True, only_localized=True, overrides=asked)


@click.command(short_help="Write the report page of a run.")
@run_argument
@shared_options()
def report(run_url: str, as_json: bool) -> None:
    """Write the report page of RUN, finished or not, even while another command works on it."""
    from ctray.cli.progress import reporter
    from ctray.pipeline.run import report_stage
    from ctray.records.run_folder import RunFolder
    from ctray.storage import store

    folder = RunFolder(url=store.normalize(run_url))
    # Without the lock of the run: the page only shows receipts, and its files are written whole.
    with reporter() as progress:
        report_stage(folder, progress)
    if as_json:
        print_json({"run": folder.url, "report": folder.report})
    else:
        echo(folder.report)


def _localize(
    run_url: str,
    as_json: bool,
    *,
    crop: bool,
    only_localized: bool,
    overrides: tuple[str, ...],
) -> None:
    from ctray.cli.progress import reporter
    from ctray.config import override

    with reporter() as progress, held_run(run_url, progress.note):
        progress.note("starting")
        from ctray.archive.catalog import read_catalog
        from ctray.executors.session import executor_session
        from ctray.pipeline.run import check_trained, localize_stage, resume_run
        from ctray.pipeline.taking_up import take_up
        from ctray.records.receipt_list import iter_receipts

        folder, settings, archive = resume_run(run_url)
        if overrides:
            settings = override(settings, overrides)
            take_up(folder, settings)
        check_trained(folder, settings, archive)
        entries = read_catalog(folder.catalog)
        if only_localized:
            ids = [entry.volume_id for entry in entries]
            received = {i for i, receipt in iter_receipts(folder, ids) if receipt is not None}
            entries = [e for e in entries if e.volume_id in received]
        with executor_session(settings.ray, progress.note) as executor:
            receipts = localize_stage(
                folder, settings, entries, crop=crop, on_event=progress, executor=executor
            )
    finish(run_facts(folder, receipts, report=False), as_json)
