"""The command `ctray`: its subcommands in their sections, and its exit codes.

Subcommands import what they need when they are called, so that --help is fast.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import chain
from typing import Any

import click

from ctray.cli.commands_benchmark import benchmark
from ctray.cli.commands_cluster import jobs, submit
from ctray.cli.commands_data import catalog, import_, phantom
from ctray.cli.commands_results import receipts, restore, verify
from ctray.cli.commands_run import archive_, plan, run
from ctray.cli.commands_score import calibrate, demo, evaluate
from ctray.cli.commands_stages import crop, localize, pretrain, report
from ctray.cli.options import INTERRUPTED, say
from ctray.core.version import __version__


class OneLineGroup(click.Group):
    """The group of all commands: shows them in sections, and prints usage errors as one line."""

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

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands in their sections, in the order of use."""
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(c.name or "", c.get_short_help_str(80)) for c in commands])


@click.group(cls=OneLineGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(prog)s %(version)s")
def cli() -> None:
    """Find the sample in CT volumes without labels, and crop away the rest."""


SECTIONS: dict[str, tuple[click.Command, ...]] = {
    "Find and crop samples": (run, plan, demo),
    "Look at results": (receipts, report, verify, restore),
    "Single steps": (catalog, import_, pretrain, localize, crop),
    "Work on a cluster": (submit, jobs),
    "Measure accuracy": (evaluate, calibrate, phantom, benchmark),
}
for _command in (*chain.from_iterable(SECTIONS.values()), archive_):
    cli.add_command(_command)


def main() -> None:
    """Entry point of the program."""
    cli(prog_name="ctray")
