"""Boxes and crops of a run that is trained: `python jobs/localize.py RUN`."""

from __future__ import annotations

import sys

from ctray.engine.archive import Event, localize_stage, resume_run, status_counts
from ctray.engine.session import ray_session
from ctray.errors import CtrayError, PartialFailureError
from ctray.storage.catalog import read_catalog


def log(event: Event) -> None:
    """One line an event: a cluster keeps the output of its jobs."""
    print(f"{event.stage} {event.done}/{event.total} {event.text}", flush=True)


def main(run_url: str) -> int:
    """Do the job; returns the exit status, 3 if some volumes failed."""
    try:
        run, config, _ = resume_run(run_url)
        entries = read_catalog(run.catalog)
        with ray_session(config.ray):
            receipts = localize_stage(run, config, entries, on_event=log)
    except CtrayError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    counts = status_counts(receipts)
    print(", ".join(f"{n} {status}" for status, n in counts.items()))
    return PartialFailureError.exit_code if counts.get("failed") else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
