"""Commands that make a run: all of it, or one stage."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from ctray.cli.options import (
    archive_names_options,
    change_options,
    config_options,
    echo,
    print_json,
    ray_options,
    run_argument,
    say,
    shared_options,
    specimens_option,
    surround_option,
)
from ctray.core.errors import PartialFailureError

if TYPE_CHECKING:
    from ctray.archive.catalog import Catalog
    from ctray.config import RunConfig
    from ctray.records.run_folder import RunFolder
    from ctray.records.volume_record import VolumeRecord

_STATUSES = ("located", "empty", "uncertain", "failed")
_out = click.option("--out", required=True, metavar="RUN", help="Folder of the run: path or URL.")


@click.command(short_help="Everything: find volumes, learn, locate, crop, report.")
@click.argument("archive")
@_out
@config_options
@archive_names_options
@specimens_option
@surround_option
@ray_options
@shared_options()
def run(
    archive: str,
    out: str,
    config: str | None,
    overrides: tuple[str, ...],
    specimens: bool,
    keep_surround: bool,
    ray: tuple[str, ...],
    as_json: bool,
) -> None:
    """Do everything: find the volumes of ARCHIVE, learn, locate, crop, report.

    The archive stays as it is. The same command takes up again what was interrupted, with the
    settings of the run unless others are given. For archives that take hours, `ctray archive` does
    the same and shows first what it would come to.
    """
    from ctray.cli.progress import reporter
    from ctray.config import load_config

    given = load_config(config, (*asked_settings(specimens, keep_surround), *ray, *overrides))
    with reporter() as progress, held_output(archive, out, progress.note):
        folder, receipts = make_run(archive, out, given, progress)
        facts = run_facts(folder, receipts, report=True)
    finish(facts, as_json)


@click.command(short_help="Find and import the volumes, train the encoder.")
@click.argument("archive")
@_out
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
    """Find the volumes of ARCHIVE, import what needs it, and train the encoder."""
    from ctray.cli.progress import reporter
    from ctray.config import load_config

    given = load_config(config, (*ray, *overrides))
    with reporter() as progress, held_output(archive, out, progress.note):
        found = look_first(archive, out, given, progress)
        from ctray.executors.executor import executor_session
        from ctray.pipeline.run import begin_run, pretrain_stage
        from ctray.pipeline.taking_up import settings_for

        settings = settings_for(out, given)
        folder, catalog = begin_run(archive, out, settings, progress, found)
        with executor_session(settings.ray, progress.note) as executor:
            pretrain_stage(folder, settings, catalog.ok, progress, executor)
    failures = _failures(r for r in folder.receipts() if r.status == "failed")
    if as_json:
        print_json({"run": folder.url, "checkpoint": folder.checkpoint, **failures})
    else:
        echo(f"checkpoint {folder.checkpoint}")
        echo(f"next: ctray localize {out}")
    _end(failures["failed"], len(catalog))


@click.command(short_help="Locate and crop what has no receipt yet.")
@run_argument
@click.option("--no-crop", is_flag=True, help="Write boxes only; ctray crop can follow.")
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
    """Find the sample in every volume of RUN that has no receipt yet, and crop it.

    The settings are those of the run. What decides where boxes lie is refused if it differs from
    what the boxes in RUN were found with.
    """
    asked = (*asked_settings(specimens, keep_surround), *ray, *overrides)
    _localize(run_url, as_json, crop=not no_crop, only_located=False, overrides=asked)


@click.command(short_help="Write the crops of a run that are missing, or to be cut otherwise.")
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
    """Write the crops of RUN that are missing, and those that other settings cut.

    The settings are those of the run. Margins and other settings of crops that are given here are
    kept in the run, and all its crops are cut with them.
    """
    asked = (*asked_settings(False, keep_surround), *ray, *overrides)
    _localize(run_url, as_json, crop=True, only_located=True, overrides=asked)


@click.command(short_help="Write the report page of a run.")
@run_argument
@shared_options()
def report(run_url: str, as_json: bool) -> None:
    """Write the report page of RUN, finished or not."""
    from ctray.cli.progress import reporter
    from ctray.pipeline.run import report_stage
    from ctray.records.run_folder import RunFolder
    from ctray.storage import store

    folder = RunFolder(url=store.normalize(run_url))
    with reporter() as progress, held_run(folder.url, progress.note):
        report_stage(folder, progress)
    if as_json:
        print_json({"run": folder.url, "report": folder.report})
    else:
        echo(folder.report)


def make_run(
    archive: str, out: str, given: RunConfig, progress: Any
) -> tuple[RunFolder, Sequence[VolumeRecord]]:
    """Do everything, with the settings of the run and those given on top."""
    found = look_first(archive, out, given, progress)
    from ctray.pipeline.run import run_archive
    from ctray.pipeline.taking_up import settings_for

    return run_archive(archive, out, settings_for(out, given), progress, found, progress.note)


def look_first(archive: str, out: str, settings: RunConfig, progress: Any) -> Catalog | None:
    """Volumes of an archive, where a run is not begun yet: what is refused is refused at once.

    Loading torch and Ray takes seconds, on a busy machine half a minute.
    """
    progress.note(f"looking for volumes in {archive}")
    from ctray.pipeline.finding import find_archive
    from ctray.records.run_folder import RunFolder, check_output
    from ctray.storage import store

    check_output(archive, out)
    if store.exists(RunFolder(url=store.normalize(out)).manifest):
        return None
    return find_archive(archive, settings, progress)


@contextmanager
def held_output(archive: str, out: str, on_wait: Callable[[str], None]) -> Iterator[None]:
    """Check the output and hold its run while the block runs."""
    from ctray.records.run_folder import check_output
    from ctray.records.run_lock import hold_run

    check_output(archive, out)
    with hold_run(out, on_wait=on_wait):
        yield


@contextmanager
def held_run(run_url: str, on_wait: Callable[[str], None] = say) -> Iterator[None]:
    """Hold a run that is there while the block runs; what is not there is left to the block."""
    from ctray.records.run_lock import hold_run
    from ctray.storage import store

    if store.exists(run_url):
        with hold_run(run_url, on_wait=on_wait):
            yield
    else:
        yield


def run_facts(
    folder: RunFolder, receipts: Sequence[VolumeRecord], *, report: bool
) -> dict[str, Any]:
    """Counts, sizes and places of a run, for the summary; of the report if it was written."""
    from ctray.report.summary import summarize_run
    from ctray.storage import store

    summary = summarize_run(folder)
    sizes = summary.sizes()
    counts: Counter[str] = Counter()
    failed: list[VolumeRecord] = []
    cropped = False
    for receipt in receipts:  # once: they are read as they come
        counts[receipt.status] += 1
        cropped = cropped or bool(receipt.crop_boxes)
        failed += [receipt] if receipt.status == "failed" else []
    return {
        "run": folder.url,
        "counts": {s: counts[s] for s in _STATUSES if s in counts},
        "bytes_before": sizes.before,
        "bytes_after": sizes.after if cropped else None,
        "saved": sizes.saved if cropped else None,
        "promises": summary.promises,
        "not_calibrated": summary.not_calibrated,
        "boxes": folder.localizations if store.exists(folder.localizations) else None,
        "crops": folder.at("crops") if cropped else None,
        "report": folder.report if report else None,
        "coverage": summary.coverage,
        **_failures(failed),
    }


def finish(facts: dict[str, Any], as_json: bool) -> None:
    """Print the summary; exit with 3 if volumes failed."""
    from ctray.cli.tables import run_lines

    if as_json:
        print_json(facts)
    else:
        for line in run_lines(facts):
            echo(line)
    _end(facts["failed"], sum(facts["counts"].values()))


def asked_settings(specimens: bool, keep_surround: bool) -> tuple[str, ...]:
    """The long forms of flags; what ``--set`` says comes later and wins."""
    asked = {"localize.specimens=true": specimens, "crop.keep_surround=true": keep_surround}
    return tuple(text for text, given in asked.items() if given)


def _localize(
    run_url: str,
    as_json: bool,
    *,
    crop: bool,
    only_located: bool,
    overrides: tuple[str, ...],
) -> None:
    from ctray.cli.progress import reporter
    from ctray.config import override

    with reporter() as progress, held_run(run_url, progress.note):
        progress.note("starting")
        from ctray.archive.catalog import read_catalog
        from ctray.executors.executor import executor_session
        from ctray.pipeline.run import check_trained, localize_stage, resume_run
        from ctray.pipeline.taking_up import take_up
        from ctray.records.receipt_list import iter_receipts

        folder, settings, archive = resume_run(run_url)
        if overrides:
            settings = override(settings, overrides)
            take_up(folder, settings)
        check_trained(folder, settings, archive)
        entries = read_catalog(folder.catalog)
        if only_located:
            ids = [entry.volume_id for entry in entries]
            received = {i for i, receipt in iter_receipts(folder, ids) if receipt is not None}
            entries = [e for e in entries if e.volume_id in received]
        with executor_session(settings.ray, progress.note) as executor:
            receipts = localize_stage(
                folder, settings, entries, crop=crop, on_event=progress, executor=executor
            )
    finish(run_facts(folder, receipts, report=False), as_json)


def _failures(failed: Iterable[VolumeRecord]) -> dict[str, list[dict[str, Any]]]:
    return {
        "failed": [
            {"volume_id": r.volume_id, "source_url": r.source_url, "reason": r.reason}
            for r in failed
        ]
    }


def _end(failed: Sequence[dict[str, Any]], total: int) -> None:
    """Name the volumes that failed, one line each, and exit with 3 if there are any."""
    for failure in failed:
        say(f"failed {failure['volume_id']}: {failure['reason']}")
    if failed:
        say(
            f"{len(failed)} of {total} volumes failed; mend them and delete their receipts "
            "to try again"
        )
        sys.exit(PartialFailureError.exit_code)
