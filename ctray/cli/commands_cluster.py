"""Commands for jobs on a Ray cluster: submit, and jobs with list, status, logs and stop."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from ctray.cli.commands_job import JOB_NAMES, job_options, job_overrides, run
from ctray.cli.options import Command, archive_names_options, echo, print_json, say, shared_options
from ctray.core.errors import JobError, PartialFailureError, printable

if TYPE_CHECKING:
    from ctray.cli.progress import Reporter
    from ctray.cluster.submit import Cluster
    from ctray.config import RunConfig

# The line that says why a job failed is among these, in spite of what Ray prints itself.
_KEPT_LINES = 200


def _address_option(function: Command) -> Command:
    return click.option(
        "--address",
        metavar="URL",
        envvar="RAY_API_SERVER_ADDRESS",
        show_envvar=True,
        default="http://127.0.0.1:8265",
        show_default=True,
        help="URL of the cluster's dashboard. RAY_AUTH_TOKEN holds its token.",
    )(function)


_which = click.argument("which", metavar="JOB")


@click.command(short_help="Run a job on a cluster.")
@click.argument("name", metavar="JOB", type=click.Choice(JOB_NAMES))
@click.option("--config", metavar="FILE", help="YAML file with settings, such as job.run.")
@job_options
@archive_names_options
@_address_option
@click.option("--detach", is_flag=True, help="Return at once; do not follow the job.")
@click.option(
    "--kube",
    is_flag=True,
    help="Print a KubeRay RayJob instead, which gives the job its own cluster.",
)
@click.option("--apply", is_flag=True, help="With --kube: create the RayJob with kubectl.")
@shared_options()
def submit(
    name: str,
    config: str | None,
    archive: str | None,
    out: str | None,
    overrides: tuple[str, ...],
    address: str,
    detach: bool,
    kube: bool,
    apply: bool,
    as_json: bool,
) -> None:
    """Run JOB (archive, pretrain or localize) on a Ray cluster, and follow it to its end.

    A run has at most one job at a time. After the end of a job, the same command resumes. Only
    settings are sent: the code comes from the image of the cluster, and keys from the environment
    of its nodes. Ctrl-C ends this command, not the job. The exit code is that of the job.
    """
    from ctray.config import load_config

    settings = load_config(config, job_overrides(archive, out, overrides))
    if kube:
        _kube(name, settings, apply, as_json)
        return
    if apply:
        raise click.UsageError("--apply needs --kube")
    from ctray.cluster.orders import make_order, settings_sent

    order = make_order(name, settings)
    cluster = _cluster(address)
    submission_id = cluster.submit(order)
    say(f"submitted {submission_id} to {cluster.address}")
    for line in settings_sent(order):
        say(line)
    if detach:
        if as_json:
            print_json({"id": submission_id, "run": order.run, "status": "PENDING"})
        else:
            echo(submission_id)
            say(f"to follow it: ctray jobs logs {submission_id} --follow")
        return
    _follow(cluster, submission_id, as_json)


@click.group(short_help="List, follow and stop jobs of a cluster.")
def jobs() -> None:
    """List, follow and stop jobs of a cluster.

    JOB is the id that `ctray submit` printed, or the run folder of the job.
    """


@jobs.command(name="list", short_help="List the jobs of ctray.")
@_address_option
@shared_options()
def list_(address: str, as_json: bool) -> None:
    """List the jobs of ctray on the cluster, the newest first."""
    found = _cluster(address).jobs()
    from ctray.cli.tables import job_table, print_table

    if as_json:
        print_json([asdict(job) for job in found])
    elif found:
        print_table(job_table(found))
    else:
        say("no jobs; ctray submit starts one")


@jobs.command(short_help="Print status and progress of a job.")
@_which
@_address_option
@shared_options()
def status(which: str, address: str, as_json: bool) -> None:
    """Print the status and the progress of JOB."""
    cluster = _cluster(address)
    from ctray.cluster.submit import why_failed

    job = cluster.find(which)
    lines = cluster.logs(job.id).splitlines()
    far = _last_event(lines)
    why = why_failed(job, _plain(lines)) if job.status == "FAILED" else None
    if as_json:
        print_json({**asdict(job), "progress": far, "reason": why})
        return
    echo(f"{job.id}: {job.status}{f', {far}' if far else ''}")
    echo(f"{job.name} of {job.run}")
    if why:
        echo(why)


@jobs.command(short_help="Print the log of a job.")
@_which
@click.option(
    "--follow", is_flag=True, help="Follow the job to its end. The exit code is that of the job."
)
@_address_option
@shared_options(machine=False)
def logs(which: str, follow: bool, address: str) -> None:
    """Print the log of JOB."""
    cluster = _cluster(address)
    job = cluster.find(which)
    if not follow:
        click.echo(printable(cluster.logs(job.id), keep="\n\r\t"), nl=False)
        return
    _follow(cluster, job.id, as_json=False)


@jobs.command(short_help="Stop a job.")
@_which
@_address_option
@shared_options()
def stop(which: str, address: str, as_json: bool) -> None:
    """Stop JOB. To resume, submit it again."""
    cluster = _cluster(address)
    job = cluster.find(which)
    if not job.is_running:
        raise JobError(f"{job.id} is not running: it is {job.status.lower()}")
    job = cluster.stop(job.id)
    if as_json:
        print_json(asdict(job))
    else:
        echo(f"{job.id}: {job.status}")


jobs.add_command(run)


def _kube(name: str, settings: RunConfig, apply: bool, as_json: bool) -> None:
    """Print the RayJob of a job, or create it."""
    from ctray.cluster import kube

    manifest = kube.apply(name, settings) if apply else kube.render(name, settings)
    own, namespace = (manifest["metadata"][key] for key in ("name", "namespace"))
    if as_json:
        print_json(manifest)
    elif apply:
        echo(own)
        say(f"to follow it: kubectl -n {namespace} get rayjob {own} --watch")
    else:
        click.echo(kube.to_yaml(manifest), nl=False)
        say("to create it: add --apply, or | kubectl create -f -")


def _cluster(address: str) -> Cluster:
    """Connect to a cluster. If it does not answer, the error comes before Ray is loaded."""
    from ctray.cluster.dashboard import check_dashboard

    check_dashboard(address)
    from ctray.cluster.submit import Cluster

    return Cluster(address)


def _follow(cluster: Cluster, submission_id: str, as_json: bool) -> None:
    """Show the log of a job until its end, and exit with its exit code."""
    from ctray.cli.progress import reporter
    from ctray.cluster.submit import why_failed

    kept: deque[str] = deque(maxlen=_KEPT_LINES)
    try:
        with reporter() as progress, closing(cluster.follow(submission_id)) as lines:
            for line in lines:
                _show(line, progress, kept)
    except KeyboardInterrupt:
        say(
            f"{submission_id} keeps running; to follow it: ctray jobs logs {submission_id} "
            f"--follow; to stop it: ctray jobs stop {submission_id}"
        )
        raise click.Abort from None
    job = cluster.ended(submission_id)
    if as_json:
        print_json(asdict(job))
    else:
        echo(f"{job.id}: {job.status}")
    if job.status == "SUCCEEDED":
        return
    if job.status == "STOPPED":
        raise JobError(f"{job.id} was stopped; the same ctray submit resumes")
    if job.exit_code == PartialFailureError.exit_code:
        raise PartialFailureError("volumes failed; ctray receipts RUN --status failed says why")
    say(f"error: {job.id} failed: {why_failed(job, list(kept))}")
    sys.exit(job.exit_code or 1)


def _show(line: str, progress: Reporter, kept: deque[str]) -> None:
    from ctray.cluster.job_log import parse_line

    told = parse_line(line)
    if isinstance(told, str):
        kept.append(told)
        # The error is printed at the end.
        if told and not told.startswith("error: "):
            progress.note(told)
    else:
        progress(told)


def _last_event(lines: Iterable[str]) -> str | None:
    """Return the progress of a job from its last event; None without one."""
    from ctray.cluster.job_log import parse_line

    far = None
    for line in lines:
        told: Any = parse_line(line)
        if not isinstance(told, str):
            far = f"{told.stage} {told.done}/{told.total} {told.text}".rstrip()
    return far


def _plain(lines: Iterable[str]) -> list[str]:
    """Return the lines that are not events."""
    from ctray.cluster.job_log import parse_line

    return [told for told in map(parse_line, lines) if isinstance(told, str)]
