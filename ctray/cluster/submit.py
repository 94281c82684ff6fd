"""Jobs on a running cluster, through Ray's Jobs API.

The id of a job follows from its run folder, so a second submission of the same run finds the first.
Only settings are uploaded; the code comes from the cluster's image.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
import warnings
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

import aiohttp
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobSubmissionClient

from ctray.cluster.dashboard import TIMEOUT_S, check_dashboard, token_headers
from ctray.cluster.orders import JOB_ID, SETTINGS, Order, job_id
from ctray.core.errors import AccessError, JobError, NotFoundError, one_line
from ctray.core.version import __version__

RUNNING = ("PENDING", "RUNNING")
# A proxy or a restarting head can cut the connection, while the job keeps running.
_PATIENCE_S = 60.0
_RETRY_S = 2.0
# A head answers before it can start jobs. Ray itself waits only 10 s.
_NO_AGENT = "No available agent"
_START_S = 120.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A job of a cluster.

    Parameters
    ----------
    id
        Submission id.
    name, run
        Job and its run folder.
    status
        PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED.
    message
        Ray's explanation of the status, one line.
    began, ended
        Seconds since 1970; None before that.
    exit_code
        Exit code of its process; None before its end.
    """

    id: str
    name: str
    run: str
    status: str
    message: str = ""
    began: float | None = None
    ended: float | None = None
    exit_code: int | None = None

    @property
    def is_running(self) -> bool:
        """Whether it runs or waits to run."""
        return self.status in RUNNING


class Cluster:
    """The Jobs API of a running cluster.

    Parameters
    ----------
    address
        URL of its dashboard, such as http://127.0.0.1:8265.

    Raises
    ------
    JobError
        If no cluster answers there, or one with another version of Ray.
    AccessError
        If it refuses the token.
    """

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        check_dashboard(address)
        with self._errors(), _no_other_address():
            self._client = JobSubmissionClient(self.address, headers=token_headers())

    def submit(self, order: Order) -> str:
        """Submit a job and return its id, unless a job of the same run is running.

        Raises
        ------
        JobError
            If such a job is running; the message names it.
        """
        earlier = self.jobs(order.run)
        for job in earlier:
            if job.is_running:
                raise _running_already(job.id, order.run, job.status)
        number = max((_number(job.id) for job in earlier), default=0) + 1
        submission_id = job_id(order.run, number)
        try:
            self._submit(order, submission_id)
        except JobError as error:
            # Someone else was faster and took the id.
            if "already exists" in str(error):
                raise _running_already(submission_id, order.run, "PENDING") from error
            raise
        return submission_id

    def _submit(self, order: Order, submission_id: str) -> None:
        """Submit; tries again while the cluster is starting."""
        own = {SETTINGS: order.settings, JOB_ID: submission_id}
        until = time.monotonic() + _START_S
        while True:
            try:
                with self._errors():
                    self._client.submit_job(
                        entrypoint=order.entrypoint,
                        submission_id=submission_id,
                        runtime_env={"env_vars": {**order.env, **own}},
                        metadata={"ctray": __version__, "job": order.name, "run": order.run},
                    )
                return
            except JobError as error:
                if _NO_AGENT not in str(error):
                    raise
                if time.monotonic() > until:
                    raise JobError(
                        f"the cluster at {self.address} is starting, or too busy to take a job; "
                        "try again in a minute"
                    ) from error

    def jobs(self, run_url: str | None = None) -> list[Job]:
        """Return the jobs of ctray, or of one run, the newest first."""
        with self._errors():
            found = self._client.list_jobs()
        jobs = [_job(details) for details in found if _is_ours(details)]
        if run_url is not None:
            jobs = [job for job in jobs if _is_of_run(job, run_url)]
        return sorted(jobs, key=lambda job: (job.began or 0.0, _number(job.id)), reverse=True)

    def find(self, name: str) -> Job:
        """Return the job with an id, or the newest job of a run.

        Raises
        ------
        NotFoundError
            If there is no such job.
        """
        jobs = self.jobs()
        for job in jobs:
            if job.id == name:
                return job
        for job in jobs:
            if _is_of_run(job, name):
                return job
        raise NotFoundError(f"{self.address} has no job {name}; ctray jobs list shows all jobs")

    def stop(self, submission_id: str, timeout_s: float = 30.0) -> Job:
        """Stop a job, wait for its end, and return it."""
        with self._errors():
            self._client.stop_job(submission_id)
        until = time.monotonic() + timeout_s
        while (job := self._get(submission_id)).is_running:
            if time.monotonic() > until:
                raise JobError(f"{submission_id} is stopping but still runs; look again soon")
            time.sleep(0.3)
        return job

    def logs(self, submission_id: str) -> str:
        """Return the log of a job so far."""
        with self._errors():
            text: str = self._client.get_job_logs(submission_id)
        return text

    def follow(self, submission_id: str) -> Generator[str, None, None]:
        """Yield the lines of a job's log, from the first to its end.

        Whoever stops listening before that closes the generator, which ends the connection.

        Raises
        ------
        JobError
            If the cluster does not answer for a minute. The job may keep running.
        """
        seen, lost = 0, None
        while True:
            try:
                with closing(self._tail(submission_id)) as lines:
                    for number, line in enumerate(lines):
                        if number >= seen:
                            seen, lost = number + 1, None
                            yield line
                if not self._get(submission_id).is_running:
                    return
            except JobError as error:
                lost = lost or time.monotonic()
                if time.monotonic() - lost > _PATIENCE_S:
                    raise JobError(
                        f"{self.address} has stopped answering ({one_line(error)}); the job may "
                        f"still run: ctray jobs logs {submission_id} --follow"
                    ) from error
            time.sleep(_RETRY_S)

    def ended(self, submission_id: str) -> Job:
        """Return a job that printed its last line, once Ray knows its status."""
        until = time.monotonic() + TIMEOUT_S
        while (job := self._get(submission_id)).is_running and time.monotonic() < until:
            time.sleep(0.2)
        return job

    def _get(self, submission_id: str) -> Job:
        with self._errors():
            return _job(self._client.get_job_info(submission_id))

    def _tail(self, submission_id: str) -> Generator[str, None, None]:
        """Yield the lines of one connection. A broken connection may cut off the last one."""
        with self._errors():
            yield from lines_of(self._client.tail_job_logs(submission_id))

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn errors of Ray's client into ours."""
        try:
            yield
        except AuthenticationError as error:
            raise AccessError(
                f"{self.address} refuses the token; set RAY_AUTH_TOKEN to the cluster's"
            ) from error
        except (OSError, RuntimeError, aiohttp.ClientError) as error:
            text = one_line(error)
            if "status code 404" in text or "does not exist" in text:
                raise NotFoundError(f"{self.address} has no such job: {text}") from error
            raise JobError(f"{self.address}: {text}") from error


def lines_of(chunks: AsyncIterator[str]) -> Generator[str, None, None]:
    """Yield the lines of a text that comes in chunks; the last one may be cut off.

    Leaving the loop, also with Ctrl-C, closes the source of the chunks.
    """
    loop = asyncio.new_event_loop()
    rest = ""
    try:
        while (chunk := _next(chunks, loop)) is not None:
            *lines, rest = (rest + chunk).split("\n")
            yield from lines
        if rest:
            yield rest
    finally:
        # An interrupt leaves a task that waits for the next chunk.
        waiting = asyncio.all_tasks(loop)
        for task in waiting:
            task.cancel()
        if waiting:
            loop.run_until_complete(asyncio.gather(*waiting, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def _next(chunks: AsyncIterator[str], loop: asyncio.AbstractEventLoop) -> str | None:
    """Return the next chunk, or None after the last."""

    async def wait() -> str | None:
        return await anext(chunks, None)

    with warnings.catch_warnings():
        # Ray's client passes None to aiohttp and means the default.
        warnings.filterwarnings("ignore", message="ssl=None is deprecated")
        return loop.run_until_complete(wait())


def why_failed(job: Job, lines: list[str]) -> str:
    """Return one line that says why a job failed, from the last lines of its log."""
    told = [line for line in lines if line.startswith("error: ")]
    if told:
        return told[-1].removeprefix("error: ")
    text = "\n".join(lines)
    if job.exit_code == 127 or "No module named 'ctray'" in text:
        return (
            "the image of the cluster has no ctray; use one with the same version as here "
            f"({__version__}), as k8s/Dockerfile makes it"
        )
    if "No such command 'jobs'" in text:
        return (
            f"the cluster's ctray is older than this one ({__version__}) and has no jobs; use the "
            "same version on both"
        )
    last = [line.strip() for line in lines if line.strip()]
    return job.message or (last[-1] if last else "its log is empty")


def _running_already(submission_id: str, run: str, status: str) -> JobError:
    return JobError(
        f"{submission_id} is {status.lower()} and works on {run}; follow it with ctray jobs logs "
        f"{submission_id} --follow, or stop it with ctray jobs stop {submission_id}"
    )


def _number(submission_id: str) -> int:
    """Return the number of a job within its run, from its id."""
    found = re.fullmatch(r".*-[0-9a-f]{8}-(\d+)", submission_id)
    return int(found[1]) if found else 1


def _is_of_run(job: Job, run_url: str) -> bool:
    return re.fullmatch(rf"{job_id(run_url)}(-\d+)?", job.id) is not None


def _is_ours(details: JobDetails) -> bool:
    return details.submission_id is not None and "ctray" in (details.metadata or {})


def _job(details: JobDetails) -> Job:
    told = details.metadata or {}
    return Job(
        id=details.submission_id,
        name=told.get("job", ""),
        run=told.get("run", ""),
        status=str(getattr(details.status, "value", details.status)),
        message=one_line(Exception(details.message or "")),
        began=details.start_time / 1000 if details.start_time else None,
        ended=details.end_time / 1000 if details.end_time else None,
        exit_code=details.driver_exit_code,
    )


@contextmanager
def _no_other_address() -> Iterator[None]:
    """Hide the variables that Ray's client would prefer to the given address."""
    names = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
    hidden = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)
