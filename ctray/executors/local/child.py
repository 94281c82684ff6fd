"""A child process that runs one function and ends with its parent.

This module imports nothing large, so a child can set its environment before NumPy and torch read
it.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from ctray.core.errors import CtrayError, one_line

# Not fork: the parent's threads hold locks that a forked child would never release.
_CONTEXT = multiprocessing.get_context("spawn")
# Kinds of messages from a child; each comes with a value.
READY, TOLD, DONE, FAILED = "ready", "told", "done", "failed"


class ChildDiedError(Exception):
    """The process ended without an answer: it was killed, ran out of memory, or crashed."""


@dataclass(eq=False, kw_only=True, slots=True)
class Child:
    """A child process and the connection to it."""

    process: BaseProcess
    connection: Connection

    def send(self, value: Any) -> None:
        """Send a small record. If the child is gone, `receive` raises."""
        try:
            self.connection.send(value)
        except OSError:
            return

    def receive(self) -> tuple[str, Any]:
        """Wait for the next message and return its kind and value.

        Raises
        ------
        ChildDiedError
            If the child is gone.
        """
        try:
            kind, value = self.connection.recv()
        except (EOFError, OSError) as error:
            raise ChildDiedError(f"the process {self.process.name} died") from error
        return str(kind), value

    def kill(self) -> None:
        """End the child at once."""
        self.process.kill()
        self.process.join()
        self.connection.close()


def start_child(
    name: str, function: Callable[..., Any], arguments: tuple[Any, ...], library_threads: int
) -> Child:
    """Start `function(connection, *arguments)` in a child process.

    Parameters
    ----------
    name
        Name of the process in messages.
    function, arguments
        Importable by name, and small.
    library_threads
        Threads of NumPy's and SciPy's libraries, unless the environment says otherwise.
    """
    ours, theirs = _CONTEXT.Pipe()
    environment = {"OMP_NUM_THREADS": str(library_threads)}
    order = pickle.dumps((function, arguments))
    process = _CONTEXT.Process(
        target=_main, args=(theirs, environment, order), name=name, daemon=True
    )
    with _without_interrupts():
        process.start()
    theirs.close()
    return Child(process=process, connection=ours)


def run_child(
    name: str, function: Callable[..., Any], arguments: tuple[Any, ...], library_threads: int
) -> Iterator[Any]:
    """Yield what `function` sends on its connection until it returns; see `start_child`.

    Raises
    ------
    ChildDiedError
        If the process dies.
    CtrayError
        If `function` raises; any other exception becomes a `CtrayError`.
    """
    child = start_child(name, function, arguments, library_threads)
    try:
        while True:
            kind, value = child.receive()
            if kind == DONE:
                return
            if kind == FAILED:
                raise value
            yield value
    finally:
        child.kill()


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Block SIGINT in children: a terminal sends it to all processes, but the parent ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _main(connection: Connection, environment: Mapping[str, str], order: bytes) -> None:
    """Body of a child."""
    for name, value in environment.items():
        os.environ.setdefault(name, value)
    _die_with_parent()
    _be_quiet()
    try:
        function, arguments = pickle.loads(order)  # noqa: S301 - from the parent
        function(connection, *arguments)
        connection.send((DONE, None))
    except BrokenPipeError:
        return  # the parent is gone
    except BaseException as error:
        connection.send((FAILED, _as_own(error)))


def _die_with_parent() -> None:
    """End this process when its parent is gone, even in the middle of a volume."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="ctray-parent", daemon=True).start()


def _be_quiet() -> None:
    """Discard what libraries print: stdout is the command's result, stderr its progress."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    os.close(nowhere)


def _as_own(error: BaseException) -> CtrayError:
    """Return `error` as a `CtrayError` with its traceback as a note, which --debug shows."""
    told = "".join(traceback.format_exception(error))
    own = error if isinstance(error, CtrayError) else None
    if own is None:
        own = CtrayError(f"unexpected {type(error).__name__}: {one_line(error)}")
    own.add_note(told)
    return own
