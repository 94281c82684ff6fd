"""Catalog, import and training alone: `python jobs/pretrain.py CONFIG ARCHIVE OUT`."""

from __future__ import annotations

from ctray.config import load_config
from ctray.engine.archive import catalog_stage, open_run, pretrain_stage
from ctray.engine.jobs import print_event, run_job
from ctray.engine.session import ray_session
from ctray.storage.run_folder import Receipt


def main(config_path: str, archive: str, out: str) -> list[Receipt]:
    """Do the job; returns the receipts of what could not be read or prepared."""
    config = load_config(config_path)
    run = open_run(archive, out, config)
    catalog = catalog_stage(run, archive, config, print_event)
    with ray_session(config.ray):
        pretrain_stage(run, config, catalog.ok, print_event)
    return run.receipts()


if __name__ == "__main__":
    run_job(main, __doc__)
