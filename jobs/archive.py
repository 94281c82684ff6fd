"""A whole run, report included: `python jobs/archive.py configs/archive.yaml [ARCHIVE RUN]`.

Without ARCHIVE and RUN, `job.archive` and `job.run` of the configuration are used. This is
`ctray jobs run archive`, which a cluster runs for `ctray submit archive`; see its --help.
"""

import sys

from ctray.cli.main import cli

if __name__ == "__main__":
    cli(["jobs", "run", "archive", *sys.argv[1:]], prog_name="ctray")
