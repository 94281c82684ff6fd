"""Boxes and crops of a run that is trained: `python jobs/localize.py RUN`."""

from __future__ import annotations

from collections.abc import Sequence

from ctray.engine.archive import check_trained, localize_stage, resume_run
from ctray.engine.jobs import print_event, run_job
from ctray.engine.session import ray_session
from ctray.storage.catalog import read_catalog
from ctray.storage.run_folder import Receipt


def main(run_url: str) -> Sequence[Receipt]:
    """Do the job; returns the receipts."""
    run, config, archive = resume_run(run_url)
    check_trained(run, config, archive)
    with ray_session(config.ray):
        return localize_stage(run, config, read_catalog(run.catalog), on_event=print_event)


if __name__ == "__main__":
    run_job(main, __doc__)
