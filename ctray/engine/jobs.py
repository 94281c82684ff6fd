"""What the entry points in `jobs/` share: arguments, a line an event, errors, exit status."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from ctray.engine.archive import Event, status_counts
from ctray.errors import CtrayError, PartialFailureError
from ctray.storage.run_folder import Receipt


def print_event(event: Event) -> None:
    """One line an event: a cluster keeps the output of its jobs."""
    print(f"{event.stage} {event.done}/{event.total} {event.text}", flush=True)


def run_job(main: Callable[..., Sequence[Receipt]], usage: str | None) -> NoReturn:
    """Call `main` with the command line's arguments and exit with its status.

    The status is 0, 3 if some volumes failed, or that of the error, which becomes one line.

    Parameters
    ----------
    main
        The job; takes strings, returns the receipts of the volumes that it worked on.
    usage
        Said where the number of arguments is wrong.
    """
    arguments = sys.argv[1:]
    if len(arguments) != len(inspect.signature(main).parameters):
        sys.exit(usage)
    try:
        receipts = main(*arguments)
    except CtrayError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(error.exit_code)
    counts = status_counts(receipts)
    if counts:
        print(", ".join(f"{n} {status}" for status, n in counts.items()))
    sys.exit(PartialFailureError.exit_code if counts.get("failed") else 0)
