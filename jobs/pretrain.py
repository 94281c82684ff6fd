"""Catalog, import and training: `python jobs/pretrain.py configs/pretrain.yaml [ARCHIVE RUN]`.

Places that are not given are those of the configuration (`job.archive`, `job.run`). The same as
`ctray jobs run pretrain`, which `ctray submit pretrain` has a cluster run; --help says more.
"""

import sys

from ctray.cli.main import cli

if __name__ == "__main__":
    cli(["jobs", "run", "pretrain", *sys.argv[1:]], prog_name="ctray")
