"""What all commands share: options, value types, and errors as one line."""

from __future__ import annotations

import functools
import json
import logging
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from ctray.engine.stopping import stop_on_signals, stopped_by
from ctray.errors import CtrayError, one_line

Command = TypeVar("Command", bound=Callable[..., Any])
# The tasks of `ctray.config`, which --help does not wait for.
TASKS = ("rotation", "sorting")
INTERRUPTED = 128 + signal.SIGINT  # as shells count it


def say(line: str) -> None:
    """One line for people: on stderr, so that stdout holds the result alone."""
    click.echo(line, err=True)


def print_json(document: Any) -> None:
    """Write the one JSON document of a command on stdout."""
    click.echo(json.dumps(document, indent=2))


@contextmanager
def errors_as_lines(debug: bool) -> Iterator[None]:
    """Turn what the block raises into one line on stderr and an exit code.

    `debug` shows the traceback above the line.
    """
    stop_on_signals()
    try:
        yield
    except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
        raise
    except KeyboardInterrupt:
        # The storage's background loop would tell of every write that this cut short.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        by = stopped_by()
        told = "" if by == signal.SIGINT else f" by {by.name}"
        say(f"interrupted{told}; the same command goes on from here")
        # As shells count it.
        sys.exit(128 + by)
    except CtrayError as error:
        if debug:
            traceback.print_exc()
        say(f"error: {one_line(error)}")
        sys.exit(error.exit_code)
    except Exception as error:
        if debug:
            traceback.print_exc()
        hint = "" if debug else "; --debug shows where"
        say(f"error: unexpected {type(error).__name__}: {one_line(error)}{hint}")
        sys.exit(1)


def shared_options(*, machine: bool = True) -> Callable[[Command], Command]:
    """Options that every command has, and its errors as lines.

    Parameters
    ----------
    machine
        Whether the command takes ``--json``.
    """

    def decorate(function: Command) -> Command:
        @functools.wraps(function)
        def guarded(*args: Any, debug: bool, **kwargs: Any) -> Any:
            with errors_as_lines(debug):
                return function(*args, **kwargs)

        command: Any = click.option("--debug", is_flag=True, help="Show tracebacks.")(guarded)
        if machine:
            command = click.option(
                "--json", "as_json", is_flag=True, help="Print one JSON document on stdout."
            )(command)
        return command  # type: ignore[no-any-return]

    return decorate


def config_options(function: Command) -> Command:
    """Options ``--config``, ``--task``, ``--max-loss`` and ``--set``: what a configuration says."""

    @functools.wraps(function)
    def with_task(*args: Any, task: str | None, overrides: tuple[str, ...], **kwargs: Any) -> Any:
        named = [f"task={task}"] if task else []
        return function(*args, overrides=(*named, *overrides), **kwargs)

    command: Any = click.option(
        "--task",
        type=click.Choice(TASKS),
        help="Pretext task, and with it the way to the boxes; rotation unless the config says.",
    )(change_options(with_task))
    return click.option(  # type: ignore[no-any-return]
        "--config", metavar="FILE", help="YAML file with settings, or run.json of a run."
    )(command)


def change_options(function: Command) -> Command:
    """Options ``--max-loss`` and ``--set``: single settings."""

    @functools.wraps(function)
    def with_short_forms(
        *args: Any, max_loss: float | None, overrides: tuple[str, ...], **kwargs: Any
    ) -> Any:
        # A short form of --set; what --set says comes later and wins.
        named = [] if max_loss is None else [f"crop.max_loss={max_loss:g}"]
        return function(*args, overrides=(*named, *overrides), **kwargs)

    command: Any = click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="SECTION.KEY=VALUE",
        help="Change one setting, for example --set crop.margin=0.05; may be repeated.",
    )(with_short_forms)
    return click.option(  # type: ignore[no-any-return]
        "--max-loss",
        type=float,
        metavar="PART",
        help="Maximum fraction of sample voxels that a crop may lose, 0.001 unless the config "
        "says. Sets the margin.",
    )(command)


def instances_option(function: Command) -> Command:
    """Option ``--instances``."""
    return click.option(
        "--instances", is_flag=True, help="A box and a crop for each of several specimens."
    )(function)


def surround_option(function: Command) -> Command:
    """Option ``--keep-surround``."""
    return click.option(
        "--keep-surround",
        is_flag=True,
        help="Keep a coarse level of what is cut away in each crop, for ctray restore.",
    )(function)


def run_argument(function: Command) -> Command:
    """Argument RUN: the folder of a run that was begun."""
    return click.argument("run_url", metavar="RUN")(function)


def lengths(text: str) -> tuple[float, ...]:
    """One number, or three in the order z, y, x, separated by commas; a usage error otherwise."""
    return _numbers(text, float, "numbers")


def extents(text: str) -> tuple[int, ...]:
    """One whole number, or three, as `lengths` takes them."""
    return _numbers(text, int, "whole numbers")


def _numbers(text: str, number: Callable[[str], Any], kind: str) -> tuple[Any, ...]:
    try:
        values = tuple(number(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) not in (1, 3) or not all(v > 0 for v in values):
        raise click.BadParameter(f"{text!r} must be one or three {kind} above 0 (z,y,x)")
    return values


def size_of(numbers: Sequence[int]) -> Any:
    """Size as phantoms take it: one side, or (z, y, x)."""
    return numbers[0] if len(numbers) == 1 else tuple(numbers)
