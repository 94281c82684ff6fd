"""Options and value types that commands share, and errors as one line."""

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
# As in `ctray.config`, which would delay --help.
TASKS = ("rotation", "sorting")
INTERRUPTED = 128 + signal.SIGINT  # as shells count it


# After a second without a line, a user wonders whether the command has started.
_FIRST_LINE_S = 1.0
_line_is_out = threading.Event()


def say(line: str) -> None:
    """Print one line for people, on stderr: stdout has the result alone."""
    first_line_is_out()
    click.echo(printable(line), err=True)


def echo(line: str) -> None:
    """Print one line of a result, on stdout. Control characters are made visible."""
    click.echo(printable(line))


def first_line_is_out() -> None:
    """Note that a line was printed, so that the command need not say that it starts."""
    _line_is_out.set()


@contextmanager
def _first_line(command: str) -> Iterator[None]:
    """Print that a command starts if the block prints nothing for a second."""

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
    """Print the one JSON document of a command on stdout."""
    click.echo(json.dumps(document, indent=2))


@contextmanager
def errors_as_lines(debug: bool) -> Iterator[None]:
    """Turn exceptions of the block into one line on stderr and an exit code.

    `debug` also prints the traceback.
    """
    stop_on_signals()
    try:
        yield
    except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
        raise
    except KeyboardInterrupt:
        # The storage's background loop would report every write that was cut short.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        warnings.simplefilter("ignore", RuntimeWarning)
        by = stopped_by()
        told = "" if by == signal.SIGINT else f" by {by.name}"
        say(f"interrupted{told}; the same command resumes")
        # As shells do.
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
    """Add the options of every command, and turn its errors into lines.

    Parameters
    ----------
    machine
        Whether the command takes ``--json``.
    first_line
        Whether the command says that it starts, if it prints nothing else for a second.
    """

    def decorate(function: Command) -> Command:
        @functools.wraps(function)
        def guarded(*args: Any, debug: bool, **kwargs: Any) -> Any:
            path = click.get_current_context().command_path
            told = _first_line(path) if first_line else nullcontext()
            with errors_as_lines(debug), told:
                return function(*args, **kwargs)

        command: Any = click.option("--debug", is_flag=True, help="Show the tracebacks of errors.")(
            guarded
        )
        if machine:
            command = click.option(
                "--json", "as_json", is_flag=True, help="Print one JSON document on stdout."
            )(command)
        return command  # type: ignore[no-any-return]

    return decorate


def config_options(function: Command) -> Command:
    """Add ``--config``, ``--task``, ``--max-loss`` and ``--set``."""

    @functools.wraps(function)
    def with_task(*args: Any, task: str | None, overrides: tuple[str, ...], **kwargs: Any) -> Any:
        named = [f"task={task}"] if task else []
        return function(*args, overrides=(*named, *overrides), **kwargs)

    command: Any = click.option(
        "--task",
        type=click.Choice(TASKS),
        help="Pretext task; it also selects the localization method. [default: rotation]",
    )(change_options(with_task))
    return click.option(  # type: ignore[no-any-return]
        "--config", metavar="FILE", help="YAML file with settings, or the run.json of another run."
    )(command)


def change_options(function: Command) -> Command:
    """Add ``--max-loss`` and ``--set``."""

    @functools.wraps(function)
    def with_short_forms(
        *args: Any, max_loss: float | None, overrides: tuple[str, ...], **kwargs: Any
    ) -> Any:
        # --set comes later and wins.
        named = [] if max_loss is None else [f"crop.max_loss={max_loss:g}"]
        return function(*args, overrides=(*named, *overrides), **kwargs)

    command: Any = click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="SECTION.KEY=VALUE",
        help="Change one setting, for example --set crop.margin=0.05. Repeatable.",
    )(with_short_forms)
    return click.option(  # type: ignore[no-any-return]
        "--max-loss",
        type=float,
        metavar="FRACTION",
        help="Maximum fraction of sample voxels that a crop may lose. Sets the margin. "
        "[default: 0.001]",
    )(command)


def names_options(function: Command) -> Command:
    """Add ``--include``, ``--exclude`` and ``--no-exclude``."""

    @functools.wraps(function)
    def checked(*args: Any, exclude: tuple[str, ...], no_exclude: bool, **kwargs: Any) -> Any:
        if exclude and no_exclude:
            raise click.UsageError("give --exclude or --no-exclude, not both")
        patterns = () if no_exclude else exclude or None
        return function(*args, exclude=patterns, **kwargs)

    command: Any = click.option(
        "--no-exclude", is_flag=True, help="Skip no volume because of its name."
    )(checked)
    command = click.option(
        "--exclude",
        multiple=True,
        metavar="GLOB",
        help="Skip volumes whose name or path in the archive matches. Repeatable. [default: "
        "names of masks and labels]",
    )(command)
    return click.option(  # type: ignore[no-any-return]
        "--include",
        multiple=True,
        metavar="GLOB",
        help="Take only volumes whose name or path in the archive matches. Repeatable.",
    )(command)


def archive_names_options(function: Command) -> Command:
    """Add `names_options`, handed on as ``catalog.include`` and ``catalog.exclude``."""

    @functools.wraps(function)
    def as_settings(
        *args: Any,
        include: tuple[str, ...],
        exclude: tuple[str, ...] | None,
        overrides: tuple[str, ...],
        **kwargs: Any,
    ) -> Any:
        # JSON is YAML, and quotes a pattern that starts with an asterisk or a bracket.
        named = [f"catalog.include={json.dumps(include)}"] if include else []
        if exclude is not None:
            named.append(f"catalog.exclude={json.dumps(exclude)}")
        return function(*args, overrides=(*named, *overrides), **kwargs)

    return names_options(as_settings)  # type: ignore[return-value]


def specimens_option(function: Command) -> Command:
    """Add ``--specimens``."""
    return click.option(
        "--specimens", is_flag=True, help="Write a box and a crop for each specimen in a volume."
    )(function)


def surround_option(function: Command) -> Command:
    """Add ``--keep-surround``."""
    return click.option(
        "--keep-surround",
        is_flag=True,
        help="Keep a coarse copy of the whole volume in each crop, for `ctray restore`.",
    )(function)


def ray_options(function: Command) -> Command:
    """Add ``--local`` and ``--ray-timeout``, handed on as settings in `ray`."""

    @functools.wraps(function)
    def with_settings(
        *args: Any, local: bool | None, ray_timeout: float | None, **kwargs: Any
    ) -> Any:
        settings: list[str] = []
        if local is not None:
            settings.append(f"ray.local={str(local).lower()}")
        if local:
            # A run that began on a cluster has its address.
            settings.append("ray.address=null")
        if ray_timeout is not None:
            settings.append(f"ray.start_timeout_s={ray_timeout:g}")
        return function(*args, ray=tuple(settings), **kwargs)

    command: Any = click.option(
        "--ray-timeout",
        type=click.FloatRange(min=0, min_open=True),
        metavar="SECONDS",
        help="Time for Ray to start on this machine. After that, the command continues without "
        "Ray. [default: 60]",
    )(with_settings)
    return click.option(  # type: ignore[no-any-return]
        "--local/--no-local",
        default=None,
        help="Work in plain processes of this machine, without Ray. The boxes are the same.",
    )(command)


out_option = click.option("--out", required=True, metavar="RUN", help="Run folder, a path or URL.")


def run_argument(function: Command) -> Command:
    """Add the argument RUN: the folder of a run."""
    return click.argument("run_url", metavar="RUN")(function)


def lengths(text: str) -> tuple[float, ...]:
    """Parse one number, or three in the order z, y, x, separated by commas."""
    return _numbers(text, float, "numbers")


def extents(text: str) -> tuple[int, ...]:
    """Parse one integer, or three in the order z, y, x, separated by commas."""
    return _numbers(text, int, "integers")


def _numbers(text: str, number: Callable[[str], Any], kind: str) -> tuple[Any, ...]:
    try:
        values = tuple(number(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) not in (1, 3) or not all(v > 0 for v in values):
        raise click.BadParameter(f"{text!r} must be one or three {kind} above 0 (z,y,x)")
    return values


def size_of(numbers: Sequence[int]) -> Any:
    """Return a size as phantoms take it: one side, or (z, y, x)."""
    return numbers[0] if len(numbers) == 1 else tuple(numbers)
