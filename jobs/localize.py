"""Boxes and crops of a trained run: `python jobs/localize.py configs/localize.yaml [RUN]`.

Without RUN, `job.run` of the configuration is used. This is `ctray jobs run localize`, which a
cluster runs for `ctray submit localize`; see its --help.
"""

import sys

from ctray.cli.main import cli

if __name__ == "__main__":
    cli(["jobs", "run", "localize", *sys.argv[1:]], prog_name="ctray")
