"""A whole run, report included: `python jobs/archive.py configs/archive.yaml [ARCHIVE RUN]`.

Places that are not given are those of the configuration (`job.archive`, `job.run`). The same as
`ctray jobs run archive`, which `ctray submit archive` has a cluster run; --help says more.
"""

import sys

from ctray.cli.main import cli

if __name__ == "__main__":
    cli(["jobs", "run", "archive", *sys.argv[1:]], prog_name="ctray")
