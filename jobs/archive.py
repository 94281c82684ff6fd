"""A whole run, report included: `python jobs/archive.py CONFIG ARCHIVE OUT`."""

from __future__ import annotations

from collections.abc import Sequence

from ctray.config import load_config
from ctray.engine.archive import run_archive
from ctray.engine.jobs import print_event, run_job
from ctray.report import write_report
from ctray.storage.run_folder import Receipt


def main(config: str, archive: str, out: str) -> Sequence[Receipt]:
    """Do the job; returns the receipts."""
    run, receipts = run_archive(archive, out, load_config(config), print_event)
    print(f"report {write_report(run)}")
    return receipts


if __name__ == "__main__":
    run_job(main, __doc__)
