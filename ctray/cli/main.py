"""The command `ctray`: its subcommands and how it ends.

Subcommands import what they need when they are called, so that help and version come at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from ctray.cli.commands_archive import archive_, plan
from ctray.cli.commands_benchmark import benchmark
from ctray.cli.commands_cluster import jobs, submit
from ctray.cli.commands_data import catalog, import_, phantom
from ctray.cli.commands_keep import receipts, restore, verify
from ctray.cli.commands_run import crop, localize, pretrain, report, run
from ctray.cli.commands_score import calibrate, demo, evaluate
from ctray.cli.options import INTERRUPTED, say
from ctray.core.version import __version__


class OneLineGroup(click.Group):
    """Group that reports usage errors as one line, like every other error."""

    def main(self, args: Sequence[str] | None = None, *_: Any, **extra: Any) -> Any:
        """Run the command line and exit with its code."""
        extra["standalone_mode"] = False
        try:
            code = super().main(args, **extra)
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message())
            sys.exit(0)
        except click.UsageError as error:
            where = error.ctx.command_path if error.ctx else "ctray"
            text = " ".join(error.format_message().split()).rstrip(".")
            say(f"error: {text}; see {where} --help")
            sys.exit(error.exit_code)
        except click.ClickException as error:
            say(f"error: {' '.join(error.format_message().split())}")
            sys.exit(error.exit_code)
        except click.Abort:
            sys.exit(INTERRUPTED)
        sys.exit(code if isinstance(code, int) else 0)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Commands in the order in which they are used, not of the alphabet."""
        return list(self.commands)


@click.group(cls=OneLineGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(prog)s %(version)s")
def cli() -> None:
    """Find the sample in CT volumes without labels and crop away the rest."""


for _command in (
    *(run, plan, archive_, demo),
    *(import_, catalog, pretrain, localize, crop, report),
    *(submit, jobs),
    *(receipts, verify, restore),
    *(evaluate, calibrate, phantom, benchmark),
):
    cli.add_command(_command)


def main() -> None:
    """Entry point of the program."""
    cli(prog_name="ctray")
