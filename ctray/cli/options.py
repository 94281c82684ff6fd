"""What all commands share: options, value types, and errors as one line."""

from __future__ import annotations

import functools
import json
import logging
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

import click

from ctray.core.errors import CtrayError, one_line, printable
from ctray.core.stopping import stop_on_signals, stopped_by

Command = TypeVar("Command", bound=Callable[..., Any])
# The tasks of `ctray.config`, which --help does not wait for.
TASKS = ("rotation", "sorting")
INTERRUPTED = 128 + signal.SIGINT  # as shells count it


# Nobody should wonder for two seconds whether a command has begun.
_FIRST_LINE_S = 1.0
_line_is_out = threading.Event()


def say(line: str) -> None:
    """One line for people: on stderr, so that stdout holds the result alone."""
    first_line_is_out()
    click.echo(printable(line), err=True)


def echo(line: str) -> None:
    """One line of a result, on stdout; names in it cannot steer the terminal."""
    click.echo(printable(line))


def first_line_is_out() -> None:
    """Something was said, or is about to be: the command needs no other sign that it began."""
    _line_is_out.set()


@contextmanager
def _first_line(command: str) -> Iterator[None]:
    """Say that a command starts where the block says nothing for a while."""

    def wait() -> None:
        if not _line_is_out.wait(_FIRST_LINE_S):
            click.echo(f"{command}: starting", err=True)

    _line_is_out.clear()
    thread = threading.Thread(target=wait, name="ctray-first-line", daemon=True)
    thread.start()
    try:
        yield
    finally:
        first_line_is_out()
        thread.join()


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
        warnings.simplefilter("ignore", RuntimeWarning)
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


def shared_options(
    *, machine: bool = True, first_line: bool = True
) -> Callable[[Command], Command]:
    """Options that every command has, and its errors as lines.

    Parameters
    ----------
    machine
        Whether the command takes ``--json``.
    first_line
        Whether stderr says that the command starts where it says nothing else for a second.
    """

    def decorate(function: Command) -> Command:
        @functools.wraps(function)
        def guarded(*args: Any, debug: bool, **kwargs: Any) -> Any:
            path = click.get_current_context().command_path
            told = _first_line(path) if first_line else nullcontext()
            with errors_as_lines(debug), told:
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


def names_options(function: Command) -> Command:
    """Options ``--include``, ``--exclude`` and ``--no-exclude``: which names are taken."""

    @functools.wraps(function)
    def checked(*args: Any, exclude: tuple[str, ...], no_exclude: bool, **kwargs: Any) -> Any:
        if exclude and no_exclude:
            raise click.UsageError("give --exclude or --no-exclude, not both")
        patterns = () if no_exclude else exclude or None
        return function(*args, exclude=patterns, **kwargs)

    command: Any = click.option("--no-exclude", is_flag=True, help="Skip nothing.")(checked)
    command = click.option(
        "--exclude",
        multiple=True,
        metavar="GLOB",
        help="Skip what matches, instead of what is named like a mask or label; may be repeated.",
    )(command)
    return click.option(  # type: ignore[no-any-return]
        "--include",
        multiple=True,
        metavar="GLOB",
        help="Take only what matches, by name or path in the archive; may be repeated.",
    )(command)


def archive_names_options(function: Command) -> Command:
    """`names_options` as settings ``catalog.include`` and ``catalog.exclude``."""

    @functools.wraps(function)
    def as_settings(
        *args: Any,
        include: tuple[str, ...],
        exclude: tuple[str, ...] | None,
        overrides: tuple[str, ...],
        **kwargs: Any,
    ) -> Any:
        # As JSON, which is YAML: a pattern may have an asterisk or a bracket in front.
        named = [f"catalog.include={json.dumps(include)}"] if include else []
        if exclude is not None:
            named.append(f"catalog.exclude={json.dumps(exclude)}")
        return function(*args, overrides=(*named, *overrides), **kwargs)

    return names_options(as_settings)  # type: ignore[return-value]


def specimens_option(function: Command) -> Command:
    """Option ``--specimens``."""
    return click.option(
        "--specimens", is_flag=True, help="A box and a crop for each of several specimens."
    )(function)


def surround_option(function: Command) -> Command:
    """Option ``--keep-surround``."""
    return click.option(
        "--keep-surround",
        is_flag=True,
        help="Keep a coarse level of what is cut away in each crop, for ctray restore.",
    )(function)


def ray_options(function: Command) -> Command:
    """Options ``--local`` and ``--ray-timeout``, handed on as settings in `ray`."""

    @functools.wraps(function)
    def with_settings(
        *args: Any, local: bool | None, ray_timeout: float | None, **kwargs: Any
    ) -> Any:
        settings: list[str] = []
        if local is not None:
            settings.append(f"ray.local={str(local).lower()}")
        if local:
            # A run that was begun on a cluster knows its address.
            settings.append("ray.address=null")
        if ray_timeout is not None:
            settings.append(f"ray.start_timeout_s={ray_timeout:g}")
        return function(*args, ray=tuple(settings), **kwargs)

    command: Any = click.option(
        "--ray-timeout",
        type=click.FloatRange(min=0, min_open=True),
        metavar="SECONDS",
        help="Time in which Ray must start on this machine; after that the command goes on "
        "without it. [default: 60]",
    )(with_settings)
    return click.option(  # type: ignore[no-any-return]
        "--local/--no-local",
        default=None,
        help="Work in plain processes of this machine, without Ray. The boxes are the same.",
    )(command)


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
