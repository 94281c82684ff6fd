"""A whole run, report included: `python jobs/archive.py CONFIG ARCHIVE OUT`."""

from __future__ import annotations

import sys

from ctray.config import load_config
from ctray.engine.archive import Event, run_archive, status_counts
from ctray.errors import CtrayError, PartialFailureError
from ctray.report import write_report


def log(event: Event) -> None:
    """One line an event: a cluster keeps the output of its jobs."""
    print(f"{event.stage} {event.done}/{event.total} {event.text}", flush=True)


def main(config: str, archive: str, out: str) -> int:
    """Do the job; returns the exit status, 3 if some volumes failed."""
    try:
        run, receipts = run_archive(archive, out, load_config(config), log)
        print(f"report {write_report(run)}")
    except CtrayError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    counts = status_counts(receipts)
    print(", ".join(f"{n} {status}" for status, n in counts.items()))
    return PartialFailureError.exit_code if counts.get("failed") else 0


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
