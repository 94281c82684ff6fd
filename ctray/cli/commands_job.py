"""The command `ctray jobs run`: a job in this process, as a cluster or `jobs/NAME.py` runs it."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from ctray.cli.heartbeat import Heartbeat
from ctray.cli.options import Command, archive_names_options, shared_options
from ctray.cli.running import held_output, held_run
from ctray.core.errors import AccessError, CtrayError, PartialFailureError, one_line

if TYPE_CHECKING:
    from ctray.cluster.job_log import JobLog
    from ctray.config import RunConfig
    from ctray.records.events import Event

JOB_NAMES = ("archive", "pretrain", "localize")
# As in `ctray.cluster.orders`, which would delay --help.
_SETTINGS, _JOB_ID = "CTRAY_JOB_SETTINGS", "CTRAY_JOB_ID"


def _set_option(function: Command) -> Command:
    return click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="SECTION.KEY=VALUE",
        help="Change one setting. Repeatable.",
    )(function)


def job_options(function: Command) -> Command:
    """Add --archive, --out and --set."""
    for option in (
        _set_option,
        click.option("--out", metavar="RUN", help="Run folder; short for --set job.run."),
        click.option("--archive", metavar="URL", help="Archive; short for --set job.archive."),
    ):
        function = option(function)
    return function


def job_overrides(
    archive: str | None, out: str | None, overrides: tuple[str, ...]
) -> tuple[str, ...]:
    """Return the overrides that the options of `job_options` stand for."""
    given = {"job.archive": archive, "job.run": out}
    # JSON is YAML, and quotes a folder called 2024.
    short = [f"{key}={json.dumps(value)}" for key, value in given.items() if value is not None]
    return (*short, *overrides)


@click.command(short_help="Run a job in this process.")
@click.argument("name", metavar="JOB", type=click.Choice(JOB_NAMES))
@click.argument("config", metavar="[CONFIG]", required=False)
@click.argument("places", metavar="[ARCHIVE RUN]", nargs=-1)
@_set_option
@archive_names_options
@shared_options(machine=False, first_line=False)  # its log has its own format
def run(name: str, config: str | None, places: tuple[str, ...], overrides: tuple[str, ...]) -> None:
    """Run JOB (archive, pretrain or localize) in this process, as `python jobs/JOB.py` does.

    CONFIG is a YAML file with settings. ARCHIVE and RUN replace job.archive and job.run; localize
    takes RUN alone. A cluster runs this command for `ctray submit`, with settings from the
    environment. It prints one line per event, or JSON with job.log_format=json. The exit code is 3
    if volumes failed.
    """
    archive, out = _places(name, places)
    settings = _settings(config, job_overrides(archive, out, overrides))
    from ctray.cluster.job_log import JobLog

    log = JobLog(
        run=settings.job.run or "", style=settings.job.log_format, job=os.environ.get(_JOB_ID, "")
    )
    log.say(f"{name} over {settings.job.archive or settings.job.run}")
    signs = _SignsOfLife(log)
    with _told_to(log), signs.heartbeat:
        counts = _do(name, settings, log, signs)
    if counts:
        log.say(", ".join(f"{n} {status}" for status, n in counts.items()))
    sys.exit(PartialFailureError.exit_code if counts.get("failed") else 0)


def _places(name: str, places: tuple[str, ...]) -> tuple[str | None, str | None]:
    """Return the archive and the run of the command line; None without them."""
    names = ("RUN",) if name == "localize" else ("ARCHIVE", "RUN")
    if len(places) not in (0, len(names)):
        raise click.UsageError(f"{name} takes CONFIG, or CONFIG {' '.join(names)}")
    if not places:
        return None, None
    return (None if name == "localize" else places[0]), places[-1]


def _settings(config: str | None, overrides: tuple[str, ...]) -> RunConfig:
    from ctray.config import load_config, load_config_text

    if config is not None:
        return load_config(config, overrides)
    text = os.environ.get(_SETTINGS)
    if text is None:
        raise click.UsageError("give CONFIG, a file with settings, such as configs/archive.yaml")
    return load_config_text(text, overrides)


class _SignsOfLife:
    """Repeats the last event of a job if nothing else is printed for a while."""

    def __init__(self, log: JobLog) -> None:
        self._log = log
        self._last: Event | None = None
        self.heartbeat = Heartbeat(self._still_working)

    def event(self, event: Event) -> None:
        """Note an event that was just printed."""
        self._last = event
        self.heartbeat.said()

    def _still_working(self, seconds: float) -> None:
        text = f"still working after {seconds:.0f} s"
        if self._last is None:
            self._log.say(text)
        else:
            told = replace(self._last, text=text, volume_id="", status="", metrics={}, stays=False)
            self._log.event(replace(told, bytes_read=0, bytes_written=0))


def _do(name: str, settings: RunConfig, log: JobLog, signs: _SignsOfLife) -> dict[str, int]:
    """Do the job; return the number of volumes by status."""
    from ctray.cluster.jobs import JOBS
    from ctray.cluster.orders import check_job, run_of
    from ctray.executors.session import executor_session
    from ctray.pipeline.run import status_counts
    from ctray.storage import store

    check_job(name, settings)
    run_url, archive = run_of(settings), settings.job.archive or ""
    # Missing keys of a store are an error at once.
    store.exists(run_url)
    tell = _all([log.event, signs.event])
    # The driver holds the run for all nodes.
    held = held_run if name == "localize" else partial(held_output, archive)
    with held(run_url, log.say):
        # Before Ray starts, which takes seconds: a bad archive is an error at once.
        work = JOBS[name](settings, tell)
        with executor_session(settings.ray, log.say) as executor:
            folder, receipts = work(executor, _all([tell, executor.monitor(log.run)]))
        if name != "pretrain":
            log.say(f"report {folder.report}")
        return status_counts(receipts)


def _all(listeners: Sequence[Callable[[Any], None]]) -> Callable[[Any], None]:
    def tell(event: Any) -> None:
        for listener in listeners:
            listener(event)

    return tell


@contextmanager
def _told_to(log: JobLog) -> Iterator[None]:
    """Exit on an exception of the block, with a line in the format of the log."""
    errors = replace(log, stream=sys.stderr)
    try:
        yield
    except CtrayError as error:
        remedy = _CLUSTER_KEYS if log.job and isinstance(error, AccessError) else ""
        errors.say(f"{one_line(error)}{remedy}", "error")
        sys.exit(error.exit_code)
    except Exception as error:
        # A job on a cluster cannot be repeated with --debug.
        for line in traceback.format_exc().splitlines():
            errors.say(line)
        errors.say(f"unexpected {type(error).__name__}: {one_line(error)}", "error")
        sys.exit(1)


_CLUSTER_KEYS = (
    "; a job takes keys from the environment of the cluster's nodes (on Kubernetes: a Secret), not "
    "from the machine that submitted it"
)
