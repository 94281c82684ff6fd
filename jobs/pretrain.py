"""Catalog, import and training alone: `python jobs/pretrain.py CONFIG ARCHIVE OUT`."""

from __future__ import annotations

import sys

from ctray.config import load_config
from ctray.engine.archive import Event, catalog_stage, open_run, pretrain_stage
from ctray.engine.session import ray_session
from ctray.errors import CtrayError


def log(event: Event) -> None:
    """One line an event: a cluster keeps the output of its jobs."""
    print(f"{event.stage} {event.done}/{event.total} {event.text}", flush=True)


def main(config_path: str, archive: str, out: str) -> int:
    """Do the job; returns the exit status."""
    try:
        config = load_config(config_path)
        run = open_run(archive, out, config)
        catalog = catalog_stage(run, archive, config, log)
        with ray_session(config.ray):
            pretrain_stage(run, config, catalog.ok, log)
    except CtrayError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
