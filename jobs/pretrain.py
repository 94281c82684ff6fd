"""Catalog, import and training: `python jobs/pretrain.py configs/pretrain.yaml [ARCHIVE RUN]`.

Without ARCHIVE and RUN, `job.archive` and `job.run` of the configuration are used. This is
`ctray jobs run pretrain`, which a cluster runs for `ctray submit pretrain`; see its --help.
"""

import sys

from ctray.cli.main import cli

if __name__ == "__main__":
    cli(["jobs", "run", "pretrain", *sys.argv[1:]], prog_name="ctray")
