"""Calls in helper processes, for libraries that can crash or block a whole program.

HDF5 is one: while it waits, such as for a pipe behind a link, no other Python thread runs, and a
damaged file may end the process. Here it ends a helper process and becomes an error in this one.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from ctray.archive.time_limit import OverdueError, entry_limit_s, overdue_reason
from ctray.core.errors import CtrayError, InvalidVolumeError, one_line

Result = TypeVar("Result")

_SERVE = "from ctray.archive.helper_process import serve; serve()"


class Helpers:
    """Helper processes, one for each calling thread; use it in a `with` statement."""

    def __init__(self) -> None:
        self._own = threading.local()
        self._all: list[subprocess.Popen[bytes]] = []

    def call(self, function: Callable[..., Result], *args: Any) -> Result:
        """Call a function of a module in a helper; arguments and result are pickled.

        Raises
        ------
        OverdueError
            If the call takes longer than `entry_limit_s`; the helper is ended.
        InvalidVolumeError
            If the helper dies, or if `function` raises an error that is not a `CtrayError`.
        """
        helper: Any = getattr(self._own, "helper", None)
        if helper is None or helper.poll() is not None:
            helper = self._own.helper = self._start()
        try:
            pickle.dump((entry_limit_s(), function, args), helper.stdin)
            helper.stdin.flush()
            outcome = pickle.load(helper.stdout)  # noqa: S301 - from our own process
        except (EOFError, OSError, pickle.UnpicklingError):
            raise _died(helper) from None
        if isinstance(outcome, CtrayError):
            raise outcome
        return outcome  # type: ignore[no-any-return]

    def _start(self) -> subprocess.Popen[bytes]:
        home = str(Path(__file__).parents[2])
        paths = [home, *filter(None, [os.environ.get("PYTHONPATH")])]
        helper = subprocess.Popen(
            [sys.executable, "-c", _SERVE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            # Ctrl-C must reach only the program, which ends its helpers itself.
            start_new_session=True,
        )
        self._all.append(helper)
        return helper

    def __enter__(self) -> Helpers:
        return self

    def __exit__(self, *exc: object) -> None:
        for helper in self._all:
            helper.kill()
            helper.wait()
            for pipe in (helper.stdin, helper.stdout):
                assert pipe is not None
                # The receiver of unsent data is gone.
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def _died(helper: subprocess.Popen[bytes]) -> CtrayError:
    status = helper.wait()
    if status == -signal.SIGALRM:
        return OverdueError(overdue_reason(entry_limit_s()))
    how = f"signal {-status}" if status < 0 else f"status {status}"
    return InvalidVolumeError(
        f"the library that reads this file crashed ({how}); copy or export the file again"
    )


def serve() -> None:
    """Answer calls from the standard input until it ends; the main function of a helper."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # Text that a library prints must not mix with the answers.
    # Ends the process even if a library does not return to Python.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    while True:
        try:
            limit_s, function, args = pickle.load(sys.stdin.buffer)  # noqa: S301 - from our parent
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_REAL, limit_s)
        outcome = _outcome(function, args)
        signal.setitimer(signal.ITIMER_REAL, 0)
        pickle.dump(outcome, answers)
        answers.flush()


def _outcome(function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    try:
        return function(*args)
    except CtrayError as error:
        return error
    except Exception as error:
        return InvalidVolumeError(f"{type(error).__name__}: {one_line(error)}")
