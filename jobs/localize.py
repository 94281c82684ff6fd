"""Boxes and crops of a trained run: `python jobs/localize.py configs/localize.yaml [RUN]`.

Places that are not given are those of the configuration (`job.archive`, `job.run`). The same as
`ctray jobs run localize`, which `ctray submit localize` has a cluster run; --help says more.
"""

import sys

from ctray.cli.main import cli

if __name__ == "__main__":
    cli(["jobs", "run", "localize", *sys.argv[1:]], prog_name="ctray")
