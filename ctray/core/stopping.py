"""Stopping on a signal: the main thread unwinds, which also stops everything it started."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

# Python itself turns SIGINT into a KeyboardInterrupt.
_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
_received: list[int] = []


def stop_on_signals() -> None:
    """Make SIGTERM and SIGHUP raise `KeyboardInterrupt` in the main thread, as SIGINT does.

    An ignored signal, as under `nohup`, stays ignored. Outside of the main thread, where Python
    allows no handlers, nothing happens.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for number in _SIGNALS:
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _stop)


def stopped_by() -> signal.Signals:
    """Return the signal that interrupted this process."""
    return signal.Signals(_received[-1]) if _received else signal.SIGINT


@contextmanager
def kept_handlers() -> Iterator[None]:
    """Keep the signal handlers of this process: Ray replaces them when it starts.

    On SIGTERM, Ray's handler would print a C++ stack and abort.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (*_SIGNALS, signal.SIGINT)}
    try:
        yield
    except SystemExit as error:
        # Ray's handler raises this while Ray starts.
        if error.code != signal.SIGTERM:
            raise
        _received.append(signal.SIGTERM)
        raise KeyboardInterrupt from error
    finally:
        for number, handler in before.items():
            if callable(handler):
                signal.signal(number, handler)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    # A second signal would not stop the process any sooner.
    signal.signal(number, signal.SIG_IGN)
    # Kept here: Ray replaces what a handler raises with its own interrupt.
    _received.append(number)
    raise KeyboardInterrupt
